"""The charts of a report as SVG text: line charts over the steps, histograms, and a map of the samples. Pure functions."""

import math
from typing import NamedTuple, Optional

import numpy as np

from modeling.report.markup import element, words
from modeling.report.scale import Scale, finite, pick, thin, value_range
from modeling.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    colour_of,
    drawing,
    line_path,
    marker,
    number,
    path,
    text,
    x_axis,
    y_axis,
)

MOST_POINTS = 400  # of a line
MOST_MARKS = 2000  # samples in a map
_HISTOGRAM = 72  # height of one among several
_LINE, _NAME = 36, 48  # height of a group of dots, and characters of its name
_STRIP = 34  # height of the numbers of rows below a reliability diagram


class Line(NamedTuple):
    """A series of a line chart. xs and ys have equal length. Numbers that are not finite interrupt the line."""

    name: str
    xs: list
    ys: list
    colour: str = "s0"
    dash: Optional[str] = None
    marks: bool = False  # a dot at each point, whose value appears on hover
    wide: bool = False

    @property
    def class_(self):
        """The line's classes in the style sheet."""
        return f"line {self.colour}{' wide' if self.wide else ''}"


def line_chart(title, lines, y_name=None, references=(), y_range=None, height=210, x_name="step"):
    """Draws lines over the steps.

    Args:
        title: the accessible name of the drawing, for screen readers.
        lines: list of `Line`; each is thinned to MOST_POINTS points.
        references: (name, value) of horizontal lines.
        y_range: (low, high), or None for the range of the values.
    """
    drawn = [(line, *thin(line.xs, line.ys, MOST_POINTS)) for line in lines]
    low, high = y_range or value_range([y for _, _, ys in drawn for y in ys] + [value for _, value in references])
    x_low, x_high = value_range([x for _, xs, _ in drawn for x in xs], 0.0)
    x = Scale(0.0 if 0 < x_low < 0.2 * x_high else x_low, x_high, LEFT, RIGHT)
    y = Scale(low, high, height - BOTTOM, TOP)
    body = [*y_axis(y, LEFT, RIGHT, y_name), *x_axis(x, y.start, x_name, whole=True)]
    for name, value in references:
        if low <= value <= high:
            body.append(path(f"M{LEFT} {number(y(value))}H{RIGHT}", "reference", title=f"{name}: {value:.4f}"))
    for line, xs, ys in drawn:
        points = [(x(a), y(min(max(b, low), high)) if math.isfinite(b) else math.nan) for a, b in zip(xs, ys)]
        body.append(path(line_path(points), line.class_, line.dash, line.name))
        if line.marks or len(points) == 1:
            for (a, b), step, value in zip(points, xs, ys):
                if math.isfinite(b):
                    told = element("title", words(f"{line.name}, {x_name} {step:,.6g}: {value:.4f}"))
                    body.append(element("circle", told, class_=f"mark {line.colour}", cx=number(a), cy=number(b), r=3))
    return drawing(height, title, body)


def histograms(title, groups, x_name, bins=30):
    """Draws histograms that share one x axis, each with its mean.

    Args:
        groups: list of (name, float [N], colour), one per histogram, from top to bottom.
    """
    groups = [(name, np.asarray(values, np.float64), colour) for name, values, colour in groups if len(values)]
    low, high = value_range([edge for _, values, _ in groups for edge in (values.min(), values.max())], 0.0)
    edges, x, body = np.linspace(low, high, bins + 1), Scale(low, high, LEFT, RIGHT), []
    for place, (name, values, colour) in enumerate(groups):
        counts, above = np.histogram(values, edges)[0], TOP + _HISTOGRAM * place
        y, mean = Scale(0, counts.max(), above + _HISTOGRAM, above + 24), float(values.mean())
        for count, left, right in zip(counts.tolist(), edges.tolist(), edges.tolist()[1:]):
            if count:
                told = element("title", words(f"{name}, {left:.4f} to {right:.4f}: {count:,} samples"))
                box = {"x": x(left), "y": y(count), "width": x(right) - x(left) - 0.6, "height": y(0) - y(count)}
                body.append(element("rect", told, class_=f"bar {colour}", **{key: number(value) for key, value in box.items()}))
        body.append(path(f"M{LEFT} {number(y.start)}H{RIGHT}", "axis"))
        body.append(path(f"M{number(x(mean))} {number(y.start)}V{number(y.end - 2)}", "mean", title=f"mean {mean:.4f}"))
        body.append(text(LEFT, above + 16, name, "start", class_="name"))
        body.append(text(RIGHT, above + 16, f"{len(values):,} samples, mean {mean:.4f}", "end"))
        body += [text(LEFT - 6, y.end + 4, f"{counts.max():,}", "end"), text(LEFT - 6, y.start + 1, "0", "end")]
    bottom = TOP + _HISTOGRAM * len(groups)
    return drawing(bottom + BOTTOM, title, body + x_axis(x, bottom, x_name))


def dot_chart(title, groups, x_name, intervals=None):
    """Draws one line per group: its name, a dot per value and a mark at the mean.

    Args:
        groups: list of (name, [(name of a value, value)]), from top to bottom, each with a value.
        intervals: dict of name of a group -> (low, high), the interval of its mean; ends that are not numbers are not drawn.
    """
    intervals = {name: ends for name, ends in (intervals or {}).items() if len(finite(ends)) == 2}
    numbers = [value for _, values in groups for _, value in values] + [end for ends in intervals.values() for end in ends]
    low, high = value_range(numbers, 0.08)
    x, body, bottom = Scale(low, high, LEFT, RIGHT), [], TOP + _LINE * len(groups)
    for place, (name, values) in enumerate(groups):
        y = TOP + _LINE * place + 24
        shown = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
        body += [path(f"M{LEFT} {number(y)}H{RIGHT}", "grid"), text(LEFT, y - 10, shown, "start", class_="name")]
        mean = sum(value for _, value in values) / len(values)
        body.append(path(f"M{number(x(mean))} {number(y - 7)}v14", "mean", title=f"{name}: mean {mean:.4f}"))
        if name in intervals:
            ends = intervals[name]
            told = f"{name}: {ends[0]:.4f} to {ends[1]:.4f}"
            body.append(path(f"M{number(x(ends[0]))} {number(y)}H{number(x(ends[1]))}", "mean", title=told))
        for told, value in values:
            dot = element("title", words(f"{told}: {value:.4f}"))
            body.append(element("circle", dot, class_=f"mark {colour_of(place)}", cx=number(x(value)), cy=number(y), r=3.5))
    return drawing(bottom + BOTTOM, title, body + x_axis(x, bottom, x_name))


def reliability_diagram(title, bins, height=236):
    """Draws the share of right predictions by confidence, next to the diagonal of a calibrated model, and below it the number of rows.

    Args:
        bins: `Reliability` of at least one row.
    """
    count = len(bins.count)
    floor, strip = height - BOTTOM - _STRIP - 12, height - BOTTOM
    x, y = Scale(0.0, 1.0, LEFT, RIGHT), Scale(0.0, 1.0, floor, TOP)
    rows = Scale(0, max(1, int(bins.count.max())), strip, strip - _STRIP)
    body = y_axis(y, LEFT, RIGHT, "share that is right")
    for place, (number_of_rows, confidence, right) in enumerate(zip(*map(np.ndarray.tolist, bins))):
        if not number_of_rows:
            continue
        low, high = place / count, (place + 1) / count
        share = right / number_of_rows
        told = f"confidence {low:.2f} to {high:.2f}: {number_of_rows:,} rows, mean {confidence / number_of_rows:.4f}, {share:.4f} right"
        for scale, value, class_ in ((y, share, "bar s0"), (rows, number_of_rows, "bar muted")):
            box = {"x": x(low), "y": scale(value), "width": x(high) - x(low) - 0.8, "height": scale.start - scale(value)}
            shape = {key: number(size) for key, size in box.items()}
            body.append(element("rect", element("title", words(told)), class_=class_, **shape))
    body.append(path(f"M{LEFT} {number(y(0))}L{RIGHT} {number(y(1))}", "line ink", "4 3", "a calibrated model"))
    body += [path(f"M{LEFT} {number(floor)}H{RIGHT}", "axis"), text(LEFT - 6, strip + 1, "0", "end")]
    body.append(text(LEFT - 6, strip - _STRIP + 6, f"{rows.high:,}", "end"))
    return drawing(height, title, body + x_axis(x, strip, "confidence (probability of the predicted label)"))


def embedding_map(title, drawn, domains, labels, height=360):
    """Draws the training samples and the prototypes in a plane: colour by domain, marker by class, prototypes as large markers.

    Args:
        drawn: `EmbeddingMap`. At most MOST_MARKS of its samples are shown, evenly spread over the rows.
        domains, labels: names, in the order of their ids.
    """
    rows = np.array(pick(len(drawn.coordinates), MOST_MARKS))
    samples, prototypes = drawn.coordinates[rows].astype(np.float64), drawn.prototypes.astype(np.float64)
    spans = [value_range(finite([*samples[:, axis].tolist(), *prototypes[..., axis].ravel().tolist()])) for axis in (0, 1)]
    x, y = Scale(*spans[0], LEFT, RIGHT), Scale(*spans[1], height - BOTTOM, TOP)
    names = [f"component {axis + 1} ({100 * share:.0f} % of the variance)" for axis, share in enumerate(drawn.explained)]
    body = [*y_axis(y, LEFT, RIGHT, names[1]), *x_axis(x, y.start, names[0])]
    cells = [(domain, label) for domain in range(len(domains)) for label in range(len(labels))]
    for domain, label in cells:
        here = samples[(drawn.domain[rows] == domain) & (drawn.label[rows] == label)]
        body.append(_marks("point", here, domain, label, f"{domains[domain]}, {labels[label]}: {len(here):,} samples", x, y))
    for domain, label in cells:  # after the samples, so that they are on top
        told = f"prototype of {domains[domain]}, {labels[label]}"
        body.append(_marks("prototype", prototypes[domain, label][None], domain, label, told, x, y))
    return drawing(height, title, body)


def _marks(kind, points, domain, label, told, x, y):
    """All marks of one domain and class as one path, or "" if there are none."""
    size = 7.0 if kind == "prototype" else 2.4
    shapes = [marker(label, x(a), y(b), size) for a, b in points.tolist() if math.isfinite(a) and math.isfinite(b)]
    return path("".join(shapes), f"{kind} {colour_of(domain)}", title=told) if shapes else ""
