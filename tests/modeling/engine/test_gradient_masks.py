"""modeling/engine/gradient_masks.py and the gradients of `GlobalFunction.gradients`, against NumPy."""

import numpy as np
import pytest

from modeling.bert.variables import Variables
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.gradient_masks import GradientMasks
from modeling.engine.lanes.plan import Lanes
from modeling.run.optimizer import CLIP_NORM, Schedule, create_optimizer

DRAW = np.random.RandomState(2)
VALUES = {
    "bert-encoder-layer_0-output-dense-weight": DRAW.randn(7, 5).astype(np.float32),
    "classification-output_weights": DRAW.randn(3, 5).astype(np.float32),
    "classification-output_bias": DRAW.randn(3).astype(np.float32),
}
DENSE, WEIGHTS, BIAS = VALUES
VECTORS = "bias-and-LayerNorm"  # the parameter that holds the bias
ROWS, SCHEDULE = 6, Schedule(0.02, 9, 1)
MASK = (np.arange(35).reshape(7, 5) % 3 != 1).astype(np.float32) * np.float32(1.5)


def inputs(step):
    draw = np.random.RandomState(40 + step)
    return {"x": draw.randn(ROWS, 7).astype(np.float32) * (0.05, 3.0, 0.4)[step % 3], "y": draw.randn(ROWS, 3).astype(np.float32)}


def loss(variables, x, y):
    from modeling.engine.runtime import flow

    out = flow.matmul(flow.matmul(x, variables.get(DENSE)), variables.get(WEIGHTS), transpose_b=True) + variables.get(BIAS)
    return ((out - y) * (out - y)).mean()


def gradients_of(values, x, y):
    """Gradients of `loss` in float64."""
    w, v, b = (values[name].astype(np.float64) for name in VALUES)
    out = x @ w @ v.T + b
    of_out = 2 * (out - y) / out.size
    return {DENSE: x.T @ of_out @ v, WEIGHTS: of_out.T @ (x @ w), BIAS: of_out.sum(axis=0)}


def adamw(values, masks, steps, clip=CLIP_NORM):
    """The product's AdamW in float64: clip, then mask, then moments; weights after each step."""
    p = {name: value.astype(np.float64) for name, value in values.items()}
    m, v = ({name: np.zeros(value.shape) for name, value in values.items()} for _ in range(2))
    after, norms = [], []
    for step in range(steps):
        gradients = gradients_of(p, **inputs(step))
        norms.append(np.sqrt(sum((g**2).sum() for g in gradients.values())))
        for name, g in gradients.items():
            g = g * min(1.0, clip / (norms[-1] + 1e-6)) * masks.get(name, 1.0)
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.999 * v[name] + 0.001 * g * g
            first, second = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
            decay = 0.01 if name != BIAS else 0.0
            lr = SCHEDULE.rate(step)
            p[name] = p[name] - lr * decay * p[name] - lr * (m[name] / first) / (np.sqrt(v[name] / second) + 1e-6)
        after.append({name: value.copy() for name, value in p.items()})
    return after, norms


@pytest.mark.parametrize(("parts", "lanes"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_a_masked_step_clips_the_sum_then_masks(parts, lanes):
    variables = Variables(VALUES)
    optimizer, rates = create_optimizer(variables, SCHEDULE, clip_norm=None)
    masks = GradientMasks(variables, "cpu", CLIP_NORM, names=(DENSE,))
    assert masks.shapes == {DENSE: (7, 5)}
    masks.set(DENSE, MASK)
    engine = Engine("cpu", Lanes(lanes, short=True))
    job = GlobalFunction(loss, "train", variables, optimizer, rates, engine, parts=parts, masks=masks)
    expected, norms = adamw(VALUES, {DENSE: MASK}, 4)
    assert min(norms) < CLIP_NORM < max(norms)
    for step in range(4):
        job(inputs(step))
        for name in VALUES:
            np.testing.assert_allclose(variables.get(name).numpy(), expected[step][name], rtol=0, atol=3e-6, err_msg=f"{step} {name}")
    others = adamw(VALUES, {}, 4)[0], adamw(VALUES, {DENSE: MASK}, 4, clip=1e9)[0]
    for other in others:  # the tolerance can tell them apart
        assert max(np.abs(other[-1][name] - expected[-1][name]).max() for name in VALUES) > 1e-4


def test_a_mask_may_change_from_step_to_step():
    variables = Variables(VALUES)
    optimizer, rates = create_optimizer(variables, Schedule(0.02, 9, 0), weight_decay=0.0, clip_norm=None)
    masks = GradientMasks(variables, "cpu", CLIP_NORM)
    job = GlobalFunction(loss, "train", variables, optimizer, rates, masks=masks)
    assert masks.shapes == {DENSE: (7, 5), WEIGHTS: (3, 5), VECTORS: (1, 3)}
    for name, shape in masks.shapes.items():
        masks.set(name, np.zeros(shape, np.float32))
    job(inputs(0))
    for name, value in VALUES.items():
        assert np.array_equal(variables.get(name).numpy(), value)
    masks.set(WEIGHTS, np.ones((3, 5), np.float32))
    job(inputs(1))
    moved = [name for name, value in VALUES.items() if not np.array_equal(variables.get(name).numpy(), value)]
    assert moved == [WEIGHTS]


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_without_an_update(parts):
    """They are those of the batch, call after call, and the variables keep their values."""
    variables = Variables(VALUES)
    job = GlobalFunction(loss, "gradient", variables, engine=Engine("cpu"), parts=parts)
    for step in (0, 1, 0):
        outputs, gradients = job.gradients(inputs(step))
        expected = gradients_of(VALUES, **inputs(step))
        expected[VECTORS] = expected.pop(BIAS).reshape(1, 3)
        assert set(gradients) == set(expected)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, expected[name], rtol=2e-5, atol=1e-6)
        assert outputs.numpy().size == parts
    for name, value in VALUES.items():
        assert np.array_equal(variables.get(name).numpy(), value)


def test_gradients_between_steps():
    """A function with masks gives gradients too; its own steps do not notice."""
    variables = Variables(VALUES)
    optimizer, rates = create_optimizer(variables, SCHEDULE, clip_norm=None)
    masks = GradientMasks(variables, "cpu", CLIP_NORM, names=())
    job = GlobalFunction(loss, "train", variables, optimizer, rates, masks=masks)
    expected, _ = adamw(VALUES, {}, 3)
    for step in range(3):
        now = {name: variables.get(name).numpy().copy() for name in VALUES}
        _, gradients = job.gradients(inputs(step))
        np.testing.assert_allclose(gradients[DENSE], gradients_of(now, **inputs(step))[DENSE], rtol=2e-5, atol=1e-6)
        job(inputs(step))
    for name in VALUES:
        np.testing.assert_allclose(variables.get(name).numpy(), expected[-1][name], rtol=0, atol=3e-6, err_msg=name)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_reset_function_repeats_its_run(parts):
    """Moments, step counter and so the learning rate start again in place, bit for bit; a state that was read comes back, too."""
    variables = Variables(VALUES)
    optimizer, rates = create_optimizer(variables, SCHEDULE)
    job = GlobalFunction(loss, "train", variables, optimizer, rates, Engine("cpu"), parts=parts)

    def restart():
        for name, value in variables.trained().items():
            variables.assign(name, (VALUES[name] if name in VALUES else VALUES[BIAS]).reshape(tuple(value.shape)))

    def run(steps):
        for step in steps:
            job(inputs(step))
        return {name: variables.get(name).numpy().copy() for name in VALUES}

    job.reset()  # there is nothing to put back yet
    first = run(range(3))
    state = {name: np.array(value) for name, value in job.optimizer_state().items()}
    assert state["System-Train-TrainStep"] == 3
    longer = run(range(3, 5))
    restart()
    job.reset()
    again = run(range(3))
    assert all(np.array_equal(again[name], first[name]) for name in VALUES)
    job.reset(state)
    assert all(np.array_equal(value, longer[name]) for name, value in run(range(3, 5)).items())
    restart()
    assert any(not np.array_equal(value, first[name]) for name, value in run(range(3)).items())  # without the reset
