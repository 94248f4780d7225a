"""A tiny project folder for the end-to-end tests: vocabulary, text that can be learnt, a small BERT, and how a script is
run.

Sizes are odd on purpose: nothing divides by anything, so that a batch size or a length that is mistaken for another
shows.
"""

import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np

from modeling.bert.config import BertConfig
from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.cli import advice
from modeling.cli.errors import run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = ("preprocess.py", "meta_finetuning.py", "finetuning.py")

GOOD = ("good", "great", "lovely")
BAD = ("bad", "awful", "boring")
FILLERS = {
    "sst-2": ("film", "actors", "story", "camera", "scene"),
    "mr": ("plot", "director", "movie", "script", "ending"),
    "cr": ("phone", "battery", "screen", "player", "button"),
}
COMMON = ("the", "a", "is", "was", "and", "very", "this", "it", "of")
TOKENS = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    ".",
    ",",
    "!",
    "'",
    "-",
    "##s",
    "##ly",
    "##ness",
    "##er",
    "act",
    "bore",
    "##dom",
    *sorted({word for words in FILLERS.values() for word in words} - {"actors"}),
    *list(COMMON + GOOD + BAD),
    "yes",
    "no",
    "maybe",
    "cats",
    "dogs",
    "sleep",
    "run",
]
CONFIG = BertConfig(
    vocab_size=len(TOKENS),
    hidden_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=36,
    max_position_embeddings=40,
    type_vocab_size=2,
    initializer_range=0.15,
)


def check_advice(errors):
    """Checks that the error of a program which has just run in this process names only flags that the program has."""
    for line in errors.splitlines():
        if line.startswith("error: "):
            foreign = [flag for part in advice.BREAK.split(line) for flag in advice.foreign_flags(part)]
            assert not foreign, f"{foreign}: {line}"


def write_vocabulary(path, tokens=TOKENS):
    """Writes a vocabulary, a token a line; returns its path."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(token + "\n" for token in tokens))
    return path


def write_encoder(folder, config=CONFIG, tokens=TOKENS, older=False):
    """Writes a small BERT with random weights as a snapshot.

    Args:
        folder: path of the snapshot.
        config: its sizes.
        tokens: its vocabulary.
        older: as the earlier converter left it: no meta, no snapshot_done, no configuration, no vocabulary.
    """
    variables = {name: initial_value(name, shape, 7, config.initializer_range) for name, shape in encoder_shapes(config).items()}
    if not older:
        vocabulary = "".join(token + "\n" for token in tokens)
        write_variables(folder, variables, {CONFIG_FILE: config.to_json(), VOCAB_FILE: vocabulary})
        return folder
    for name, value in variables.items():
        os.makedirs(os.path.join(folder, name))
        value.tofile(os.path.join(folder, name, "out"))
    return folder


def write_classifier(folder, labels=("0", "1"), pair=False, config=CONFIG, tokens=TOKENS):
    """Writes a small BERT with random weights as a snapshot that a training step could have left. Its task is `t`, its domain `mr`."""
    shapes = {**encoder_shapes(config), **classifier_shapes(config, len(labels))}
    task = {"name": "t", "domains": ["mr"], "labels": list(labels), "pair": pair, "seq_length": 37, "do_lower_case": True}
    files = {CONFIG_FILE: config.to_json(), VOCAB_FILE: "".join(token + "\n" for token in tokens), TASK_FILE: json.dumps(task)}
    write_variables(folder, {name: initial_value(name, shape, 3, 0.4) for name, shape in shapes.items()}, files)
    return folder


def write_rows(folder, split, rows):
    """Writes SPLIT.csv: rows of tab-separated columns."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, split + ".csv"), "w", encoding="utf-8", newline="") as file:
        file.write("".join("\t".join(row) + "\n" for row in rows))


def opinions(domain, counts, seed, names=("0", "1")):
    """Rows of a text, its domain and a label that one word of the text decides.

    Args:
        domain: its spelling in the rows.
        counts: how many rows of each label, in the order of `names`; rows of a label stand together.
        seed: of the words.
        names: names of the labels; the first is the bad one.
    """
    draw = random.Random(f"{domain} {seed}")
    fillers = FILLERS.get(domain.lower(), FILLERS["mr"])
    rows = []
    for label, count in enumerate(counts):
        for _ in range(count):
            words = [draw.choice(fillers + COMMON) for _ in range(draw.randint(2, 11))]
            words.insert(draw.randint(0, len(words)), draw.choice(GOOD if label else BAD))
            text = " ".join(words)
            rows.append((draw.choice((text, text.capitalize() + " .", text + "!")), domain, names[label]))
    return rows


def pairs(domain, count, seed, labels):
    """Rows of two texts, their domain and a label that a word of the second text decides; the labels alternate."""
    draw = random.Random(f"{domain} {seed}")
    rows = []
    for row in range(count):
        label = row % len(labels)
        first = " ".join(draw.choice((*COMMON, "cats", "dogs", "sleep", "run")) for _ in range(draw.randint(1, 6)))
        second = f"{draw.choice(COMMON)} {draw.choice(('cats', 'dogs'))} {('yes', 'no', 'maybe')[label]}"
        rows.append((first, second, domain, labels[label]))
    return rows


def write_g1(folder, train=9, dev=4):
    """The three-domain sentiment task: `train` and `dev` rows of each class of each domain (mr has a row less)."""
    for split, count in (("train", train), ("dev", dev)):
        rows = [row for domain, less in (("SST-2", 0), ("MR", 1), ("cr", 0)) for row in opinions(domain, (count, count - less), split)]
        random.Random(split).shuffle(rows)
        write_rows(folder, split, rows)


def write_single(folder, domain="SST-2", train=8, dev=(4, 5), test=(6, 17)):
    """A single-domain sentiment task; the test split is unbalanced, its rows of one label before those of the other."""
    write_rows(folder, "train", opinions(domain, (train, train), "train"))
    write_rows(folder, "dev", opinions(domain, dev, "dev"))
    write_rows(folder, "test", opinions(domain, test, "test"))


def tagged(domain, count, seed):
    """Sentences of words and tags: cats and acts are persons, dogs and bores are places; two such words are one entity.

    Returns:
        list of lists of (word, domain, tag).
    """
    draw = random.Random(f"{domain} {seed}")
    found = []
    for _ in range(count):
        rows = [(word, "O") for word in draw.choices(FILLERS[domain] + COMMON, k=draw.randint(1, 5))]
        kind, names = draw.choice((("PER", ("cats", "acts")), ("LOC", ("dogs", "bores"))))
        chosen = draw.choices(names, k=draw.randint(1, 2))
        rows += [(name, f"{'I' if place else 'B'}-{kind}") for place, name in enumerate(chosen)]
        rows += [(word, "O") for word in draw.choices(COMMON, k=draw.randint(0, 3))]
        found.append([(word, domain, tag) for word, tag in rows])
    return found


def write_tagged(folder, domains=("mr", "cr"), counts=(30, 9, 11)):
    """Tagged text of several domains: `counts` sentences of train, dev and test for each of them."""
    os.makedirs(folder, exist_ok=True)
    for split, count in zip(("train", "dev", "test"), counts):
        sentences = [sentence for domain in domains for sentence in tagged(domain, count, split)]
        random.Random(split).shuffle(sentences)
        with open(os.path.join(folder, split + ".tsv"), "w", encoding="utf-8", newline="") as file:
            file.write("\n".join("".join("\t".join(row) + "\n" for row in sentence) for sentence in sentences))


def write_questions(folder, domains=("mr", "cr"), counts=(40, 9, 11)):
    """Questions in the form of SQuAD: the answer to "good" is the animal after a good word, that to "bad" the one after a bad word."""
    os.makedirs(folder, exist_ok=True)
    for split, count in zip(("train", "dev", "test"), counts):
        draw, articles = random.Random(split), []
        for domain in domains:
            paragraphs = []
            for number in range(count):
                words, answers = draw.choices(FILLERS[domain] + COMMON, k=draw.randint(1, 9)), {}
                for cue in draw.sample(("good", "bad"), 2):
                    answers[cue] = (len(" ".join([*words, cue])) + 1, " ".join(draw.choices(("Cats", "dogs", "run"), k=draw.randint(1, 2))))
                    words += [cue, answers[cue][1], *draw.choices(COMMON, k=draw.randint(1, 4))]
                entries = [
                    {"id": f"{split}-{domain}-{number}-{cue}", "question": cue, "answers": [{"text": text, "answer_start": start}]}
                    for cue, (start, text) in answers.items()
                ]
                paragraphs.append({"context": " ".join(words), "qas": entries})
            articles.append({"domain": domain, "paragraphs": paragraphs})
        with open(os.path.join(folder, split + ".json"), "w", encoding="utf-8") as file:
            json.dump({"version": "1", "data": articles}, file)


def write_pairs(folder, domains, labels, counts=(19, 10, 11)):
    """A pair task: `counts` rows of train, dev and test for the first domain, one less for each further one."""
    for split, count in zip(("train", "dev", "test"), counts):
        rows = [row for less, name in enumerate(domains) for row in pairs(name, count - less, split, labels)]
        write_rows(folder, split, rows)


class Project:
    """A folder that looks like the project's root to a user: the scripts, relative paths, ./output."""

    def __init__(self, folder):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        for script in SCRIPTS:
            os.symlink(os.path.join(ROOT, script), os.path.join(self.folder, script))
        write_vocabulary(self.path("vocab.txt"))

    def path(self, *names):
        """The path of something in the folder."""
        return os.path.join(self.folder, *names)

    def start(self, line, **environment):
        """Starts `python3 SCRIPT FLAGS…` there, as a process, with more variables in its environment."""
        command, environment = [sys.executable, *line.split()], dict(os.environ, **environment)
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
        )

    def run(self, line):
        """Runs `SCRIPT FLAGS…` there to its end, as a process; returns its standard output."""
        return self.finish(self.start(line))

    @staticmethod
    def finish(process):
        """Standard output of a process that `start` started, when it has ended well."""
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
        return output

    def run_of(self, output):
        """The `Run` whose best snapshot the last line of a script's output names."""
        last = output.splitlines()[-1]
        assert last.startswith("snapshot for the next step: "), last
        return Run(self.path(os.path.dirname(last[len("snapshot for the next step: ") :])))

    def cut_off(self, line, step, number, rank=0):
        """Runs `SCRIPT FLAGS…` as a process that gets a signal at a step; returns (exit code, standard output, standard error)."""
        path = os.pathsep.join([os.path.join(ROOT, "tests", "signals"), ROOT])
        process = self.start(line, PYTHONPATH=path, SIGNAL_AT=f"{rank} {step} {int(number)}")
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    def check_resumed(self, line, unbroken, step, number):
        """Cuts a run off at a step, continues it, and compares it with one that was not: metrics, and snapshots byte by byte.

        Args:
            line: SCRIPT and flags, without --model_save_dir.
            unbroken: the `Run` of the same line.
            number: SIGINT, SIGTERM, or SIGKILL; the latter continues from a state two steps before.
        """
        line += " --model_save_dir output/cut-off/run"
        more = f" --state_save_every_n_iter {step - 2}" if number == signal.SIGKILL else ""
        code, output, errors = self.cut_off(line + more, step, number)
        assert code == (-9 if number == signal.SIGKILL else 128 + number), output + errors
        behind = step - 2 if number == signal.SIGKILL else step
        assert [name for name in os.listdir(self.path("output/cut-off/run")) if "state" in name] == [f"state_step_{behind}"]
        # the same flags again, or the file of them that the run has written
        if number == signal.SIGKILL:
            line = line.split()[0] + " @output/cut-off/run/run.flags"
        output = self.call_well(line + " --resume")
        assert f"after step {behind} of" in output
        resumed = Run(self.path("output/cut-off/run"))
        for kind in ("train", "dev", "test"):
            assert without_times(resumed.rows(kind)) == without_times(unbroken.rows(kind)), kind
        assert resumed.snapshots() == unbroken.snapshots()
        assert not [name for name in os.listdir(resumed.folder) if "state" in name]
        for name in resumed.snapshots():
            assert tree(resumed.path(name)) == tree(unbroken.path(name)), name
        predictions = [read_bytes(run.path("predictions_dev.tsv")) for run in (resumed, unbroken)]
        assert predictions[0] == predictions[1]
        assert os.path.exists(resumed.path("report.html"))
        shutil.rmtree(self.path("output/cut-off"))

    def call(self, line):
        """Runs `SCRIPT FLAGS…` there within this process.

        Returns:
            (exit code, standard output, standard error).
        """
        script, *flags = line.split()
        main = importlib.import_module(script[: -len(".py")]).main
        argv, folder = sys.argv, os.getcwd()
        output, errors = io.StringIO(), io.StringIO()
        sys.argv = [script, *flags]
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                run(main)
        except SystemExit as end:
            check_advice(errors.getvalue())
            return end.code or 0, output.getvalue(), errors.getvalue()
        finally:
            sys.argv = argv
            os.chdir(folder)

    def call_well(self, line):
        """Standard output of `call`, when the script has ended well."""
        code, output, errors = self.call(line)
        assert code == 0, output + errors
        return output


class Run:
    """What a training script left in its folder.

    Attributes:
        folder: its path.
        metrics: list of the objects of metrics.jsonl.
        flags: the object of flags.json.
        log: text of run.log.
    """

    def __init__(self, folder):
        self.folder = str(folder)
        with open(self.path("metrics.jsonl"), encoding="utf-8") as file:
            self.metrics = [json.loads(line) for line in file]
        with open(self.path("run.log"), encoding="utf-8") as file:
            self.log = file.read()
        self.flags = None
        if os.path.exists(self.path("flags.json")):
            with open(self.path("flags.json"), encoding="utf-8") as file:
                self.flags = json.load(file)

    def path(self, *names):
        """The path of something in the folder."""
        return os.path.join(self.folder, *names)

    def rows(self, kind):
        """The objects of one kind: "train", "dev" or "test"."""
        return [row for row in self.metrics if row["kind"] == kind]

    def snapshots(self):
        """Names of the snapshots, sorted."""
        return sorted(name for name in os.listdir(self.folder) if name.startswith("snapshot"))

    def best(self):
        """The name of the one best snapshot."""
        (name,) = [name for name in self.snapshots() if name.startswith("snapshot_best")]
        return name


def without_times(rows):
    """Rows of metrics.jsonl without what a clock says."""
    return [{name: value for name, value in row.items() if name not in ("seconds", "samples_per_second")} for row in rows]


def tree(folder):
    """dict of relative path -> bytes, of all files below a folder."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return {os.path.relpath(path, folder): read_bytes(path) for path in paths}


def read_bytes(path):
    """The bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


def read_variable(snapshot, name):
    """A variable's float32 values, flat."""
    return np.fromfile(os.path.join(snapshot, name, "out"), "<f4")
