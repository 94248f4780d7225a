"""modeling/bert/pooling.py against NumPy: padding contributes nothing, to values or gradients; and what a classifier stands on."""

import dataclasses

import numpy as np
import pytest
from reference_encoder import softmax
from tiny_model import BATCH, CONFIG, GOLDEN, KERNELS, LENGTH, documented, golden_batch, gradients, run_graph

from modeling.bert.config import POOLINGS
from modeling.bert.encoder import GraphParts, build_bert
from modeling.bert.names import CLASSIFIER, POOLING_HEADS
from modeling.bert.pooling import attention_pool, masked_mean, pool
from modeling.bert.sequence_layout import PaddedLayout
from modeling.bert.variant import Variant
from modeling.objectives.mft import predict_logits

MASK = golden_batch()["input_mask"].copy()
MASK[1, 2] = 0  # a hole: it is the mask that counts, not the length
HIDDEN = np.random.RandomState(1).randn(BATCH, LENGTH, 5).astype(np.float32)
HIDDEN[0] -= 9  # a row without a value above 0
HIDDEN[MASK == 0] = 1e6  # would show in a mean and win any maximum
HIDDEN[2, :, 0] = HIDDEN[2, 0, 0]  # equal values, at padding too


REDUCTIONS = {
    "cls": lambda real: real[0],
    "raw_cls": lambda real: real[0],
    "mean": lambda real: real.mean(axis=0),
    "max": lambda real: real.max(axis=0),
    "sqrt_length": lambda real: real.sum(axis=0) * np.sqrt(len(real)),
}


def expected(hidden, mask, pooling):
    """Row by row, float64."""
    return np.stack([REDUCTIONS[pooling](row[real == 1].astype(np.float64)) for row, real in zip(hidden, mask)])


@pytest.mark.parametrize("pooling", sorted(REDUCTIONS))
def test_padding_contributes_nothing(pooling):
    result = run_graph(lambda variables, hidden, mask: pool(hidden, mask, pooling, "cpu"), {"hidden": HIDDEN, "mask": MASK})
    assert result.shape == (BATCH, 5)
    np.testing.assert_allclose(result, expected(HIDDEN, MASK, pooling), rtol=2e-6, atol=4e-6)
    assert "cls" in pooling or result[0].max() < 0


@pytest.mark.parametrize("pooling", sorted(REDUCTIONS))
def test_a_text_of_one_token(pooling):
    """Its vector is the state of the token, bit for bit; the others are padding."""
    mask = np.zeros_like(MASK)
    mask[:, 0] = 1
    result = run_graph(lambda variables, hidden, mask: pool(hidden, mask, pooling, "cpu"), {"hidden": HIDDEN, "mask": mask})
    np.testing.assert_array_equal(result, HIDDEN[:, 0])


def attended(pooling, hidden, mask):
    """The vectors of the attention heads of `pooling`, and the values of their variables."""
    config = dataclasses.replace(CONFIG, hidden_size=5, num_attention_heads=1, pooling=pooling, variant=Variant(pooling_head_size=3))
    draw, used = np.random.RandomState(3), POOLING_HEADS[: 4 * config.pooling_heads]
    values = {name: draw.randn(*((5, 3) if name.endswith("weight") else (3,))).astype(np.float32) * 0.4 for name in used}

    def vectors(variables, hidden, mask):
        encoder = GraphParts(variables, config, KERNELS["cpu"], PaddedLayout(mask, mask, KERNELS["cpu"]), None)
        return attention_pool(encoder, hidden.reshape(-1, 5), mask)

    return run_graph(vectors, {"hidden": hidden, "mask": mask}, values), values


@pytest.mark.parametrize("pooling", ["sha", "2ha"])
def test_padding_contributes_nothing_to_attention(pooling):
    hidden, mask = np.where(MASK[:, :, None] == 1, HIDDEN % 2.0, 1e6).astype(np.float32), MASK
    found, values = attended(pooling, hidden, mask)
    for vector, row, real in zip(found, hidden, mask):
        state, parts = row[real == 1].astype(np.float64), []
        for head in range(len(values) // 4):
            query, key = (
                state @ values[f"bert-pooler-head_{head}-{part}-weight"] + values[f"bert-pooler-head_{head}-{part}-bias"]
                for part in ("query", "key")
            )
            parts.append(sum(softmax(key @ one) @ state for one in query) * np.sqrt(len(state)))
        np.testing.assert_allclose(vector, np.concatenate(parts), rtol=1e-5, atol=1e-4)
    mask = np.zeros_like(MASK)
    mask[:, 0] = 1
    one_token, _ = attended(pooling, hidden, mask)
    np.testing.assert_allclose(one_token, np.tile(hidden[:, 0], len(values) // 4), rtol=1e-6)


def test_the_mean_of_no_token():
    result = run_graph(lambda variables, hidden, mask: masked_mean(hidden, mask), {"hidden": HIDDEN, "mask": 0 * MASK})
    np.testing.assert_array_equal(result, np.zeros((BATCH, 5)))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients(pooling):
    """Of a weighted sum: the mean shares them out over the real tokens, the maximum gives them to the first of the largest."""
    weights = np.random.RandomState(2).randn(BATCH, 5).astype(np.float32)

    def weighted(variables, mask, weights):
        return (pool(variables.get("hidden"), mask, pooling, "cpu") * weights).sum()

    _, found = gradients(weighted, {"hidden": HIDDEN}, {"mask": MASK, "weights": weights})
    wanted = np.zeros_like(HIDDEN)
    for row, real in enumerate(MASK == 1):
        places = np.flatnonzero(real)
        if pooling == "mean":
            wanted[row, places] = weights[row] / len(places)
        elif pooling == "cls":
            wanted[row, 0] = weights[row]
        else:
            wanted[row, places[HIDDEN[row, places].argmax(axis=0)], np.arange(5)] = weights[row]
    real = MASK == 1
    np.testing.assert_allclose(found["hidden"][real], wanted[real], rtol=0, atol=2e-6)  # HIDDEN near 9 holds its change to 1e-6
    np.testing.assert_array_equal(found["hidden"][~real], wanted[~real])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_a_classifier_stands_on(pooling):
    """Mean and max of the golden last layer go to the classifier as they are, the state at [CLS] through the pooler."""
    config, values, batch = dataclasses.replace(CONFIG, pooling=pooling), documented("weight"), golden_batch()

    def both(variables, **features):
        pooled = build_bert(variables, config, KERNELS["cpu"], **features).pooled
        return pooled, predict_logits(variables, config, KERNELS["cpu"], **features)

    pooled, logits = run_graph(both, batch, values)
    wanted = expected(GOLDEN[f"output/hidden_{CONFIG.num_hidden_layers - 1}"], batch["input_mask"], pooling)
    if pooling == "cls":
        wanted = np.tanh(wanted @ values["bert-pooler-dense-weight"] + values["bert-pooler-dense-bias"])
    np.testing.assert_allclose(pooled, wanted, rtol=0, atol=5e-6)
    np.testing.assert_allclose(logits, wanted @ values[CLASSIFIER[0]].T + values[CLASSIFIER[1]], rtol=0, atol=1e-5)
