"""Writes the page of a run again, and the model cards that its best snapshots lack.

    python3 tools/report.py output/model_save-2021-06-15-08:54:42
    python3 tools/report.py RUN --data_dir data/SENTI --output page.html

A training script writes RUN/report.html itself when it ends; this tool writes it for a run that was cut off, was made by an earlier
version, or whose data has moved. It reads files alone: flags.json, metrics.jsonl, predictions_*.tsv, the snapshots, and the prototypical
scores and the map beside the training records. What is not there is named on the page.
"""

if not __package__:
    import _root  # noqa: F401

import sys

from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.report.card import write_cards
from modeling.report.facts import read_run
from modeling.report.page import write_page


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a training script's run")
    parser.add_argument("--data_dir", help="folder of the run's data, where it has moved (default: as the run was given it)")
    parser.add_argument("--output", metavar="FILE", help="where the page goes (default: RUN/report.html)")
    args = parser.parse_args()
    facts = read_run(args.run, args.data_dir)
    cards = write_cards(facts, replace=False)
    print(write_page(facts, args.output))
    for path in cards:
        print(path)
    for line in facts.missing:
        print(f"missing: {line}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
