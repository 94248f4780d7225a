"""modeling/objectives/outer_rule.py in NumPy alone."""

import numpy as np
import pytest

from modeling.objectives.outer_rule import Direction, OuterRule, OuterSchedule


def test_schedules():
    linear, constant = OuterSchedule(0.8, 4), OuterSchedule(0.8, 4, "constant")
    assert [linear.rate(step) for step in range(6)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0, 0.0])
    assert [constant.rate(step) for step in range(3)] == [0.8] * 3
    assert linear.decay_factor(3, 0.5) == 1.0  # the inner loop does not decay what no task reads
    assert OuterSchedule(0.8, 4, weight_decay=0.1).decay_factor(2, 0.5) == pytest.approx((1 - 0.08) * (1 - 0.06))


def test_the_first_step_of_adam_has_the_sign_of_the_gradient():
    weights = {"w": np.array([1.0, -2.0, 3.0], np.float32)}
    changed = OuterRule("adam").step(weights, lambda _: np.array([1e-3, -50.0, 0.0]), 0.01)["w"]
    np.testing.assert_allclose(changed, [0.99, -1.99, 3.0], rtol=0, atol=2e-7)


def test_biases_do_not_decay():
    weights = {"w": np.ones(2, np.float32), "bias-and-LayerNorm": np.ones(2, np.float32)}
    changed = OuterRule("adam", 0.5).step(weights, lambda _: np.zeros(2), 0.1)
    assert changed["w"].tolist() == pytest.approx([0.95, 0.95])
    assert changed["bias-and-LayerNorm"].tolist() == [1.0, 1.0]


def test_the_whole_way_is_the_mean():
    direction, theta = Direction(), np.array([0.1, 1e8], np.float32)
    for phi in ([0.3, 1.0], [0.1, 2.0], [0.2, 6.0]):
        direction.add({"w": np.array(phi, np.float32)})
    changed = OuterRule("sgd").step({"w": theta}, lambda name: theta - direction.mean(name), 1.0)["w"]
    np.testing.assert_array_equal(changed, np.array([0.2, 3.0], np.float32))


def test_the_sum_of_several_processes_is_that_of_one():
    """Bit for bit: process 0 adds up in the order of the tasks. In another order the sum has other bits."""
    draw = np.random.RandomState(3)
    phis = [{"w": (draw.randn(50) * 10.0 ** draw.randint(-9, 9, 50)).astype(np.float32)} for _ in range(5)]
    one, first, other, backwards = (Direction() for _ in range(4))
    for phi in phis:
        one.add(phi)
    for start in range(0, 5, 2):
        first.add(phis[start], lambda value, start=start: [phi["w"] for phi in phis[start : start + 2]])
    other.share(lambda _: first.mean("w") * 5, phis[0], 5)
    for phi in phis[::-1]:
        backwards.add(phi)
    assert (one.count, first.count, other.count) == (5, 5, 5)
    np.testing.assert_array_equal(first.mean("w"), one.mean("w"))
    assert (backwards.mean("w") != one.mean("w")).any()
    np.testing.assert_allclose(other.mean("w"), one.mean("w"), rtol=1e-14)


def test_a_state_continues():
    weights, rule = {"w": np.ones(3, np.float32)}, OuterRule("adam", 0.1)
    weights = rule.step(weights, lambda _: np.array([1.0, -2.0, 1e-6]), 0.1)
    other = OuterRule("adam", 0.1)
    other.restore(rule.state())
    one, two = (each.step(weights, lambda _: np.array([0.5, 2.0, -1.0]), 0.1)["w"] for each in (rule, other))
    np.testing.assert_array_equal(one, two)
