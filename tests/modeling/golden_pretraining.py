"""The tiny models of tests/golden/pretraining.json under the project's names, and their batch."""

import json
import math
import os

import numpy as np
import pytest
from tiny_model import ROOT

from modeling.bert.config import BertConfig
from modeling.engine.runtime import oneflow_version
from tools.checkpoint_names import TOKEN_HEAD, Pair, encoder_pairs

with open(os.path.join(ROOT, "tests", "golden", "pretraining.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)
CONFIG = BertConfig(**GOLDEN["sizes"])
IDS, TYPES = (np.array(GOLDEN[name], np.int32) for name in ("ids", "types"))


def skip_without_gradients(kernels):
    """Skips a test of gradients of the stock kernels where layer_norm has none."""
    if kernels == "stock" and oneflow_version() < (0, 9, 0):
        pytest.skip("OneFlow 0.8.0 has no gradient of layer_norm on a CPU")


def golden_pair(hugging_face, snapshot, transposed=False):
    """A `Pair` of a variable that no format of tools/ has."""
    return Pair(hugging_face, snapshot, transposed, None, None)


def golden_values(shapes, names=None, heads=TOKEN_HEAD, prefix="bert."):
    """The weights of a golden model.

    Args:
        shapes: dict of documented name -> shape.
        names: the names of its parameters, sorted; None for those of BertForMaskedLM.
        heads: `Pair`s of its variables outside of embeddings and layers.
        prefix: of the names of its encoder.
    Returns:
        (dict of documented name -> array, dict of documented name -> the golden name).
    """
    names = GOLDEN["names"] if names is None else names
    pairs = {prefix + pair.hugging_face: pair for pair in encoder_pairs(CONFIG.num_hidden_layers)}
    pairs.update({pair.hugging_face: pair for pair in heads})
    assert sorted(pairs) == names
    values = {}
    for number, name in enumerate(names):
        shape = shapes[pairs[name].snapshot]
        stored = shape[::-1] if pairs[name].transposed else shape
        value = 0.05 * np.sin(0.37 * np.arange(math.prod(shape)) + 1.3 * number) + ("LayerNorm.weight" in name)
        value = value.reshape(stored).T if pairs[name].transposed else value.reshape(stored)
        values[pairs[name].snapshot] = np.ascontiguousarray(value, np.float32)
    return values, {pair.snapshot: name for name, pair in pairs.items()}


def golden_text():
    """word_rows, input_mask, segment_ids of the golden batch."""
    return {"word_rows": IDS, "input_mask": (IDS != 0).astype(np.int32), "segment_ids": TYPES}


def check_gradients(found, names, golden):
    """Checks the norms of gradients.

    Args:
        found: dict of documented name -> gradient.
        names: of `golden_values`.
        golden: a part of GOLDEN, with "norms" and "norm".
    """
    for name, gradient in found.items():
        expected = golden["norms"].get(names[name], 0.0)
        assert abs(np.linalg.norm(gradient.astype(np.float64)) - expected) <= max(2e-4 * expected, 2e-6), name
    whole = math.sqrt(sum(float(np.square(gradient, dtype=np.float64).sum()) for gradient in found.values()))
    assert abs(whole - golden["norm"]) <= 1e-4 * golden["norm"]


def masked_arrays(ids, targets, most, length=None):
    """masked_places, masked_ids, masked_weights of (row, place, token) triples."""
    rows, length = len(ids), length or ids.shape[1]
    arrays = {
        "masked_places": np.zeros((rows, most, length), np.float32),
        "masked_ids": np.zeros((rows, most), np.int32),
        "masked_weights": np.zeros((rows, most), np.float32),
    }
    used = [0] * rows
    for row, place, token in targets:
        arrays["masked_places"][row, used[row], place] = arrays["masked_weights"][row, used[row]] = 1.0
        arrays["masked_ids"][row, used[row]] = token
        used[row] += 1
    return arrays
