"""Shows that a code change does not change any number: compares the same seeded runs of two checkouts byte for byte.

    python3 tools/fetch_demo_model.py
    git worktree add ../before COMMIT
    python3 benchmarks/compare_checkouts.py --before ../before

Runs each of the six scripts for a few steps in both checkouts, with this Python, on data/k-shot-cross/g1/16-42 and the demo's encoder:
with the default lanes and texts per row, with one lane, and continued after an interruption. Compares the variables, task.json,
bert_config.json and vocab.txt of every snapshot, predictions_*.tsv, prototypical scores and teacher outputs byte for byte, and
metrics.jsonl without its times. This takes about ten minutes. The exit code is 1 if anything differs. The results stay in --work_dir. With
--keep_before, a later call uses the results before the change again.
"""

if not __package__:
    import _root  # noqa: F401

import hashlib
import json
import os
import shutil
import subprocess
import sys

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run

ENCODER = "models/uncased_L-6_H-384_A-12_oneflow"
DATA = "data/k-shot-cross/g1/16-42"
TIMES = ("seconds", "samples_per_second")
COMMON = "--task_name g1 --data_dir {data} --seed 42 --seq_length 128 --train_example_num 96"
META_KD = COMMON + " --eval_example_num 96 --do_train --do_eval --device cpu"
TRAINS = " --num_epochs 5 --learning_rate 5e-5 --loss_print_every_n_iter 4 --keep_all_best --device cpu --model_save_dir {work}/"
MFT = COMMON + " --model_load_dir {encoder} --dev_example_num 96 --batch_size_per_device 4 --dev_every_step_num 6" + TRAINS
TEACHER = META_KD + " --batch_size_per_device 8 --eval_every_step_num 8" + TRAINS[: TRAINS.index(" --device")] + " --model_save_dir {work}/"
# (script, folder of the run or None, flags, name of an earlier case whose best snapshot replaces {snapshot})
CASES = (
    (
        "preprocess",
        None,
        COMMON + " --model_load_dir {encoder} --dev_example_num 96 --resave_ofrecord --log_dir {work}/log --device cpu",
        None,
    ),
    ("meta_finetuning", "mft", MFT + "mft --max_steps 18", None),
    ("meta_finetuning", "mft_one_lane", MFT + "mft_one_lane --cpu_lanes 1 --texts_per_row 1 --max_steps 12 --corruption all", None),
    ("meta_finetuning", "mft_continued", MFT + "mft_continued --max_steps 10", None),
    ("meta_finetuning", "mft_continued", MFT + "mft_continued --max_steps 18 --resume {work}/mft_continued", None),
    (
        "finetuning",
        "ft",
        COMMON.replace("{encoder}", "{snapshot}")
        + " --model_load_dir {snapshot} --dev_example_num 96 --eval_example_num 96 --batch_size_per_device 2"
        + " --dev_every_step_num 8 --max_steps 20 --resave_ofrecord --gradient_accumulation_steps 2"
        + TRAINS
        + "ft",
        "mft",
    ),
    ("meta_teacher", "teacher", TEACHER + "teacher --model_load_dir {encoder} --max_steps 16", None),
    (
        "meta_teacher_eval",
        None,
        COMMON + " --model_load_dir {snapshot} --do_eval --eval_batch_size_per_device 1 --student_num_hidden_layers 3"
        " --log_dir {work}/log --device cpu",
        "teacher",
    ),
    (
        "meta_distill",
        "student",
        TEACHER + "student --student_model {encoder} --teacher_model {snapshot} --student_num_hidden_layers 3 --max_steps 16",
        "teacher",
    ),
    (
        "meta_distill",
        "student_online",
        TEACHER + "student_online --student_model {encoder} --teacher_model {snapshot} --student_num_hidden_layers 3 --max_steps 8"
        " --teacher_outputs online --freeze_layers 1",
        "teacher",
    ),
)


def run_cases(checkout, work):
    """Runs every case in a checkout. The files are written to the folder `work`."""
    data = os.path.join(work, "data")
    shutil.copytree(DATA, data)
    if not os.path.exists(os.path.join(data, "test.csv")):
        shutil.copy(os.path.join(data, "dev.csv"), os.path.join(data, "test.csv"))  # so that the runs evaluate a test split too
    for script, folder, flags, start in CASES:
        snapshot = start and best_snapshot(os.path.join(work, start))
        words = [word.format(data=data, work=work, encoder=os.path.abspath(ENCODER), snapshot=snapshot) for word in flags.split()]
        print(f"{checkout}: {script}.py ({folder or 'no run folder'})", flush=True)
        done = subprocess.run([sys.executable, f"{script}.py", *words], cwd=checkout, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{checkout}: {script}.py {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")


def best_snapshot(folder):
    """Path of the newest best snapshot of a run."""
    names = [name for name in os.listdir(folder) if name.startswith("snapshot_best_")]
    return os.path.join(folder, max(names, key=lambda name: os.stat(os.path.join(folder, name, "snapshot_done")).st_mtime_ns))


def results(work):
    """dict of relative path -> digest, for each file that must be the same; metrics are compared without their times."""
    found = {}
    for folder, _, names in os.walk(work):
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, work)
            in_snapshot = "/snapshot_" in relative and name != "README.md"
            in_data = relative.startswith("data/ofrecord") and name != "manifest.json" and not name.endswith((".json", ".npz"))
            if in_snapshot or in_data or name.startswith("predictions_"):
                with open(path, "rb") as file:
                    found[relative] = hashlib.sha256(file.read()).hexdigest()
            elif name == "metrics.jsonl":
                with open(path, encoding="utf-8") as file:
                    rows = [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in file]
                found[relative] = json.dumps(rows, sort_keys=True)
    return found


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--before", required=True, help="a checkout of the code before the change")
    parser.add_argument("--after", default=".", help="a checkout of the code after the change")
    parser.add_argument("--work_dir", default="output/compare_checkouts", help="folder for the runs; earlier runs in it are removed")
    parser.add_argument("--keep_before", action="store_true", help="use the results before the change from an earlier call")
    flags = parser.parse_args()
    if not os.path.isdir(ENCODER):
        raise UserError(f"{ENCODER}: no such folder; tools/fetch_demo_model.py creates it")
    found = {}
    for name, checkout in (("before", flags.before), ("after", flags.after)):
        # both checkouts write to the same folder, so that no path differs
        work, kept = os.path.abspath(os.path.join(flags.work_dir, "runs")), os.path.abspath(os.path.join(flags.work_dir, name))
        if not (name == "before" and flags.keep_before and os.path.isdir(kept)):
            for path in (work, kept):
                shutil.rmtree(path, ignore_errors=True)
            os.makedirs(work)
            run_cases(os.path.abspath(checkout), work)
            os.rename(work, kept)
        found[name] = results(kept)
    paths = sorted({*found["before"], *found["after"]})
    different = [path for path in paths if found["before"].get(path) != found["after"].get(path)]
    kinds = {"variables": "/out", "task.json": "/task.json", "predictions": ".tsv", "metrics": "metrics.jsonl"}
    counts = ", ".join(f"{sum(path.endswith(end) for path in paths)} {kind}" for kind, end in kinds.items())
    for path in different:
        print(f"differs: {path}")
    print(f"{len(paths)} files compared ({counts}): {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    run(main)
