"""Shared code of the benchmarks that train: runs scripts in separate processes, reads their results, prints tables."""

import concurrent.futures
import glob
import json
import os
import subprocess
import sys
import time

import numpy as np

from modeling.cli.command_line import Parser
from modeling.cli.flag_kinds import non_negative_int, positive_int

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DONE = "seconds.json"  # the last file that is written to a run's folder


def results_parser(description):
    """A parser with the flags of every benchmark that trains."""
    parser = Parser(description=description)
    parser.add_argument("--model_dir", required=True, help="pretrained encoder, a snapshot")
    parser.add_argument("--data_dir", required=True, help="folder of the data")
    parser.add_argument("--output_dir", required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[42, 43, 44], help="each row is trained once per seed")
    parser.add_argument("--workers", type=positive_int, default=2, help="number of runs at the same time")
    return parser


def run_script(flags, folder, threads=1, flag="--model_save_dir", python=None):
    """Runs a script from the project's root, unless its folder is finished already.

    Args:
        flags: list, the script and its flags.
        folder: the folder that the script writes.
        threads: CPU threads of the process.
        flag: the script's flag for the folder.
        python: path of the interpreter; None for that of this process.
    Returns:
        the rows of the run's metrics file, [] without such a file.
    Raises:
        SystemExit: the script failed; the message ends with its last output.
    """
    done = os.path.join(folder, DONE)
    if not os.path.exists(done):
        if os.path.isdir(folder):
            os.rename(folder, f"{folder}.unfinished-{os.getpid()}-{time.time_ns()}")
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        started = time.time()
        result = subprocess.run(
            [python or sys.executable, *flags, flag, folder],
            cwd=ROOT,
            env=dict(os.environ, OMP_NUM_THREADS=str(threads)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode:
            raise SystemExit("{}\n{}".format(" ".join(flags), result.stdout[-2000:]))
        with open(done, "w") as f:
            json.dump({"seconds": round(time.time() - started, 1), "command": " ".join(flags)}, f)
    return rows_of(folder)


def rows_of(folder):
    """The rows of a run's metrics file, [] without such a file."""
    path = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f]


def seconds_of(folder):
    """Wall-clock seconds of a finished run, including start-up."""
    with open(os.path.join(folder, DONE)) as f:
        return json.load(f)["seconds"]


def last_of(rows, kind):
    """The last metrics row of a kind."""
    return [row for row in rows if row["kind"] == kind][-1]


def best_snapshot(folder):
    """Path of the best snapshot of a run."""
    return glob.glob(os.path.join(folder, "snapshot_best_*"))[0]


def run_jobs(jobs, workers):
    """Calls functions without arguments, `workers` at a time; returns their results in order."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def mean_and_spread(values):
    """Mean over the seeds, and the difference between the largest and the smallest value: "81.2 (1.4)"."""
    return f"{np.mean(values):.1f} ({np.ptp(values):.1f})"


def print_table(what, seeds, columns, rows):
    """Prints results in Markdown.

    Args:
        what: name of the numbers.
        seeds: list of the seeds.
        columns: titles of all columns except the first.
        rows: lists of cells, which begin with the name of the row.
    """
    print(f"| {what}, mean (spread) of {len(seeds)} seeds | {' | '.join(columns)} |")
    print("| --- " * (len(columns) + 1) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
