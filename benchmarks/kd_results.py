"""Measures Meta-KD on Amazon reviews of four domains: the teacher, and one small student that is trained on labels only,
distilled, distilled without the meta parts, without one part, from the teacher's layers, or first on text without labels
(docs/results.md). That text is DATA_DIR/unlabelled.csv; --raw_dir writes it from the unlabelled reviews of FDU-MTL.

    python3 benchmarks/kd_results.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --data_dir data/SENTI \\
        --output_dir output/kd_results

Each job runs one of the documented commands in a separate process. Finished jobs do not run again; other settings than
another --teacher_seed need another --output_dir. At the end, the script prints the table in Markdown.
"""

if not __package__:
    import _root  # noqa: F401

import os

import numpy as np

from benchmarks.runs import best_snapshot, last_of, mean_and_spread, print_table, results_parser, run_jobs, run_script, seconds_of
from benchmarks.unlabelled_texts import Texts
from modeling.cli.errors import run
from modeling.cli.flag_kinds import positive_float
from ofrecord_util.text_files import UNLABELLED, find_text

PLAIN = ["hidden_loss_weight", "attention_loss_weight", "prediction_loss_weight"]  # at 0, the student learns from the labels only
NO_META = ["--use_domain_loss", "false", "--use_sample_weights", "false"]
FROM_TEACHER = "from teacher layers"  # the row whose student starts from layers of the teacher
AFTER_UNLABELLED = "after unlabelled text"  # the row whose student was distilled on DATA_DIR/unlabelled.csv before
STUDENTS = {  # name of the row -> flags of meta_distill.py
    "plain": [*(part for name in PLAIN for part in ("--" + name, "0")), *NO_META],
    "distilled": [],
    "distilled without meta parts": NO_META,
    "without sample weights": ["--use_sample_weights", "false"],
    "without transferable knowledge": ["--use_domain_loss", "false"],
    "without hidden states": ["--hidden_loss_weight", "0"],
    "without attention": ["--attention_loss_weight", "0"],
    "without soft labels": ["--prediction_loss_weight", "0"],
    FROM_TEACHER: [],
    AFTER_UNLABELLED: [],
}


class Study:
    """The jobs of the study, as methods."""

    def __init__(self, args):
        self.args = args
        self.model_dir, self.output_dir = os.path.abspath(args.model_dir), os.path.abspath(args.output_dir)
        # another teacher has folders of its own, and so have its outputs and students
        self.output_dir = os.path.join(self.output_dir, f"teacher-{args.teacher_seed}")
        self.outputs = os.path.join(self.output_dir, "teacher_outputs")

    def _run(self, name, script, *flags, flag="--model_save_dir"):
        folder = os.path.join(self.output_dir, name)
        common = ["--task_name", "senti", "--data_dir", os.path.abspath(self.args.data_dir), "--seq_length", "128"]
        common += ["--memory_limit", str(self.args.memory_limit)] if self.args.memory_limit else []
        return folder, run_script([script, *common, *map(str, flags)], folder, self.args.threads, flag)

    def _training(self, epochs, learning_rate, seed):
        return ["--num_epochs", epochs, "--learning_rate", learning_rate, "--seed", seed, "--batch_size_per_device", 24,
                "--eval_batch_size_per_device", 48, "--eval_every_step_num", 90, "--loss_print_every_n_iter", 30,
                "--do_train", "--do_eval"]  # fmt: skip

    def seconds(self, row, seed):
        """Wall-clock seconds of the runs of a student."""
        names = [row, *(["on unlabelled text"] if row == AFTER_UNLABELLED else [])]
        return sum(seconds_of(os.path.join(self.output_dir, f"{name.replace(' ', '-')}-{seed}")) for name in names)

    def preprocess(self):
        """Step 1."""
        self._run("preprocess", "preprocess.py", "--model_load_dir", self.model_dir, "--resave_ofrecord", flag="--log_dir")

    def teacher(self):
        """Step 2, with one seed; returns its folder."""
        training = self._training(self.args.teacher_epochs, self.args.teacher_learning_rate, self.args.teacher_seed)
        return self._run("teacher", "meta_teacher.py", "--model_load_dir", self.model_dir, *training)[0]

    def knowledge(self, unlabelled=False):
        """Step 3a."""
        self._run(
            "teacher_eval" + self._suffix(unlabelled), "meta_teacher_eval.py", "--model_load_dir", best_snapshot(self.teacher()),
            "--student_num_hidden_layers", self.args.student_layers, "--eval_batch_size_per_device", 24,
            "--teacher_output_dir", self.outputs + self._suffix(unlabelled), *self._unlabelled(unlabelled), flag="--log_dir",
        )  # fmt: skip

    @staticmethod
    def _suffix(unlabelled):
        return "_unlabelled" if unlabelled else ""

    @staticmethod
    def _unlabelled(unlabelled):
        return ["--unlabelled"] if unlabelled else []

    def student(self, row, seed, unlabelled=False):
        """Step 3b; returns (folder, metrics rows). `unlabelled`: on the text without labels, before the labelled text."""
        training = self._training(self.args.student_epochs, self.args.student_learning_rate, seed)
        teacher, student = best_snapshot(self.teacher()), self.model_dir
        if row == FROM_TEACHER:
            student = teacher
        elif row == AFTER_UNLABELLED and not unlabelled:
            student = best_snapshot(self.student(row, seed, unlabelled=True)[0])
        name = "on-unlabelled-text" if unlabelled else row.replace(" ", "-")
        return self._run(
            f"{name}-{seed}", "meta_distill.py", "--student_model", student,
            "--teacher_model", teacher, "--teacher_output_dir", self.outputs + self._suffix(unlabelled),
            "--student_num_hidden_layers", self.args.student_layers, "--temperature", self.args.temperature,
            *training, *self.args.distill_flags, *STUDENTS[row], *self._unlabelled(unlabelled),
        )  # fmt: skip


def accuracies(rows, prefix=""):
    """[dev, test, test by domain …] in per cent, for the snapshot that is best on dev."""
    dev = max(row["accuracy"] for row in rows if row["kind"] == prefix + "dev")
    test = last_of(rows, prefix + "test")
    return [100 * value for value in (dev, test["accuracy"], *(d["accuracy"] for d in test["by_domain"].values()))]


def main():
    parser = results_parser(__doc__)
    parser.add_argument("--rows", nargs="+", default=list(STUDENTS)[:3], choices=STUDENTS)
    parser.add_argument("--teacher_seed", type=int, default=42)
    parser.add_argument("--teacher_epochs", type=int, default=2)
    parser.add_argument("--teacher_learning_rate", type=float, default=1e-4)
    parser.add_argument("--student_layers", type=int, default=3)
    parser.add_argument("--student_epochs", type=int, default=2)
    parser.add_argument("--student_learning_rate", type=float, default=2e-4)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument(
        "--raw_dir", help="folder with fdu-mtl/, SENTI/ and k-shot-single/; its unlabelled reviews become DATA_DIR/unlabelled.csv"
    )
    parser.add_argument("--memory_limit", type=positive_float, help="GB of memory per run (default: what is free when it starts)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads per job")
    weights = ["--hidden_loss_weight", "10", "--attention_loss_weight", "0.1"]
    parser.add_argument("distill_flags", nargs="*", default=weights, help="flags for every student, after -- (default: %(default)s)")
    args = parser.parse_args()

    study = Study(args)
    if AFTER_UNLABELLED in args.rows:  # before the teacher, which takes long
        if args.raw_dir:
            Texts(args.raw_dir, os.path.join(study.output_dir, "texts")).unlabelled_split(args.data_dir)
        find_text(args.data_dir, UNLABELLED, f"give --raw_dir, which writes it for --rows {AFTER_UNLABELLED!r}, or ")
    study.preprocess()
    study.teacher()
    study.knowledge()
    if AFTER_UNLABELLED in args.rows:
        study.knowledge(unlabelled=True)
    jobs = [(row, seed) for seed in args.seeds for row in args.rows]
    results = run_jobs([lambda row=row, seed=seed: study.student(row, seed) for row, seed in jobs], args.workers)
    table, seconds = {}, {}
    for (row, seed), (_, rows) in zip(jobs, results):
        table.setdefault(row, []).append(accuracies(rows))
        seconds.setdefault(row, []).append(study.seconds(row, seed))
    rows = results[0][1]
    teacher = accuracies(rows, "teacher_")
    domains = list(last_of(rows, "test")["by_domain"])
    cells = [f"{value:.1f}" for value in teacher]
    lines = [["teacher (1 seed)", *cells[:2], "", *cells[2:], f"{seconds_of(study.teacher()):.0f}"]]
    for row, values in table.items():
        cells = [mean_and_spread(column) for column in zip(*values)]
        kept = f"{100 * np.mean(values, axis=0)[1] / teacher[1]:.1f} %"
        lines.append([row, *cells[:2], kept, *cells[2:], f"{np.mean(seconds[row]):.0f}"])
    print_table("accuracy", args.seeds, ["dev", "test", "kept", *domains, "seconds"], lines)


if __name__ == "__main__":
    run(main)
