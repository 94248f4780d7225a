"""Parts of SVG drawings: the frame, axes with ticks, paths, markers. Pure functions.

A drawing is WIDTH units wide. On a phone one unit is about one pixel, so that the text is readable; wider screens enlarge the drawing.
Colours are classes of the page's style sheet ("s0" to "s7", "ink"), which defines them for light and dark mode. Dashes and markers
distinguish series that have the same colour.
"""

import math

from modeling.report.markup import element, words
from modeling.report.scale import tick_labels, ticks

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 360, 64, 350, 10, 40  # LEFT and RIGHT are the ends of the axis, TOP and BOTTOM the margins for text
_COLOURS = 8
_DASHES = (None, "6 3", "2 3", "8 3 2 3")
_CORNERS = (  # of the markers of the classes after the first one, which is a circle
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)),
)


def colour_of(place):
    """Colour of series number `place`."""
    return f"s{place % _COLOURS}"


def dash_of(place):
    """Dashes of series number `place`: None until the colours repeat."""
    return _DASHES[place // _COLOURS % len(_DASHES)]


def number(value):
    """A coordinate as text, rounded to a tenth of a unit."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def drawing(height, title, body, width=WIDTH):
    """The element around a drawing. `title` is its accessible name, for screen readers."""
    box = f"0 0 {width} {number(height)}"
    return element("svg", element("title", words(title)), *body, viewBox=box, role="img", aria_label=title)


def text(x, y, shown, anchor="middle", class_=None, transform=None):
    """Text at (x, y)."""
    return element("text", words(shown), x=number(x), y=number(y), text_anchor=anchor, class_=class_, transform=transform)


def path(d, class_, dash=None, title=None):
    """A path. `title` appears on hover."""
    return element("path", element("title", words(title)) if title else "", class_=class_, d=d, stroke_dasharray=dash)


def line_path(points):
    """The attribute `d` of a line through (x, y) points. A coordinate that is not finite interrupts the line."""
    parts, pen = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            parts.append(f"{pen}{number(x)} {number(y)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def marker(place, x, y, size):
    """The attribute `d` of the marker of class number `place`, with centre (x, y) and radius `size`."""
    shape = place % (len(_CORNERS) + 1)
    if shape == 0:
        r, across = number(size), number(2 * size)
        return f"M{number(x - size)} {number(y)}a{r} {r} 0 1 0 {across} 0a{r} {r} 0 1 0 -{across} 0z"
    return line_path([(x + size * a, y + size * b) for a, b in _CORNERS[shape - 1]]) + "z"


def x_axis(x, y, name, whole=False):
    """Line, ticks and name of a horizontal axis. x: `Scale`; y: its height."""
    marks = ticks(x.low, x.high, 5, whole)
    body = [path(f"M{number(x.start)} {number(y)}H{number(x.end)}", "axis")]
    for mark, label in zip(marks, tick_labels(marks)):
        body += [path(f"M{number(x(mark))} {number(y)}v4", "axis"), text(x(mark), y + 16, label)]
    return [*body, text((x.start + x.end) / 2, y + 33, name, class_="name")]


def y_axis(y, left, right, name=None):
    """Line, ticks, grid and name of a vertical axis. y: `Scale`; the grid lines run from `left` to `right`."""
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
    """A short line for a legend."""
    return _swatch(path("M1 5H23", class_, dash))


def marker_swatch(place, class_):
    """The marker of a class for a legend."""
    return _swatch(path(marker(place, 12, 5, 4), class_))
