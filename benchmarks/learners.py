"""Measures what the meta step is worth: the learners of this project, and SetFit, beside each other on the same rows (docs/results.md).

    python3 benchmarks/learners.py --part A --model_dir models/uncased_L-6_H-384_A-12_oneflow --data_dir ../shared/data \\
        --output_dir output/learners-A

    A  SST-2, MR and CR together, 16 rows per class and domain; three draws, three seeds
    B  12 domains of FDU-MTL, 50 rows per class and domain; two arms also with all rows
    C  unseen domains of FDU-MTL: train on 8, choose on 2, adapt to 2 with K rows per class
    D  Meta-KD on SENTI with teachers that are often wrong

DATA_DIR contains k-shot-cross, k-shot-single, raw, fdu-mtl and SENTI. Each job runs one script in a separate process with one thread.
Finished jobs do not run again, so the same command continues an interrupted measurement; all arms of one draw and seed come before those
of the next. Each learning rate is chosen once, on the dev split of the first draw with seed 42 (C: on the validation domains); rates.json
has the choice. The arm SetFit needs a Python with setfit in BENCH_SETFIT_PYTHON; without it, the table of part A has figures that were
measured elsewhere. benchmarks/learners_arms.py lists arms and settings.

At the end, and with --report_only at any time, the script prints tables of what is finished, and writes them with charts to
OUTPUT_DIR/learners.html.
"""

if not __package__:
    import _root  # noqa: F401

import os
import re
import sys
import time

from benchmarks import learners_arms
from benchmarks.learners_arms import FINE_TUNING_STEPS, FURTHER, MIXING, SETFIT, SETFIT_ARMS
from benchmarks.learners_data import ALL_ROWS, GIVEN_DRAW, FewShotDraws, ReviewDraws
from benchmarks.learners_distilled import Distilled
from benchmarks.learners_jobs import PYTHON_VARIABLE, Cell, Runner
from benchmarks.learners_report import accuracy_table, markdown, page, paired_table, rates_table
from benchmarks.learners_unseen import Unseen
from benchmarks.runs import results_parser, run_jobs
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import non_negative_int, positive_int
from modeling.report.page import write_document

PAGE = "learners.html"
# The row of part A where SetFit does not run: its authors' library with the same encoder, 240 steps of 16 pairs, draw 16-42, seed 42
SETFIT_ELSEWHERE = ["*SetFit, measured elsewhere: draw 16-42, seed 42*", "78.8", "72.7", "82.3", "77.9", "1", "7,680", "–"]
CHOICE_OF_REVIEWS = "50-42"  # the draw of part B on which the rates are chosen
WITH_ALL_ROWS = ("mixing", "MFT")  # arms of part B that also train on all rows, with the first seed
ABOUT = {
    "A": "SST-2, MR and CR together, 16 rows per class and domain.",
    "B": "12 domains of FDU-MTL together.",
    "C": "Domains of FDU-MTL that no stage before the adaptation has seen.",
    "D": "Meta-KD on Amazon reviews of four domains.",
}


def cells_of(draws, seeds):
    """The cells in their order: all draws with a seed, then the next seed, because draws differ more than seeds."""
    return [Cell(draw, seed) for seed in seeds for draw in draws]


def ordered(cells, arms):
    """(cell, arm) of all jobs in their order: all arms of a cell, then those of the next."""
    return [(cell, arm) for cell in cells for arm in arms]


class Together:
    """Parts A and B: one model for all domains, measured on all of them."""

    def __init__(self, args):
        self.few = few = args.part == "A"
        folder = os.path.join(args.output_dir, "data")
        self.draws = (FewShotDraws if few else ReviewDraws)(args.data_dir, folder)
        self.table = learners_arms.arms(learners_arms.FEW if few else learners_arms.REVIEWS)
        self.whole = learners_arms.arms(learners_arms.WHOLE)
        names = args.draws or ([GIVEN_DRAW, "1", "2"] if few else [CHOICE_OF_REVIEWS, ALL_ROWS])
        self.runner = Runner(args, self.table, self.draws, Cell(GIVEN_DRAW if few else CHOICE_OF_REVIEWS, 42))
        self.arms = chosen_arms(args, self.table)
        self.pairs = ordered(cells_of([name for name in names if name != ALL_ROWS], args.seeds), self.arms)
        if ALL_ROWS in names:
            self.pairs += [(Cell(ALL_ROWS, args.seeds[0]), arm) for arm in self.arms if arm in WITH_ALL_ROWS]

    def jobs(self):
        """(name, function) of each job."""
        return [(f"{cell.draw}, seed {cell.seed}: {arm}", lambda job=(cell, arm): self._run(*job)) for cell, arm in self.pairs]

    def _chain(self, cell, arm):
        return (self.whole if cell.draw == ALL_ROWS else self.table)[arm]

    def _run(self, cell, arm):
        if cell.draw == ALL_ROWS:
            self.runner.rate(self.table[arm])  # chosen on the few rows
        self.runner.run(cell, self._chain(cell, arm))

    def results(self, whole=False):
        """dict of arm -> dict of cell -> `Result` of what is finished. `whole`: with all training rows."""
        results = {}
        for cell, arm in self.pairs:
            result = self.runner.result(cell, self._chain(cell, arm)) if (cell.draw == ALL_ROWS) == whole else None
            if result is not None:
                results.setdefault(arm, {})[cell] = result
        return {arm: results[arm] for arm in self.arms if arm in results}

    def tables(self):
        """The tables of what is finished."""
        tables, results = [], self.results(False)
        if results:
            tables.append(accuracy_table(results, self.draws.domains))
            if self.few and SETFIT not in results and PYTHON_VARIABLE not in os.environ:
                tables[0].rows.append(list(SETFIT_ELSEWHERE))
            tables += filter(None, (paired_table(results, self.draws.domains, baseline) for baseline in (MIXING, *SETFIT_ARMS)))
        results = self.results(True)
        if results:
            tables.append(accuracy_table(results, self.draws.domains, "Accuracy with all training rows"))
        if self.runner.rates:
            tables.append(rates_table(self.runner.rates))
        return tables


def chosen_arms(args, table):
    """The arms of a run: those of --arms, else all but the further ones and, without its Python, SetFit.

    Raises:
        UserError: a name is unknown, or SetFit's Python is missing.
    """
    without_setfit = not args.report_only and PYTHON_VARIABLE not in os.environ
    names = args.arms or [name for name in table if name not in FURTHER and not (name == SETFIT and without_setfit)]
    for name in names:
        if name not in table:
            raise UserError(f"--arms {name!r}: there are {', '.join(repr(one) for one in table)}")
    theirs = [name for name in names if name in SETFIT_ARMS]
    if theirs and without_setfit:
        raise UserError(f"--arms {theirs[0]}: set {PYTHON_VARIABLE} to a Python that has setfit")
    return names


def part_of(args):
    """The part of --part: an object with `jobs()` and `tables()`."""
    return {"C": Unseen, "D": Distilled}.get(args.part, Together)(args)


def work(jobs, workers):
    """Runs jobs; a job that fails does not stop the others. Returns the names of those that failed."""
    failed = []

    def attempt(number, name, job):
        started = time.monotonic()
        try:
            job()
        except (SystemExit, OSError, UserError, LookupError) as error:  # of its script, or of the files of the stage before it
            failed.append(name)
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        else:
            print(f"[{number}/{len(jobs)}] {name}: {time.monotonic() - started:.0f} s", flush=True)

    attempts = [lambda number=number, name=name, job=job: attempt(number, name, job) for number, (name, job) in enumerate(jobs, 1)]
    if workers > 1:
        run_jobs(attempts, workers)
    else:  # in this thread, which a signal ends at once
        for one in attempts:
            one()
    return failed


_DRAWS = {"A": f"{GIVEN_DRAW}|[0-9]+", "B": f"[1-9][0-9]*-[0-9]+|{ALL_ROWS}", "C": "[0-9]+"}  # names, by part


def check(args):
    """Raises a UserError if a folder is missing or a draw has a name that the part does not know, before the first job."""
    for flag, folder in (("--model_dir", args.model_dir), ("--data_dir", args.data_dir)):
        if not args.report_only and not os.path.isdir(folder):
            raise UserError(f"{flag} {folder}: no such folder")
    for name in args.draws or ():
        if args.part in _DRAWS and not re.fullmatch(_DRAWS[args.part], name):
            raise UserError(f"--draws {name!r}: is no draw of part {args.part}, see --help")


def parse(argv=None):
    """The command line."""
    parser = results_parser(__doc__)
    parser.set_defaults(workers=1)
    parser.add_argument("--part", required=True, choices=sorted(ABOUT), help="what is measured, see above")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="arms (default: all but the further ones)")
    parser.add_argument("--draws", nargs="+", metavar="DRAW", help="A: 16-42, or seeds; B: K-SEED or all; C: seeds of the K rows")
    parser.add_argument("--rotations", type=int, nargs="+", default=list(range(6)), help="C: which pairs of domains are held out")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4, 8, 16], help="C: rows per class for the adaptation, up to 16")
    parser.add_argument(
        "--adaptation_steps",
        type=positive_int,
        default=FINE_TUNING_STEPS,
        help="C: steps of the fine-tuning on the K rows, rounded up to whole epochs; its rate is chosen for %(default)s",
    )
    parser.add_argument(
        "--conditions", nargs="+", metavar="NAME", help="D: conditions, see benchmarks/learners_distilled.py (default: all)"
    )
    parser.add_argument("--student_rows", type=non_negative_int, default=200, help="D: training rows per class and domain; 0 = all")
    parser.add_argument("--train_rows", type=positive_int, default=50, help="C: training rows per class and domain")
    parser.add_argument("--seq_length", type=positive_int, default=128, help="tokens of a text, for a new --output_dir")
    parser.add_argument("--keep_snapshots", action="store_true", help="keep the snapshots that no later stage needs")
    parser.add_argument("--report_only", action="store_true", help="run nothing; print the tables of what is finished")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    check(args)
    args.output_dir = os.path.abspath(args.output_dir)
    part, failed = part_of(args), []
    if not args.report_only:
        failed = work(part.jobs(), args.workers)
    tables = part.tables()
    print("\n".join(markdown(tables)), flush=True)
    if tables:
        print(f"page {write_document(os.path.join(args.output_dir, PAGE), page(f'Learners, part {args.part}', ABOUT[args.part], tables))}")
    if failed:
        raise UserError(f"{len(failed)} jobs failed: {'; '.join(failed)}")


if __name__ == "__main__":
    run(main)
