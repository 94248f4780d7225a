"""Reads the OFRecord files of a split, checked whole before anything is returned.

OneFlow's own reader ends the process on a truncated file, a bad length or a missing feature. Here the framing is
scanned first, the parts are compared with the manifest's digests, and the records are decoded: all at once for the
layout that `writer` emits (`wire_format`), record by record through protobuf for any other (another order of features,
the earlier implementation's names).
"""

import hashlib
import os
import struct
import warnings
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from google.protobuf.message import DecodeError

from ofrecord_util.array_reading import PartFile
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_terminal
from ofrecord_util.json_reading import read_json
from ofrecord_util.reading import RECORDS_LIMIT
from ofrecord_util.records import Records
from ofrecord_util.schema import FEATURE_NAMES, LENGTH_BYTES, Feature, entries_class, features_of, split_flag
from ofrecord_util.tasks import Task
from ofrecord_util.wire_format import PADDING, decode
from ofrecord_util.writer import MANIFEST, MANIFEST_FORMAT, part_paths, split_folder

REMEDY = "write the records again with --resave_ofrecord"


def read_split(
    data_dir: str, split: str, prefix: Optional[str] = None, part_num: int = 1, seq_length: Optional[int] = None, fast: bool = True
) -> Records:
    """Reads and checks all records of a split, in the order of the parts.

    Args:
        data_dir: folder of the data.
        split: "train", "dev" or "test".
        prefix: name of a part without its number; None means `SPLIT.of_record-`.
        part_num: number of parts.
        seq_length: tokens of a record; None takes that of the first one.
        fast: False decodes every record through protobuf.

    Returns:
        `Records`. Value ranges are not checked here: see `check_ranges`.

    Raises:
        UserError: a part is missing, or there are more than `part_num`; an empty part; a length that is not positive or
            goes past the end; a record that protobuf cannot parse, that lacks a feature or holds one of another type or
            length; parts that the manifest does not list or that differ from its digests. Names file, record (from 1)
            and byte offset.
    """
    paths = part_paths(data_dir, split, prefix, part_num)
    for path in paths:
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such file; write it by running this step with --resave_ofrecord")
    manifest_path = os.path.join(split_folder(data_dir, split), MANIFEST)
    manifest = read_manifest(manifest_path) if os.path.exists(manifest_path) else None
    following = part_paths(data_dir, split, prefix, part_num + 1)[-1]
    if manifest is None and os.path.exists(following):
        raise UserError(
            "{} exists, but {} is {}; give the number of parts there are".format(following, split_flag(split, "data_part_num"), part_num)
        )
    if manifest is not None:
        listed = [part["name"] for part in manifest["parts"]]
        if listed != [os.path.basename(path) for path in paths]:
            raise UserError(
                "{}: lists the parts {}, but {} and {} mean {}; give the flags of the run that wrote them, or {}".format(
                    manifest_path,
                    ", ".join(listed),
                    split_flag(split, "data_prefix"),
                    split_flag(split, "data_part_num"),
                    ", ".join(os.path.basename(path) for path in paths),
                    REMEDY,
                )
            )
    try:
        features = features_of((manifest or {}).get("task"), (manifest or {}).get("form"))
    except UserError as error:
        raise UserError(f"{manifest_path}: {error}; {REMEDY}") from error
    parts, places = [], []
    for position, path in enumerate(paths):
        data, size = _read_bytes(path)
        starts, ends = _scan(path, data, size)
        if manifest is not None:
            _check_part(path, manifest["parts"][position], data[:size], len(starts))
        arrays = decode(data, starts, ends, seq_length, features) if fast else None
        if arrays is None:
            arrays = _decode_records(path, data, starts, ends, seq_length, features)
        seq_length = arrays["input_ids"].shape[1]
        parts.append(arrays)
        places.append((path, starts - LENGTH_BYTES))
    merged = {feature.name: np.concatenate([arrays[feature.name] for arrays in parts]) for feature in features}
    digest = manifest["text_digest"] if manifest is not None else _digest_of(merged)
    targets = {name: merged.pop(name) for name in list(merged) if name not in FEATURE_NAMES}
    folder = split_folder(data_dir, split)
    return Records(manifest=manifest, path=folder, text_digest=digest, places=tuple(places), targets=targets, **merged)


def check_ranges(records: Records, vocab_size: Optional[int], type_vocab_size: int, task: Task) -> None:
    """Raises a UserError for values that OneFlow's kernels would accept although they are invalid.

    Args:
        records: `Records`.
        vocab_size: ids are below it; None leaves them unchecked but for negative ones.
        type_vocab_size: segment ids are below it.
        task: `Task`, whose domains and labels the ids must have.

    The message names file, record and byte offset. Checked as well: the mask is 0 or 1 and has a real token in each
        record, idxs are not negative and differ, weights are finite.
    """
    bounds = [
        ("input_ids", np.iinfo(np.int32).max if vocab_size is None else vocab_size, "--vocab_file or --vocab_size"),
        ("input_mask", 2, "--resave_ofrecord"),
        ("segment_ids", type_vocab_size, "--type_vocab_size"),
        ("domain", task.num_domains, "--task_name or --domains"),
        ("idxs", np.iinfo(np.int32).max, "--resave_ofrecord"),
    ]
    limits = {"tags": task.num_labels + 1, "start": records.seq_length, "end": records.seq_length}
    bounds += [(name, limits.get(name, np.iinfo(np.int32).max), "--resave_ofrecord") for name in records.targets]
    for name, limit, flag in bounds:
        values = records.targets[name] if name in records.targets else getattr(records, name)
        bad = (values < 0) | (values >= limit)
        if bad.any():
            where = tuple(np.argwhere(bad)[0])
            raise UserError(
                f"{records.where(where[0])}: {name} is {values[where]}, allowed are 0 to {limit - 1}; check {flag}, or {REMEDY}"
            )
    wrong = task.kind.wrong(records.label, task.num_labels)
    if wrong is not None:
        row, allowed = wrong
        found = np.array2string(records.label[row], separator=",")
        raise UserError(
            f"{records.where(row)}: label is {found:.60}, allowed are {allowed}; check --task_name or --label_list, or {REMEDY}"
        )
    empty = np.flatnonzero(records.input_mask.max(axis=1, initial=0) == 0)
    if empty.size:
        raise UserError(f"{records.where(empty[0])}: input_mask has no real token; {REMEDY}")
    _, first = np.unique(records.idxs, return_index=True)
    if first.size < len(records):
        repeated = np.setdiff1d(np.arange(len(records)), first)[0]
        raise UserError(f"{records.where(repeated)}: idxs {records.idxs[repeated]} occurs before; {REMEDY}")
    bad = np.flatnonzero(~np.isfinite(records.sample_weights))
    if bad.size:
        raise UserError(
            f"{records.where(bad[0])}: the weight is {records.sample_weights[bad[0]]}; run preprocess.py again with --resave_ofrecord"
        )


def read_manifest(path: str) -> dict:
    """The manifest; the types of all values that are used are checked."""
    manifest = read_json(path, REMEDY)
    if manifest.get("format") != MANIFEST_FORMAT:
        raise UserError("{}: format {!r}, this program reads {}; {}".format(path, manifest.get("format"), MANIFEST_FORMAT, REMEDY))
    parts = manifest.get("parts")
    fits = isinstance(parts, list) and len(parts) > 0 and isinstance(manifest.get("text_digest"), str)
    for part in parts if isinstance(parts, list) and fits else ():
        fits = fits and isinstance(part, dict)
        fits = fits and all(
            isinstance(part.get(key), kind) for key, kind in (("name", str), ("records", int), ("bytes", int), ("sha256", str))
        )
    if not fits:
        raise UserError(f"{path}: does not hold parts (name, records, bytes, sha256) and text_digest; {REMEDY}")
    for key, lowest in (("seq_length", 1), ("num_records", 1), ("truncated", 0)):
        value = manifest.get(key, lowest)
        if value is not None and (type(value) is not int or value < lowest):
            raise UserError(f"{path}: {key} is {value!r:.40}, not a whole number of {lowest} or more; {REMEDY}")
    return manifest


def _read_bytes(path: str) -> Tuple[np.ndarray, int]:
    """(uint8 array of the file's bytes and `PADDING` zeros, size of the file)."""
    with PartFile(path, "check --data_dir, or run the step that writes it again", RECORDS_LIMIT) as file:
        data = np.zeros(file.size + PADDING, np.uint8)
        file.read(data[: file.size])
        return data, file.size


def _scan(path: str, data: np.ndarray, size: int) -> Tuple[np.ndarray, np.ndarray]:
    """Walks over the framing. Returns int64 arrays: where each record's bytes start and end."""
    if size == 0:
        raise UserError(f"{path}: is empty; {REMEDY}")
    unpack = struct.Struct("<q").unpack_from
    starts: List[int] = []
    ends: List[int] = []
    position = 0
    while position < size:
        left = size - position - LENGTH_BYTES
        if left < 0:
            raise UserError(f"{path}: record {len(starts) + 1} at byte {position}: the file ends within its length; {REMEDY}")
        (length,) = unpack(data.data, position)
        if length <= 0 or length > left:
            raise UserError(
                f"{path}: record {len(starts) + 1} at byte {position}: its length is {length} bytes, "
                f"allowed are 1 to {left} (the rest of the file); {REMEDY}"
            )
        starts.append(position + LENGTH_BYTES)
        position += LENGTH_BYTES + length
        ends.append(position)
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _check_part(path: str, part: dict, data: np.ndarray, count: int) -> None:
    if len(data) != part["bytes"] or count != part["records"]:
        raise UserError(
            "{}: has {} records in {} bytes, its manifest says {} in {}; {}".format(
                path, count, len(data), part["records"], part["bytes"], REMEDY
            )
        )
    if hashlib.sha256(data.data).hexdigest() != part["sha256"]:
        raise UserError(f"{path}: its bytes have changed since it was written (SHA-256 differs from the manifest); {REMEDY}")


def _digest_of(arrays: Dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in ("input_ids", "segment_ids", "domain", "label"):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return "records:" + digest.hexdigest()


def _decode_records(
    path: str, data: np.ndarray, starts: np.ndarray, ends: np.ndarray, seq_length: Optional[int], features: Sequence[Feature]
) -> Dict[str, np.ndarray]:
    """Any layout, through protobuf. Returns a dict of arrays; UserError as in `read_split`."""
    record_type = entries_class()
    # lists grow record by record: a first record of a huge length must not set the size of an allocation for all others
    columns: Dict[str, list] = {feature.name: [] for feature in features}
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist())):
        at = f"{path}: record {row + 1} at byte {start - LENGTH_BYTES}: "
        try:
            record = record_type()
            with warnings.catch_warnings():
                # protobuf 3 only warns where it stops at a stray end-group tag; the number of parsed bytes shows it
                warnings.simplefilter("ignore", RuntimeWarning)
                parsed = record.MergeFromString(data[start:end].tobytes())
        except DecodeError as error:
            raise UserError(f"{at}is not an OFRecord; {REMEDY}") from error
        if parsed != end - start:
            raise UserError(f"{at}is not an OFRecord; {REMEDY}")
        found = {entry.key: entry.value for entry in record.feature}
        for feature in features:
            values = _values_of(found, feature, at, seq_length)
            seq_length = len(values) if feature.per_token else seq_length
            wide = feature.per_token or feature.count is not None
            columns[feature.name].append(np.array(values, feature.dtype) if wide else values[0])
    return {feature.name: np.array(columns[feature.name], feature.dtype) for feature in features}


def _values_of(record: Dict[bytes, Any], feature: Feature, at: str, seq_length: Optional[int]) -> Sequence:
    """The list of a feature of a record (key -> message `Feature`), its type and length checked. `at` begins the message: file, record,
    offset."""
    name = next((n for n in (feature.key, feature.older_key) if n is not None and n.encode() in record), None)
    if name is None:
        found = ", ".join(sorted(key.decode("utf-8", "backslashreplace") for key in record)) or "nothing"
        raise UserError(f"{at}has no {feature.key}, only {for_terminal(found):.200}; {REMEDY}")
    value = record[name.encode()]
    kind = value.WhichOneof("kind")
    if kind != feature.kind:
        raise UserError("{}{} is of type {}, not {}; {}".format(at, name, kind or "none", feature.kind, REMEDY))
    values = getattr(value, kind).value
    expected = feature.count or 1 if not feature.per_token else len(values) if seq_length is None else seq_length
    if len(values) != expected or not expected:
        other_length = f"give --seq_length {len(values)}, or " if feature.per_token and len(values) else ""
        raise UserError(f"{at}{name} has {len(values)} values, expected {expected or 'more'}; {other_length}{REMEDY}")
    return values
