"""Prototypical scores of the training rows and a map of the rows, each with the digest of the text that they belong to.

`DATA_DIR/ofrecord/train/weight.npy` is float32 [K], the score of row `idxs`; K is the number of rows that preprocess.py
used (`--train_example_num`). `weight.json` in the same folder has the digest of the text. `map.npz` and `map.json` hold in the same
way the position of each row in the plane in which the representations of the encoder differ most. Reports show it (modeling/report);
no step computes with it.
"""

import hashlib
import io
import os
import re
from typing import NamedTuple, Optional, Tuple

import numpy as np

from ofrecord_util import files
from ofrecord_util.array_reading import parse_npy, parse_npz
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.reading import ARRAY_LIMIT, read_bytes
from ofrecord_util.writer import split_folder

_REMEDY = "run preprocess.py again with --resave_ofrecord"


class EmbeddingMap(NamedTuple):
    """The training rows (K of D domains and C labels) in a plane."""

    coordinates: np.ndarray  # float32 [K, 2], by row number
    domain: np.ndarray  # int32 [K]
    label: np.ndarray  # int32 [K]
    prototypes: np.ndarray  # float32 [D, C, 2], NaN where a domain has no row of a label
    explained: np.ndarray  # float64 [2], share of the variance along each axis


def score_paths(data_dir: str) -> Tuple[str, str]:
    """(path of weight.npy, path of weight.json)."""
    folder = split_folder(data_dir, "train")
    return os.path.join(folder, "weight.npy"), os.path.join(folder, "weight.json")


def map_paths(data_dir: str) -> Tuple[str, str]:
    """(path of map.npz, path of map.json)."""
    folder = split_folder(data_dir, "train")
    return os.path.join(folder, "map.npz"), os.path.join(folder, "map.json")


def save_scores(data_dir: str, scores: np.ndarray, text_digest: str, info: Optional[dict] = None) -> None:
    """Writes the scores of the first K training rows: the array, then its description, each whole or not at all.

    Args:
        data_dir: folder of the data.
        scores: float32 [K], in row order, finite.
        text_digest: digest of the training text (`TextSplit.digest`, `Records.text_digest`).
        info: dict for the reader (model, alpha, …), stored as `info` in weight.json.

    Raises:
        ValueError: another shape, or a score that is not finite.
        UserError: the files cannot be written.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape}: one finite number per training row is needed")
    buffer = io.BytesIO()
    np.save(buffer, scores, allow_pickle=False)
    _write(score_paths(data_dir), buffer.getvalue(), {"text_digest": text_digest, "count": len(scores), "info": dict(info or {})})


def _write(paths: Tuple[str, str], data: bytes, description: dict) -> None:
    """Writes the file of an array and its description, which gets the digest of the file."""
    array_path, json_path = paths
    try:
        with files.filling(os.path.dirname(array_path)):
            with files.replacing(array_path) as file:
                file.write(data)
            files.write_json(json_path, dict(description, sha256=hashlib.sha256(data).hexdigest()))
    except OSError as error:
        raise UserError(f"{array_path}: cannot be written ({error.strerror}); check --data_dir") from error


def _read(paths: Tuple[str, str]) -> Tuple[bytes, dict]:
    """(bytes, description) of the file of an array. UserError where they do not belong together."""
    array_path, json_path = paths
    name = os.path.basename(json_path)
    if not os.path.exists(json_path):
        raise UserError(f"{array_path}: {name} is missing in the same folder, so the text of these rows is unknown; {_REMEDY}")
    description = read_json(json_path, _REMEDY)
    if not re.match(r"[\w:]+\Z", str(description.get("text_digest"))):
        raise UserError(f"{json_path}: text_digest is {description.get('text_digest')!r:.40}, which is no digest; {_REMEDY}")
    data = read_bytes(array_path, _REMEDY, ARRAY_LIMIT)
    if hashlib.sha256(data).hexdigest() != description.get("sha256"):
        raise UserError(f"{array_path}: is not the file that {name} was written for; {_REMEDY}")
    return data, description


def load_scores(data_dir: str, text_digest: str, num_examples: int) -> Optional[np.ndarray]:
    """The scores of the training rows.

    Args:
        data_dir: folder of the data.
        text_digest: digest of the training text they must belong to.
        num_examples: how many rows need a score.

    Returns:
        float32 [K] with K >= num_examples, or None where there is no weight.npy.

    Raises:
        UserError: scores of another text, too few, an array of another type or shape, values that are not finite, or a
            weight.json that is missing or does not fit.
    """
    paths = score_paths(data_dir)
    array_path = paths[0]
    if not os.path.exists(array_path):
        return None
    data, description = _read(paths)
    try:
        scores = parse_npy(data)
    except ValueError as error:
        raise UserError(f"{array_path}: is not an array of numbers ({error}); {_REMEDY}") from error
    if scores.dtype != np.float32 or scores.ndim != 1:
        raise UserError(f"{array_path}: does not hold float32 [rows]; {_REMEDY}")
    if description.get("text_digest") != text_digest or len(scores) < num_examples:
        raise UserError(
            "{}: {} scores of text {}, needed are {} of text {}; {}".format(
                array_path, len(scores), str(description.get("text_digest"))[:20], num_examples, text_digest[:20], _REMEDY
            )
        )
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise UserError(f"{array_path}: the score of row {bad[0]} is {scores[bad[0]]}; {_REMEDY}")
    return scores


def score_info(data_dir: str) -> dict:
    """The `info` that `save_scores` stored with the scores; {} if there is none."""
    path = score_paths(data_dir)[1]
    info = read_json(path, _REMEDY).get("info") if os.path.exists(path) else None
    return info if isinstance(info, dict) else {}


def save_map(data_dir: str, embedding_map: EmbeddingMap, text_digest: str) -> None:
    """Writes the `EmbeddingMap` of the rows that have a score.

    Raises:
        UserError: the files cannot be written.
    """
    buffer = io.BytesIO()
    files.write_npz(buffer, embedding_map._asdict())
    _write(map_paths(data_dir), buffer.getvalue(), {"text_digest": text_digest, "count": len(embedding_map.coordinates)})


def load_map(data_dir: str, text_digest: str) -> Optional[EmbeddingMap]:
    """The `EmbeddingMap` of the training rows, or None where there is no map.npz.

    Args:
        text_digest: digest of the training text they must belong to.
    Raises:
        UserError: of another text, or damaged.
    """
    paths = map_paths(data_dir)
    if not os.path.exists(paths[0]):
        return None
    data, description = _read(paths)
    if description.get("text_digest") != text_digest:
        raise UserError(f"{paths[0]}: is a map of text {str(description.get('text_digest'))[:20]}, not of {text_digest[:20]}; {_REMEDY}")
    try:
        arrays = parse_npz(io.BytesIO(data), len(data), ARRAY_LIMIT)
        embedding_map = EmbeddingMap(*(arrays[name] for name in EmbeddingMap._fields))
    except (ValueError, KeyError) as error:
        raise UserError(f"{paths[0]}: is not a map ({error}); {_REMEDY}") from error
    shapes, kinds = [value.shape for value in embedding_map], [value.dtype.kind for value in embedding_map]
    count, cells = embedding_map.domain.size, shapes[3][:2]
    fits = shapes == [(count, 2), (count,), (count,), (*cells, 2), (2,)] and kinds == ["f", "i", "i", "f", "f"] and count > 0
    if not fits or any((ids < 0).any() or ids.max() >= size for ids, size in zip(embedding_map[1:3], cells)):
        raise UserError(f"{paths[0]}: its arrays, of the shapes {shapes}, do not form a map; {_REMEDY}")
    return embedding_map
