"""Functions that the demos share. They run the documented commands of the project and read the files that the runs write."""

import json
import os
import shlex
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from modeling.cli import interruption
from modeling.cli.command_line import Parser
from modeling.run.metrics import METRICS_FILE
from ofrecord_util.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOMAINS = {"SST-2": "SST-2", "mr": "MR", "cr": "CR"}  # domain in the text -> folder of its own split


def demo_parser(description):
    """A parser with the flags of every demo: the folders of the model, the data and the runs."""
    parser = Parser(description=description)
    model = "models/uncased_L-6_H-384_A-12_oneflow"
    parser.add_argument("--model_dir", default=model, help="pretrained encoder")
    parser.add_argument("--data_dir", default="data", help="folder of k-shot-cross and k-shot-single")
    parser.add_argument("--output_dir", default="output", help="folder for the runs")
    return parser


def run_folders(args, name):
    """(folder of this run, folder of the three domains' text)"""
    output = os.path.join(args.output_dir, time.strftime(f"{name}-%Y-%m-%d-%H:%M:%S"))
    return output, os.path.join(args.data_dir, "k-shot-cross/g1/16-42")


def print_table(title, columns, rows):
    """Prints a table. The first column is aligned to the left and the others to the right."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print()
    console.print(table)


def step(title, *command):
    """Prints a command of the project and runs it from the project's root. Its output goes to the terminal."""
    print(f"\n== {title}\n$ python3 {' '.join(map(shlex.quote, command))}\n", flush=True)
    with interruption.deferred():  # Ctrl-C reaches the script too, which saves its state
        code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if code:
        raise UserError(f"{command[0]} ended with exit code {code}")


def preprocess(model_dir, cross, output, *more):
    """Step 1 of both systems, on the three domains' text in `cross`."""
    step("Step 1: prototypes and prototypical scores", "preprocess.py", "--task_name", "g1", "--model_load_dir", model_dir,
         "--data_dir", cross, "--log_dir", output, *more)  # fmt: skip


def rows_of(folder, kind):
    """The lines of one kind of a run's metrics file."""
    with open(os.path.join(ROOT, folder, METRICS_FILE), encoding="utf-8") as f:
        return [row for row in map(json.loads, f) if row["kind"] == kind]


def best_snapshot(folder):
    """Path of a run's best snapshot, from the project's root."""
    return os.path.join(folder, next(name for name in os.listdir(os.path.join(ROOT, folder)) if name.startswith("snapshot_best_")))


def percent(share):
    """0.815 -> "81.5 %"."""
    return f"{100 * share:.1f} %"
