"""Parts of SVG drawings: the frame, axes with their ticks, paths, markers. Pure functions.

A drawing is WIDTH units wide: on a telephone a unit is about a pixel, so that its letters can still be read, and a broader screen shows
it larger. Colours are names of the page's style sheet ("s0" to "s7", "ink"), which has them for light and dark screens; dashes and
markers tell apart what colours do not.
"""

import math

from modeling.report.markup import element, words
from modeling.report.scale import tick_labels, ticks

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 360, 50, 350, 10, 40  # LEFT and RIGHT are where the axis ends, TOP and BOTTOM what is left for text
_COLOURS = 8
_DASHES = (None, "6 3", "2 3", "8 3 2 3")
_CORNERS = (  # of the classes' markers behind the first one, which is a circle
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)),
)


def colour_of(place):
    """Colour of the series number `place`."""
    return f"s{place % _COLOURS}"


def dash_of(place):
    """Dashes of the series number `place`: none until the colours begin again."""
    return _DASHES[place // _COLOURS % len(_DASHES)]


def number(value):
    """A coordinate, to a tenth of a unit."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def drawing(height, title, body, width=WIDTH):
    """The element around a drawing; `title` is what it is called where it cannot be seen."""
    box = f"0 0 {width} {number(height)}"
    return element("svg", element("title", words(title)), *body, viewBox=box, role="img", aria_label=title)


def text(x, y, shown, anchor="middle", class_=None, transform=None):
    """Words at (x, y)."""
    return element("text", words(shown), x=number(x), y=number(y), text_anchor=anchor, class_=class_, transform=transform)


def path(d, class_, dash=None, title=None):
    """A path; `title` is shown when it is pointed at."""
    return element("path", element("title", words(title)) if title else "", class_=class_, d=d, stroke_dasharray=dash)


def line_path(points):
    """The `d` of a line through (x, y) points; a coordinate that is not finite interrupts it."""
    parts, pen = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            parts.append(f"{pen}{number(x)} {number(y)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def marker(place, x, y, size):
    """The `d` of the marker of class number `place` around (x, y), `size` from its middle to its edge."""
    shape = place % (len(_CORNERS) + 1)
    if shape == 0:
        r, across = number(size), number(2 * size)
        return f"M{number(x - size)} {number(y)}a{r} {r} 0 1 0 {across} 0a{r} {r} 0 1 0 -{across} 0z"
    return line_path([(x + size * a, y + size * b) for a, b in _CORNERS[shape - 1]]) + "z"


def x_axis(x, y, name, whole=False):
    """Line, ticks and name of a horizontal axis: `Scale` x at height y."""
    marks = ticks(x.low, x.high, 5, whole)
    body = [path(f"M{number(x.start)} {number(y)}H{number(x.end)}", "axis")]
    for mark, label in zip(marks, tick_labels(marks)):
        body += [path(f"M{number(x(mark))} {number(y)}v4", "axis"), text(x(mark), y + 16, label)]
    return [*body, text((x.start + x.end) / 2, y + 33, name, class_="name")]


def y_axis(y, left, right, name=None):
    """Line, ticks, grid to `right` and name of a vertical axis: `Scale` y at `left`."""
    marks = ticks(y.low, y.high)
    body = [path(f"M{number(left)} {number(y.end)}V{number(y.start)}", "axis")]
    for mark, label in zip(marks, tick_labels(marks)):
        body += [path(f"M{number(left)} {number(y(mark))}H{number(right)}", "grid"), text(left - 6, y(mark) + 4, label, "end")]
    if name:
        turned = f"translate(12 {number((y.start + y.end) / 2)}) rotate(-90)"
        body.append(text(0, 0, name, class_="name", transform=turned))
    return body


def _swatch(shape):
    return element("svg", shape, class_="swatch", viewBox="0 0 24 10", aria_hidden="true")


def line_swatch(class_, dash=None):
    """A piece of a line, for a legend."""
    return _swatch(path("M1 5H23", class_, dash))


def marker_swatch(place, class_):
    """A class's marker, for a legend."""
    return _swatch(path(marker(place, 12, 5, 4), class_))
