"""Tables and page of benchmarks/learners.py: accuracies with intervals, and paired differences."""

import math
from typing import NamedTuple, Optional

import numpy as np

from modeling.report.charts import dot_chart
from modeling.report.curves import figure
from modeling.report.markup import Number, element, table, words
from modeling.report.page import document
from modeling.run.measures import mean_interval

MEAN = "mean"  # name of the mean over the domains
PAIRED_NOTE = (
    "Differences in points, paired over the cells (draw and seed) that both arms have finished, with a 95 % t interval over these cells. "
    "Cells of one draw share their training rows, so the interval is too narrow where draws differ more than seeds. The last interval is "
    "that over the domains, of the means over the cells: it says how far the difference holds for other domains like these, and not for "
    "another draw or seed."
)
MEAN_NOTE = "Accuracy on test in per cent: mean over the cells (draw and seed), for the mean of the domains with a 95 % t interval."


class Table(NamedTuple):
    """A table with a chart: rows of text cells, which begin with the name of the row."""

    title: str
    header: list
    rows: list
    note: str = ""
    points: Optional[dict] = None  # name of a row -> list of (name of a point, value)
    intervals: Optional[dict] = None  # name of a row -> (low, high)
    axis: str = ""


def interval_text(mean, low, high, sign=""):
    """ "78.1 [77.2, 79.0]", without the brackets if there is no interval."""
    if math.isnan(low):
        return f"{mean:{sign}.1f}"
    return f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def with_mean(accuracy):
    """The accuracies by domain, and their mean."""
    return {**accuracy, MEAN: float(np.mean(list(accuracy.values())))}


def cell_name(cell):
    """ "16-42, seed 43"."""
    return ", ".join([str(cell[0]), *(f"seed {part}" for part in cell[1:])])


def accuracy_table(results, domains, title="Accuracy"):
    """Accuracies of arms.

    Args:
        results: dict of arm -> dict of cell -> `Result`.
        domains: list of the domains that have a column.
    """
    rows, points, intervals = [], {}, {}
    for arm, found in results.items():
        values = [with_mean(result.accuracy) for result in found.values()]
        whole = mean_interval([value[MEAN] for value in values])
        points[arm] = [(cell_name(cell), value[MEAN]) for cell, value in zip(found, values)]
        intervals[arm] = whole[1:]
        cells = [f"{np.mean([value[domain] for value in values]):.1f}" for domain in domains]
        passes, seconds = (np.mean([getattr(result, name) for result in found.values()]) for name in ("passes", "seconds"))
        rows.append([arm, *cells, interval_text(*whole), str(len(found)), f"{passes:,.0f}", f"{seconds:.0f}"])
    header = ["arm", *domains, MEAN, "cells", "sample passes", "seconds"]
    return Table(title, header, rows, MEAN_NOTE, points, intervals, "accuracy on test, per cent")


def paired_differences(results, arm, baseline):
    """Differences of an arm to another one in the cells that both have: dict of cell -> dict of domain or `MEAN` -> points."""
    ours, theirs = results.get(arm, {}), results.get(baseline, {})
    both = {cell: (with_mean(ours[cell].accuracy), with_mean(theirs[cell].accuracy)) for cell in ours if cell in theirs}
    return {cell: {name: one[name] - two[name] for name in one} for cell, (one, two) in both.items()}


def paired_table(results, domains, baseline):
    """The `Table` of the differences of all other arms to one of them; None if no cell can be compared."""
    rows, points, intervals = [], {}, {}
    for arm in results:
        found = paired_differences(results, arm, baseline)
        if arm == baseline or not found:
            continue
        columns = [mean_interval([value[name] for value in found.values()]) for name in (*domains, MEAN)]
        over_domains = mean_interval([mean for mean, _, _ in columns[:-1]])
        rows.append([arm, *(interval_text(*column, sign="+") for column in (*columns, over_domains)), str(len(found))])
        points[arm] = [(cell_name(cell), value[MEAN]) for cell, value in found.items()]
        intervals[arm] = columns[-1][1:]
    header = ["arm", *domains, MEAN, "mean, interval over domains", "cells"]
    title = f"Difference to {baseline}"
    return Table(title, header, rows, PAIRED_NOTE, points, intervals, f"points above {baseline}") if rows else None


def rates_table(rates):
    """The chosen rates of the stages, with what each value of the grid reads on dev."""
    rows = []
    for name, chosen in sorted(rates.items()):
        tried = ", ".join("{}: {:.3f} ({:.3f})".format(one["value"], one["accuracy"], one["cross_entropy"]) for one in chosen["tried"])
        rows.append([name, f"{chosen['flag']} {chosen['value']}", tried])
    note = "Each is that of the last stage in the name; highest accuracy on dev, among equals the lowest cross-entropy."
    return Table("Chosen rates", ["stages", "chosen", "dev accuracy (cross-entropy) of each value"], rows, note)


def markdown(tables):
    """The tables as lines of Markdown."""
    lines = []
    for one in tables:
        lines += [f"### {one.title}", "", f"| {' | '.join(one.header)} |", "| --- " * len(one.header) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in one.rows]
        lines += ["", *([one.note, ""] if one.note else [])]
    return lines


def page(title, about, tables):
    """The page as text.

    Args:
        title: str.
        about: a sentence below it.
        tables: list of `Table`.
    """
    sections = []
    for one in tables:
        chart = ""
        if one.points:
            groups = [(name, values) for name, values in one.points.items() if values]
            drawn = dot_chart(one.title, groups, one.axis, one.intervals)
            chart = element("div", figure(one.title, drawn, (), "One dot per cell, mean and 95 % interval."), class_="charts wide")
        cells = [[row[0], *map(Number, row[1:])] for row in one.rows]
        note = element("p", words(one.note), class_="note")
        sections.append(element("section", element("h2", words(one.title)), table(one.header, cells), note, chart))
    return document(title, element("header", element("h1", words(title)), element("p", words(about))), *sections)
