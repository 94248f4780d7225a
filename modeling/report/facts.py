"""What the files of a run say, gathered for its report and its model cards: no graph, no OneFlow."""

import dataclasses
import glob
import json
import os

import numpy as np

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import FINETUNING
from modeling.run.flags_json import FLAGS_FILE
from modeling.run.metrics import METRICS_FILE
from modeling.run.predictions import summarize, written_predictions
from modeling.run.resume import list_states
from ofrecord_util.errors import UserError
from ofrecord_util.files import read_json
from ofrecord_util.scores import load_map, load_scores, score_paths
from ofrecord_util.tasks import Task
from ofrecord_util.text import split_texts

EVALUATED = ("dev", "test", "teacher_dev", "teacher_test")  # kinds of metrics.jsonl that are evaluations


@dataclasses.dataclass
class TrainingSamples:
    """What step 1 found about the K training samples that have a score."""

    scores: np.ndarray  # float32 [K], by row number
    domain: np.ndarray  # int32 [K], or None where nothing tells it
    map: object  # `EmbeddingMap`, or None


@dataclasses.dataclass
class RunFacts:
    """A run as its files tell it.

    Attributes:
        folder: the run's.
        record: the object of flags.json; {} without it.
        rows: the objects of metrics.jsonl.
        predictions: dict of name ("dev", "test", "teacher_dev", …) -> `predictions.Summary`.
        snapshots: dict of path of each best snapshot -> its digest, None where it cannot be read.
        states: number of states that --resume could continue from.
        samples: `TrainingSamples`, or None.
        missing: list of str, what is not there and why.
    """

    folder: str
    record: dict
    rows: list
    predictions: dict
    snapshots: dict
    states: int
    samples: object
    missing: list

    @property
    def script(self):
        """Name of the run's script without .py, "" where nothing tells it."""
        return self.record.get("script", "")

    @property
    def flags(self):
        """dict of the run's flags by name."""
        return self.record.get("flags", {})

    @property
    def domains(self):
        """Names of the domains, in the task's order; those that the metrics name where there is no flags.json."""
        named = self.record.get("task", {}).get("domains")
        return named or sorted({name for row in self.rows for name in row.get("by_domain", {})})

    def kind(self, kind):
        """The objects of metrics.jsonl of one kind."""
        return [row for row in self.rows if row.get("kind") == kind]

    def best(self, name=None):
        """The row of metrics.jsonl of the best evaluation on dev, or of the one that the snapshot `name` holds; None where there is none.

        A run that only evaluated has one evaluation, which is no training step's.
        """
        dev = self.kind("dev")
        found = [row for row in dev if row.get("best", "step" not in row)]
        if name is not None:
            found = [row for row in found if name.endswith(f"_dev_{row['accuracy']!r}")]
        return found[-1] if found else None

    def result(self, name):
        """The row that counts for a split ("dev", "test", "teacher_dev", …), or None."""
        rows = self.kind(name)
        return self.best() if name == "dev" else rows[-1] if rows else None


def read_run(folder, data_dir=None, scores=None):
    """The `RunFacts` of a run's folder.

    Args:
        folder: of a training script, finished or cut off.
        data_dir: folder of the data where it is not the one that flags.json names.
        scores: float32 [K], the run's prototypical scores where they are in memory; None reads them.
    Raises:
        UserError: no run folder, or a file in it that is damaged.
    """
    folder = folder.rstrip("/") or folder
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; give the folder of a run (--model_save_dir of its script)")
    flags_path, metrics_path = os.path.join(folder, FLAGS_FILE), os.path.join(folder, METRICS_FILE)
    if not os.path.isfile(flags_path) and not os.path.isfile(metrics_path):
        raise UserError(f"{folder}: neither {FLAGS_FILE} nor {METRICS_FILE} is in it, so it is no run's folder")
    missing, record, rows = [], {}, []
    if os.path.isfile(flags_path):
        record = _checked_record(read_json(flags_path, "it is a run's own file"), flags_path)
    else:
        missing.append(f"no {FLAGS_FILE}: what was run is not known")
    if os.path.isfile(metrics_path):
        rows = _read_rows(metrics_path)
    else:
        missing.append(f"no {METRICS_FILE}: there are no curves and no results")
    predictions = {}
    for name, path in written_predictions(folder).items():
        predictions[name] = summarize(path)
        if not predictions[name].has_text and not name.startswith("teacher_"):
            missing.append(f"{name}: the text of the samples, which was not at hand, or another one, when the run ended")
    snapshots = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "snapshot_best_*"))):
        try:
            snapshots[path] = Snapshot(path).digest()
        except UserError as error:
            snapshots[path] = None
            missing.append(f"the best snapshot cannot be read: {error}")
    samples = _training_samples(record, data_dir, missing, scores)
    run = RunFacts(folder, record, rows, predictions, snapshots, len(list_states(folder)), samples, missing)
    for name in EVALUATED:
        if run.result(name) and name not in predictions:
            lost = "no confusion matrix" + (" and no list of the hardest samples" if name == "dev" else "")
            missing.append(f"predictions_{name}.tsv, written at a run's end (cut off, or of an earlier version?): {lost}")
    return run


_TYPES = {  # of what a report takes from flags.json, and within it
    "": {
        **dict.fromkeys(("script", "device", "vocab_digest", "snapshot_digest", "teacher_digest"), str),
        **dict.fromkeys(("flags", "task", "data", "versions", "config"), dict),
        **dict.fromkeys(("parameters", "total_steps", "samples_per_step"), int),
        "command": list,
    },
    "flags": dict.fromkeys(("data_dir", "model_load_dir", "student_model", "teacher_model"), str),  # those that are paths
    "task": {"name": str, "domains": list, "labels": list},
    "versions": {"oneflow": str, "python": str},
}
_SPLIT_TYPES = {"rows": int, "by_domain": dict, "text_file": str, "text_digest": str}
_EVALUATION = ("accuracy", "correct", "total", "cross_entropy")


def _checked_record(record, path):
    """flags.json's object without its nulls, its parts of the types that a report relies on."""

    def check(values, kinds, where):
        for name, kind in kinds.items():
            value = values.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise UserError(f"{path}: {where}{name!r} is {value!r:.80}, not {kind.__name__}: it is not what a run writes")

    for part, kinds in _TYPES.items():
        check(record.get(part) or {} if part else record, kinds, part and part + "'s ")
    for name in ("domains", "labels"):
        names = dict(enumerate((record.get("task") or {}).get(name) or []))
        check({place: [] if value is None else value for place, value in names.items()}, dict.fromkeys(names, str), f"task's {name} ")
    data = record.get("data") or {}
    check(data, dict.fromkeys(data, dict), "data's ")
    for split, about in data.items():
        check(about or {}, _SPLIT_TYPES, f"data's {split!r} ")
        domains = (about or {}).get("by_domain") or {}
        check(domains, dict.fromkeys(domains, dict), f"data's {split!r} ")
        for counts in domains.values():
            check(counts or {}, dict.fromkeys(counts or {}, int), f"data's {split!r} ")
    return _without_nulls(record)


def _without_nulls(value):
    """The dict without the keys whose value is null, at any depth but in the flags, where null is a value."""
    if not isinstance(value, dict):
        return value
    return {name: item if name == "flags" else _without_nulls(item) for name, item in value.items() if item is not None}


def _read_rows(path):
    """The objects of metrics.jsonl. The last line may be half written: the run was killed."""
    rows = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    rows.append(_checked_row(json.loads(line.decode("utf-8"))))
                except ValueError as error:
                    raise UserError(f"{path}: line {number}: {error}; it is not what a run writes") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return rows


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_row(row):
    """An object of metrics.jsonl; ValueError says what a report misses in it."""
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        raise ValueError("no object with a kind")
    if row["kind"] == "train":
        odd = [name for name, value in row.items() if name != "kind" and not _is_number(value)]
        if odd or "step" not in row:
            raise ValueError(f"{', '.join(odd) or 'step'} is no number")
    elif row["kind"] in EVALUATED:
        by_domain = row.get("by_domain", {})
        if not isinstance(by_domain, dict):
            raise ValueError("by_domain is no object")
        for values in (row, *by_domain.values()):
            odd = [name for name in _EVALUATION if not isinstance(values, dict) or not _is_number(values.get(name))]
            if odd or values["total"] < 1 or not 0 <= values["correct"] <= values["total"]:
                raise ValueError(f"{', '.join(odd) or 'the counts'} of an evaluation cannot be")
        if not _is_number(row.get("step", 0)):
            raise ValueError("step is no number")
    return row


def _training_samples(record, data_dir, missing, scores):
    """`TrainingSamples` of the run's own training text, or None; what is not there is added to the list `missing`."""
    flags = record.get("flags", {})
    data_dir = data_dir or flags.get("data_dir")
    trained = "train" in record["data"] if "data" in record else flags.get("do_train") is not False
    if not data_dir or not trained:
        return None
    paths = score_paths(data_dir)
    if not os.path.isfile(paths[0]) or not os.path.isfile(paths[1]):
        if record.get("script") != FINETUNING:  # which does without
            missing.append(f"{paths[0]}: no prototypical scores there; preprocess.py makes them, and tools/report.py --data_dir finds them")
        return None
    try:
        digest = read_json(paths[1], "run preprocess.py again").get("text_digest")
        own = record.get("data", {}).get("train", {}).get("text_digest")
        if own is None:
            missing.append(f"{paths[0]}: the run does not say which text it learned from, so these may be the scores of another one")
        elif own != digest:
            missing.append(f"{paths[0]}: the scores of another training text than the run's")
            return None
        scores = load_scores(data_dir, digest, 1) if scores is None else scores
        drawn = load_map(data_dir, digest)
        domain = None if drawn is None else drawn.domain
        if drawn is None:
            missing.append(f"{data_dir}/ofrecord/train/map.npz: no map of the training samples; preprocess.py of this version makes it")
            texts = split_texts(data_dir, "train", Task.from_dict(record.get("task")), digest)
            domain = None if texts is None else texts.domain[: len(scores)]
    except UserError as error:
        missing.append(str(error))
        return None
    cells = tuple(len(record.get("task", {}).get(name, ())) for name in ("domains", "labels"))
    if drawn is not None and drawn.prototypes.shape[:2] != cells:
        missing.append(f"{data_dir}/ofrecord/train/map.npz: a map of another number of domains or labels")
        drawn = None
    if domain is None or len(domain) != len(scores):
        missing.append(f"{data_dir}: nothing tells the domains of the scored samples")
        return None
    return TrainingSamples(scores, domain, drawn)
