"""Writes the OFRecord files of a split and their manifest.

`DATA_DIR/ofrecord/SPLIT/PREFIX0`, `PREFIX1`, …: the default prefix is `SPLIT.of_record-`, and the flags
(`--train_data_prefix train.of_record-`) hold the prefix with its dash. The number is not padded, as
`nn.OFRecordReader(part_name_suffix_length=-1)` expects.
"""

import contextlib
import hashlib
import os
from typing import Any, BinaryIO, List, Optional, Sequence, Set, Tuple

import numpy as np

from ofrecord_util import files, output_checks
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.schema import Feature, default_prefix, features_of, split_flag
from ofrecord_util.wire_format import encode

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
_CHUNK = 256  # records encoded at once: few enough to stay in the processor's cache


def split_folder(data_dir: str, split: str) -> str:
    """`DATA_DIR/ofrecord/SPLIT`."""
    return os.path.join(data_dir, "ofrecord", split)


def part_paths(data_dir: str, split: str, prefix: Optional[str], part_num: int) -> List[str]:
    """Paths of a split's parts.

    Args:
        data_dir: folder of the data.
        split: "train", "dev" or "test".
        prefix: name of a part without its number; None means `SPLIT.of_record-`.
        part_num: number of parts, at least 1.
    """
    prefix = default_prefix(split) if prefix is None else prefix
    if part_num < 1:
        raise UserError("{} {}: at least 1 is needed".format(split_flag(split, "data_part_num"), part_num))
    if not prefix or os.path.basename(prefix) != prefix:
        raise UserError("{} {!r}: must be the beginning of a file name".format(split_flag(split, "data_prefix"), prefix))
    return [os.path.join(split_folder(data_dir, split), f"{prefix}{part}") for part in range(part_num)]


def plan_parts(data_dir: str, split: str, prefix: Optional[str], part_num: int, count: int) -> List[str]:
    """Paths of the parts that `count` records will be written to. Checks that they can be, and writes nothing.

    Arguments as in `write_split`.

    Raises:
        UserError: fewer records than parts (OneFlow's reader dies on an empty part), or the folder cannot be written or has a folder with
            the name of a part or of the manifest.
    """
    paths = part_paths(data_dir, split, prefix, part_num)
    if count < part_num:
        raise UserError("{} {}: more parts than the {} records of {}".format(split_flag(split, "data_part_num"), part_num, count, split))
    check_files(split_folder(data_dir, split), paths)
    return paths


def check_files(folder: str, paths: Sequence[str]) -> None:
    """Checks before the work that the files of a split, and its manifest, can be written. Writes nothing.

    Args:
        folder: of the split.
        paths: of the files, in the folder.
    Raises:
        UserError: the folder or a file cannot be written, or a name is that of a folder.
    """
    output_checks.check_output_folder(folder, "--data_dir", whole=False)
    for path in (*paths, os.path.join(folder, MANIFEST)):
        output_checks.check_output(path, "--data_dir", makes_folder=True)


def write_split(data_dir: str, split: str, prefix: Optional[str], part_num: int, arrays: Any, manifest: dict) -> dict:
    """Writes a split's records, then its manifest.

    Every part is written under a temporary name in its folder, flushed to the disk and renamed; the manifest comes last
    and holds the digest of each part, so that the reader detects an interrupted write. Parts of the previous manifest that
    are not written again (of a larger `part_num`, or of another prefix) are removed: they would be stale.

    Args:
        data_dir: folder of the data.
        split: "train", "dev" or "test".
        prefix: name of a part without its number; None means `SPLIT.of_record-`.
        part_num: number of parts; part p gets the p-th run of consecutive records.
        arrays: dict, or object with attributes, of the features of the manifest's task and form (`schema.features_of`): [N, S] int32
            for tokens, [N, count] or [N] for the others.
        manifest: dict of what the records were made from (text_digest, vocab_digest, seq_length, do_lower_case, task,
            truncated, …).

    Returns:
        The written manifest: `manifest` with `format`, `split`, `num_records`, `seq_length` and `parts` (name, records, bytes, sha256).

    Raises:
        UserError: fewer records than parts (OneFlow's reader dies on an empty part), or the folder cannot be written.
        ValueError: arrays of wrong shape.
    """
    features = features_of(manifest.get("task"), manifest.get("form"))
    columns = _columns(arrays, features)
    count, seq_length = columns[0].shape
    paths = plan_parts(data_dir, split, prefix, part_num, count)
    folder = split_folder(data_dir, split)
    previous = previous_files(folder)
    bounds = [count * part // part_num for part in range(part_num + 1)]
    parts = []
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(files.filling(folder))
            for path, begin, end in zip(paths, bounds[:-1], bounds[1:]):
                digest, size = _write_part(stack.enter_context(files.replacing(path)), columns, features, begin, end)
                parts.append({"name": os.path.basename(path), "records": end - begin, "bytes": size, "sha256": digest})
        full = dict(manifest, format=MANIFEST_FORMAT, split=split, num_records=count, seq_length=seq_length, parts=parts)
        files.write_json(os.path.join(folder, MANIFEST), full)
        for name in previous - {part["name"] for part in parts}:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); check --data_dir") from error
    return full


def _columns(arrays: Any, features: Sequence[Feature]) -> List[np.ndarray]:
    """The features' arrays in the order of the schema, each of its dtype."""
    columns: List[np.ndarray] = []
    for feature in features:
        array = np.asarray(arrays[feature.name] if isinstance(arrays, dict) else getattr(arrays, feature.name))
        wide = feature.per_token or feature.count is not None
        if array.ndim != 1 + wide or 0 in array.shape[1:]:
            raise ValueError("{}: shape {}, expected {}".format(feature.name, array.shape, "[N, S]" if wide else "[N]"))
        expected = (len(array), feature.count) if feature.count is not None else columns[0].shape if columns else array.shape
        if columns and (len(array) != len(columns[0]) or array.shape != expected[: array.ndim]):
            raise ValueError(f"{feature.name}: shape {array.shape} does not fit")
        columns.append(array.astype(feature.dtype, copy=False))
    return columns


def _write_part(file: BinaryIO, columns: Sequence[np.ndarray], features: Sequence[Feature], begin: int, end: int) -> Tuple[str, int]:
    """Writes records begin to end - 1. Returns SHA-256 (hex) and number of bytes."""
    digest, size = hashlib.sha256(), 0
    for start in range(begin, end, _CHUNK):
        data = encode([column[start : min(start + _CHUNK, end)] for column in columns], features)
        file.write(data.data)
        digest.update(data.data)
        size += len(data)
    return digest.hexdigest(), size


def previous_files(folder: str) -> Set[str]:
    """Names of the part files that the folder's manifest lists; empty where there is none or it cannot be read."""
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        return set()
    try:
        parts = read_json(path, "").get("parts")
    except UserError:
        return set()
    parts = parts if isinstance(parts, list) else []
    names = [part.get("name") for part in parts if isinstance(part, dict)]
    return {name for name in names if isinstance(name, str) and name and os.path.basename(name) == name and name != MANIFEST}
