"""modeling/run/splits.py: the weights of training samples are never negative."""

import types

import numpy as np

from modeling.run.splits import Splits
from ofrecord_util.records import Records


def test_scores_below_zero_weight_no_sample():
    """Scores of an earlier version, or of another program, may be negative."""
    ids, ones = np.ones((3, 4), np.int32), np.zeros(3, np.int32)
    weights = np.array([0.5, -0.005, 0.25], np.float32)
    records = Records(ids, ids, ids * 0, ones, ones, np.arange(3, dtype=np.int32), weights, scored=True)
    splits, lines = Splits.__new__(Splits), []
    splits._flags = types.SimpleNamespace(use_sample_weights=True, normalize_sample_weights=False)
    splits._log, splits._task = lines.append, types.SimpleNamespace(domains=("d",))
    assert splits._weighted(records).sample_weights.tolist() == [0.5, 0.0, 0.25]
    assert lines[0] == "1 of 3 prototypical scores are below 0 (the lowest is -0.0050) and become 0"
