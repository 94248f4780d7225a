"""Prototypical scores of the training rows, and whose they are.

`DATA_DIR/ofrecord/train/weight.npy` is float32 [K], the score of row `idxs`; K is the number of rows that preprocess.py
used (`--train_example_num`). `weight.json` beside it names the text whose rows they are.
"""

import hashlib
import io
import os

import numpy as np

from modeling.errors import UserError
from ofrecord_util import files
from ofrecord_util.writer import split_folder

_REMEDY = "run preprocess.py again with --resave_ofrecord"


def score_paths(data_dir):
    """(path of weight.npy, path of weight.json)."""
    folder = split_folder(data_dir, "train")
    return os.path.join(folder, "weight.npy"), os.path.join(folder, "weight.json")


def save_scores(data_dir, scores, text_digest, info=None):
    """Writes the scores of the first K training rows, in one step each for array and description.

    Args:
        data_dir: folder of the data.
        scores: float32 [K], in row order, finite.
        text_digest: digest of the training text (`TextSplit.digest`, `Records.text_digest`).
        info: dict for the reader's interest (model, alpha, …), kept under `info` in weight.json.

    Raises:
        ValueError: another shape, or a score that is not finite.
        UserError: the files cannot be written.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape}: one finite number for each training row is needed")
    array_path, json_path = score_paths(data_dir)
    files.make_folder(os.path.dirname(array_path))
    buffer = io.BytesIO()
    np.save(buffer, scores, allow_pickle=False)
    data = buffer.getvalue()
    told = {
        "text_digest": text_digest,
        "count": len(scores),
        "sha256": hashlib.sha256(data).hexdigest(),
        "info": dict(info or {}),
    }
    try:
        with files.replacing(array_path) as file:
            file.write(data)
        files.write_json(json_path, told)
    except OSError as error:
        raise UserError(f"{array_path}: cannot be written ({error.strerror}); check --data_dir") from error


def load_scores(data_dir, text_digest, num_examples):
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
    array_path, json_path = score_paths(data_dir)
    if not os.path.exists(array_path):
        return None
    if not os.path.exists(json_path):
        raise UserError(
            f"{array_path}: weight.json beside it is missing, so nothing says whose scores these are; {_REMEDY}"
        )
    told = files.read_json(json_path, _REMEDY)
    try:
        with open(array_path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"{array_path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    # before NumPy parses it: np.load answers a damaged header with errors of many kinds
    if hashlib.sha256(data).hexdigest() != told.get("sha256"):
        raise UserError(f"{array_path}: is not the file that weight.json was written for; {_REMEDY}")
    try:
        scores = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{array_path}: is not an array of numbers ({error}); {_REMEDY}") from error
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float32 or scores.ndim != 1:
        raise UserError(f"{array_path}: does not hold float32 [rows]; {_REMEDY}")
    if told.get("text_digest") != text_digest or len(scores) < num_examples:
        raise UserError(
            "{}: {} scores of text {}, needed are {} of text {}; {}".format(
                array_path, len(scores), str(told.get("text_digest"))[:20], num_examples, text_digest[:20], _REMEDY
            )
        )
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise UserError(f"{array_path}: the score of row {bad[0]} is {scores[bad[0]]}; {_REMEDY}")
    return scores
