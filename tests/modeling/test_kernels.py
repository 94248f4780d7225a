"""modeling/kernels.py: both sets of kernels against NumPy in float64, and dropout's masks."""

import dataclasses
import math

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, ballast, gradients, numpy_of, run_graph, tensors

from modeling.global_function import global_function
from modeling.kernels import CpuKernels, DropoutPlan, StockKernels, select_kernels
from modeling.variables import Variables

both = pytest.mark.parametrize("kernels", sorted(KERNELS))
DRAW = np.random.RandomState(9)
TOKENS, WIDTH = 7, 21


def run(function, **arrays):
    return run_graph(lambda variables, **inputs: function(**inputs), arrays)


@both
def test_linear(kernels):
    x, weight, bias = (DRAW.randn(*shape).astype(np.float32) for shape in ((TOKENS, WIDTH), (WIDTH, 5), (5,)))
    found = run(KERNELS[kernels].linear, x=x, weight=weight, bias=bias)
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight + bias, rtol=0, atol=1e-5)


@both
def test_gelu_is_exact(kernels):
    """x Phi(x) by math.erf; the tanh form is up to 5e-4 off."""
    x = np.linspace(-9, 9, TOKENS * WIDTH).astype(np.float32).reshape(TOKENS, WIDTH)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel().tolist()]
    np.testing.assert_allclose(run(KERNELS[kernels].gelu, x=x).ravel(), expected, rtol=0, atol=2e-6)


def reference_layer_norm(x, gamma, beta, epsilon):
    x = x.astype(np.float64)
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


@both
@pytest.mark.parametrize("mean, scale, tolerance", [(0, 1, 5e-6), (-3, 0.01, 1e-3), (300, 1, 1e-3), (0, 1e4, 5e-6)])
def test_layer_norm(kernels, mean, scale, tolerance):
    """The variance is that of the centred values: with a large mean, E[x^2] - E[x]^2 would have no digit left."""
    x = (mean + scale * DRAW.randn(TOKENS, WIDTH)).astype(np.float32)
    gamma, beta = (DRAW.randn(WIDTH).astype(np.float32) for _ in range(2))
    found = run(lambda x, gamma, beta: KERNELS[kernels].layer_norm(x, gamma, beta, 1e-12), x=x, gamma=gamma, beta=beta)
    np.testing.assert_allclose(found, reference_layer_norm(x, gamma, beta, 1e-12), rtol=0, atol=tolerance)


@both
def test_layer_norms_epsilon(kernels):
    """Where the values hardly vary, epsilon counts, and equal values give beta."""
    x = np.stack([np.full(WIDTH, 4.0), 0.001 * DRAW.randn(WIDTH)]).astype(np.float32)
    gamma, beta = (DRAW.randn(WIDTH).astype(np.float32) for _ in range(2))
    found = run(lambda x, gamma, beta: KERNELS[kernels].layer_norm(x, gamma, beta, 1e-3), x=x, gamma=gamma, beta=beta)
    np.testing.assert_allclose(found, reference_layer_norm(x, gamma, beta, 1e-3), rtol=0, atol=1e-4)


def test_gradient_of_layer_norm():
    """Of the CPU's own form, against differences of the reference."""
    x, weight = (DRAW.randn(2, 5) for _ in range(2))
    gamma, beta = np.array([1.5, -0.5, 2.0, 0.25, 1.0]), np.zeros(5)

    def loss(variables, weight, gamma, beta):
        return (CpuKernels().layer_norm(variables.get("x"), gamma, beta, 1e-12) * weight).sum()

    arrays = {name: part.astype(np.float32) for name, part in (("weight", weight), ("gamma", gamma), ("beta", beta))}
    _, found = gradients(loss, {"x": x.astype(np.float32)}, arrays)
    step = 1e-5
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = ((reference_layer_norm(m, gamma, beta, 1e-12) * weight).sum() for m in moved)
        assert abs(found["x"][place] - (above - below) / (2 * step)) < 2e-5


@both
def test_additive_mask(kernels):
    mask = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 0]], np.float32)
    heads = 3
    found = run(lambda mask: KERNELS[kernels].additive_mask(mask, heads), mask=mask)
    spread = np.broadcast_to(found, (2, heads, 5, 5))  # the mask of the stock kernels is broadcast in the sum
    for row, head, query, key in np.ndindex(2, heads, 5, 5):
        assert spread[row, head, query, key] == (0 if mask[row, key] else -10000)


@both
def test_attention_scores(kernels):
    batch, length, heads, size = 2, 5, 3, 7
    query, key = (DRAW.randn(batch, length, heads, size).astype(np.float32) for _ in range(2))
    mask = (DRAW.rand(batch, length) > 0.4).astype(np.float32)

    def scores(query, key, mask):
        return KERNELS[kernels].attention_scores(query, key, KERNELS[kernels].additive_mask(mask, heads), size)

    found = run(scores, query=query, key=key, mask=mask)
    assert found.shape == (batch, heads, length, length)
    for b, n, s, t in np.ndindex(batch, heads, length, length):
        expected = query[b, s, n] @ key[b, t, n] / math.sqrt(size) - 10000 * (1 - mask[b, t])
        assert abs(found[b, n, s, t] - expected) < (1e-5 if mask[b, t] else 2e-3)


def test_select():
    assert isinstance(select_kernels("cpu"), CpuKernels)
    stock = select_kernels("cuda")
    assert type(stock) is StockKernels and stock.device == "cuda"


# ------------------------------------------------------------------------------------------------------------- dropout

RATE, SHAPE, STEPS = 0.3, (37, 129), 3
WITH_RATE = dataclasses.replace(CONFIG, hidden_dropout_prob=RATE, attention_probs_dropout_prob=0.1)


def dropped_ones(seed):
    """[steps, layers, *SHAPE]: ones behind three dropout layers (the second is attention's), step by step."""
    plan, kernels = DropoutPlan(WITH_RATE, seed, "cpu"), KERNELS["cpu"]

    def job(variables, x):
        masks = [kernels.dropout(x, layer) for layer in (plan.hidden(), plan.attention(), plan.hidden())]
        return (*masks, ballast())

    job = global_function(type="predict", variables=Variables({"unused": np.zeros(1, np.float32)}))(job)
    ones = tensors({"x": np.ones(SHAPE, np.float32)})
    return np.stack([np.stack(numpy_of(job(**ones))[:3]) for _ in range(STEPS)])


@pytest.fixture(scope="module")
def masks():
    return dropped_ones(seed=42)


def test_dropout_keeps_its_share_and_its_mean(masks):
    for layer, rate in enumerate((RATE, 0.1, RATE)):
        part = masks[:, layer]
        kept = part > 0
        np.testing.assert_allclose(part[kept], 1 / (1 - rate), rtol=1e-6)
        assert (part[~kept] == 0).all()
        deviation = math.sqrt(rate * (1 - rate) / kept.size)
        assert abs(kept.mean() - (1 - rate)) < 4 * deviation
        rows = kept.mean(axis=(0, 2))  # no row or column is privileged
        assert np.abs(rows - (1 - rate)).max() < 6 * math.sqrt(rate * (1 - rate) / (STEPS * SHAPE[1]))


def test_dropout_masks_differ_between_layers_and_steps(masks):
    """Two independent masks of rate p agree at a share of p^2 + (1 - p)^2."""
    kept = masks > 0
    hidden = [kept[step, layer] for step in range(STEPS) for layer in (0, 2)]
    attention = [kept[step, 1] for step in range(STEPS)]
    for part, rate in ((hidden, RATE), (attention, 0.1)):
        expected = rate**2 + (1 - rate) ** 2
        for i, one in enumerate(part):
            for other in part[:i]:
                assert abs((one == other).mean() - expected) < 0.04


def test_dropout_follows_the_seed(masks):
    np.testing.assert_array_equal(dropped_ones(seed=42), masks)
    other = dropped_ones(seed=43)
    assert 0.3 < ((other > 0) != (masks > 0))[:, 0].mean() < 0.55  # 2 p (1 - p) = 0.42


def test_dropouts_gradient_has_the_mask_of_the_forward_pass():
    plan = DropoutPlan(WITH_RATE, 7, "cpu")
    x, weight = (DRAW.randn(9, 11).astype(np.float32) for _ in range(2))

    def loss(variables, weight):
        dropped = KERNELS["cpu"].dropout(variables.get("x"), plan.hidden())
        return (dropped * weight).sum(), dropped

    (_, dropped), found = gradients(loss, {"x": x}, {"weight": weight})
    kept = dropped != 0
    assert 0.4 < kept.mean() < 0.95
    np.testing.assert_allclose(found["x"], np.where(kept, weight / (1 - RATE), 0), rtol=0, atol=2e-6)


def test_rate_zero_is_no_layer():
    plan = DropoutPlan(NO_DROPOUT, 1, "cpu")
    assert plan.hidden() is None and plan.attention() is None
    plan = DropoutPlan(dataclasses.replace(WITH_RATE, attention_probs_dropout_prob=0.0), 1, "cpu")
    assert plan.hidden().keep == pytest.approx(1 - RATE) and plan.attention() is None
