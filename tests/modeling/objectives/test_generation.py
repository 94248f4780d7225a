"""The losses of an encoder-decoder, from the golden logits of tests/golden/make_palm.py."""

import json
import os

import numpy as np
import palm_weights
import pytest
import tiny

from modeling.bert.variables import Variables
from modeling.engine.global_function import global_function
from modeling.engine.kernels import select_kernels
from modeling.objectives.generation import (
    GENERATION_METRICS,
    PRETRAINING_METRICS,
    generation_objective,
    predict_targets,
    pretraining_objective,
)
from modeling.objectives.masked_lm import sums_of_states
from modeling.palm.model import encode
from ofrecord_util.corpus_batches import batch_weights

with open(os.path.join(tiny.ROOT, "tests", "golden", "palm.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)
CONFIG, KERNELS = palm_weights.CONFIG, select_kernels("cpu")
SOURCES = np.array(GOLDEN["sources"], np.int32)
TEXT = {"word_rows": SOURCES, "input_mask": (SOURCES != 0).astype(np.int32)}
IDS = np.array([[19, 23, 8, 3, 0], [31, 3, 0, 0, 0], [5, 5, 44, 17, 3]], np.int32)
REAL = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], np.float32)
TARGETS = {"decoder_rows": np.array(GOLDEN["targets"], np.int32), "target_ids": IDS}


def run(function, batch, heads=False):
    """The outputs of a predict graph of `function(variables, **batch)`, whose first is a scalar or [B, 3]."""
    variables = Variables(palm_weights.variables(CONFIG, heads))

    @global_function(type="predict", variables=variables)
    def job(variables, **batch):
        found = function(variables, **batch)
        return tuple(value.reshape(-1) for value in found) if isinstance(found, tuple) else found

    found = job(batch)
    return [value.numpy() for value in found] if isinstance(found, tuple) else found.numpy()


def log_probs():
    logits = np.array(GOLDEN["logits"]["2"])
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mean_over_the_real_tokens_of_all_targets(smoothing):
    logs = log_probs()
    true = np.take_along_axis(logs, IDS[..., None], axis=-1)[..., 0]
    losses = -(1 - smoothing) * true - smoothing * logs.mean(axis=-1)
    hits = logs.argmax(axis=-1) == IDS
    batch = {**TEXT, **TARGETS, "target_weights": batch_weights(REAL), "loss_mask": np.ones(3, np.float32)}

    def objective(variables, **batch):
        return generation_objective(variables, CONFIG, KERNELS, None, smoothing=smoothing, **batch)

    loss, metrics = run(objective, batch)
    assert loss == pytest.approx((losses * REAL).sum() / REAL.sum(), abs=2e-5)
    assert abs((losses * REAL).sum() / REAL.sum() - losses.mean()) > 0.01  # what SOFA takes
    assert dict(zip(GENERATION_METRICS, metrics)) == pytest.approx(
        {"loss": float(loss[0]), "token_accuracy": (hits * REAL).sum() / REAL.sum()}, abs=1e-5
    )


def test_sums_of_each_row():
    losses = -np.take_along_axis(log_probs(), IDS[..., None], axis=-1)[..., 0]
    hits = log_probs().argmax(axis=-1) == IDS
    batch = {**TEXT, **TARGETS, "target_weights": REAL}
    found = run(lambda variables, **batch: predict_targets(variables, CONFIG, KERNELS, **batch), batch)
    wanted = np.stack([(losses * REAL).sum(axis=1), (hits * REAL).sum(axis=1), REAL.sum(axis=1)], axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_pretraining_adds_the_masked_tokens_of_the_source():
    """Their states are those of the encoder after its last norms."""
    places = np.zeros((3, 2, SOURCES.shape[1]), np.float32)
    places[0, 0, 1] = places[0, 1, 3] = places[1, 0, 2] = 1
    masked = {
        "masked_places": places,
        "masked_ids": np.array([[7, 19], [12, 0], [0, 0]], np.int32),
        "masked_weights": batch_weights(np.array([[1, 1], [1, 0], [0, 0]], np.float32)),
    }
    batch = {**TEXT, **TARGETS, "target_weights": batch_weights(REAL), "loss_mask": np.ones(3, np.float32)}

    def alone(variables, word_rows, input_mask, **masked):
        memory = encode(variables, CONFIG, KERNELS, word_rows, input_mask).reshape(*SOURCES.shape, CONFIG.hidden_size)
        return sums_of_states(variables, CONFIG, KERNELS, memory, **masked)

    mlm = run(alone, {**TEXT, **masked}, heads=True)[0].mean()
    generation = run(lambda variables, **batch: generation_objective(variables, CONFIG, KERNELS, None, **batch), batch)[0]
    loss, metrics = run(
        lambda variables, **batch: pretraining_objective(variables, CONFIG, KERNELS, None, **batch), {**batch, **masked}, heads=True
    )
    found = dict(zip(PRETRAINING_METRICS, metrics.tolist()))
    assert mlm > 1
    assert found["mlm_loss"] == pytest.approx(mlm, abs=2e-5)
    assert found["loss"] == pytest.approx(float(loss[0]))
    assert found["generation_loss"] + found["mlm_loss"] == pytest.approx(found["loss"], abs=1e-5)
    assert generation.shape == (1,)
