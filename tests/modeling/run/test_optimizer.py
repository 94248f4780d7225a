"""modeling/run/optimizer.py: the schedule as a table, and what a train graph really does with it: rate, decay, clip, moments.

The exclusion of names from weight decay sets a graph configuration that is private to OneFlow; the golden steps pin it.
"""

import json
import types

import numpy as np
import pytest
from tiny_model import GOLDEN

from modeling.bert.variables import Variables
from modeling.engine.global_function import global_function
from modeling.run.bucketing import MOST_SAMPLES
from modeling.run.optimizer import CLIP_NORM, Schedule, create_optimizer, fewer_epochs, plan_schedule
from ofrecord_util.errors import UserError

# ------------------------------------------------------------------------------------------------------- the schedule

RATES = {  # (total steps, warm-up steps) -> rates of a peak of 1
    (1, 0): [1.0, 0.0],
    (4, 0): [1.0, 0.75, 0.5, 0.25, 0.0, 0.0],
    (4, 1): [0.0, 0.75, 0.5, 0.25, 0.0],
    (10, 4): [0.0, 0.25, 0.5, 0.75, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
    (2, 2): [0.0, 0.5, 0.0],
}


@pytest.mark.parametrize(("total", "warmup"), sorted(RATES))
def test_rate(total, warmup):
    """peak * k / W while warming up, then peak * (1 - k / total), the decay counted from step 0 as Google has it."""
    schedule = Schedule(3e-5, total, warmup)
    rates = [schedule.rate(step) for step in range(len(RATES[total, warmup]))]
    assert rates == pytest.approx([3e-5 * rate for rate in RATES[total, warmup]], rel=1e-12, abs=1e-20)


@pytest.mark.parametrize(
    ("epochs", "samples", "batch", "remedy"),
    [
        (2**63 - 1, 47, 6, "at most --num_epochs 1276595"),
        (1_276_596, 47, 6, "at most --num_epochs 1276595"),
        (1, 3 * 10**7, 2, "a greater --batch_size_per_device"),
    ],
)
def test_epochs_of_too_many_steps(epochs, samples, batch, remedy):
    flags = types.SimpleNamespace(num_epochs=epochs, learning_rate=1e-3, warmup_proportion=0.1)
    with pytest.raises(UserError, match=f"--num_epochs {epochs}: .* per step, are more than 10,000,000 steps; give {remedy}$"):
        plan_schedule(flags, samples, batch)
    flags.num_epochs = 1_276_595
    assert plan_schedule(flags, 47, 6).total_steps == 9_999_995


@pytest.mark.parametrize(
    ("samples", "batch", "most"), [(96, 32, 1_041_666), (96, 4, 416_666), (7, 13, 14_285_714), (10**8, 32, 1), (10**8 + 1, 32, None)]
)
def test_the_advised_epochs_are_within_both_limits(samples, batch, most):
    """Of the steps, and of the samples from which a layout is chosen."""
    assert fewer_epochs(samples, batch, MOST_SAMPLES) == (f"at most --num_epochs {most}" if most else "fewer rows")
    flags = types.SimpleNamespace(num_epochs=5 * 10**8, learning_rate=1e-3, warmup_proportion=0.1)
    with pytest.raises(UserError, match=f"give {fewer_epochs(samples, batch, MOST_SAMPLES)}$"):
        plan_schedule(flags, samples, batch, MOST_SAMPLES)


def test_decay_factor():
    schedule = Schedule(0.5, 10, 4)
    assert schedule.decay_factor(0, 0.1) == 1
    assert schedule.decay_factor(1, 0.1) == 1  # the first rate is 0
    assert schedule.decay_factor(4, 0.1) == pytest.approx((1 - 0.0125) * (1 - 0.025) * (1 - 0.0375), rel=1e-12)
    assert schedule.decay_factor(10, 0.0) == 1


@pytest.mark.parametrize(
    ("samples", "epochs", "batch", "proportion", "total", "warmup"),
    [(96, 63, 4, 0.1, 1512, 151), (32, 64, 2, 0.1, 1024, 102), (5, 3, 4, 0.0, 4, 0), (5, 1, 7, 0.5, 1, 0), (10, 1, 1, 1.0, 10, 10)],
)
def test_plan(samples, epochs, batch, proportion, total, warmup):
    flags = types.SimpleNamespace(num_epochs=epochs, learning_rate=2e-5, warmup_proportion=proportion)
    assert plan_schedule(flags, samples, batch) == Schedule(2e-5, total, warmup)


# ------------------------------------------------------------------------------------------------------ the train graph


def train_steps(values, gradients, schedule, **options):
    """Parameters after each step of a train graph whose gradients are given.

    Args:
        values: dict of name -> initial array.
        gradients: dict of name -> [steps, ...].
    """
    variables = Variables(values)
    optimizer, rates = create_optimizer(variables, schedule, **options)
    names = {name: "gradient_" + str(i) for i, name in enumerate(values)}

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
    def job(variables, **gradient):
        total = None
        for name, of in names.items():
            term = (variables.get(name) * gradient[of]).sum()
            total = term if total is None else total + term
        return total

    after = {name: [] for name in values}
    for step in range(len(next(iter(gradients.values())))):
        job({names[name]: gradients[name][step] for name in values}).numpy()
        for name in values:
            after[name].append(variables.get(name).numpy().copy())
    return {name: np.stack(arrays) for name, arrays in after.items()}


def reference_steps(values, gradients, schedule, decayed, weight_decay=0.01, bias_correction=True):
    """AdamW with one clip over all parameters, float64."""
    p = {name: value.astype(np.float64) for name, value in values.items()}
    m, v = ({name: np.zeros(value.shape) for name, value in values.items()} for _ in range(2))
    after = {name: [] for name in values}
    for step in range(len(next(iter(gradients.values())))):
        lr = schedule.rate(step)
        norm = np.sqrt(sum((g[step].astype(np.float64) ** 2).sum() for g in gradients.values()))
        for name in values:
            g = gradients[name][step] * min(1.0, CLIP_NORM / (norm + 1e-6))
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            first, second = (1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)) if bias_correction else (1, 1)
            decay = weight_decay if name in decayed else 0.0
            p[name] = p[name] - lr * decay * p[name] - lr * (m[name] / first) / (np.sqrt(v[name] / second) + 1e-6)
            after[name].append(p[name].copy())
    return {name: np.stack(arrays) for name, arrays in after.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("total", "warmup"), [(5, 0), (5, 1), (9, 4), (1, 0), (3, 3)])
def test_the_graph_uses_the_schedules_rate(total, warmup):
    """With bias correction and a constant gradient, AdamW moves a parameter by the learning rate in each step."""
    schedule = Schedule(0.01, total, warmup)
    steps = total + 1  # one beyond the end: the rate stays 0
    start = {"x-bias": np.array([0.05], np.float32)}
    after = train_steps(start, {"x-bias": np.full((steps, 1), 500, np.float32)}, schedule)
    moved = -np.diff(np.concatenate([[0.05], after["x-bias"][:, 0]]))
    np.testing.assert_allclose(moved, [schedule.rate(step) for step in range(steps)], rtol=0, atol=1e-7)


def test_golden_adamw():
    """Three steps of an independent AdamW: clipped globally, one parameter excluded from decay, rates of a warm-up."""
    settings = json.loads(str(GOLDEN["adamw/config"]))
    names = {"gamma": "bert-encoder-layer_0-output-LayerNorm-gamma", "matrix": "bert-encoder-layer_0-output-dense-weight"}
    schedule = Schedule(1e-2, 1000, 4)
    assert [schedule.rate(step) for step in range(3)] == pytest.approx(list(GOLDEN["adamw/lr"]), abs=1e-12)
    assert settings["weight_decay"] == {"gamma": 0.0, "matrix": 0.01}
    after = train_steps(
        {name: GOLDEN["adamw/initial/" + short] for short, name in names.items()},
        {name: GOLDEN["adamw/gradient/" + short] for short, name in names.items()},
        schedule,
    )
    for short, name in names.items():
        np.testing.assert_allclose(after[name], GOLDEN["adamw/after_step/" + short], rtol=0, atol=1e-6, err_msg=short)


DRAW = np.random.RandomState(4)
VALUES = {
    "bert-embeddings-word_embeddings": DRAW.randn(5, 3).astype(np.float32),
    "bert-pooler-dense-bias": DRAW.randn(4).astype(np.float32),
    "bert-embeddings-LayerNorm-beta": DRAW.randn(2).astype(np.float32),
    "classification-output_weights": DRAW.randn(2, 3).astype(np.float32),
    "classification-output_bias": DRAW.randn(2).astype(np.float32),
    "corrupted_domain_classification-domain_bias": DRAW.randn(3).astype(np.float32),
}
DECAYED = ("bert-embeddings-word_embeddings", "classification-output_weights")
# norms on either side of the clip, and parameters of very unequal shares, which clips of their own would level
SCALES = np.array([30.0, 0.02, 3.0, 0.1])
GRADIENTS = {
    name: np.stack([scale * (1 + i) ** 2 * DRAW.randn(*value.shape) for scale in SCALES]).astype(np.float32)
    for i, (name, value) in enumerate(VALUES.items())
}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"bias_correction": False}, {"weight_decay": 0.5}], ids=str)
def test_steps(options):
    """All documented names: decay only off LayerNorm and biases, a global clip, bias correction on or off."""
    norms = [np.sqrt(sum((g[step] ** 2).sum() for g in GRADIENTS.values())) for step in range(len(SCALES))]
    assert max(norms) > 100
    assert min(norms) > 1
    schedule = Schedule(0.02, 8, 1)
    after = train_steps(VALUES, GRADIENTS, schedule, **options)
    expected = reference_steps(VALUES, GRADIENTS, schedule, DECAYED, **options)
    for name in VALUES:
        np.testing.assert_allclose(after[name], expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_a_small_gradient_is_not_clipped():
    small = {name: gradient * np.float32(1e-3) for name, gradient in GRADIENTS.items()}
    small["bert-pooler-dense-bias"] = small["bert-pooler-dense-bias"].copy()
    small["bert-pooler-dense-bias"][1] *= 1e5  # one step of the four is
    norms = [np.sqrt(sum((g[step] ** 2).sum() for g in small.values())) for step in range(len(SCALES))]
    assert [norm > 1 for norm in norms].count(True) < len(norms)
    schedule = Schedule(0.02, 8, 1)
    after, expected = train_steps(VALUES, small, schedule), reference_steps(VALUES, small, schedule, DECAYED)
    for name in VALUES:
        np.testing.assert_allclose(after[name], expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_the_references_can_tell_the_options_apart():
    """Differences far above the tolerances: else the tests above would prove nothing."""
    schedule = Schedule(0.02, 8, 1)
    base = reference_steps(VALUES, GRADIENTS, schedule, DECAYED)
    each = {name: reference_steps({name: VALUES[name]}, {name: GRADIENTS[name]}, schedule, DECAYED)[name] for name in VALUES}
    others = {
        "no bias correction": reference_steps(VALUES, GRADIENTS, schedule, DECAYED, bias_correction=False),
        "no decay": reference_steps(VALUES, GRADIENTS, schedule, DECAYED, weight_decay=0.0),
        "a clip for each parameter": each,
    }
    for what, other in others.items():
        assert max(np.abs(base[name] - other[name]).max() for name in VALUES) > 1e-4, what
    undecayed = reference_steps(VALUES, GRADIENTS, schedule, tuple(VALUES))
    for name in set(VALUES) - set(DECAYED):
        assert np.abs(base[name] - undecayed[name]).max() > 1e-5, name
