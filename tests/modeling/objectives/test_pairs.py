"""modeling/objectives/pairs.py against NumPy, written from the formulas of ConveRT and of MEAD's losses, and against golden numbers."""

import math

import numpy as np
import pytest
from tiny_model import gradients, log_softmax, run_graph

from modeling.bert.names import TEMPERATURE
from modeling.cli.choices import PAIR_LOSSES
from modeling.objectives.pairs import compare_pairs, learns_temperature, pair_loss, pair_metrics, scale_of

GROUPS, PAIRS, WIDTH = 2, 5, 7
VECTORS = np.random.RandomState(5).randn(2 * GROUPS * PAIRS, WIDTH).astype(np.float32)
# Of MEAD's formulas in float64, for q = sin(0.7 n + 0.2) and r = sin(0.7 n + 0.9), 4 x 3: of the first call, and of `all` with H = 512
# after the warm-up
GOLDEN = {"contrastive": 0.6222502252, "symmetric": 0.6075861782, "all": 3.5604895301, "triplet": 0.0046763358}
GOLDEN_AFTER_WARMUP = 1.3926103258


def targets(groups, pairs):
    return np.tile(np.arange(pairs, dtype=np.int32), (groups, 1))


def reference(vectors, loss, groups=GROUPS, temperature=0.0, scale=1.0):
    found = []
    for group in vectors.astype(np.float64).reshape(groups, -1, 2, vectors.shape[1]):
        units = group / np.linalg.norm(group, axis=2, keepdims=True)
        products = units[:, 0] @ units[:, 1].T
        count = len(products)
        if loss == "triplet":
            found.append(sum(max(0.0, products[i, count - 1 - i] - products[i, i]) for i in range(count)))
        elif loss == "all":
            found.append(-np.diag(log_softmax(scale * products)).sum())
        else:
            logits = products * math.exp(1.0 + temperature)
            losses = [-np.diag(log_softmax(each)).mean() for each in (logits, logits.T)]
            found.append(np.mean(losses) if loss == "symmetric" else losses[0])
    return float(np.mean(found))


def function(loss):
    def objective(variables, target, scale):
        temperature = variables.get(TEMPERATURE) if learns_temperature(loss) else None
        return pair_loss(variables.get("x"), target, loss, temperature, scale)

    return objective


def values(vectors, loss, temperature=0.0):
    return {"x": vectors, **({TEMPERATURE: np.full((1, 1), temperature, np.float32)} if learns_temperature(loss) else {})}


def differences(of, place, size=1e-5):
    """The gradient of a function of an array, by central differences in float64."""
    place, result = place.astype(np.float64), np.zeros(place.shape)
    for index in np.ndindex(*place.shape):
        moved = [place.copy(), place.copy()]
        moved[0][index] += size
        moved[1][index] -= size
        result[index] = (of(moved[0]) - of(moved[1])) / (2 * size)
    return result


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_golden_numbers(loss):
    first, second = (np.sin(0.7 * np.arange(12) + phase).reshape(4, 3) for phase in (0.2, 0.9))
    vectors = np.stack([first, second], axis=1).reshape(8, 3).astype(np.float32)
    for scale, golden in [(1.0, GOLDEN[loss])] + [(scale_of(10_000, 512), GOLDEN_AFTER_WARMUP)] * (loss == "all"):
        arrays = {"target": targets(1, 4), "scale": np.full((1, 1), scale, np.float32)}
        found, metrics = run_graph(function(loss), arrays, values(vectors, loss))
        assert float(found) == pytest.approx(golden, abs=1e-5)
        assert len(metrics) == len(pair_metrics(loss))


def test_the_factor_grows_to_the_root_of_the_width():
    assert [scale_of(step, 400) for step in (0, 5_000, 10_000, 30_000)] == [1.0, 10.5, 20.0, 20.0]


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_losses_and_gradients(loss):
    scale, temperature = 1.7, 0.4
    arrays = {"target": targets(GROUPS, PAIRS), "scale": np.full((GROUPS, 1), scale, np.float32)}
    (found, metrics), gradient = gradients(function(loss), values(VECTORS, loss, temperature), arrays)
    assert float(found) == pytest.approx(reference(VECTORS, loss, temperature=temperature, scale=scale), abs=1e-5)
    numbers = dict(zip(pair_metrics(loss), metrics.tolist()))
    assert numbers["loss"] == pytest.approx(float(found))
    nearest = []
    for group in VECTORS.reshape(GROUPS, PAIRS, 2, WIDTH):
        units = group / np.linalg.norm(group, axis=2, keepdims=True)
        nearest += ((units[:, 0] @ units[:, 1].T).argmax(axis=1) == np.arange(PAIRS)).tolist()
    assert numbers["pair_accuracy"] == pytest.approx(np.mean(nearest))
    expected = differences(lambda place: reference(place, loss, temperature=temperature, scale=scale), VECTORS)
    np.testing.assert_allclose(gradient["x"], expected, rtol=0, atol=2e-5)
    assert np.abs(expected).max() > 0.01
    if learns_temperature(loss):
        assert numbers["temperature"] == pytest.approx(1 + temperature)
        by_temperature = differences(lambda place: reference(VECTORS, loss, temperature=float(place[0])), np.array([temperature]))
        assert float(gradient[TEMPERATURE][0, 0]) == pytest.approx(by_temperature[0], abs=2e-5)


def test_which_texts_are_found():
    vectors = np.random.RandomState(2).randn(2 * 23, WIDTH)
    vectors[1::2] = vectors[::2] + 0.8 * vectors[1::2]
    order = np.random.RandomState(3).permutation(23)
    blocks = [(order[:8], 8), (order[8:16], 8), (np.append(order[16:], order[2]), 7)]  # the last pair of the last one is counted elsewhere
    hits, losses = compare_pairs(vectors, blocks)
    for block, counted in blocks:
        for pair in block[:counted]:
            query = vectors[2 * pair]
            cosines = {
                other: query @ vectors[2 * other + 1] / np.linalg.norm(query) / np.linalg.norm(vectors[2 * other + 1]) for other in block
            }
            assert hits[pair] == all(cosines[pair] > value for other, value in cosines.items() if other != pair)
            scores = np.array(list(cosines.values())) * math.e
            assert losses[pair] == pytest.approx(np.log(np.exp(scores).sum()) - cosines[pair] * math.e)
    assert 3 < hits.sum() < 21


def test_equal_texts_are_not_found():
    hits, losses = compare_pairs(np.ones((8, 3)), [(np.arange(4), 4)])
    assert not hits.any()
    np.testing.assert_allclose(losses, math.log(4))
