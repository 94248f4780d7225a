"""Compares the memory that each script announces with the memory that it uses, for several sizes of BERT.

    python3 benchmarks/bench_memory.py [--sizes mini,base,large] [--memory_limits mini=2.5,base=8,large=14] \\
        [--phases meta_teacher,predict] [--data_dir DATA --task_name senti --texts 240] [--max_steps 12] [--work_dir FOLDER]

Prints one JSON line per size and script: the announced and the measured peak in GB, their ratio, and the number of parts of a training
step. The flags are the documented ones, with --max_steps and --memory_limit; "predict" is tools/predict.py. "mini" is the model of
--model_dir; "base" and "large" are BERTs of 12 x 768 and 24 x 1024 with random weights and the vocabulary of --model_dir. The data are
the first --texts rows of each split of --data_dir. A run uses less than announced if it ends before a batch of each length has
occurred. With --work_dir, a benchmark that was interrupted continues after its last line.
"""

if not __package__:
    import _root  # noqa: F401

import contextlib
import copy
import glob
import itertools
import os
import re
import shutil
import sys
import tempfile
from argparse import ArgumentTypeError

from benchmarks.bench_phases import OUTPUT_FLAG, PHASES, add_flags, choices_of, commands
from benchmarks.side_by_side import machine, show
from benchmarks.whole_process import time_command
from modeling.bert.config import BertConfig
from modeling.bert.variables import encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE, write_variables
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import positive_float
from ofrecord_util.files import write_json
from ofrecord_util.json_reading import read_json

RANDOM_SIZES = {
    "base": {},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}  # what they set of `BertConfig`
SIZES = ("mini", *RANDOM_SIZES)
PREDICT = "predict"
STEPS = (*PHASES, PREDICT)
UNITS = {"GB": 1e9, "MB": 1e6}


def random_model(folder, size, vocab_file):
    """Writes a snapshot of a size of `RANDOM_SIZES` with random weights and the pieces of `vocab_file`."""
    with open(vocab_file, encoding="utf-8") as file:
        pieces = file.read()
    config = BertConfig(vocab_size=len(pieces.rstrip("\n").split("\n")), **RANDOM_SIZES[size])
    values = {name: initial_value(name, shape, 1) for name, shape in encoder_shapes(config).items()}
    write_variables(folder, values, {CONFIG_FILE: config.to_json(), VOCAB_FILE: pieces})


def first_rows(source, folder, count):
    """Copies the first `count` rows of each split of a folder."""
    os.makedirs(folder, exist_ok=True)
    for split in ("train", "dev", "test"):
        path = os.path.join(source, split + ".csv")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file, open(os.path.join(folder, split + ".csv"), "w", encoding="utf-8") as new:
                new.writelines(itertools.islice(file, count))


def announced(output):
    """The bytes of memory that a script's output announces last, None if it announces none."""
    found = re.findall(r"about ([\d.]+) (GB|MB) of memory", output)
    return float(found[-1][0]) * UNITS[found[-1][1]] if found else None


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--sizes", default="mini,base", help="sizes of the model: mini, base, large")
    parser.add_argument(
        "--memory_limits", default="mini=2.5,base=8,large=14", help="SIZE=GB, comma-separated: --memory_limit of the scripts"
    )
    parser.add_argument("--texts", type=int, default=240, help="rows of each split to use")
    parser.add_argument("--work_dir", help="folder for models, runs and results; a second call continues there (default: a temporary one)")
    add_flags(parser, max_steps=12)
    parser.set_defaults(phases=",".join(STEPS))
    args = parser.parse_args()
    choices_of(args.phases, "phases", STEPS)
    limits = {}
    for entry in filter(None, args.memory_limits.split(",")):
        size, _, limit = entry.partition("=")
        try:
            limits[size] = positive_float(limit)
        except (ArgumentTypeError, ValueError) as error:
            raise UserError(f"--memory_limits {entry}: give SIZE=GB, for example base=8") from error
    choices_of(",".join(limits) or SIZES[0], "memory_limits", SIZES)
    sizes = choices_of(args.sizes, "sizes", SIZES)
    show({"machine": machine()})
    for size in sizes:
        with contextlib.ExitStack() as stack:
            folder = os.path.join(args.work_dir, size) if args.work_dir else stack.enter_context(tempfile.TemporaryDirectory())
            measure(args, size, limits.get(size), os.path.abspath(folder))


def measure(args, size, limit, folder):
    """Runs the scripts for one size of model, and prints a line for each.

    Args:
        args: the benchmark's flags.
        size: of `SIZES`.
        limit: --memory_limit of the scripts in GB, or None.
        folder: contains the model, the runs and the results. A script whose result is there does not run again.
    """
    args = copy.copy(args)
    first_rows(args.data_dir, os.path.join(folder, "data"), args.texts)
    if size in RANDOM_SIZES:
        model = os.path.join(folder, "model")
        if not os.path.isdir(model):
            random_model(model, size, os.path.join(args.model_dir, VOCAB_FILE))
        args.model_dir = model
    args.data_dir = os.path.join(folder, "data")
    wanted = args.phases.split(",")
    for step in STEPS[: max(map(STEPS.index, wanted)) + 1]:
        path = os.path.join(folder, f"{step}.json")
        if not os.path.exists(path):
            write_json(path, result_of(step, time_command(command_of(step, args, limit, folder)), size, limit))
        if step in wanted:
            show(read_json(path, "remove it"))


def command_of(step, args, limit, folder):
    """The command of a script, as a list. What an interrupted run of it has left is removed."""
    limited = ["--memory_limit", str(limit)] if limit else []
    if step == PREDICT:
        snapshot = glob.glob(os.path.join(folder, "meta_teacher-0", "snapshot_best_*"))[0]
        texts = ["--input", os.path.join(args.data_dir, "dev.csv"), "--output", os.path.join(folder, "predictions.tsv")]
        return [sys.executable, os.path.join("tools", "predict.py"), "--model_load_dir", snapshot, *texts, *limited]
    output = os.path.join(folder, f"{step}-0")
    shutil.rmtree(output, ignore_errors=True)
    evaluates = ["--do_eval"] if step == "meta_teacher_eval" else []
    flags = [*commands(args, folder)[step](), *evaluates, OUTPUT_FLAG.get(step, "--model_save_dir"), output]
    return [sys.executable, step + ".py", *flags, *limited]


def result_of(step, timing, size, limit):
    """The line of a script, a dict, from its `Timing`."""
    expected, parts = announced(timing.output), re.search(r"in (\d+) parts", timing.output)
    return {
        "size": size,
        "case": step,
        "memory_limit": limit,
        "peak_gb": round(timing.peak_bytes / 1e9, 2),
        "announced_gb": expected and round(expected / 1e9, 2),
        "announced_over_peak": expected and round(expected / timing.peak_bytes, 2),
        "parts": int(parts.group(1)) if parts else 1,
        "seconds": round(timing.seconds, 1),
    }


if __name__ == "__main__":
    run(main)
