"""Scales of charts: from data to the units of a drawing, and the ticks of an axis."""

import math
from typing import NamedTuple


class Scale(NamedTuple):
    """A linear map from [low, high] to [start, end]; low < high."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value):
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def finite(values):
    """The finite numbers among values."""
    return [value for value in values if value is not None and math.isfinite(value)]


def value_range(values, margin=0.05, zero=False):
    """(low, high) around the finite values, low < high.

    Args:
        margin: added on both sides, as a fraction of the range of the values.
        zero: whether the range includes 0. If 0 is an end of the range, that end has no margin.
    """
    values = finite(values) or [0.0]
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        spread = abs(low) * 0.1 or 1.0
        return (low, low + spread) if zero and low == 0 else (low - spread, high + spread)
    extra = margin * (high - low)
    return (low if zero and low == 0 else low - extra, high if zero and high == 0 else high + extra)


def tick_step(low, high, count):
    """The smallest step of the form 1, 2 or 5 times a power of ten with at most `count` steps between low and high."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 5, 10):
        if factor * power >= rough * (1 - 1e-9):
            return factor * power
    return 10 * power


def ticks(low, high, count=5, whole=False):
    """Round numbers from low to high, at most count + 1 of them.

    Args:
        whole: integers only.
    """
    step = tick_step(low, high, count)
    if whole:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def tick_labels(marks):
    """The ticks as text, with as many decimals as distinguish them. Thousands are separated, small numbers have an exponent."""
    step = min((abs(b - a) for a, b in zip(marks, marks[1:])), default=abs(marks[0]) if marks else 1.0) or 1.0
    largest = max(map(abs, marks), default=0.0)
    if 0 < largest < 1e-3:
        exponent = math.floor(math.log10(largest))
        decimals = max(0, exponent - math.floor(math.log10(step) + 1e-9))
        return ["0" if mark == 0 else f"{mark / 10.0**exponent:.{decimals}f}e{exponent}" for mark in marks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{mark + 0.0:,.{decimals}f}" for mark in marks]


def thin(xs, ys, limit):
    """(xs, ys) with at most `limit` points, each the mean of neighbouring points. Values that are not finite are left out.

    A screen could not show more points, and the page stays small.
    """
    if len(xs) <= limit:
        return list(xs), list(ys)
    size = -(-len(xs) // limit)
    groups = [(xs[start : start + size], finite(ys[start : start + size])) for start in range(0, len(xs), size)]
    kept = [(sum(x) / len(x), sum(y) / len(y)) for x, y in groups if y]
    return [x for x, _ in kept], [y for _, y in kept]


def pick(count, limit):
    """At most `limit` row numbers between 0 and count - 1, evenly spread, in ascending order."""
    return list(range(count)) if count <= limit else [int((place + 0.5) * count / limit) for place in range(limit)]
