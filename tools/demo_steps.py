"""Functions that the demos share. They run commands of the project, and read the predictions that the runs write."""

import math
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time

from rich.console import Console
from rich.table import Table

from modeling.cli import interruption
from modeling.cli.command_line import Parser
from modeling.cli.flag_kinds import positive_int
from modeling.run.predictions import predictions_path, read_predictions
from ofrecord_util.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOMAINS = ("films", "hotels", "kitchen")  # also the names of the folders with one domain each
ALL = "all"  # folder with all domains
EXAMPLE = "the room was spotless and everyone was so kind"

# Flags of the scripts of the demos
DATA = ("--seed", "42", "--seq_length", "128")
PROGRESS = ("--loss_print_every_n_iter", "36")
TRAINING = ("--batch_size_per_device", "8", *PROGRESS)


def from_root(path):
    """A path that the steps read or write, for this process. The steps run in the project's root."""
    return os.path.join(ROOT, path)


class Demo:
    """The steps of a demo. They share encoder, data and the folder for the runs.

    Attributes:
        model_dir: path of the pretrained encoder.
        data_dir: path of the folder with `ALL` and a folder per domain.
        output: path of the folder for the runs.
        started: time of the start, in seconds.

    Args:
        args: from `demo_parser`.
        name: first part of the name of `output`.
    """

    def __init__(self, args, name):
        self.model_dir, self.data_dir = args.model_dir, args.data_dir
        self.output = os.path.join(args.output_dir, time.strftime(f"{name}-%Y-%m-%d-%H:%M:%S"))
        self.started = time.time()

    def data(self, part=ALL):
        """Path of the data of all domains or of one domain."""
        return os.path.join(self.data_dir, part)

    def path(self, name):
        """Path of a run or of a snapshot of this demo."""
        return os.path.join(self.output, name)

    def preprocess(self):
        """Step 1 of both systems, on all domains."""
        step("Step 1: prototypes and prototypical scores", "preprocess.py", "--task_name", "reviews", "--model_load_dir", self.model_dir,
             "--data_dir", self.data(), "--log_dir", self.output, "--resave_ofrecord", *DATA)  # fmt: skip

    def train(self, title, script, name, load_dir, *flags, part=ALL, shared=TRAINING):
        """Trains a model.

        Args:
            title: heading.
            script: path of the training script.
            name: name of the run's folder.
            load_dir: snapshot to start from.
            flags: further flags.
            part: domain, or `ALL`.
            shared: flags that trainings of this kind have in common.
        Returns:
            path of the best snapshot.
        """
        step(title, script, *self._of(part), "--model_load_dir", load_dir, "--model_save_dir", self.path(name), *DATA, *shared, *flags)
        return self.best(name)

    def best(self, name):
        """Path of a run's best snapshot."""
        folder = self.path(name)
        return os.path.join(folder, next(found for found in os.listdir(from_root(folder)) if found.startswith("snapshot_best_")))

    def hits(self, *names):
        """dict of (domain, text) -> whether the prediction is right, for the test sentences that the runs have measured."""
        found = {}
        for name in names:
            _, _, samples = read_predictions(predictions_path(from_root(self.path(name)), "test"))
            found.update({(sample.domain, *sample.texts): sample.label == sample.predicted for sample in samples})
        return found

    def label(self, title, name, snapshot, part=ALL):
        """Labels the test sentences of a part of the data with a snapshot, into a file of the given name. Returns the same as `hits`."""
        texts, output = os.path.join(self.data(part), "test.csv"), self.path(name + ".tsv")
        step(title, "tools/predict.py", "--model_load_dir", snapshot, "--input", texts, "--output", output)
        with open(from_root(texts), encoding="utf-8") as rows, open(from_root(output), encoding="utf-8") as predictions:
            found = {}
            for row, prediction in zip(rows, predictions):
                text, domain, label = row.rstrip("\n").split("\t")
                found[domain, text] = prediction.split("\t")[0] == label
        return found

    def seconds(self):
        """Seconds since the start."""
        return time.time() - self.started

    def _of(self, part):
        return ("--task_name", "reviews" if part == ALL else part, "--data_dir", self.data(part))


def demo_parser(description):
    """A parser with the flags of every demo: the folders of the model, the data and the runs."""
    parser = Parser(description=description)
    model = "models/uncased_L-6_H-384_A-12_oneflow"
    parser.add_argument("--model_dir", default=model, help="pretrained encoder")
    parser.add_argument("--data_dir", default="data/reviews-demo", help="folder of the reviews")
    parser.add_argument("--output_dir", default="output", help="folder for the runs")
    return parser


def count(text):
    """A flag of epochs or steps, as the word of a step's command: checked here, since the step that uses it may be the last one."""
    return str(positive_int(text))


def step(title, *command):
    """Prints a command of the project and runs it from the project's root. Its output goes to the terminal."""
    print(f"\n== {title}\n$ python3 {' '.join(map(shlex.quote, command))}\n", flush=True)
    with interruption.deferred():  # Ctrl-C reaches the script too, which saves its state
        code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if code:
        raise UserError(f"{command[0]} ended with exit code {code}")


def accuracies(hits):
    """Texts of the accuracies ("81.5 %") for each domain and for all test sentences.

    Args:
        hits: from `Demo.hits`.
    """
    parts = [[hit for (name, *_), hit in hits.items() if name == domain] for domain in DOMAINS]
    return [f"{100 * sum(part) / len(part):.1f} %" for part in (*parts, list(hits.values()))]


def difference(hits, other):
    """Difference between the accuracies of two models on the same sentences, and its 95 % interval.

    The interval is that of a difference between paired proportions: it depends on the sentences that only one model gets right.

    Args:
        hits, other: from `Demo.hits`, with the same keys.
    Returns:
        (difference, low, high) in points, positive if `hits` are more.
    """
    gained = sum(hit and not other[key] for key, hit in hits.items())
    lost = sum(other[key] and not hit for key, hit in hits.items())
    mean = (gained - lost) / len(hits)
    spread = 1.96 * math.sqrt(gained + lost - (gained - lost) ** 2 / len(hits)) / len(hits)
    return 100 * mean, 100 * (mean - spread), 100 * (mean + spread)


def compared(name, hits, other_name, other):
    """A sentence that compares two models on the same sentences. It claims a difference only if the interval excludes 0.

    Args:
        name, other_name: what the sentence calls the models.
        hits, other: from `Demo.hits`, with the same keys.
    """
    points, low, high = difference(hits, other)
    verdict = "a gain" if low > 0 else "a loss" if high < 0 else "no difference that this test can show"
    shown = [f"{round(value, 1) + 0.0:+.1f}" for value in (points, low, high)]  # + 0.0: no "-0.0"
    return f"{name} against {other_name}: {shown[0]} points (95 % interval {shown[1]} to {shown[2]}), {verdict}."


def print_table(title, columns, rows):
    """Prints a table. The first column is aligned to the left and the others to the right."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print()
    console.print(table)


def print_paragraph(text):
    """Prints a text, with line breaks that suit the terminal, and an empty line."""
    print(textwrap.fill(text, min(shutil.get_terminal_size().columns, 100), break_long_words=False, break_on_hyphens=False) + "\n")


def predict_line(snapshot):
    """A command that labels a sentence with a snapshot, for the Python that runs the demo."""
    python = os.path.relpath(sys.executable, ROOT) if sys.executable.startswith(ROOT + os.sep) else sys.executable
    return " ".join(map(shlex.quote, (python, "tools/predict.py", "--model_load_dir", snapshot, EXAMPLE)))
