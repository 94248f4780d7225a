"""modeling/report/scale.py: ticks are round, lie on the axis and can be told apart."""

import math
import random

import pytest

from modeling.report.scale import Scale, pick, thin, tick_labels, ticks, value_range


def test_scale():
    scale = Scale(2.0, 6.0, 100.0, 20.0)
    assert [scale(value) for value in (2, 4, 6, 7)] == [100, 60, 20, 0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 540, [0, 200, 400]),
        (0.21, 0.69, [0.3, 0.4, 0.5, 0.6]),
        (-3.1, 2.9, [-2, 0, 2]),
        (0, 5e-5, [0, 1e-5, 2e-5, 3e-5, 4e-5, 5e-5]),
        (1e6, 1e6 + 7, [1e6, 1e6 + 2, 1e6 + 4, 1e6 + 6]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_of_any_range():
    draw = random.Random(5)
    for _ in range(2000):
        low = draw.choice((0.0, draw.uniform(-1, 1) * 10.0 ** draw.randint(-8, 8)))
        high = low + draw.uniform(0.5, 1) * 10.0 ** draw.randint(-4, 8) * max(abs(low), 1e-9)
        marks, labels = ticks(low, high), tick_labels(ticks(low, high))
        assert 2 <= len(marks) <= 6, (low, high, labels)
        assert len(set(labels)) == len(marks), (low, high, labels)
        assert all(low - 1e-6 * (high - low) <= mark <= high + 1e-6 * (high - low) for mark in marks)
        assert [float(label.replace(",", "")) for label in labels] == pytest.approx(marks, rel=1e-6, abs=1e-9 * (high - low))


def test_whole_ticks_and_labels():
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert tick_labels([1.0, 2.0, 3.0]) == ["1", "2", "3"]
    assert tick_labels([0, 1e-5, 2e-5]) == ["0", "1e-5", "2e-5"]
    assert tick_labels([0, 5e-6, 1e-5, 1.5e-5])[-1] == "1.5e-5"
    assert tick_labels([-0.0, 1000.0, 2000.0]) == ["0", "1,000", "2,000"]
    assert tick_labels([0.5]) == ["0.5"]
    assert tick_labels([]) == []


def test_value_range():
    assert value_range([1, math.nan, 3, None, math.inf]) == pytest.approx((0.9, 3.1))
    assert value_range([5, 10], 0.0, zero=True) == (0, 10)
    for values in ([], [0.0], [2.0, 2.0], [math.nan], [-1e-9]):
        low, high = value_range(values)
        assert low < high
        assert all(low <= value <= high for value in values if value == value)


def test_thin():
    assert thin([1, 2, 3], [4, 5, 6], 3) == ([1, 2, 3], [4, 5, 6])
    xs, ys = thin(list(range(10)), [0, 2, 4, math.nan, 8, 10, math.nan, math.nan, math.nan, 5], 4)
    assert xs == [1, 4, 9]
    assert ys == [2, 9, 5]
    xs, ys = thin(list(range(1000003)), [1.0] * 1000003, 400)
    assert len(xs) <= 400
    assert set(ys) == {1.0}


def test_pick():
    assert pick(5, 7) == [0, 1, 2, 3, 4]
    assert pick(10, 2) == [2, 7]
    picked = pick(1000003, 2000)
    assert len(set(picked)) == 2000
    assert picked == sorted(picked)
    assert picked[-1] < 1000003
