"""modeling/engine/kernels.py: both sets of kernels against NumPy in float64, and dropout's masks."""

import math

import numpy as np
import pytest
from tiny_model import KERNELS, gradients, run_graph

from modeling.engine.kernels import CpuKernels, StockKernels, select_kernels

both = pytest.mark.parametrize("kernels", sorted(KERNELS))
DRAW = np.random.RandomState(9)
TOKENS, WIDTH = 7, 21


def run(function, **arrays):
    return run_graph(lambda variables, **inputs: function(**inputs), arrays)


@both
def test_linear(kernels):
    x, weight, bias = (DRAW.randn(*shape).astype(np.float32) for shape in ((TOKENS, WIDTH), (WIDTH, 5), (1, 5)))
    found = run(KERNELS[kernels].linear, x=x, weight=weight, bias=bias)
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight + bias, rtol=0, atol=1e-5)


def reference_gelu(z):
    return np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(z.astype(np.float64))


@both
def test_gelu_is_exact(kernels):
    """z Phi(z) by math.erf, seen through identity weights; the tanh form is up to 5e-4 off."""
    z = np.linspace(-9, 9, TOKENS * WIDTH).astype(np.float32).reshape(TOKENS, WIDTH)
    one, zero = np.eye(WIDTH, dtype=np.float32), np.zeros((1, WIDTH), np.float32)
    found = run(KERNELS[kernels].feed_forward, x=z, inner_weight=one, inner_bias=zero, outer_weight=one, outer_bias=zero)
    np.testing.assert_allclose(found, reference_gelu(z), rtol=0, atol=2e-6)


@both
def test_feed_forward(kernels):
    shapes = {"x": (TOKENS, WIDTH), "inner_weight": (WIDTH, 5), "inner_bias": (1, 5), "outer_weight": (5, WIDTH), "outer_bias": (1, WIDTH)}
    arrays = {name: DRAW.randn(*shape).astype(np.float32) for name, shape in shapes.items()}
    inner = reference_gelu(arrays["x"].astype(np.float64) @ arrays["inner_weight"] + arrays["inner_bias"])
    expected = inner @ arrays["outer_weight"] + arrays["outer_bias"]
    np.testing.assert_allclose(run(KERNELS[kernels].feed_forward, **arrays), expected, rtol=0, atol=3e-5)


@both
def test_gelu_layer(kernels):
    x, weight, bias = (DRAW.randn(*shape).astype(np.float32) for shape in ((TOKENS, WIDTH), (WIDTH, 5), (1, 5)))
    found = run(KERNELS[kernels].gelu_layer, x=x, weight=weight, bias=bias)
    np.testing.assert_allclose(found, reference_gelu(x.astype(np.float64) @ weight + bias), rtol=0, atol=1e-5)


@both
def test_table_scores(kernels):
    x, table, bias = (DRAW.randn(*shape).astype(np.float32) for shape in ((TOKENS, WIDTH), (11, WIDTH), (1, 11)))
    found = run(KERNELS[kernels].table_scores, x=x, table=table, bias=bias)
    np.testing.assert_allclose(found, x.astype(np.float64) @ table.T + bias, rtol=0, atol=1e-5)


@both
def test_index_cross_entropy(kernels):
    """Forward and gradient, also where the probability of the wanted class is far below 1e-20."""
    logits, index = (5 * DRAW.randn(TOKENS, WIDTH)).astype(np.float32), DRAW.randint(0, WIDTH, TOKENS).astype(np.int32)
    logits[2] = 0.0
    logits[2, index[2]] = -80.0
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def loss(variables, index):
        losses = KERNELS[kernels].index_cross_entropy(variables.get("logits"), index)
        return losses.sum(), losses

    (_, found), gradient = gradients(loss, {"logits": logits}, {"index": index})
    np.testing.assert_allclose(found, -logs[np.arange(TOKENS), index], rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(gradient["logits"], np.exp(logs) - np.eye(WIDTH)[index], rtol=0, atol=5e-6)


def reference_layer_norm(x, gamma, beta, epsilon):
    x = x.astype(np.float64)
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


@both
@pytest.mark.parametrize(("mean", "scale", "tolerance"), [(0, 1, 5e-6), (-3, 0.01, 1e-3), (300, 1, 1e-3), (0, 1e4, 5e-6)])
def test_layer_norm(kernels, mean, scale, tolerance):
    """The variance is that of the centred values: with a large mean, E[x^2] - E[x]^2 would have no digit left."""
    x = (mean + scale * DRAW.randn(TOKENS, WIDTH)).astype(np.float32)
    gamma, beta = (DRAW.randn(1, WIDTH).astype(np.float32) for _ in range(2))
    found = run(lambda x, gamma, beta: KERNELS[kernels].layer_norm(x, gamma, beta, 1e-12), x=x, gamma=gamma, beta=beta)
    np.testing.assert_allclose(found, reference_layer_norm(x, gamma, beta, 1e-12), rtol=0, atol=tolerance)


@both
def test_layer_norms_epsilon(kernels):
    """Where the values hardly vary, epsilon counts, and equal values give beta."""
    x = np.stack([np.full(WIDTH, 4.0), 0.001 * DRAW.randn(WIDTH)]).astype(np.float32)
    gamma, beta = (DRAW.randn(1, WIDTH).astype(np.float32) for _ in range(2))
    found = run(lambda x, gamma, beta: KERNELS[kernels].layer_norm(x, gamma, beta, 1e-3), x=x, gamma=gamma, beta=beta)
    np.testing.assert_allclose(found, reference_layer_norm(x, gamma, beta, 1e-3), rtol=0, atol=1e-4)


def test_gradient_of_layer_norm():
    """Of the CPU's own form, against differences of the reference."""
    x, weight = (DRAW.randn(2, 5) for _ in range(2))
    gamma, beta = np.array([[1.5, -0.5, 2.0, 0.25, 1.0]]), np.zeros((1, 5))

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
def test_heads_and_attention_scores(kernels):
    batch, length, heads, size = 2, 5, 3, 7
    query, key, value = (DRAW.randn(batch * length, heads * size).astype(np.float32) for _ in range(3))
    mask = (DRAW.rand(batch, length) > 0.4).astype(np.float32)

    def scores(projections, mask):
        parts = KERNELS[kernels].heads(projections, batch, heads, 3)
        return (*parts, KERNELS[kernels].attention_scores(parts[0], parts[1], KERNELS[kernels].additive_mask(mask, heads)))

    *parts, found = run(scores, projections=np.concatenate([query, key, value], axis=1), mask=mask)
    query, key, value = (x.reshape(batch, length, heads, size) for x in (query, key, value))
    for part, x in zip(parts, (query, key, value)):
        np.testing.assert_array_equal(part, x.transpose(0, 2, 1, 3))
    assert found.shape == (batch, heads, length, length)
    for b, n, s, t in np.ndindex(batch, heads, length, length):
        expected = query[b, s, n] @ key[b, t, n] / math.sqrt(size) - 10000 * (1 - mask[b, t])
        assert abs(found[b, n, s, t] - expected) < (1e-5 if mask[b, t] else 2e-3)


def test_select():
    assert isinstance(select_kernels("cpu"), CpuKernels)
    stock = select_kernels("cuda")
    assert type(stock) is StockKernels
    assert stock.device == "cuda"
