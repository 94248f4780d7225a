"""The readers that `benchmarks/fuzz.py` gives damaged copies of the files of `fuzz_files.py`."""

import contextlib
import hashlib
import json
import os
from typing import Callable, NamedTuple

import numpy as np

from benchmarks.fuzz_files import CONFIG, COUNTS, SEQ_LENGTH, TASK, silent, write
from modeling.bert.variables import encoder_shapes
from modeling.checkpoints.snapshot import Snapshot, stored_task
from modeling.checkpoints.teacher_outputs import TeacherOutputs
from modeling.cli.flags import parse_flags
from modeling.report.card import write_cards
from modeling.report.facts import read_run
from modeling.report.page import page
from modeling.run.metrics import Metrics
from modeling.run.resume import best_names, check_identity, newest_state
from ofrecord_util.dataset import Dataset
from ofrecord_util.scores import load_map, load_scores
from ofrecord_util.tasks import resolve_task
from ofrecord_util.text import read_names, read_text
from ofrecord_util.text_files import read_rows
from ofrecord_util.tokenization import Tokenizer
from tools import checkpoint_hugging_face, checkpoint_npz
from tools.inspect import describe_snapshot
from tools.kshot_corpora import parse_source, read_source
from tools.texts import read_lines, texts_of


class Target(NamedTuple):
    """Files that belong together, and what reads them.

    Attributes:
        folder: its name in the work folder. All files below it are damaged, one at a time.
        read: function of the folder's path.
        sign: function (path of the folder, path of the damaged file) that writes the digests that cover the file again, so that its
            values are looked at; None without digests.
    """

    folder: str
    read: Callable
    sign: Callable = None


def read_data(folder):
    """As a training step reads it."""
    vocab_file = os.path.join(os.path.dirname(folder), "vocabulary", "vocab.txt")
    read_names(read_rows(os.path.join(folder, "train.csv")))
    resolve_task("mine", folder)
    dataset = Dataset(folder, TASK, Tokenizer(vocab_file), SEQ_LENGTH, log=silent)
    for split in COUNTS:
        dataset.records(split, example_num=100)
    digest = read_text(os.path.join(folder, "train.csv"), TASK).digest
    load_scores(folder, digest, 1)
    load_map(folder, digest)


def read_vocabulary(folder):
    """As every script reads it."""
    for lower in (True, False):
        tokenizer = Tokenizer(os.path.join(folder, "vocab.txt"), lower)
        tokenizer.encode(["a good film", "x" * 300, "É\u0301 中"], None, 8)
        tokenizer.check_casing()


def read_snapshot(folder):
    """As the predictor and tools/inspect.py read it."""
    snapshot = Snapshot(folder)
    config, task = snapshot.config(), stored_task(snapshot)
    for name, shape in encoder_shapes(config).items():
        if name in snapshot.sizes:
            snapshot.read(name, shape)
    if task is not None and snapshot.vocab_file():
        Tokenizer(snapshot.vocab_file(), snapshot.task().get("do_lower_case", True)).encode(["a"], None, SEQ_LENGTH)
    json.dumps(describe_snapshot(folder))


def read_states(folder):
    """As --resume reads them."""
    best_names(folder)
    state = newest_state(folder, silent)
    check_identity(state, {"--seed": 1})
    counters = state.values["counters"].items()
    {name: np.array(value["values"], value["dtype"]) for name, value in counters}


def read_teacher(folder):
    """As meta_distill.py reads them."""
    outputs = TeacherOutputs(folder)
    for average in (False, True):
        outputs.batch(outputs.idxs[:3], int(outputs._lengths.max()), outputs.layout.knowledge, average)


def read_finished_run(folder):
    """As tools/report.py and --resume read it."""
    run = read_run(folder)
    write_cards(run)
    page(run)
    with contextlib.closing(Metrics(folder)) as metrics:
        metrics.continue_from(4)


def read_hugging_face(folder):
    """As tools/convert_checkpoint.py reads it."""
    checkpoint_hugging_face.read(folder)


def read_mead(folder):
    """As tools/convert_checkpoint.py reads it."""
    path = os.path.join(folder, "model.npz")
    checkpoint_npz.is_npz_of_mead(path)
    checkpoint_npz.read(path, os.path.join(folder, "vocab.txt"), CONFIG.num_attention_heads)


def read_corpora(folder):
    """As tools/make_kshot.py reads them."""
    for source in ("d=tsv-header:text.tsv", "d=reviews:1=positive.review,0=negative.review", "d=lines:1=positive.txt,0=negative.txt"):
        form, _, names = source.partition(":")
        places = ",".join("=".join([*name.split("=")[:-1], os.path.join(folder, name.split("=")[-1])]) for name in names.split(","))
        read_source(parse_source("--source", f"{form}:{places}"), "--source", log=silent)


def read_flags(folder):
    """As every script reads it."""
    parse_flags("finetuning", "", ["@" + os.path.join(folder, "run.flags")])


def read_inputs(folder):
    """As tools/predict.py reads them."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as stream:
                list(texts_of(read_lines(stream, path), False, path, warn=silent))


def read_tables(folder):
    """As a training script reads them."""
    for name in ("train.csv", "dev.jsonl"):
        rows = read_rows(os.path.join(folder, name))
        read_names(rows)
        read_text(rows.path, TASK, rows)


# Digests

_MOST_DIGESTED = 2**26


def _digest(path):
    if os.path.getsize(path) > _MOST_DIGESTED:  # a sparse file of 12 GB, which every reader refuses for its size
        return ""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _edit(path, change):
    with contextlib.suppress(ValueError, RecursionError, AttributeError, KeyError, TypeError, OSError):
        with open(path, "rb") as file:
            values = json.loads(file.read().decode("utf-8"))
        change(values)
        write(path, json.dumps(values))


def sign_data(_folder, path):
    """Digests of manifests, weight.json and map.json."""
    place, name = os.path.split(path)

    def part(values):
        for about in values["parts"]:
            if about["name"] == name:
                about.update(bytes=os.path.getsize(path), sha256=_digest(path))

    if ".of_record-" in name:
        _edit(os.path.join(place, "manifest.json"), part)
    elif name in ("weight.npy", "map.npz"):
        _edit(os.path.splitext(path)[0] + ".json", lambda values: values.update(sha256=_digest(path)))


def sign_state(_folder, path):
    """The digests in a state.json."""

    def whole(values):
        place = os.path.dirname(path)
        if os.path.basename(path) == "out":
            place = os.path.dirname(place)
            values["digests"][os.path.basename(os.path.dirname(path))] = _digest(path)
        text = json.dumps([values["values"], values["digests"]], sort_keys=True)
        values["digest"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    place = os.path.dirname(path)
    _edit(os.path.join(place if path.endswith("state.json") else os.path.dirname(place), "state.json"), whole)


def sign_teacher(folder, path):
    """Digests and sizes in the manifest of the outputs of a teacher."""
    name = os.path.basename(path)[: -len(".npy")]
    _edit(
        os.path.join(folder, "manifest.json"),
        lambda values: values["arrays"][name].update(sha256=_digest(path), bytes=os.path.getsize(path)),
    )


TARGETS = (
    Target("vocabulary", read_vocabulary),
    Target("data", read_data, sign_data),
    Target("snapshot", read_snapshot),
    Target("states", read_states, sign_state),
    Target("teacher", read_teacher, sign_teacher),
    Target("run", read_finished_run),
    Target("hugging_face", read_hugging_face),
    Target("mead", read_mead),
    Target("corpora", read_corpora),
    Target("flags", read_flags),
    Target("inputs", read_inputs),
    Target("tables", read_tables),
)
