"""What the demos share: they run the project's documented commands and read what the runs wrote."""

import json
import os
import shlex
import subprocess
import sys

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError
from modeling.run.metrics import METRICS_FILE

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOMAINS = {"SST-2": "SST-2", "mr": "MR", "cr": "CR"}  # domain in the text -> folder of its own split


def demo_parser(description):
    """A parser with the flags of every demo: where model and data are, where the runs go."""
    parser = Parser(description=description)
    model = "models/uncased_L-6_H-384_A-12_oneflow"
    parser.add_argument("--model_dir", default=model, help="pretrained encoder")
    parser.add_argument("--data_dir", default="data", help="folder of k-shot-cross and k-shot-single")
    parser.add_argument("--output_dir", default="output", help="where the runs go")
    return parser


def step(title, *command):
    """Shows and runs one of the project's commands from its root; its output and progress go straight to the terminal."""
    print(f"\n== {title}\n$ python3 {' '.join(map(shlex.quote, command))}\n", flush=True)
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
