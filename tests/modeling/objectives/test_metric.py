"""modeling/objectives/metric.py against NumPy, written from the formulas of SetFit and of Snell et al. 2017."""

from argparse import ArgumentTypeError

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, documented, gradients, log_softmax, random_samples, run_graph

from modeling.cli import flag_kinds
from modeling.objectives.metric import (
    contrastive_loss,
    grouped_vectors,
    nearest_mean_classifier,
    predict_vectors,
    prototypical_loss,
)

DRAW = np.random.RandomState(5)
PAIRS, WIDTH = 5, 7
VECTORS = DRAW.randn(2 * PAIRS, WIDTH).astype(np.float32)
TARGET = np.array([1, 0, 0, 1, 1], np.float32)
EPISODES, LABELS, SUPPORT, QUERY = 2, 3, 2, 3
ROWS = LABELS * (SUPPORT + QUERY)
EPISODE_VECTORS = DRAW.randn(EPISODES * ROWS, WIDTH).astype(np.float32)
EPISODE_TARGET = np.tile(np.repeat(np.arange(LABELS, dtype=np.int32), QUERY), (EPISODES, 1))


def contrastive_reference(vectors, target=TARGET):
    cosines = np.array([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(vectors[::2], vectors[1::2])])
    return ((cosines - target) ** 2).mean(), ((cosines > 0.5) == (target == 1)).mean()


def prototypical_logits(vectors, scale):
    """-f |x - c_k|^2 of each query row, [E Q, N]."""
    logits = []
    for rows in vectors.reshape(EPISODES, ROWS, -1):
        means = [rows[label * SUPPORT : (label + 1) * SUPPORT].mean(axis=0) for label in range(LABELS)]
        logits += [[-scale * ((row - mean) ** 2).sum() for mean in means] for row in rows[LABELS * SUPPORT :]]
    return np.array(logits)


def prototypical_reference(vectors, scale=1.0, target=EPISODE_TARGET):
    logits, wanted = prototypical_logits(vectors.astype(np.float64), scale), target.reshape(-1)
    return -log_softmax(logits)[np.arange(len(wanted)), wanted].mean(), (logits.argmax(axis=1) == wanted).mean()


def differences(function, place, size=1e-5):
    """The gradient of a function of an array, by central differences in float64."""
    place, result = place.astype(np.float64), np.zeros(place.shape)
    for index in np.ndindex(*place.shape):
        moved = [place.copy(), place.copy()]
        moved[0][index] += size
        moved[1][index] -= size
        result[index] = (function(moved[0]) - function(moved[1])) / (2 * size)
    return result


def contrastive(variables, target):
    return contrastive_loss(variables.get("x"), target)


def prototypical(scale):
    return lambda variables, target: prototypical_loss(variables.get("x"), target, LABELS, SUPPORT, scale)


def test_contrastive_loss_and_its_gradient():
    (loss, metrics), found = gradients(contrastive, {"x": VECTORS}, {"target": TARGET})
    expected = contrastive_reference(VECTORS.astype(np.float64))
    np.testing.assert_allclose([loss, *metrics], [expected[0], *expected], rtol=1e-5)
    np.testing.assert_allclose(found["x"], differences(lambda x: contrastive_reference(x)[0], VECTORS), rtol=0, atol=1e-6)
    assert np.abs(found["x"]).max() > 0.01


def test_a_cosine_does_not_depend_on_the_length():
    scaled = (VECTORS * np.linspace(0.5, 9, len(VECTORS))[:, None]).astype(np.float32)
    one, other = (run_graph(contrastive, {"target": TARGET}, {"x": x})[0] for x in (VECTORS, scaled))
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.15])
def test_prototypical_loss_and_its_gradient(scale):
    (loss, metrics), found = gradients(prototypical(scale), {"x": EPISODE_VECTORS}, {"target": EPISODE_TARGET})
    expected = prototypical_reference(EPISODE_VECTORS, scale)
    np.testing.assert_allclose([loss, *metrics], [expected[0], *expected], rtol=2e-5)
    by_hand = differences(lambda x: prototypical_reference(x, scale)[0], EPISODE_VECTORS)
    np.testing.assert_allclose(found["x"], by_hand, rtol=0, atol=3e-6)
    support = np.arange(len(found["x"])) % ROWS < LABELS * SUPPORT
    assert all(np.abs(found["x"][rows]).max() > 1e-3 for rows in (support, ~support))  # it flows through both


def test_the_consistency_of_two_passes_over_an_episode():
    """(KL(p || q) + KL(q || p)) / N of the predictions for the query rows. The gradient reaches both passes."""
    weight, scale = 0.7, 0.3
    second = EPISODE_VECTORS + 0.4 * DRAW.randn(*EPISODE_VECTORS.shape).astype(np.float32)

    def consistency(first, second):
        logs, others = (log_softmax(prototypical_logits(vectors, scale)) for vectors in (first, second))
        return ((np.exp(logs) - np.exp(others)) * (logs - others)).sum(axis=1).mean() / LABELS

    def loss(variables, target):
        return prototypical_loss(variables.get("x"), target, LABELS, SUPPORT, scale, variables.get("y"), weight, 1)

    (total, metrics), found = gradients(loss, {"x": EPISODE_VECTORS, "y": second}, {"target": EPISODE_TARGET})
    label_loss, accuracy = prototypical_reference(EPISODE_VECTORS, scale)
    x, y = EPISODE_VECTORS.astype(np.float64), second.astype(np.float64)
    term = consistency(x, y)
    assert term > 0.01
    np.testing.assert_allclose([total, *metrics], [*[label_loss + weight * term] * 2, label_loss, term, accuracy], rtol=2e-5)
    of_x = differences(lambda x: prototypical_reference(x, scale)[0] + weight * consistency(x, y), EPISODE_VECTORS)
    of_y = differences(lambda y: weight * consistency(x, y), second)
    np.testing.assert_allclose(found["x"], of_x, rtol=0, atol=3e-6)
    np.testing.assert_allclose(found["y"], of_y, rtol=0, atol=3e-6)
    assert np.abs(of_y).max() > 1e-3


def test_a_pair_has_no_label_predictions_to_compare():
    loss, metrics = run_graph(lambda variables, target: contrastive_loss(variables.get("x"), target, 2), {"target": TARGET}, {"x": VECTORS})
    expected, accuracy = contrastive_reference(VECTORS.astype(np.float64))
    np.testing.assert_allclose([loss, *metrics], [expected, expected, expected, 0.0, 0.0, accuracy], rtol=1e-5)


def test_prototypes_do_not_depend_on_the_order_of_support_or_on_a_shift():
    rows = EPISODE_VECTORS.reshape(EPISODES, ROWS, WIDTH)
    swapped = rows.copy()
    swapped[:, [0, 1]] = rows[:, [1, 0]]
    losses = [run_graph(prototypical(0.2), {"target": EPISODE_TARGET}, {"x": x.reshape(-1, WIDTH)})[0] for x in (rows, swapped, rows + 0.7)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_a_support_row_is_nearest_to_itself():
    one = DRAW.randn(3, WIDTH).astype(np.float32)
    loss, metrics = run_graph(
        lambda variables, target: prototypical_loss(variables.get("x"), target, 3, 1),
        {"target": np.arange(3, dtype=np.int32)[None]},
        {"x": np.concatenate([one, one])},
    )
    assert loss < np.log(3)
    assert metrics[1] == 1


def test_the_nearest_mean_as_a_linear_classifier():
    vectors, label = DRAW.randn(17, WIDTH).astype(np.float32), np.arange(17) % 3
    weights, bias = nearest_mean_classifier(vectors, label, 3, 0.4)
    means = np.stack([vectors[label == number].mean(axis=0) for number in range(3)])
    distances = -0.4 * ((vectors[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_allclose(log_softmax(vectors @ weights.T + bias), log_softmax(distances), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_the_greatest_distance_scale_is_finite():
    """Of vectors that are longer than those of any encoder, without a warning of NumPy."""
    vectors, label, scale = 100 * DRAW.randn(9, 1024).astype(np.float32), np.arange(9) % 3, flag_kinds.scale("1e6")
    weights, bias = nearest_mean_classifier(vectors, label, 3, scale)
    assert np.isfinite(vectors @ weights.T + bias).all()
    with pytest.raises(ArgumentTypeError, match="1e300 is more than 1,000,000"):
        flag_kinds.scale("1e300")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_grouped_texts_have_the_vectors_of_single_ones(pooling):
    """The vector is what a classifier reads: the mean over the real tokens, or the pooled [CLS]."""
    config = CONFIG.__class__(**{**CONFIG.__dict__, "pooling": pooling})
    samples, kernels = random_samples([5, 9, 3, 13, 2, 8]), KERNELS["cpu"]
    text = {name: getattr(samples, name) for name in ("word_rows", "input_mask", "segment_ids")}
    weights = documented("weight")
    single = run_graph(lambda variables, **text: predict_vectors(variables, config, kernels, **text), text, weights)
    grouped = {name: value.reshape(2, -1) for name, value in text.items()}
    together = run_graph(lambda variables, **text: grouped_vectors(variables, config, kernels, 3, None, **text), grouped, weights)
    assert single.shape == (6, config.hidden_size)
    np.testing.assert_allclose(together, single, rtol=0, atol=2e-5)
