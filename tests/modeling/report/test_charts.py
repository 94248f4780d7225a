"""modeling/report/{markup,svg,charts}.py: what they draw is XML, lies in the frame, and shows the numbers it was given."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from modeling.report.charts import MOST_MARKS, MOST_POINTS, Line, dot_chart, embedding_map, histograms, line_chart, reliability_diagram
from modeling.report.markup import Markup, Number, element, table, words
from modeling.report.scale import tick_labels, ticks
from modeling.report.svg import BOTTOM, LEFT, RIGHT, TOP, line_path, marker, number
from modeling.run.measures import reliability
from ofrecord_util.scores import EmbeddingMap

EVIL = "<script>alert('&\"')</script>"


def parsed(markup):
    return ElementTree.fromstring(markup)


def of_class(tree, name):
    return [node for node in tree.iter() if name in (node.get("class") or "").split()]


def test_markup():
    node = parsed(element("a", words(EVIL), href=EVIL, class_="b", stroke_width=2, id=None))
    assert node.text == EVIL
    assert node.attrib == {"href": EVIL, "class": "b", "stroke-width": "2"}


def test_table():
    box = parsed(table([EVIL, "n", "share"], [["a", 12345, Number("0.5")], [Markup("<b>x</b>"), "", ""]], caption=EVIL))
    assert box.get("aria-label") == EVIL
    assert box.find("table/caption").text == EVIL
    cells = [["".join(cell.itertext()) for cell in row] for row in box.iter("tr")]
    assert cells == [[EVIL, "n", "share"], ["a", "12,345", "0.5"], ["x", "", ""]]
    assert [[cell.get("class") for cell in row] for row in box.iter("tr")] == [[None, "number", "number"]] * 3


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (-0.04, "0"), (12.345, "12.3"), (100.0, "100"), (-3.25, "-3.2")])
def test_number(value, text):
    assert number(value) == text


def test_line_path():
    assert line_path([(0, 1), (2, 3.14159), (4, math.nan), (5, 6), (7, 8)]) == "M0 1L2 3.1M5 6L7 8"
    assert line_path([]) == ""


def test_line_chart():
    lines = [
        Line(EVIL, [1, 2, 3, 4], [0.25, math.nan, 1.0, 0.5], marks=True),
        Line("long", list(range(1, 5001)), [0.5] * 5000),
        Line("one point", [3], [0.75]),
    ]
    tree = parsed(line_chart(EVIL, lines, "y", [("level", 0.875), ("outside", 2.0)], (0.0, 1.0), height=210))
    assert tree.get("aria-label") == EVIL
    assert tree.get("role") == "img"
    assert [mark.find("title").text for mark in of_class(tree, "mark")] == [
        f"{EVIL}, step 1: 0.2500",
        f"{EVIL}, step 3: 1.0000",
        f"{EVIL}, step 4: 0.5000",
        "one point, step 3: 0.7500",
    ]
    first, long, _ = of_class(tree, "line")
    assert first.get("d").count("M") == 2
    assert long.get("d").count("L") < MOST_POINTS
    assert [node.find("title").text for node in of_class(tree, "reference")] == ["level: 0.8750"]
    tops = {mark.find("title").text[-6:]: float(mark.get("cy")) for mark in of_class(tree, "mark")}
    assert tops["1.0000"] == TOP
    assert tops["0.2500"] == pytest.approx(0.75 * (210 - BOTTOM) + 0.25 * TOP, abs=0.06)
    for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", long.get("d") + first.get("d")):
        assert LEFT <= float(x) <= RIGHT
        assert TOP <= float(y) <= 210 - BOTTOM


@pytest.mark.parametrize("lines", [[], [Line("none", [], [])], [Line("nan", [1, 2], [math.nan, math.inf])], [Line("one", [0], [0.0])]])
def test_line_chart_of_nothing(lines):
    assert "nan" not in re.sub("<title>.*?</title>", "", line_chart("t", lines)).lower()


def test_histograms():
    values = [np.array([0.1, 0.1, 0.9], np.float32), np.array([0.5], np.float32), np.array([], np.float32)]
    tree = parsed(histograms("t", [("a", values[0], "s0"), (EVIL, values[1], "s1"), ("none", values[2], "s2")], "score", bins=4))
    told = [bar.find("title").text for bar in of_class(tree, "bar")]
    assert [line.rsplit(": ", 1)[1] for line in told] == ["2 samples", "1 samples", "1 samples"]
    assert told[2].startswith(EVIL)
    heights = [float(bar.get("height")) for bar in of_class(tree, "bar")]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.11)
    assert [node.find("title").text for node in of_class(tree, "mean")] == ["mean 0.3667", "mean 0.5000"]


def test_histogram_of_equal_scores():
    assert of_class(parsed(histograms("t", [("a", np.ones(5, np.float32), "s0")], "score")), "bar")


def test_markers_differ_and_keep_their_place():
    shapes = [marker(place, 10, 20, 3) for place in range(4)]
    assert len(set(shapes)) == 4
    assert marker(4, 10, 20, 3) == shapes[0]


def embedding(count, domains=2, labels=3):
    draw = np.random.RandomState(count)
    prototypes = draw.randn(domains, labels, 2).astype(np.float32)
    prototypes[1, 2] = np.nan
    ids = np.arange(count, dtype=np.int32)
    return EmbeddingMap(draw.randn(count, 2).astype(np.float32), ids % domains, ids % labels, prototypes, np.array([0.5, 0.25]))


def test_embedding_map():
    tree = parsed(embedding_map("t", embedding(13), ("a", EVIL), ("x", "y", "z")))
    told = [node.find("title").text for node in of_class(tree, "point")]
    assert len(told) == 6
    assert sum(int(line.rsplit(": ", 1)[1].split()[0]) for line in told) == 13
    assert [node.find("title").text for node in of_class(tree, "prototype")] == [
        "prototype of a, x",
        "prototype of a, y",
        "prototype of a, z",
        f"prototype of {EVIL}, x",
        f"prototype of {EVIL}, y",
    ]
    assert "component 1 (50 % of the variance)" in "".join(tree.itertext())


def test_a_map_of_very_many_samples_is_thinned():
    chart = embedding_map("t", embedding(100_003), ("a", "b"), ("x", "y", "z"))
    told = re.findall(r": ([\d,]+) samples", chart)
    assert sum(int(count.replace(",", "")) for count in told) == MOST_MARKS
    assert len(chart) < 200_000


def test_dots_with_intervals():
    """An interval runs from end to end through the mean and stays in the frame, also where it is wider than the dots."""
    groups = [(EVIL, [("one", 1.0), ("two", 3.0)]), ("alone", [("three", 2.0)])]
    tree = parsed(dot_chart("title", groups, "x", {EVIL: (-4.0, 8.0), "alone": (math.nan, math.nan)}))
    marks = of_class(tree, "mean")
    assert [mark.find("title").text for mark in marks] == [f"{EVIL}: mean 2.0000", f"{EVIL}: -4.0000 to 8.0000", "alone: mean 2.0000"]
    (mean,), (low, high) = ([float(word) for word in re.findall(r"[MH](-?[\d.]+)", mark.get("d"))] for mark in marks[:2])
    assert LEFT <= low < mean < high <= RIGHT
    assert (low + high) / 2 == pytest.approx(mean, abs=0.1)
    dots = of_class(parsed(dot_chart("title", groups, "x")), "mark")
    assert len(dots) == 3


def test_reliability_diagram():
    """Bars in the frame, as high as the share of right predictions, and the numbers in words."""
    bins = reliability(np.array([0.52, 0.53, 0.52, 0.51, 0.99, 0.97]), np.array([True, False, False, False, True, True]))
    tree = parsed(reliability_diagram(EVIL, bins))
    shares, rows = of_class(tree, "s0"), of_class(tree, "muted")
    told = ["confidence 0.47 to 0.53: 4 rows, mean 0.5200, 0.2500 right", "confidence 0.93 to 1.00: 2 rows, mean 0.9800, 1.0000 right"]
    assert [bar.find("title").text for bar in shares] == told
    heights = [float(bar.get("height")) for bar in shares]
    assert heights[0] / heights[1] == pytest.approx(0.25, abs=0.01)
    heights = [float(bar.get("height")) for bar in rows]
    assert heights[1] / heights[0] == pytest.approx(0.5, abs=0.02)
    for bar in (*shares, *rows):
        assert LEFT <= float(bar.get("x")) < float(bar.get("x")) + float(bar.get("width")) <= RIGHT
        assert TOP <= float(bar.get("y")) < float(bar.get("y")) + float(bar.get("height")) <= 236 - BOTTOM + 0.1


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.002), (0.9990, 0.9999), (0.0, 12345.0), (-0.0009, 0.0009), (0.69, 0.6931)])
def test_the_name_of_an_axis_is_beside_its_ticks(low, high):
    """Figures are some 0.62 of the font's 11 units wide; the turned name ends 16 units from the edge."""
    widest = max(len(label) for label in tick_labels(ticks(low, high)))
    assert LEFT - 6 - 0.62 * 11 * widest >= 16
