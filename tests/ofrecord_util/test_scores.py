"""Prototypical scores: what is saved is what is loaded, for the same rows only."""

import hashlib
import io
import json
import os

import numpy as np
import pytest

from modeling.errors import UserError
from ofrecord_util.scores import load_scores, save_scores, score_paths

SCORES = np.array([0.25, -0.5, 1.0], np.float32)


@pytest.fixture
def data_dir(tmp_path):
    save_scores(str(tmp_path), SCORES, "abc", {"alpha": 0.5})
    return str(tmp_path)


def test_round_trip(data_dir):
    for needed in (1, 3):
        scores = load_scores(data_dir, "abc", needed)
        assert scores.dtype == np.float32 and np.array_equal(scores, SCORES)
    array_path, json_path = score_paths(data_dir)
    assert array_path == os.path.join(data_dir, "ofrecord", "train", "weight.npy")
    assert np.array_equal(np.load(array_path, allow_pickle=False), SCORES)
    with open(json_path, encoding="utf-8") as file:
        told = json.load(file)
    assert (told["text_digest"], told["count"], told["info"]) == ("abc", 3, {"alpha": 0.5})
    assert sorted(os.listdir(os.path.dirname(array_path))) == ["weight.json", "weight.npy"]


def test_none(tmp_path):
    assert load_scores(str(tmp_path), "abc", 1) is None


@pytest.mark.parametrize("digest, needed", [("other", 3), ("abc", 4)])
def test_scores_of_other_rows(data_dir, digest, needed):
    message = f"3 scores of text abc, needed are {needed} of text {digest}; run preprocess.py again with --resave_ofrecord"
    with pytest.raises(UserError, match=message):
        load_scores(data_dir, digest, needed)


def npy(array, **arguments):
    buffer = io.BytesIO()
    np.save(buffer, array, **arguments)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"\x80\x04N.",  # a pickle
        npy(np.array([1, None], dtype=object), allow_pickle=True),
        npy(SCORES)[:-3],
        npy(SCORES.astype(np.float64)),
        npy(SCORES[None]),
        npy(SCORES[:2]),
        npy(-SCORES),
        npy(np.float32(1)),
        npy(SCORES).replace(b"(3,), }" + b" " * 15, b"(1000000000000000,), }"),
        b"PK\x03\x04junk",
    ],
)
def test_bad_array(data_dir, content):
    with open(score_paths(data_dir)[0], "wb") as file:
        file.write(content)
    with pytest.raises(UserError, match="weight.npy.*run preprocess.py again with --resave_ofrecord"):
        load_scores(data_dir, "abc", 3)


def test_every_flipped_byte_is_found(data_dir):
    content = npy(SCORES)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        with open(score_paths(data_dir)[0], "wb") as file:
            file.write(changed)
        with pytest.raises(UserError, match="weight.npy"):
            load_scores(data_dir, "abc", 3)


@pytest.mark.parametrize(
    "content",
    [
        b"junk",
        npy(np.array([1, None], dtype=object), allow_pickle=True),
        npy(SCORES[None]),
        npy(SCORES[:2]),
        npy(SCORES.astype(np.float64)),
        npy(np.array([1, np.nan, 1], np.float32)),
        npy(SCORES)[:-3],
    ],
)
def test_files_that_only_look_right(data_dir, content):
    """Even where weight.json has been made to fit."""
    array_path, json_path = score_paths(data_dir)
    with open(json_path, encoding="utf-8") as file:
        told = json.load(file)
    told["sha256"] = hashlib.sha256(content).hexdigest()
    with open(json_path, "w", encoding="utf-8") as file:
        json.dump(told, file)
    with open(array_path, "wb") as file:
        file.write(content)
    with pytest.raises(UserError, match="weight.npy.*preprocess.py again"):
        load_scores(data_dir, "abc", 3)


def test_a_zip_of_arrays_is_no_array(data_dir):
    with open(score_paths(data_dir)[0], "wb") as file:
        np.savez(file, SCORES)
    with pytest.raises(UserError, match="weight.npy"):
        load_scores(data_dir, "abc", 3)


def test_bad_description(data_dir):
    _, json_path = score_paths(data_dir)
    for content in (b"", b"[]", b"{}"):
        with open(json_path, "wb") as file:
            file.write(content)
        with pytest.raises(UserError, match="run preprocess.py again"):
            load_scores(data_dir, "abc", 3)
    os.remove(json_path)
    with pytest.raises(UserError, match="weight.json beside it is missing"):
        load_scores(data_dir, "abc", 3)


@pytest.mark.parametrize("scores", [[], [[1.0]], [np.nan], [1.0, np.inf]])
def test_bad_scores_are_not_saved(tmp_path, scores):
    with pytest.raises(ValueError):
        save_scores(str(tmp_path), np.array(scores, np.float32), "abc")
    assert not os.path.exists(score_paths(str(tmp_path))[0])
