"""Measures beyond accuracy: macro F1, balanced accuracy, Matthews correlation and calibration error with their intervals, a table by class,
and a reliability diagram."""

from modeling.report.charts import reliability_diagram
from modeling.report.curves import figure
from modeling.report.markup import Number, element, table, words
from modeling.report.results import SPLITS
from modeling.report.svg import line_swatch
from modeling.run.held_out import title_of
from modeling.run.measures import BINS, FURTHER, LEVEL, RESAMPLES, TITLES, ClassMeasures


def measure_rows(result):
    """The further measures of an evaluation as (header, rows) for `table`; None if a run of an earlier version has measured it.

    Args:
        result: a row of metrics.jsonl.
    """
    intervals = result.get("intervals", {})
    rows = []
    for name in FURTHER:
        if name in result:
            interval = "{:.3f} to {:.3f}".format(*intervals[name]) if name in intervals else ""
            rows.append([TITLES[name], Number(f"{result[name]:.4f}"), Number(interval)])
    return (["measure", "value", f"{100 * LEVEL:.0f} % interval"], rows) if rows else None


def class_rows(result):
    """Precision, recall, F1 and rows of each label as (header, rows) for `table`; None as for `measure_rows`."""
    classes = result.get("by_class")
    if not classes:
        return None
    names = [name for name in ClassMeasures._fields if name != "support"]
    rows = [[label, *(Number(f"{values[name]:.4f}") for name in names), values["support"]] for label, values in classes.items()]
    return ["label", "precision", "recall", "F1", "rows"], rows


def _diagram(split, bins, error):
    chart = reliability_diagram(f"Reliability on {split}: share of right predictions by confidence", bins)
    known = "" if error is None else f" The calibration error is the mean distance of the bars to the line, weighted by rows: {error:.4f}."
    note = f"{BINS} bins of equal width; the bars below are the rows of each bin.{known} Bars below the line: the model is too confident."
    return figure(f"Reliability, {split}", chart, [(line_swatch("line ink", "4 3"), "a calibrated model")], note)


def measures_section(run):
    """The section as markup; "" for a run without these measures and without predictions."""
    tables, figures = [], []
    for split in SPLITS:
        result, summary = run.result(split) or {}, run.predictions.get(split)
        for found, about in ((measure_rows(result), ""), (class_rows(result), ", by label")):
            if found:
                tables.append(table(*found, caption=title_of(split) + about))
        if summary is not None and summary.reliability.count.any():
            figures.append(_diagram(title_of(split), summary.reliability, result.get("calibration_error")))
    if not tables and not figures:
        return ""
    note = (
        f"The intervals are percentiles of {RESAMPLES:,} bootstrap resamples of the rows, drawn within each domain. Cross-entropy and "
        "calibration error have none."
    )
    parts = [element("h2", "Further measures", id="measures"), element("div", *tables, class_="matrices")]
    with_intervals = any((run.result(split) or {}).get("intervals") for split in SPLITS)
    parts += [element("p", words(note), class_="note")] if with_intervals else []
    return element("section", *parts, element("div", *figures, class_="charts"))
