"""Runs Meta-KD on reviews of three domains and compares the student with its teacher in a table (`make demo-kd`).

The demo trains a teacher, writes the teacher's outputs to disk, and trains two students with half of the teacher's layers: one from the
labels alone and one from the teacher's outputs too.

    python3 tools/demo_kd.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --output_dir output
"""

if not __package__:
    import _root  # noqa: F401

import time

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.errors import run
from tools.demo_steps import (
    ALL,
    DATA,
    DOMAINS,
    TRAINING,
    Demo,
    accuracies,
    compared,
    count,
    demo_parser,
    from_root,
    predict_line,
    print_paragraph,
    print_table,
    step,
)

STUDENT_LAYERS = "3"
DEV = ("--eval_every_step_num", "72")
LABELS_ONLY = ("--hidden_loss_weight", "0", "--attention_loss_weight", "0", "--prediction_loss_weight", "0",
               "--use_domain_loss", "false", "--use_sample_weights", "false")  # fmt: skip
TIMED_TEXTS = 1000


def seconds_of(snapshots, texts):
    """Seconds that each snapshot takes to label `TIMED_TEXTS` texts, without loading it and compiling its graphs: the best of three.

    The snapshots take turns, so that other work of the machine slows all of them.
    """
    from modeling.predictor import Predictor  # imported here: OneFlow takes seconds to import

    predictors = [Predictor(from_root(snapshot)) for snapshot in snapshots]
    texts, rounds = (texts * -(-TIMED_TEXTS // len(texts)))[:TIMED_TEXTS], []
    for _ in range(4):
        times = []
        for predictor in predictors:
            started = time.perf_counter()
            list(predictor(texts))
            times.append(time.perf_counter() - started)
        rounds.append(times)
    return [min(times) for times in zip(*rounds[1:])]  # the first round compiles the graphs


def main():
    parser = demo_parser(__doc__)
    parser.add_argument("--teacher_epochs", type=count, default="4", help="epochs of the teacher")
    parser.add_argument("--student_epochs", type=count, default="8", help="epochs of each student")
    args = parser.parse_args()
    demo = Demo(args, "demo-kd")

    demo.preprocess()
    teacher = demo.train("Step 2: the meta-teacher", "meta_teacher.py", "teacher", args.model_dir,
                         "--num_epochs", args.teacher_epochs, "--learning_rate", "1e-4", *DEV)  # fmt: skip
    outputs = ("--teacher_output_dir", demo.path("teacher_outputs"), "--student_num_hidden_layers", STUDENT_LAYERS)
    reviews = ("--task_name", "reviews", "--data_dir", demo.data())
    step("Step 3a: the teacher's outputs for each training sample", "meta_teacher_eval.py", *reviews, "--model_load_dir", teacher,
         *outputs, *DATA)  # fmt: skip
    distill = (*reviews, "--teacher_model", teacher, "--student_model", args.model_dir, *outputs, *DATA, *TRAINING, *DEV,
               "--num_epochs", args.student_epochs, "--learning_rate", "2e-4")  # fmt: skip
    step("Baseline: a student that learns from the labels alone", "meta_distill.py", *distill, *LABELS_ONLY,
         "--model_save_dir", demo.path("student-labels"))  # fmt: skip
    step("Step 3b: the student that learns from the teacher", "meta_distill.py", *distill, "--temperature", "2",
         "--model_save_dir", demo.path("student"))  # fmt: skip

    names = {"teacher": "teacher", "student-labels": "from labels", "student": "distilled"}
    measured = {name: demo.hits(name) for name in names}
    texts = [text for _, text in measured["teacher"]]
    rows = []
    times = seconds_of([demo.best(name) for name in names], texts)
    for (name, title), seconds in zip(names.items(), times):
        snapshot = Snapshot(from_root(demo.best(name)))
        size, layers = sum(snapshot.sizes.values()), snapshot.config().num_hidden_layers
        rows.append((title, str(layers), f"{size / 1e6:.1f} M", f"{seconds:.2f} s", *accuracies(measured[name])))
    columns = ("", "layers", "size", "time", *DOMAINS, ALL)
    print_table(f"Test accuracy on {demo.data_dir}, {demo.seconds():.0f} seconds", columns, rows)
    print_paragraph(
        f"How to read it: the last four columns are the shares of the {len(texts)} test sentences that a model labels correctly. Guessing "
        f'gives 50 %. The students are "from labels" and "distilled". time: seconds to label {TIMED_TEXTS:,} of these sentences, some '
        "of them twice. size: parameters; most are word embeddings, which teacher and student both have in full."
    )
    print("What was gained, on the same test sentences, with one seed:")
    print(
        "- " + compared("the distilled student", measured["student"], "the one that learns from labels alone", measured["student-labels"])
    )
    print("- " + compared("the distilled student", measured["student"], "its teacher", measured["teacher"]))
    print(f"\nreport   {demo.path('student')}/report.html; each folder next to it has its own")
    print(f"try it   {predict_line(demo.best('student'))}")


if __name__ == "__main__":
    run(main)
