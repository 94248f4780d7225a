"""PALM's encoder and decoder against the logits of transformers' MBart (tests/golden/make_palm.py), and what padding must not change."""

import dataclasses
import json
import os

import numpy as np
import palm_weights
import pytest
import tiny

from modeling.bert.variables import Variables
from modeling.engine.global_function import global_function
from modeling.engine.kernels import StockKernels, select_kernels
from modeling.palm.model import decode, encode, next_token_logits

with open(os.path.join(tiny.ROOT, "tests", "golden", "palm.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)
CONFIG = palm_weights.CONFIG


def logits_of(config, sources, targets, kernels=None):
    """Logits [B, Y, V] of the graph."""
    variables = Variables(palm_weights.variables(config))
    kernels = kernels or select_kernels("cpu").for_prediction

    @global_function(type="predict", variables=variables)
    def job(variables, word_rows, input_mask, decoder_rows):
        memory = encode(variables, config, kernels, word_rows, input_mask)
        states = decode(variables, config, kernels, memory, input_mask, decoder_rows)
        return next_token_logits(variables, states).reshape(*decoder_rows.shape, config.vocab_size)

    sources = np.array(sources, np.int32)
    mask = (sources != 0).astype(np.int32)
    return job({"word_rows": sources, "input_mask": mask, "decoder_rows": np.array(targets, np.int32)}).numpy()


@pytest.mark.parametrize("kind", ["train", "predict", "stock"])
@pytest.mark.parametrize("norms", [1, 2])
def test_golden_logits(norms, kind):
    config = dataclasses.replace(CONFIG, encoder_final_layer_norms=norms)
    kernels = {"train": select_kernels("cpu"), "predict": None, "stock": StockKernels("cpu")}[kind]
    found = logits_of(config, GOLDEN["sources"], GOLDEN["targets"], kernels)
    wanted = np.array(GOLDEN["logits"][str(norms)])
    assert np.abs(wanted).max() > 1
    assert np.abs(wanted - np.array(GOLDEN["logits"][str(3 - norms)])).max() > 0.01
    np.testing.assert_allclose(found, wanted, atol=5e-5)


def test_padding_of_the_source_changes_nothing():
    narrow = logits_of(CONFIG, [row[:6] for row in GOLDEN["sources"][::2]], GOLDEN["targets"][::2])
    wide = logits_of(CONFIG, GOLDEN["sources"], GOLDEN["targets"])[::2]
    np.testing.assert_allclose(narrow, wide, atol=2e-5)


def test_later_tokens_of_the_target_change_nothing_before_them():
    other = [[*row[:3], 33, 34] for row in GOLDEN["targets"]]
    before, after = (logits_of(CONFIG, GOLDEN["sources"], targets) for targets in (GOLDEN["targets"], other))
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=2e-5)
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 0.01
