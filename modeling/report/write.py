"""Writes a run's report: curves.png, report.html, and a model card into each best snapshot. Scripts call it before `end_run`."""

from modeling.engine import parallel
from modeling.report.card import write_cards
from modeling.report.curves_png import draw_curves
from modeling.report.facts import read_run
from modeling.report.page import write_page


def write_report(context) -> None:
    """Writes the report of a run from the files in the run's folder and the data.

    Args:
        context: `RunContext` of a training script.
    """
    if not parallel.is_main():
        return
    run = read_run(context.folder.path, scores=context.splits.dataset.scores)
    if context.folder.trained:
        run.states = 0  # they are removed after the report is written
    curves = draw_curves(run)
    if curves is not None:
        context.log(f"curves {curves}")
    write_cards(run)
    context.log(f"report {write_page(run)}")
