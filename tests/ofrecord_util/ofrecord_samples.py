"""Tiny data for the tests: arrays of a split, files of the earlier implementation, a folder with text and vocabulary."""

import os
import struct

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split
from ofrecord_util.schema import FEATURE_NAMES, FEATURES, record_class
from ofrecord_util.tasks import Task
from ofrecord_util.tokenization import Tokenizer
from ofrecord_util.writer import write_split

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "book", "film", "the", "a", ",", "##s"]
TASK = Task("t", ("books", "dvd", "mr"), ("0", "1"))


def arrays(count=5, length=7, seed=0, largest=30000):
    """Features of `count` samples of `length` tokens; ids below `largest` take one to three bytes each."""
    draw = np.random.RandomState(seed)
    real = draw.randint(1, length + 1, count)
    mask = (np.arange(length) < real[:, None]).astype(np.int32)
    return {
        "input_ids": (draw.randint(1, largest, (count, length)) * mask).astype(np.int32),
        "input_mask": mask,
        "segment_ids": (draw.randint(0, 2, (count, length)) * mask).astype(np.int32),
        "domain": draw.randint(0, 3, count).astype(np.int32),
        "label": draw.randint(0, 2, count).astype(np.int32),
        "idxs": np.arange(count, dtype=np.int32),
        "sample_weights": draw.rand(count).astype(np.float32),
    }


def manifest(text_digest="0" * 64):
    return {"text_digest": text_digest}


def write(data_dir, values=None, split="train", part_num=1, prefix=None, with_manifest=True):
    """Writes a split and returns the paths of its parts; without manifest as the earlier implementation left it."""
    values = arrays() if values is None else values
    full = write_split(str(data_dir), split, prefix, part_num, values, manifest())
    folder = os.path.join(str(data_dir), "ofrecord", split)
    if not with_manifest:
        os.remove(os.path.join(folder, "manifest.json"))
    return [os.path.join(folder, part["name"]) for part in full["parts"]]


def record_bytes(values, row, names=None, order=None, kinds=None, deterministic=True):
    """One serialised record. names: other keys by feature name (None leaves it out); kinds: other list types by name."""
    record = record_class()()
    features = FEATURES if order is None else [FEATURES[position] for position in order]
    for feature in features:
        name = (names or {}).get(feature.name, feature.key)
        if name is None:
            continue
        value = np.atleast_1d(values[feature.name][row]).tolist()
        kind = (kinds or {}).get(feature.name, feature.kind)
        if kind == "bytes_list":
            value = [b"x" for _ in value]
        getattr(record.feature[name], kind).value.extend(value)
    return record.SerializeToString(deterministic=deterministic)


def framed(bodies):
    return b"".join(struct.pack("<q", len(body)) + body for body in bodies)


def put(data_dir, data, split="train", part=0):
    """Writes the bytes of a part, without manifest."""
    folder = os.path.join(str(data_dir), "ofrecord", split)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{split}.of_record-{part}")
    with open(path, "wb") as file:
        file.write(data)
    return path


def tokenizer(data_dir, words=VOCABULARY, do_lower_case=True):
    path = os.path.join(str(data_dir), "vocab.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(words) + "\n")
    return Tokenizer(path, do_lower_case)


def text(data_dir, rows, split="train"):
    with open(os.path.join(str(data_dir), split + ".csv"), "w", encoding="utf-8", newline="") as file:
        file.write("".join("\t".join(row) + "\n" for row in rows))


def equal(records, values):
    """True where records hold just these arrays, dtypes included."""
    return all(
        getattr(records, feature.name).dtype == feature.dtype and np.array_equal(getattr(records, feature.name), values[feature.name])
        for feature in FEATURES
    )


def both(data_dir, **arguments):
    """Reads with and without the fast path: equal records or an equal error. Returns the records or the error's message."""
    results = []
    for fast in (True, False):
        try:
            results.append(read_split(str(data_dir), "train", fast=fast, **arguments))
        except UserError as error:
            results.append(str(error))
    if isinstance(results[0], str) or isinstance(results[1], str):
        assert results[0] == results[1]
    else:
        assert equal(results[0], {name: getattr(results[1], name) for name in FEATURE_NAMES})
    return results[0]
