"""Compares the memory that each script announces with the memory that it uses, for two sizes of BERT.

    python3 benchmarks/bench_memory.py [--sizes mini,base] [--memory_limits mini=2.5,base=8] [--phases meta_teacher,meta_distill] \\
        [--data_dir ../shared/data/SENTI --task_name senti --texts 240] [--max_steps 3]

Prints one JSON line per size and script: the announced and the measured peak in GB, their ratio, and the number of parts of a training
step. The flags are the documented ones, with --max_steps. "mini" is the model of --model_dir; "base" is a BERT of 12 x 768 with random
weights and the vocabulary of --model_dir. The data are the first --texts rows of each split of --data_dir.
"""

if not __package__:
    import _root  # noqa: F401

import copy
import itertools
import os
import re
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

SIZES = ("mini", "base")
UNITS = {"GB": 1e9, "MB": 1e6}


def random_base(folder, vocab_file):
    """Writes a snapshot of BERT-base with random weights and the pieces of `vocab_file`."""
    with open(vocab_file, encoding="utf-8") as file:
        pieces = file.read()
    config = BertConfig(vocab_size=len(pieces.rstrip("\n").split("\n")))
    values = {name: initial_value(name, shape, 1) for name, shape in encoder_shapes(config).items()}
    write_variables(folder, values, {CONFIG_FILE: config.to_json(), VOCAB_FILE: pieces})


def first_rows(source, folder, count):
    """Copies the first `count` rows of each split of a folder."""
    os.makedirs(folder)
    for split in ("train", "dev", "test"):
        path = os.path.join(source, split + ".csv")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file, open(os.path.join(folder, split + ".csv"), "w", encoding="utf-8") as new:
                new.writelines(itertools.islice(file, count))


def announced(output):
    """The bytes of memory that a script's output announces, None if it announces none."""
    found = re.search(r"about ([\d.]+) (GB|MB) of memory", output)
    return float(found.group(1)) * UNITS[found.group(2)] if found else None


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--sizes", default="mini,base", help="mini, base or both (default)")
    parser.add_argument("--memory_limits", default="", help="SIZE=GB, comma-separated: --memory_limit of the training scripts")
    parser.add_argument("--texts", type=int, default=240, help="rows of each split to use")
    add_flags(parser, max_steps=3)
    args = parser.parse_args()
    choices_of(args.phases, "phases", PHASES)
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
        with tempfile.TemporaryDirectory() as folder:
            measure(args, size, limits.get(size), folder)


def measure(args, size, limit, folder):
    """Runs the scripts for one size of model, and prints a line for each."""
    args = copy.copy(args)
    first_rows(args.data_dir, os.path.join(folder, "data"), args.texts)
    if size == "base":
        random_base(os.path.join(folder, "model"), os.path.join(args.model_dir, VOCAB_FILE))
        args.model_dir = os.path.join(folder, "model")
    args.data_dir = os.path.join(folder, "data")
    wanted, flags_of = args.phases.split(","), commands(args, folder)
    for phase in PHASES[: max(map(PHASES.index, wanted)) + 1]:
        output = [OUTPUT_FLAG.get(phase, "--model_save_dir"), os.path.join(folder, f"{phase}-0")]
        limited = ["--memory_limit", str(limit)] if limit and "--max_steps" in flags_of[phase]() else []
        timing = time_command([sys.executable, phase + ".py", *flags_of[phase](), *output, *limited])
        if phase not in wanted:
            continue
        expected, parts = announced(timing.output), re.search(r"in (\d+) parts", timing.output)
        line = {"size": size, "case": phase, "memory_limit": limit, "peak_gb": round(timing.peak_bytes / 1e9, 2)}
        line["announced_gb"] = expected and round(expected / 1e9, 2)
        line["announced_over_peak"] = expected and round(expected / timing.peak_bytes, 2)
        show({**line, "parts": int(parts.group(1)) if parts else 1, "seconds": round(timing.seconds, 1)})


if __name__ == "__main__":
    run(main)
