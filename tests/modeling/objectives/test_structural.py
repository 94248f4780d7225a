"""modeling/objectives/structural.py against transformers' BertForPreTraining (tests/golden/pretraining.json) and NumPy."""

import dataclasses

import numpy as np
import pytest
from golden_pretraining import (
    CONFIG,
    GOLDEN,
    IDS,
    check_gradients,
    golden_pair,
    golden_text,
    golden_values,
    masked_arrays,
    skip_without_gradients,
)
from tiny_model import KERNELS, gradients, log_softmax, run_graph

from modeling.bert.config import MEAN
from modeling.bert.names import SENTENCE_HEAD
from modeling.bert.variables import encoder_shapes, sentence_head_shapes, token_head_shapes
from modeling.objectives.structural import STRUCTURAL_METRICS, structural_objective
from ofrecord_util.corpus_batches import batch_weights
from ofrecord_util.structure import SENTENCE_CLASSES
from tools.checkpoint_names import POOLER, TOKEN_HEAD

SENTENCES = GOLDEN["sentences"]
HEADS = [pair._replace(hugging_face="bert." + pair.hugging_face) for pair in POOLER]
HEADS += [*TOKEN_HEAD, *(golden_pair(f"cls.seq_relationship.{part}", name) for part, name in zip(("weight", "bias"), SENTENCE_HEAD))]
SHAPES = {**encoder_shapes(CONFIG), **token_head_shapes(CONFIG), **sentence_head_shapes(CONFIG, 2)}


def batch_of(masked=(1, 1, 1, 1), sentence_weights=(1, 1)):
    """The golden batch; `masked` says which of the targets are masked, the others are shuffled."""
    arrays = masked_arrays(IDS, GOLDEN["targets"], 3)
    used, weights = [0, 0], np.zeros((2, 3), np.float32)
    for (row, _, _), counts in zip(GOLDEN["targets"], masked):
        weights[row, used[row]] = counts
        used[row] += 1
    shuffled = batch_weights(arrays["masked_weights"] - weights)
    return {
        **golden_text(),
        **arrays,
        "masked_weights": batch_weights(weights),
        "shuffled_weights": shuffled,
        "sentence": np.array(SENTENCES["classes"], np.int32),
        "sentence_weights": batch_weights(np.array(sentence_weights, np.float32)),
        "loss_mask": np.ones(2, np.float32),
    }


def objective(kernels, config=CONFIG):
    return lambda variables, **batch: structural_objective(variables, config, KERNELS[kernels], None, **batch)


@pytest.mark.parametrize("kernels", sorted(KERNELS))
def test_golden_loss_and_gradients(kernels):
    """Without shuffled tokens and with two classes it is the pre-training of BERT."""
    skip_without_gradients(kernels)
    values, names = golden_values(SHAPES, SENTENCES["names"], HEADS)
    (loss, metrics), found = gradients(objective(kernels), values, batch_of())
    assert loss == pytest.approx(SENTENCES["loss"], abs=2e-6)
    assert metrics[0] == loss
    check_gradients(found, names, SENTENCES)


@pytest.mark.parametrize("pooling", ["cls", MEAN])
def test_the_three_losses(pooling):
    """By NumPy from the golden logits: each is a mean of its own, and they are added. The pooled state is that at [CLS]."""
    values, _ = golden_values(SHAPES, SENTENCES["names"], HEADS)
    masked, config = (1, 0, 0, 1), dataclasses.replace(CONFIG, pooling=pooling)
    _, metrics = run_graph(objective("cpu", config), batch_of(masked, (0, 1)), values)
    logits, pairs = np.array(SENTENCES["token_logits"]), np.array(SENTENCES["logits"])
    tokens = [token for _, _, token in GOLDEN["targets"]]
    losses, hits = -log_softmax(logits)[np.arange(4), tokens], logits.argmax(axis=1) == tokens
    classes = SENTENCES["classes"]
    expected = [losses[[0, 3]].mean(), losses[[1, 2]].mean(), -log_softmax(pairs)[1, classes[1]]]
    expected += [hits[[0, 3]].mean(), hits[[1, 2]].mean(), float(pairs[1].argmax() == classes[1])]
    assert len(metrics) == len(STRUCTURAL_METRICS)
    assert metrics[0] == pytest.approx(sum(expected[:3]), abs=5e-6)
    assert metrics[1:].tolist() == pytest.approx(expected, abs=5e-6)


def test_a_zero_head_of_pairs_has_the_loss_of_chance():
    values, _ = golden_values(SHAPES, SENTENCES["names"], HEADS)
    shapes = sentence_head_shapes(CONFIG, SENTENCE_CLASSES)
    values.update({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    _, metrics = run_graph(objective("cpu"), batch_of(), values)
    assert metrics[3] == pytest.approx(np.log(3), abs=5e-6)
