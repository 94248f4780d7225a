"""The page of a comparison of runs, from the elements of the reports."""

from modeling.report.charts import dot_chart
from modeling.report.comparison import NOTES, Comparison, group_name, group_rows, paired_rows, run_rows
from modeling.report.curves import figure
from modeling.report.markup import element, table, words
from modeling.report.page import document


def _figure(comparison, split):
    groups = []
    for group in comparison.groups:
        values = [(run.folder, run.result(split)["accuracy"]) for run in group.runs if "accuracy" in (run.result(split) or {})]
        if values:
            groups.append((group_name(comparison, group), values))
    if not groups:
        return ""
    what = f"{'best dev' if split == 'dev' else split} accuracy"
    return figure(what.capitalize(), dot_chart(f"{what} of each run by group", groups, what), (), "One dot per run, a mark at the mean.")


def comparison_page(comparison: Comparison) -> str:
    """The page as text."""
    runs = sum(len(group.runs) for group in comparison.groups)
    title = f"Comparison of {runs} run{'s' if runs > 1 else ''}"
    differ = ", ".join(f"--{name}" if name != "script" else name for name in comparison.differing)
    header = element("header", element("h1", words(title)), element("p", words(f"Differing settings: {differ or 'only the seed'}.")))
    figures = element("div", *(_figure(comparison, split) for split in ("test", "dev")), class_="charts")
    sections = [
        element(
            "section", element("h2", "By settings"), table(*group_rows(comparison)), element("p", words(NOTES[0]), class_="note"), figures
        ),
        element("section", element("h2", "Runs"), table(*run_rows(comparison))),
    ]
    tests = paired_rows(comparison)
    if tests:
        note = element("p", words(NOTES[1]), class_="note")
        sections.append(element("section", element("h2", "Paired tests"), table(*tests), note))
    return document(title, header, *sections)
