"""Runs Meta-KD on the bundled text of three domains and prints a table of the results (`make demo-kd`).

The demo trains a teacher, writes the teacher's outputs to disk, and trains a student with half of the teacher's layers.

    python3 tools/demo_kd.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --output_dir output
"""

if not __package__:
    import _root  # noqa: F401

import os
import time

from modeling.cli.errors import run
from modeling.report.curves_png import CURVES_FILE
from modeling.run.metrics import METRICS_FILE
from tools.demo_steps import DOMAINS, ROOT, best_snapshot, demo_parser, percent, preprocess, print_table, rows_of, run_folders, step

STUDENT_LAYERS = "3"


def megabytes(folder):
    """Size of a folder's files in MB."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names) / 1e6


def test_accuracy(snapshot, domain, args, folder):
    """Accuracy of a snapshot on a domain's own test split, as finetuning.py counts it."""
    data = os.path.join(args.data_dir, "k-shot-single", DOMAINS[domain], "16-42")
    step(
        f"{os.path.basename(folder)}: test sentences of {domain}",
        "finetuning.py",
        "--task_name",
        domain.lower(),
        "--model_load_dir",
        snapshot,
        "--data_dir",
        data,
        "--do_train",
        "false",
        "--do_eval",
        "--eval_batch_size_per_device",
        "16",
        "--seq_length=128",
        "--resave_ofrecord",
        "--model_save_dir",
        folder,
    )
    return rows_of(folder, "test")[0]["accuracy"]


def main():
    parser = demo_parser(__doc__)
    parser.add_argument("--teacher_epochs", default="20", help="epochs of the teacher")
    parser.add_argument("--student_epochs", default="20", help="epochs of the student")
    args = parser.parse_args()
    started = time.time()
    output, cross = run_folders(args, "demo-kd")
    common = ["--task_name", "g1", "--data_dir", cross, "--seed", "42", "--seq_length=128"]
    training = ["--batch_size_per_device", "4", "--eval_batch_size_per_device", "16", "--eval_every_step_num", "40",
                "--loss_print_every_n_iter", "40"]  # fmt: skip

    preprocess(args.model_dir, cross, output, "--seed", "42", "--seq_length=128", "--resave_ofrecord")
    teacher, student = os.path.join(output, "teacher"), os.path.join(output, "student")
    step(
        "Step 2: the meta-teacher",
        "meta_teacher.py",
        "--model_load_dir",
        args.model_dir,
        *common,
        *training,
        "--learning_rate",
        "3e-5",
        "--num_epochs",
        args.teacher_epochs,
        "--model_save_dir",
        teacher,
    )
    knowledge = os.path.join(output, "teacher_outputs")
    step(
        "Step 3a: the teacher's outputs for each training sample",
        "meta_teacher_eval.py",
        "--model_load_dir",
        best_snapshot(teacher),
        *common,
        "--eval_batch_size_per_device",
        "16",
        "--student_num_hidden_layers",
        STUDENT_LAYERS,
        "--teacher_output_dir",
        knowledge,
    )
    step(
        "Step 3b: the student",
        "meta_distill.py",
        "--student_model",
        args.model_dir,
        "--teacher_model",
        best_snapshot(teacher),
        *common,
        *training,
        "--learning_rate",
        "1e-4",
        "--num_epochs",
        args.student_epochs,
        "--student_num_hidden_layers",
        STUDENT_LAYERS,
        "--temperature",
        "2",
        "--teacher_output_dir",
        knowledge,
        "--model_save_dir",
        student,
    )

    models = {"teacher": best_snapshot(teacher), f"student, {STUDENT_LAYERS} layers": best_snapshot(student)}
    rows = []
    for (name, snapshot), folder in zip(models.items(), (teacher, student)):
        tests = [test_accuracy(snapshot, domain, args, f"{folder}-test-{DOMAINS[domain]}") for domain in DOMAINS]
        dev = max(row["accuracy"] for row in rows_of(folder, "dev"))
        variables = [os.path.join(ROOT, snapshot, variable, "out") for variable in os.listdir(os.path.join(ROOT, snapshot))]
        parameters = sum(os.path.getsize(path) for path in variables if os.path.exists(path)) / 4e6
        rows.append((name, f"{parameters:.1f} M", percent(dev), *map(percent, tests)))
    title = f"Meta-KD on {cross}, {time.time() - started:.0f} seconds"
    print_table(title, ("", "parameters", "dev", *(f"test {domain}" for domain in DOMAINS)), rows)
    for name, snapshot in models.items():
        print(f"{name:18} {snapshot}")
    print(f"{'teacher outputs':18} {knowledge}, {megabytes(os.path.join(ROOT, knowledge)):.1f} MB")
    print(f"{'curves':18} {os.path.join(student, CURVES_FILE)}")
    print(f"{'metrics':18} {os.path.join(student, METRICS_FILE)} (each loss term separately)")


if __name__ == "__main__":
    run(main)
