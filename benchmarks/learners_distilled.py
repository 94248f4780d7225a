"""Part D of benchmarks/learners.py: what the meta parts of Meta-KD bring where the teacher is often wrong.

| condition | the teacher's rows | the student's rows |
| --- | --- | --- |
| clean | 200 per class and domain of SENTI (--student_rows) | the same |
| few | 16 of them a class and domain | as in clean |
| noise-10, noise-20 | as in clean, but the labels of 10 or 20 % are wrong | the same |
| held-out | as in clean | without those of books, which are measured apart |
| teacher | all 6,480 | none: the teacher alone, to decide on its accuracy with more seeds |

Dev and test are never changed. The settings of teacher and students are those of benchmarks/kd_results.py: 2 epochs, batches of 24,
rates 1e-4 and 2e-4, 3 layers, temperature 2, weights 10 and 0.1 for hidden states and attention. The teacher of few rows has 20 epochs
of batches of 8 at 5e-5. --arms takes the rows of benchmarks/kd_results.py, but not
"after unlabelled text".
"""

import os
import random
import re
import shutil
from typing import NamedTuple

import numpy as np

from benchmarks.kd_results import AFTER_UNLABELLED, FROM_TEACHER, STUDENTS
from benchmarks.learners_data import SPLITS, per_class, read_rows, write_folder
from benchmarks.learners_jobs import drop_snapshots, is_finished
from benchmarks.learners_report import PAIRED_NOTE, Table, interval_text
from benchmarks.runs import best_snapshot, last_of, rows_of, run_script, seconds_of
from modeling.cli.errors import UserError
from modeling.run.measures import mean_interval

HELD_OUT, FEW_ROWS, STUDENT_LAYERS = "books", 16, "3"
FULL, NO_META, LABELS = "distilled", "distilled without meta parts", "plain"  # rows of STUDENTS
ROWS = (FULL, NO_META, LABELS)
KNOWN_ROWS = tuple(row for row in STUDENTS if row != AFTER_UNLABELLED)  # SENTI has no text without labels
WEIGHTS = ("--hidden_loss_weight", "10", "--attention_loss_weight", "0.1", "--temperature", "2")
_LONG = ("--num_epochs", "2", "--batch_size_per_device", "24", "--eval_every_step_num", "90")
_TEACHER = (*_LONG, "--learning_rate", "1e-4")
_FEW_TEACHER = ("--num_epochs", "20", "--batch_size_per_device", "8", "--eval_every_step_num", "80", "--learning_rate", "5e-5")
_STUDENT = (*_LONG, "--learning_rate", "2e-4")


class Condition(NamedTuple):
    """A row of the table above: names of the data folders of teacher and student, flags of both, and of the student alone."""

    teacher_data: str
    student_data: str
    teacher: tuple = _TEACHER
    student: tuple = ()


TEACHER_ALONE = "teacher"
CONDITIONS = {
    "clean": Condition("clean", "clean"),
    "few": Condition("few", "clean", _FEW_TEACHER),
    "noise-10": Condition("noise-10", "noise-10"),
    "noise-20": Condition("noise-20", "noise-20"),
    "held-out": Condition("clean", "held-out", student=("--held_out_domains", HELD_OUT)),
    TEACHER_ALONE: Condition("all", ""),
}


def with_noise(rows, share):
    """The rows with wrong labels in a share of them, always the same ones."""
    labels = sorted({row[2] for row in rows})
    changed = set(random.Random(f"noise {share}").sample(range(len(rows)), round(share * len(rows))))
    other = dict(zip(labels, [*labels[1:], labels[0]]))
    return [(*row[:2], other[row[2]]) if place in changed else row for place, row in enumerate(rows)]


class Distilled:
    """The jobs and tables of part D."""

    def __init__(self, args):
        self.source = os.path.join(os.path.abspath(args.data_dir), "SENTI")
        self.rows, self.model = args.student_rows, os.path.abspath(args.model_dir)
        self.output = os.path.join(args.output_dir, f"rows-{self.rows or 'all'}")
        self.conditions = args.conditions or [name for name in CONDITIONS if name != TEACHER_ALONE]
        self.arms, self.seeds, self._keep = args.arms or list(ROWS), args.seeds, args.keep_snapshots
        self._length = str(args.seq_length)
        for flag, names, known in (("--conditions", self.conditions, CONDITIONS), ("--arms", self.arms, KNOWN_ROWS)):
            for name in names:
                if name not in known:
                    raise UserError(f"{flag} {name!r}: there are {', '.join(map(repr, known))}")

    def jobs(self):
        """(name, function) of each job: all students of a condition and seed."""
        return [
            (f"{name}, seed {seed}", lambda name=name, seed=seed: self._run(name, seed)) for seed in self.seeds for name in self.conditions
        ]

    def data(self, name):
        """The data folder of a name."""
        folder = os.path.join(self.output, "data", name)
        if not os.path.isdir(folder):
            rows = {split: read_rows(self.source, split) for split in SPLITS}
            if self.rows and name != "all":
                rows["train"] = per_class(rows["train"], self.rows)
            if name == "few":
                rows["train"] = per_class(rows["train"], FEW_ROWS)
            elif name.startswith("noise-"):
                rows["train"] = with_noise(rows["train"], int(name.rpartition("-")[2]) / 100)
            write_folder(folder, **rows)
        return folder

    def _words(self, script, data, *flags):
        return [script, "--task_name", "senti", "--seq_length", self._length, "--data_dir", data, *flags]

    def _scores(self, data, *flags):
        """Step 1 of a data folder."""
        folder = os.path.join(self.output, "scores", os.path.basename(data))
        words = self._words("preprocess.py", data, "--model_load_dir", self.model, "--resave_ofrecord", *flags)
        run_script(words, folder, flag="--log_dir")

    def teacher_folder(self, name, seed):
        """The run folder of a condition's teacher. Conditions of equal teachers share it."""
        return os.path.join(self.output, "teachers", CONDITIONS[name].teacher_data, str(seed))

    def student_folder(self, name, seed, row):
        """The run folder of a student."""
        return os.path.join(self.output, "students", name, str(seed), row.replace(" ", "-"))

    def _run(self, name, seed):
        condition, teacher = CONDITIONS[name], self.teacher_folder(name, seed)
        if not is_finished(teacher):
            data = self.data(condition.teacher_data)
            self._scores(data)
            flags = ("--model_load_dir", self.model, "--seed", str(seed), "--do_train", "--do_eval", "--loss_print_every_n_iter", "30")
            run_script(self._words("meta_teacher.py", data, *flags, *condition.teacher), teacher)
        rows = [row for row in self.arms if not is_finished(self.student_folder(name, seed, row))]
        if name == TEACHER_ALONE or not rows:
            return
        data = self.data(condition.student_data)
        self._scores(data, *condition.student)
        outputs, snapshot = os.path.join(self.output, "teacher_outputs", f"{name}-{seed}"), best_snapshot(teacher)
        layers = ("--student_num_hidden_layers", STUDENT_LAYERS, "--teacher_output_dir", outputs)
        log = self._log_folder(name, seed)
        if not os.path.isdir(outputs):
            shutil.rmtree(log, ignore_errors=True)  # the outputs were removed after the students of an earlier call
        run_script(
            self._words("meta_teacher_eval.py", data, "--model_load_dir", snapshot, *layers, *condition.student), log, flag="--log_dir"
        )
        for row in rows:
            start = snapshot if row == FROM_TEACHER else self.model
            words = self._words("meta_distill.py", data, "--student_model", start, "--teacher_model", snapshot, *layers)
            words += ["--seed", str(seed), "--do_train", "--do_eval", "--loss_print_every_n_iter", "30", *_STUDENT, *WEIGHTS]
            folder = self.student_folder(name, seed, row)
            run_script([*words, *condition.student, *STUDENTS[row]], folder)
            if not self._keep:
                drop_snapshots(folder)
        if not self._keep:
            shutil.rmtree(outputs)

    def _log_folder(self, name, seed):
        return os.path.join(self.output, "teacher_eval", f"{name}-{seed}")

    def on_student_rows(self, name):
        """Accuracy in per cent of a condition's teacher on the labels of the rows on which the students train, by seed."""
        found = {}
        for seed in self.seeds:
            folder = self._log_folder(name, seed)
            if is_finished(folder):
                with open(os.path.join(folder, "meta_teacher_eval.log"), encoding="utf-8") as file:
                    found[seed] = 100 * float(re.search(r"train accuracy ([0-9.]+)", file.read()).group(1))
        return found

    def accuracies(self, name, row, kind):
        """Accuracies in per cent by seed: dict of seed -> accuracy, of the finished runs that have this evaluation.

        Args:
            kind: kind of a metrics row, such as "test" or "teacher_test".
        """
        found = {}
        for seed in self.seeds:
            folder = self.teacher_folder(name, seed) if row == TEACHER_ALONE else self.student_folder(name, seed, row)
            if is_finished(folder) and any(line["kind"] == kind for line in rows_of(folder)):
                found[seed] = 100 * last_of(rows_of(folder), kind)["accuracy"]
        return found

    def tables(self):
        """The tables of what is finished."""
        tables = [self._accuracies()]
        tables += filter(None, (self._differences(FULL, baseline) for baseline in (NO_META, LABELS) if FULL in self.arms))
        return tables if tables[0].rows else []

    def _accuracies(self):
        rows, points, intervals = [], {}, {}
        for name in self.conditions:
            for row in (TEACHER_ALONE, *(self.arms if name != TEACHER_ALONE else ())):
                test = self.accuracies(name, row, "test")
                if not test:
                    continue
                title = f"{name}: {row}" if row != TEACHER_ALONE or name != TEACHER_ALONE else "teacher alone"
                whole = mean_interval(list(test.values()))
                points[title], intervals[title] = [(f"seed {seed}", value) for seed, value in test.items()], whole[1:]
                teacher = self.accuracies(name, row, "teacher_test")
                kept = f"{100 * np.mean([test[seed] / teacher[seed] for seed in teacher]):.1f} %" if teacher else "–"
                dev, apart = (self.accuracies(name, row, kind) for kind in ("dev", "test_held_out"))
                folders = [
                    self.teacher_folder(name, seed) if row == TEACHER_ALONE else self.student_folder(name, seed, row) for seed in test
                ]
                seconds = f"{np.mean([seconds_of(folder) for folder in folders]):.0f}"
                right = list(self.on_student_rows(name).values()) if row == TEACHER_ALONE else []
                cells = [f"{np.mean(right):.1f}" if right else "–", f"{np.mean(list(dev.values())):.1f}", interval_text(*whole), kept]
                held_out = interval_text(*mean_interval(list(apart.values()))) if apart else "–"
                rows.append([title, *cells, held_out, str(len(test)), seconds])
        header = ["condition", "students' rows", "dev", "test", "of the teacher", f"test, {HELD_OUT} held out", "seeds", "seconds"]
        note = "Accuracy in per cent, mean over the seeds with a 95 % t interval; the share of the teacher's is on test."
        return Table("Accuracy", header, rows, note, points, intervals, "accuracy on test, per cent")

    def _differences(self, row, baseline):
        rows, points, intervals = [], {}, {}
        for name in self.conditions:
            cells = []
            for kind in ("dev", "test", "test_held_out"):
                ours, theirs = (self.accuracies(name, one, kind) for one in (row, baseline))
                both = {seed: value - theirs[seed] for seed, value in ours.items() if seed in theirs}
                whole = mean_interval(list(both.values())) if both else None
                cells.append(interval_text(*whole, sign="+") if both else "–")
                if both and kind == "test":
                    points[name], intervals[name] = [(f"seed {seed}", value) for seed, value in both.items()], whole[1:]
            if name in points:
                rows.append([name, *cells, str(len(points[name]))])
        header = ["condition", "dev", "test", f"test, {HELD_OUT} held out", "seeds"]
        title = f"{row}: difference to {baseline}"
        return Table(title, header, rows, PAIRED_NOTE, points, intervals, f"points above {baseline}") if rows else None
