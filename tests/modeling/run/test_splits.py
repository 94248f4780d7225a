"""modeling/run/splits.py: the weights of training samples are never negative; which samples --held_out_domains leaves out."""

import types

import numpy as np
import pytest

from modeling.run.splits import Splits
from ofrecord_util.errors import UserError
from ofrecord_util.records import Records
from ofrecord_util.scores import save_scores
from ofrecord_util.tasks import Task


def test_scores_below_zero_weight_no_sample(tmp_path):
    """Scores of an earlier version, or of another program, may be negative."""
    ids, ones = np.ones((3, 4), np.int32), np.zeros(3, np.int32)
    weights = np.array([0.5, -0.005, 0.25], np.float32)
    records = Records(ids, ids, ids * 0, ones, ones, np.arange(3, dtype=np.int32), weights, scored=True)
    splits, lines = Splits.__new__(Splits), []
    splits._flags = types.SimpleNamespace(use_sample_weights=True, normalize_sample_weights=False, data_dir=str(tmp_path))
    splits.held_out = []
    splits._log, splits._task = lines.append, types.SimpleNamespace(domains=("d",))
    assert splits._weighted(records).sample_weights.tolist() == [0.5, 0.0, 0.25]
    assert lines[0] == "1 of 3 prototypical scores are below 0 (the lowest is -0.0050) and become 0"


def splits_without(held_out, tmp_path, script="meta_finetuning"):
    """`Splits` of a task with the domains a, b, c and the records of seven rows; and the lines of its log."""
    splits, lines = Splits.__new__(Splits), []
    names = [("a", "b", "c")[domain] for domain in held_out]
    flags = {"use_sample_weights": True, "normalize_sample_weights": True, "data_dir": str(tmp_path), "held_out_domains": names}
    splits._flags = types.SimpleNamespace(script=script, **flags)
    splits.train_split = "train"
    splits._log, splits._task, splits.held_out = lines.append, Task("t", ("a", "b", "c"), ("0", "1")), held_out
    ids, domain = np.ones((7, 4), np.int32), np.array([0, 1, 2, 1, 0, 2, 2], np.int32)
    weights = np.arange(1, 8, dtype=np.float32) / 10
    records = Records(ids, ids, ids * 0, domain, domain * 0, np.arange(7, dtype=np.int32), weights, scored=True)
    return splits, records, lines


def test_rows_of_held_out_domains_are_left_out(tmp_path):
    splits, records, lines = splits_without([0, 2], tmp_path)
    left = splits._without_held_out(records)
    assert left.idxs.tolist() == [1, 3]
    assert left.sample_weights.tolist() == pytest.approx([0.2, 0.4])
    assert lines == ["train: --held_out_domains: 5 samples are left out (a 2, c 3), 2 are used"]
    with pytest.raises(UserError, match="--held_out_domains a,c leaves no training samples"):
        splits._without_held_out(records.select(np.array([0, 2])))
    splits, records, _ = splits_without([0, 2], tmp_path, "preprocess")
    assert splits._without_held_out(records) is records


def test_scores_belong_to_the_held_out_domains(tmp_path):
    save_scores(str(tmp_path), np.ones(7, np.float32), "digest", {"held_out_domains": ["a", "c"]})
    splits, records, _ = splits_without([0, 2], tmp_path)
    weights = splits._weighted(splits._without_held_out(records)).sample_weights
    assert weights.tolist() == pytest.approx([2 / 3, 4 / 3])  # their mean is 1, without the rows that are held out
    for held_out, said in (([], "without it"), ([1], "with --held_out_domains b")):
        splits, records, _ = splits_without(held_out, tmp_path)
        with pytest.raises(UserError, match=f"made with --held_out_domains a,c, this run is {said}: run preprocess.py again {said}"):
            splits._weighted(records)
    save_scores(str(tmp_path), np.ones(7, np.float32), "digest", {})  # of an earlier version
    splits, records, _ = splits_without([1], tmp_path)
    with pytest.raises(UserError, match="made without it, this run is with --held_out_domains b"):
        splits._weighted(records)


def test_the_names_of_files_of_unlabelled_records():
    """The flag has the default of the training split; a given one counts for both."""
    splits = Splits.__new__(Splits)
    for given, prefix in (([], None), (["train_data_prefix"], "a-")):
        splits._flags = types.SimpleNamespace(given=given, train_data_prefix="a-", train_data_part_num=3)
        assert splits._files("unlabelled", "train") == (prefix, 3)
        assert splits._files("train", "train") == ("a-", 3)
