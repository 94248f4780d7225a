"""Each value of a run is read, computed or written once: text, scores, digests, lengths, records."""

import builtins
import collections
import os

import pytest
import tiny

from modeling.checkpoints import snapshot
from modeling.run.training import Training
from ofrecord_util import dataset, records, text
from ofrecord_util.reader import read_split

DATA = "data/g1"
ENCODER = "encoder"
COMMON = f"--task_name {{task}} --data_dir {DATA} --model_load_dir {ENCODER} --seq_length 24 --vocab_file vocab.txt --resave_ofrecord"
TRAINING = "--num_epochs 1 --batch_size_per_device 8 --dev_every_step_num 5"


@pytest.fixture
def project(tmp_path):
    project = tiny.Project(tmp_path / "project")
    tiny.write_encoder(project.path(ENCODER))
    tiny.write_g1(project.path(*DATA.split("/")), train=4, dev=2)
    return project


class Counts:
    """How often a script reads, writes and computes what a run needs.

    Attributes:
        opened: how often a file of the data folder was opened for reading, by its path in the project.
        calls: how often a function was called, by (name, what it was called for).
    """

    def __init__(self, project, monkeypatch):
        self.opened, self.calls = collections.Counter(), collections.Counter()
        self._project, self._patch, open_file = project, monkeypatch, builtins.open

        def counting_open(path, mode="r", *args, **kwargs):
            if isinstance(path, str) and not set(mode) & set("wax"):
                self.opened[os.path.relpath(path, project.folder)] += 1
            return open_file(path, mode, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", counting_open)
        self.count(text, "read_text", lambda path, *_: os.path.basename(path))
        self.count(records, "count_tokens", lambda _: "all")
        self.count(dataset, "write_split", lambda _, split, *__: split)
        self.count(dataset, "read_split", lambda _, split, *__: split)

    def count(self, module, name, what):
        """Counts the calls of a module's function, each for `what(arguments)`."""
        call = getattr(module, name)

        def counting(*args, **kwargs):
            self.calls[name, what(*args)] += 1
            return call(*args, **kwargs)

        self._patch.setattr(module, name, counting)

    def of(self, name):
        """dict of what a function was called for -> how often."""
        return {what: number for (called, what), number in self.calls.items() if called == name}

    def of_records(self):
        """Paths of the records' files that were opened for reading, with how often."""
        return {path: number for path, number in self.opened.items() if ".of_record-" in path}

    def variables(self, folder):
        """How often each variable of a snapshot was opened, as a set."""
        return {
            number for path, number in self.opened.items() if path.startswith(folder + os.sep) and path.endswith(os.sep + snapshot.DATA)
        }


@pytest.mark.parametrize("task", ["g1", "unknown"])
def test_preprocess(project, monkeypatch, task):
    counts = Counts(project, monkeypatch)
    project.call_well("preprocess.py " + COMMON.format(task=task))
    for split in ("train", "dev"):
        assert counts.opened[f"{DATA}/{split}.csv"] == 1
    assert counts.of("read_text") == {"train.csv": 1, "dev.csv": 1}
    assert counts.of("write_split") == {"train": 1, "dev": 1}
    assert counts.of("read_split") == {}
    assert counts.of_records() == {}
    assert counts.of("count_tokens") == {"all": 2}
    assert counts.opened[f"{DATA}/ofrecord/train/weight.npy"] == 0
    assert max(counts.variables(ENCODER)) <= 2  # the value and the digest
    assert read_split(project.path(DATA), "train").sample_weights.std() > 0


@pytest.mark.parametrize("resave", [True, False])
def test_meta_finetuning(project, monkeypatch, resave):
    line = COMMON.format(task="g1")
    project.call_well("preprocess.py " + line)
    counts = Counts(project, monkeypatch)
    digested = []
    digest = snapshot.Snapshot.digest
    monkeypatch.setattr(snapshot.Snapshot, "digest", lambda self: digested.append(self.path) or digest(self))
    line = line if resave else line.replace(" --resave_ofrecord", "")
    project.call_well(f"meta_finetuning.py {line} {TRAINING} --model_save_dir output/run")
    run = tiny.Run(project.path("output", "run"))
    for split in ("train", "dev"):
        assert counts.opened[f"{DATA}/{split}.csv"] == 1
    assert counts.opened["vocab.txt"] == 1  # although it is a part of each snapshot
    assert counts.of("read_text") == {"train.csv": 1, "dev.csv": 1}
    assert counts.of("write_split") == ({"train": 1, "dev": 1} if resave else {})
    assert counts.of("read_split") == ({} if resave else {"train": 1, "dev": 1})
    assert set(counts.of_records().values()) == (set() if resave else {1})
    assert counts.of("count_tokens") == {"all": 2}
    assert counts.opened[f"{DATA}/ofrecord/train/weight.npy"] == 1
    # the start's digest is asked for by the run's identity and by flags.json, the best snapshot's by the report
    assert collections.Counter(map(os.path.basename, digested)) == {ENCODER: 2, run.best(): 1}
    assert max(counts.variables(ENCODER)) <= 2  # the value and the digest
    assert b"Not on this page" not in tiny.read_bytes(run.path("report.html"))


def test_records_that_were_never_written(project, monkeypatch):
    """They are written once, by the first step, without --resave_ofrecord."""
    line = COMMON.format(task="g1").replace(" --resave_ofrecord", "")
    counts = Counts(project, monkeypatch)
    output = project.call_well("preprocess.py " + line)
    assert output.count(" written as OFRecord, ") == 2
    project.call_well(f"meta_finetuning.py {line} {TRAINING} --model_save_dir output/run")
    assert counts.of("write_split") == {"train": 1, "dev": 1}
    assert counts.of("read_split") == {"train": 1, "dev": 1}
    run = tiny.Run(project.path("output", "run"))
    for split in ("train", "dev"):
        said = [line for line in run.log.splitlines() if f" {split}: " in line]
        assert [word for line in said for word in ("columns: text, domain, label", " rows; ", "median", "example (") if word in line] == [
            "columns: text, domain, label",
            " rows; ",
            "median",
            *(["example ("] * 2 if split == "train" else []),
        ]


def test_a_vocabulary_that_changes_during_the_run(project, monkeypatch):
    """Each snapshot has the vocabulary that the run was trained with."""
    vocabulary, batches_of = tiny.read_bytes(project.path("vocab.txt")), Training.batches

    def batches(training):
        os.remove(project.path("vocab.txt"))
        return batches_of(training)

    monkeypatch.setattr(Training, "batches", batches)
    line = COMMON.format(task="g1") + f" {TRAINING} --use_sample_weights false --save_last_snapshot --model_save_dir output/run"
    project.call_well(f"meta_finetuning.py {line}")
    run = tiny.Run(project.path("output", "run"))
    assert len(run.snapshots()) == 2
    for name in run.snapshots():
        assert tiny.read_bytes(run.path(name, snapshot.VOCAB_FILE)) == vocabulary


def test_a_snapshot_is_digested_once(project, monkeypatch):
    counts = Counts(project, monkeypatch)
    start = snapshot.Snapshot(project.path(ENCODER))
    assert start.digest() == start.digest()
    assert counts.variables(ENCODER) == {1}
