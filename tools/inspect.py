"""Shows the content of a snapshot, of the OFRecord files of a split, or of a text file.

    python3 tools/inspect.py output/…/snapshot_best_mft_model_g1_dev_0.78125
    python3 tools/inspect.py data/k-shot-cross/g1/16-42/ofrecord/train
    python3 tools/inspect.py data/k-shot-cross/g1/16-42/ofrecord/train --records 3 \\
        --vocab_file vocab.txt
    python3 tools/inspect.py reviews.csv --label_column stars

For a snapshot, the tool prints the metrics and flags of its training, sizes, task, parameters, digest and variables. For records, it
checks the manifest against the files and prints counts by domain and label, lengths and prototypical scores. For a text file, it prints
kind, columns, and counts by domain and label (`--task_type` says what a label is). `--json` prints the same as one JSON object.
`--records N` also prints the first N records (without padding) or rows as JSON lines.
"""

if not __package__:
    import _root  # noqa: F401

import json
import os
import re

import numpy as np

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import DONE, Snapshot
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import non_negative_int
from modeling.cli.flags import TEXT_FLAGS, add_text_flags
from modeling.palm.config import PalmConfig
from modeling.run.flags_json import FLAGS_FILE
from modeling.run.measures import NUMBERS, OF_PARTS, TASKS, name_value
from modeling.run.metrics import EVALUATED, METRICS_FILE
from ofrecord_util.escaping import for_json, say
from ofrecord_util.json_reading import read_json, read_json_lines
from ofrecord_util.json_tokenizer import vocabulary_tokens
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, REGRESSION
from ofrecord_util.reader import read_split
from ofrecord_util.schema import default_prefix
from ofrecord_util.text import read_names
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import UNLABELLED, read_rows, roles_of
from ofrecord_util.writer import MANIFEST
from tools.checkpoint_palm import is_palm

_PART = re.compile(r"(.*[^0-9])([0-9]+)\Z")


def describe_snapshot(path):
    """Describes a snapshot as a dict that can be written as JSON.

    Raises:
        UserError: if the folder is not a snapshot or is damaged.
    """
    snapshot = Snapshot(path)
    config = snapshot.config(kind=PalmConfig if is_palm(path) else BertConfig)
    run_folder = os.path.dirname(os.path.abspath(path))
    trained = {}
    if os.path.isfile(os.path.join(run_folder, FLAGS_FILE)):
        trained = {"trained": _training(run_folder, os.path.basename(snapshot.path))}
    return {
        "snapshot": snapshot.path,
        "complete": os.path.exists(os.path.join(path, DONE)),
        **trained,
        "config": config.as_dict(),
        "task": snapshot.task(),
        "parameters": sum(snapshot.sizes.values()),
        "bytes": 4 * sum(snapshot.sizes.values()),
        "digest": snapshot.digest(),
        "variables": {name: list(snapshot.shapes.get(name, (size,))) for name, size in snapshot.sizes.items()},
    }


def _training(folder, name):
    """Returns the flags of the run in `folder` and its metrics for the snapshot `name`."""
    record = read_json(os.path.join(folder, FLAGS_FILE), "it is a run's own file")
    trained = {}
    metrics = os.path.join(folder, METRICS_FILE)
    if os.path.isfile(metrics):
        rows = [row for _, row in read_json_lines(metrics, "it is a run's own file")]
        best = [row for row in rows if row.get("kind") == "dev" and row.get("best")]
        saved = [row for row in best if name.endswith(f"_dev_{name_value(row)!r}")]
        others = [name for name in EVALUATED if name != "dev" and not name.startswith("teacher_")]
        found_by_kind = {name: [row for row in rows if row.get("kind") == name] for name in others}
        for split, found in (("dev", saved), *found_by_kind.items()):
            if found:
                keys = ("step", "accuracy", "total", TASKS, "cross_entropy", *OF_PARTS, *NUMBERS)
                trained[split] = {key: found[-1][key] for key in keys if key in found[-1]}
    for key in ("script", "command", "versions", "snapshot_digest", "teacher_digest"):
        if record.get(key):
            trained[key] = record[key]
    return trained


def check_is_split(path):
    """Raises a UserError that names the folders of the splits if `path` is a folder around them."""
    for folder in (path, os.path.join(path, "ofrecord")):
        splits = [os.path.join(folder, split) for split in ("train", "dev", "test", UNLABELLED)]
        there = [split for split in splits if os.path.isfile(os.path.join(split, MANIFEST)) or os.path.isfile(_first_part(split))]
        if os.path.basename(os.path.abspath(folder)) == "ofrecord" and there:
            raise UserError(f"{path}: is the folder of several splits; give {' or '.join(there)}")


def _first_part(folder):
    return os.path.join(folder, default_prefix(os.path.basename(folder)) + "0")


def find_parts(path):
    """Returns (data_dir, split, prefix, number of parts) for the folder of a split, or for a part in it.

    Raises:
        UserError: if there are no records.
    """
    folder = os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path))
    names = [os.path.basename(path)] if os.path.isfile(path) else sorted(os.listdir(folder))
    first = [match.group(1) for match in map(_PART.match, names) if match and os.path.isfile(os.path.join(folder, match.group(1) + "0"))]
    if not first or os.path.basename(os.path.dirname(folder)) != "ofrecord":
        raise UserError(f"{path}: neither a snapshot nor records; give the folder of a snapshot or DATA_DIR/ofrecord/SPLIT")
    count = 0
    while os.path.isfile(os.path.join(folder, f"{first[0]}{count}")):
        count += 1
    return os.path.dirname(os.path.dirname(folder)), os.path.basename(folder), first[0], count


def describe_text(table, task_type=CLASSIFICATION):
    """Describes the rows of a text file as a dict that can be written as JSON.

    Args:
        table: `TextRows`.
        task_type: what a label is.
    Raises:
        UserError: if the columns are not those of text, domain and label.
    """
    read_names(table, task_type)
    counts, lengths, kind = {}, [], LABEL_KINDS[task_type]
    for _, cells in table.rows:
        texts, domain, label = _parts_of_row(table, cells)
        of_domain = counts.setdefault(domain.strip(), {})
        for name in kind.names(label) or ["numbers" if task_type == REGRESSION else "no label"]:
            of_domain[name] = of_domain.get(name, 0) + 1
        lengths.append(sum(len(text.split()) for text in texts))
    return {
        "text": table.describe(),
        "rows": len(table.rows),
        "counts": counts,
        "words": {"median": float(np.median(lengths)), "min": min(lengths), "max": max(lengths)},
    }


def _parts_of_row(table, cells):
    """(list of texts, domain, label) of a row; the label of rows without labels is `UNLABELLED`."""
    *texts, domain, label = cells if table.labelled else [*cells, UNLABELLED]
    return texts, domain, label


def text_lines(table, count):
    """Yields the first rows of a text file as JSON lines."""
    for place, cells in table.rows[:count]:
        texts, domain, label = _parts_of_row(table, cells)
        values = {"row": place, "text": texts[0] if len(texts) == 1 else texts, "domain": domain, "label": label}
        yield json.dumps(values, ensure_ascii=False)


def describe_records(records, task):
    """Describes the records of a split as a dict that can be written as JSON.

    Args:
        records: `Records`.
        task: dict with the names of domains and labels, or None if they are not known.
    """
    names = {feature: (task or {}).get(feature + "s") for feature in ("domain", "label")}

    unlabelled = (records.manifest or {}).get("split") == UNLABELLED
    no_label = UNLABELLED if unlabelled else "records" if records.targets else None

    def name(feature, number):
        if feature == "label" and no_label:
            return no_label
        known = names[feature]
        return known[number] if known and 0 <= number < len(known) else str(number)

    counts, kind = {}, _kind_of(task)
    for domain, label in zip(records.domain.tolist(), records.label.tolist()):
        of_domain = counts.setdefault(name("domain", domain), {})
        for place in _places(kind, label):
            of_domain[name("label", place)] = of_domain.get(name("label", place), 0) + 1
    about = {} if kind.task_type == CLASSIFICATION else {"labels": kind.summary(records.label, task["labels"])}
    lengths = records.lengths
    edges = np.linspace(0, records.seq_length, 9).astype(int)
    histogram = np.histogram(lengths, bins=edges)[0].tolist()
    weights = records.sample_weights.astype(np.float64)
    return {
        "records": len(records),
        "seq_length": records.seq_length,
        "counts": counts,
        **about,
        "tokens": {"mean": round(float(lengths.mean()), 2), "min": int(lengths.min()), "max": int(lengths.max())},
        "tokens_histogram": {f"{low + 1} to {high}": n for low, high, n in zip(edges, edges[1:], histogram)},
        "full": int((lengths == records.seq_length).sum()),
        "weights": {"mean": float(weights.mean()), "min": float(weights.min()), "max": float(weights.max())},
        "manifest": records.manifest,
    }


def _kind_of(task):
    """The rules about labels of a manifest's task, or None for records of an earlier version."""
    return LABEL_KINDS[(task or {}).get("task_type", CLASSIFICATION)]


def _places(kind, label):
    """Positions of the names to which a label counts: of a set of labels those that are there, of a number that of its name."""
    return [place for place, there in enumerate(label) if there] if isinstance(label, list) else [label if kind.exclusive else 0]


def record_lines(records, count, pieces=None):
    """Yields the first records as JSON lines: idxs, domain, label, weight, token ids (or pieces) and targets without padding."""
    lengths = records.lengths
    for row in range(min(count, len(records))):
        ids = records.input_ids[row, : lengths[row]].tolist()
        values = {feature: getattr(records, feature)[row].tolist() for feature in ("idxs", "domain", "label")}
        values["weight"] = float(records.sample_weights[row])
        values["tokens"] = ids if pieces is None else [pieces[i] if 0 <= i < len(pieces) else f"id {i}" for i in ids]
        if records.segment_ids[row].any():
            values["segment_ids"] = records.segment_ids[row, : lengths[row]].tolist()
        for name, array in records.targets.items():
            values[name] = array[row, : lengths[row]].tolist() if array.ndim > 1 else int(array[row])
        yield json.dumps(values, ensure_ascii=False)


def print_nested(value, indent=0):
    """Prints a dict of `describe_…` as indented lines."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            say(f"{' ' * indent}{key}")
            print_nested(item, indent + 2)
        else:
            text = " x ".join(map(str, item)) if isinstance(item, list) and all(isinstance(n, int) for n in item) else item
            text = json.dumps(text, ensure_ascii=False) if isinstance(text, list) else text
            say(f"{' ' * indent}{key:{max(1, 56 - indent)}} {text}")


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("path", help="folder of a snapshot, DATA_DIR/ofrecord/SPLIT, one part of it, or a text file")
    parser.add_argument("--records", type=non_negative_int, default=0, metavar="N", help="also print the first N records or rows")
    parser.add_argument("--vocab_file", help="vocabulary, to show pieces instead of ids")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    add_text_flags(parser, (*TEXT_FLAGS, "task_type"))
    args = parser.parse_args()
    if not os.path.exists(args.path):
        raise UserError(f"{args.path}: no such file or folder")
    lines, pieces = (), vocabulary_tokens(args.vocab_file) if args.vocab_file else None
    folder = args.path if os.path.isdir(args.path) else os.path.dirname(args.path)
    if os.path.isfile(args.path) and not _PART.match(os.path.basename(args.path)):
        stem = os.path.splitext(os.path.basename(args.path))[0]
        table = read_rows(args.path, TextOptions.from_flags(vars(args), only_domain=stem), roles_of(stem))
        described, lines = describe_text(table, args.task_type), text_lines(table, args.records)
    elif os.path.isfile(args.path) or os.path.basename(os.path.dirname(os.path.abspath(args.path))) == "ofrecord":
        records = read_split(*find_parts(args.path))
        manifest = records.manifest or {}
        described = describe_records(records, manifest.get("task"))
        checked = "fits the files" if records.manifest else f"no {MANIFEST}, so the records are from an earlier version"
        described = {"folder": folder, "manifest_check": checked, **described}
        lines = record_lines(records, args.records, pieces)
    else:
        check_is_split(args.path)
        described = describe_snapshot(args.path)
    if args.json:
        say(for_json(json.dumps(described, ensure_ascii=False)))
    else:
        print_nested(described)
    for line in lines:
        say(for_json(line))


if __name__ == "__main__":
    run(main)
