"""One token at a time, with caches, against the decoder for whole targets."""

import dataclasses
import json
import os

import numpy as np
import palm_weights
import pytest
import tiny

from modeling.bert.variables import Variables
from modeling.palm.beam_search import Search, beam_search
from modeling.palm.cached_decoder import CachedDecoder

with open(os.path.join(tiny.ROOT, "tests", "golden", "palm.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)
SOURCES = np.array(GOLDEN["sources"], np.int32)
BEAM, LONGEST, CLS, SEP = 2, 7, 2, 3


@pytest.fixture(scope="module")
def decoder():
    config = dataclasses.replace(palm_weights.CONFIG, encoder_final_layer_norms=2)
    return CachedDecoder(Variables(palm_weights.variables(config)), config, "cpu", len(SOURCES), BEAM, LONGEST)


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_golden_log_probabilities(decoder):
    """Both rows of a source get its target."""
    wanted, targets = log_softmax(np.array(GOLDEN["logits"]["2"])), np.repeat(np.array(GOLDEN["targets"], np.int32), BEAM, axis=0)
    rows = np.arange(len(targets), dtype=np.int32)
    step = decoder.start(SOURCES, (SOURCES != 0).astype(np.int32))
    for number in range(targets.shape[1]):
        found = step(targets[:, number], rows, number)
        np.testing.assert_allclose(found, np.repeat(wanted[:, number], BEAM, axis=0), atol=1e-4)


def test_rows_that_continue_others(decoder):
    """The second row of each source takes over the text of the first one after two tokens, and a second batch starts anew."""
    rows, targets = np.arange(2 * len(SOURCES), dtype=np.int32), np.repeat(np.array(GOLDEN["targets"], np.int32), BEAM, axis=0)
    other = targets.copy()
    other[1::2, 1] = 40
    step, mask = decoder.start(SOURCES, (SOURCES != 0).astype(np.int32)), (SOURCES != 0).astype(np.int32)
    for number, parents in enumerate((rows, rows, rows // 2 * 2, rows)):
        found = step(other[:, number], parents, number)
    wanted = log_softmax(np.array(GOLDEN["logits"]["2"]))[:, 3]
    np.testing.assert_allclose(found, np.repeat(wanted, BEAM, axis=0), atol=1e-4)
    step = decoder.start(SOURCES[::-1].copy(), mask[::-1].copy())
    found = step(np.full(len(rows), CLS, np.int32), rows, 0)
    wanted = log_softmax(np.array(GOLDEN["logits"]["2"]))[::-1, 0]
    np.testing.assert_allclose(found, np.repeat(wanted, BEAM, axis=0), atol=1e-4)


def test_search(decoder):
    """The score of the result is that of its text, token by token."""
    mask = (SOURCES != 0).astype(np.int32)
    search = Search(BEAM, 0.6, 2, LONGEST)
    found = beam_search(decoder.start(SOURCES, mask), len(SOURCES), CLS, SEP, search)
    rows = np.arange(BEAM * len(SOURCES), dtype=np.int32)
    for source, hypothesis in enumerate(found):
        tokens = [*hypothesis.tokens, *([SEP] if hypothesis.ended else [])]
        step, total = decoder.start(SOURCES, mask), 0.0
        for number, (before, token) in enumerate(zip([CLS, *tokens], tokens)):
            total += step(np.full(len(rows), before, np.int32), rows, number)[source * BEAM, token]
        assert hypothesis.score == pytest.approx(search.score(total, len(tokens)), abs=1e-4)
        assert len(hypothesis.tokens) >= 2
