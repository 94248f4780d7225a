"""Writes the report of a run again, and the missing model cards of its best snapshots.

    python3 tools/report.py output/model_save-2021-06-15-08:54:42
    python3 tools/report.py RUN --data_dir data/SENTI --output page.html

A training script writes RUN/report.html when it ends. Use this tool if a run was interrupted, was made by an earlier version, or its
data has moved. The tool reads flags.json, metrics.jsonl, predictions_*.tsv, the snapshots, and the prototypical scores and the map in the
folder of the training records. The report lists the files that are missing.
"""

if not __package__:
    import _root  # noqa: F401

import os
import sys

from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.report.card import write_cards
from modeling.report.facts import read_run
from modeling.report.page import REPORT_FILE, check_page, write_page
from ofrecord_util.escaping import say


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--data_dir", help="folder of the data, if it has moved (default: --data_dir of the run)")
    parser.add_argument("--output", metavar="FILE", help="file for the report (default: RUN/report.html)")
    args = parser.parse_args()
    own = os.path.realpath(os.path.join(args.run, REPORT_FILE))  # what is written without the flag
    if args.output is not None and os.path.realpath(args.output) != own:
        check_page(args.output, "--output", [args.run, *filter(None, [args.data_dir])])
    facts = read_run(args.run, args.data_dir)
    cards = write_cards(facts, replace=False)
    say(write_page(facts, args.output))
    for path in cards:
        say(path)
    for line in facts.missing:
        say(f"missing: {line}", sys.stderr)


if __name__ == "__main__":
    run(main)
