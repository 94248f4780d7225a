"""Reads the files of a run for its report and its model cards, without a graph and without OneFlow."""

import dataclasses
import glob
import os

import numpy as np

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.flags import FINETUNING
from modeling.cli.scripts import TEXT_GENERATION, TOKEN_TRAINING
from modeling.run.flags_json import FLAGS_FILE
from modeling.run.generations import read_generations, written_generations
from modeling.run.measures import OF_PARTS, name_value
from modeling.run.metrics import EVALUATED, METRICS_FILE, read_metrics
from modeling.run.predictions import summarize, written_predictions
from modeling.run.resume import list_states
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.scores import load_map, load_scores, score_paths
from ofrecord_util.tasks import Task, only_domain
from ofrecord_util.text import TextFolder
from ofrecord_util.text_columns import TextOptions


@dataclasses.dataclass
class TrainingSamples:
    """Results of step 1 for the K training samples that have a score."""

    scores: np.ndarray  # float32 [K], by row number
    domain: np.ndarray  # int32 [K], or None if the domains are not known
    map: object  # `EmbeddingMap`, or None


@dataclasses.dataclass
class RunFacts:
    """The content of a run's files.

    Attributes:
        folder: path of the run's folder.
        record: dict, the content of flags.json; {} without that file.
        rows: list of the objects in metrics.jsonl.
        predictions: dict of name ("dev", "test", "teacher_dev", …) -> `predictions.Summary`.
        snapshots: dict of path of a best snapshot -> its digest, or None if the snapshot cannot be read.
        generations: dict of split -> list of the first `generations.Generation`s.
        states: number of states that --resume can continue from.
        samples: `TrainingSamples`, or None.
        missing: list of str; each names something that the report lacks, and the reason.
    """

    folder: str
    record: dict
    rows: list
    predictions: dict
    snapshots: dict
    states: int
    samples: object
    missing: list
    generations: dict = dataclasses.field(default_factory=dict)

    @property
    def script(self):
        """Name of the run's script without .py, or "" if it is not known."""
        return self.record.get("script", "")

    @property
    def flags(self):
        """dict of the run's flags by name."""
        return self.record.get("flags", {})

    @property
    def domains(self):
        """Names of the domains, in the order of the task. Without flags.json, they are taken from the metrics."""
        named = self.record.get("task", {}).get("domains")
        return named or sorted({name for row in self.rows for name in row.get("by_domain", {})})

    def kind(self, kind):
        """The objects of metrics.jsonl of one kind."""
        return [row for row in self.rows if row.get("kind") == kind]

    @property
    def text_scores(self):
        """dict of split -> the last row of metrics.jsonl about its generated texts."""
        return {row["split"]: row for row in self.kind("generation")}

    def best(self, name=None):
        """The row of metrics.jsonl with the best evaluation on dev, or None.

        A run without training has one evaluation, which has no step.

        Args:
            name: folder name of a best snapshot, to get the evaluation of that snapshot.
        """
        dev = self.kind("dev")
        found = [row for row in dev if row.get("best", "step" not in row)]
        if name is not None:
            found = [row for row in found if name.endswith(f"_dev_{name_value(row)!r}")]
        return found[-1] if found else None

    def result(self, name):
        """The row to report for a split ("dev", "test", "teacher_dev", …), or None."""
        rows = self.kind(name)
        return self.best() if name == "dev" else rows[-1] if rows else None


def read_run(folder, data_dir=None, scores=None):
    """The `RunFacts` of a run's folder.

    Args:
        folder: run folder of a training script, finished or interrupted.
        data_dir: folder of the data; None for the one that flags.json names.
        scores: float32 [K], the run's prototypical scores; None to read them from disk.
    Raises:
        UserError: the folder is not a run folder, or one of its files is damaged.
    """
    run = read_results(folder)
    folder, missing, record = run.folder, run.missing, run.record
    predictions = {}
    for name, path in written_predictions(folder).items():
        predictions[name] = summarize(path)
        if not predictions[name].has_text and not name.startswith("teacher_"):
            missing.append(f"{name}: the text of the samples; it was missing, or had changed, when the run ended")
    snapshots = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "snapshot_best_*"))):
        try:
            snapshots[path] = Snapshot(path).digest()
        except UserError as error:
            snapshots[path] = None
            missing.append(f"the best snapshot cannot be read: {error}")
    samples = _training_samples(record, data_dir, missing, scores)
    generations = {split: read_generations(path) for split, path in written_generations(folder).items()}
    run = dataclasses.replace(run, predictions=predictions, snapshots=snapshots, samples=samples, generations=generations)
    for name in EVALUATED:
        result = run.result(name)
        if result and name not in predictions and not set(OF_PARTS) & set(result):
            lost = "no confusion matrix" + (" and no list of the hardest samples" if name == "dev" else "")
            missing.append(f"predictions_{name}.tsv, which a run writes at its end (interrupted, or an earlier version?): {lost}")
    return run


def read_results(folder):
    """The `RunFacts` of a run's flags and metrics alone, without predictions, snapshots and samples. Errors as of `read_run`."""
    folder = folder.rstrip("/") or folder
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; pass the folder of a run (--model_save_dir of its script)")
    flags_path, metrics_path = os.path.join(folder, FLAGS_FILE), os.path.join(folder, METRICS_FILE)
    if not os.path.isfile(flags_path) and not os.path.isfile(metrics_path):
        raise UserError(f"{folder}: contains neither {FLAGS_FILE} nor {METRICS_FILE}, so it is not the folder of a run")
    missing, record, rows = [], {}, []
    if os.path.isfile(flags_path):
        record = _checked_record(read_json(flags_path, "the run itself writes this file"), flags_path)
    else:
        missing.append(f"no {FLAGS_FILE}: the flags of the run are not known")
    if os.path.isfile(metrics_path):
        rows = read_metrics(metrics_path)
    else:
        missing.append(f"no {METRICS_FILE}: there are no curves and no results")
    return RunFacts(folder, record, rows, {}, {}, len(list_states(folder)), None, missing)


_TYPES = {  # types of the values that a report takes from flags.json, by part
    "": {
        **dict.fromkeys(("script", "device", "vocab_digest", "snapshot_digest", "teacher_digest"), str),
        **dict.fromkeys(("flags", "task", "data", "versions", "config"), dict),
        **dict.fromkeys(("parameters", "total_steps", "samples_per_step"), int),
        "command": list,
    },
    "flags": dict.fromkeys(("data_dir", "model_load_dir", "student_model", "teacher_model"), str),  # the flags that are paths
    "task": {"name": str, "domains": list, "labels": list},
    "versions": {"oneflow": str, "python": str},
}
_SPLIT_TYPES = {"rows": int, "by_domain": dict, "text_file": str, "text_digest": str}


def _checked_record(record, path):
    """The content of flags.json without nulls, after a check of the types that a report relies on."""

    def check(values, kinds, where):
        for name, kind in kinds.items():
            value = values.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise UserError(f"{path}: {where}{name!r} is {value!r:.80}, not {kind.__name__}: no run writes this")

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
    """The dict without the keys whose value is null, at any depth. The flags keep their nulls, which are values there."""
    if not isinstance(value, dict):
        return value
    return {name: item if name == "flags" else _without_nulls(item) for name, item in value.items() if item is not None}


def _training_samples(record, data_dir, missing, scores):
    """`TrainingSamples` of the run's training text, or None. The reasons are appended to the list `missing`."""
    flags = record.get("flags", {})
    data_dir = data_dir or flags.get("data_dir")
    trained = "train" in record["data"] if "data" in record else flags.get("do_train") is not False
    if not data_dir or not trained or record.get("script") in TEXT_GENERATION:  # sources and targets have no scores
        return None
    paths = score_paths(data_dir)
    if not os.path.isfile(paths[0]) or not os.path.isfile(paths[1]):
        if record.get("script") not in (FINETUNING, *TOKEN_TRAINING):  # which do not use them
            missing.append(
                f"{paths[0]}: no prototypical scores; preprocess.py writes them, and tools/report.py --data_dir names their folder"
            )
        return None
    try:
        digest = read_json(paths[1], "run preprocess.py again").get("text_digest")
        own = record.get("data", {}).get("train", {}).get("text_digest")
        if own is None:
            missing.append(f"{paths[0]}: flags.json does not name the training text, so these scores may belong to another text")
        elif own != digest:
            missing.append(f"{paths[0]}: the scores belong to another training text")
            return None
        scores = load_scores(data_dir, digest, 1) if scores is None else scores
        drawn = load_map(data_dir, digest)
        domain = None if drawn is None else drawn.domain
        if drawn is None:
            missing.append(f"{data_dir}/ofrecord/train/map.npz: no map of the training samples; preprocess.py of this version writes it")
            task = Task.from_dict(record.get("task"))
            options = TextOptions.from_flags(record.get("flags") or {}, only_domain(task.name, task.domains))
            texts = TextFolder(data_dir, options).matching("train", task, digest)
            domain = None if texts is None else texts.domain[: len(scores)]
    except UserError as error:
        missing.append(str(error))
        return None
    cells = tuple(len(record.get("task", {}).get(name, ())) for name in ("domains", "labels"))
    if drawn is not None and drawn.prototypes.shape[:2] != cells:
        missing.append(f"{data_dir}/ofrecord/train/map.npz: the map has another number of domains or labels")
        drawn = None
    if domain is None or len(domain) != len(scores):
        missing.append(f"{data_dir}: the domains of the scored samples are not known")
        return None
    return TrainingSamples(scores, domain, drawn)
