"""Times each phase of both systems as a whole process: seconds to its first step and to its end, and peak memory.

    python3 benchmarks/bench_phases.py [--model_dir models/uncased_L-6_H-384_A-12_oneflow] [--data_dir data/k-shot-cross/g1/16-42] \\
        [--single_dir data/k-shot-single/SST-2/16-42] [--max_steps 20] [--runs 5] [--phases meta_finetuning,meta_distill]

Prints one JSON line per phase, with medians over the runs. The flags are the documented ones, except that training ends after --max_steps
steps of its schedule. Each step prints its line at once, so that "first_step" is the time that a user waits, including imports, records
and compilation.
"""

if not __package__:
    import _root  # noqa: F401

import glob
import os
import statistics
import sys
import tempfile

from benchmarks.side_by_side import machine, show
from benchmarks.whole_process import time_command
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run

PHASES = ("preprocess", "meta_finetuning", "finetuning", "meta_teacher", "meta_teacher_eval", "meta_distill")
OUTPUT_FLAG = {"preprocess": "--log_dir", "meta_teacher_eval": "--teacher_output_dir"}  # the other phases have --model_save_dir
STEP = "step 1/"


def commands(args, folder):
    """dict of phase -> function without arguments that returns its flags. A phase uses the output of the first runs of earlier phases."""

    def best(name):
        return glob.glob(os.path.join(folder, f"{name}-0", "snapshot_best_*"))[0]

    cross = ["--task_name", args.task_name, "--data_dir", os.path.abspath(args.data_dir), "--seed", "42", "--seq_length=128"]
    model = os.path.abspath(args.model_dir)
    short = ["--max_steps", str(args.max_steps), "--loss_print_every_n_iter", "1", "--num_epochs", "63", "--learning_rate", "5e-5"]
    small = ["--batch_size_per_device", "4", "--dev_batch_size_per_device", "2", "--dev_every_step_num", str(args.max_steps)]
    large = ["--batch_size_per_device", "24", "--eval_batch_size_per_device", "24", "--eval_every_step_num", str(args.max_steps)]
    return {
        "preprocess": lambda: ["--model_load_dir", model, *cross, "--resave_ofrecord"],
        "meta_finetuning": lambda: ["--model_load_dir", model, *cross, *short, *small, "--resave_ofrecord"],
        "finetuning": lambda: [
            "--task_name", "sst-2", "--model_load_dir", best("meta_finetuning"), "--data_dir", os.path.abspath(args.single_dir),
            "--seed", "42", "--seq_length=128", "--resave_ofrecord", *short, *small,
        ],
        "meta_teacher": lambda: ["--model_load_dir", model, *cross, *short, *large],
        "meta_teacher_eval": lambda: [
            "--model_load_dir", best("meta_teacher"), *cross, "--eval_batch_size_per_device", "24", "--student_num_hidden_layers", "3",
        ],
        "meta_distill": lambda: [
            "--student_model", model, "--teacher_model", best("meta_teacher"), *cross, *short, *large, "--student_num_hidden_layers", "3",
            "--teacher_output_dir", os.path.join(folder, "meta_teacher_eval-0"),
        ],
    }  # fmt: skip


def add_flags(parser, max_steps):
    """Adds the flags that `commands` reads, and --phases.

    Args:
        parser: `Parser`.
        max_steps: default of --max_steps.
    """
    parser.add_argument("--model_dir", default="models/uncased_L-6_H-384_A-12_oneflow", help="snapshot of an uncased BERT")
    parser.add_argument("--data_dir", default="data/k-shot-cross/g1/16-42", help="folder of train.csv and dev.csv of all domains")
    parser.add_argument("--task_name", default="g1", help="task of --data_dir")
    parser.add_argument("--single_dir", default="data/k-shot-single/SST-2/16-42", help="folder of the splits of SST-2")
    parser.add_argument("--max_steps", type=int, default=max_steps, help="steps of a training run")
    parser.add_argument("--phases", default=",".join(PHASES), help="phases to report; earlier phases run once")


def choices_of(text, flag, allowed):
    """The names in a comma-separated value of a flag.

    Raises:
        UserError: a name is not one of `allowed`.
    """
    names = text.split(",")
    if not set(names) <= set(allowed):
        raise UserError(f"--{flag} {text}: choose from {', '.join(allowed)}")
    return names


def main():
    parser = Parser(prints_result=True, description=__doc__)
    add_flags(parser, max_steps=20)
    parser.add_argument("--runs", type=int, default=5, help="number of runs per phase")
    args = parser.parse_args()
    wanted = choices_of(args.phases, "phases", PHASES)
    show({"machine": machine()})
    with tempfile.TemporaryDirectory() as folder:
        flags_of = commands(args, folder)
        for phase in PHASES[: max(map(PHASES.index, wanted)) + 1]:
            timings = []
            for number in range(args.runs if phase in wanted else 1):
                left = [OUTPUT_FLAG.get(phase, "--model_save_dir"), os.path.join(folder, f"{phase}-{number}")]
                timings.append(time_command([sys.executable, phase + ".py", *flags_of[phase](), *left], STEP))
            if phase in wanted:
                show(summary(phase, timings))


def summary(phase, timings):
    """The results of a phase, from the timings of its runs."""
    firsts = [timing.first for timing in timings if timing.first is not None]
    return {
        "case": phase,
        "seconds": round(statistics.median(timing.seconds for timing in timings), 2),
        **({"first_step": round(statistics.median(firsts), 2)} if firsts else {}),
        "peak_gb": round(max(timing.peak_bytes for timing in timings) / 1e9, 2),
        "runs": len(timings),
    }


if __name__ == "__main__":
    run(main)
