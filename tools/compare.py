"""Compares runs: which flags differ, the best results on dev and test, mean and spread over seeds, and a paired test.

    python3 tools/compare.py output/lr-2e-5 output/lr-5e-5
    python3 tools/compare.py output/sweep/*/ --html comparison.html

Runs that differ only in --seed form one group. The first run is the baseline: each other run is compared with the baseline's run of the
same seed, or with the first run, by McNemar's exact test on the rows of test (of dev, if a run has no predictions for test).
"""

if not __package__:
    import _root  # noqa: F401

import shutil
import textwrap

from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.report.comparison import NOTES, group_rows, paired_rows, read_comparison, run_rows
from modeling.report.comparison_page import comparison_page
from modeling.report.page import check_page, write_document
from ofrecord_util.escaping import say
from tools.text_table import text_table


def print_comparison(comparison):
    """Prints the tables of a `Comparison`."""
    columns, names = min(shutil.get_terminal_size().columns, 100), len(comparison.differing)
    tables = [(group_rows(comparison), max(1, names), NOTES[0]), (run_rows(comparison), 1 + names, "")]
    tests = paired_rows(comparison)
    tables += [(tests, 3, NOTES[1])] if tests else []
    for number, ((header, rows), left, note) in enumerate(tables):
        lines = [*([""] if number else []), *text_table(header, rows, left)]
        for line in [*lines, "", *textwrap.wrap(note, columns, break_long_words=False)] if note else lines:
            say(line)


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs; the first is the baseline")
    parser.add_argument(
        "--html", metavar="FILE", help="file for a page with the tables and charts; in the folder of a run, its name must end in .html"
    )
    args = parser.parse_args()
    if args.html is not None:
        check_page(args.html, "--html", args.runs)
    comparison = read_comparison(args.runs)
    print_comparison(comparison)
    if args.html is not None:
        say(f"page {write_document(args.html, comparison_page(comparison))}")


if __name__ == "__main__":
    run(main)
