"""Prototypical scores: what is saved is what is loaded, for the same rows only."""

import hashlib
import io
import json
import os

import numpy as np
import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.scores import EmbeddingMap, load_map, load_scores, map_paths, save_map, save_scores, score_paths

SCORES = np.array([0.25, -0.5, 1.0], np.float32)


@pytest.fixture
def data_dir(tmp_path):
    save_scores(str(tmp_path), SCORES, "abc", {"alpha": 0.5})
    return str(tmp_path)


def test_round_trip(data_dir):
    for needed in (1, 3):
        scores = load_scores(data_dir, "abc", needed)
        assert scores.dtype == np.float32
        assert np.array_equal(scores, SCORES)
    array_path, json_path = score_paths(data_dir)
    assert array_path == os.path.join(data_dir, "ofrecord", "train", "weight.npy")
    assert np.array_equal(np.load(array_path, allow_pickle=False), SCORES)
    with open(json_path, encoding="utf-8") as file:
        told = json.load(file)
    assert (told["text_digest"], told["count"], told["info"]) == ("abc", 3, {"alpha": 0.5})
    assert sorted(os.listdir(os.path.dirname(array_path))) == ["weight.json", "weight.npy"]


def test_none(tmp_path):
    assert load_scores(str(tmp_path), "abc", 1) is None


@pytest.mark.parametrize(("digest", "needed"), [("other", 3), ("abc", 4)])
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
    with pytest.raises(UserError, match=r"weight.npy.*run preprocess.py again with --resave_ofrecord"):
        load_scores(data_dir, "abc", 3)


def test_every_flipped_byte_is_found(data_dir):
    content = npy(SCORES)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        with open(score_paths(data_dir)[0], "wb") as file:
            file.write(changed)
        with pytest.raises(UserError, match=r"weight.npy"):
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
    with pytest.raises(UserError, match=r"weight.npy.*preprocess.py again"):
        load_scores(data_dir, "abc", 3)


def test_a_zip_of_arrays_is_no_array(data_dir):
    with open(score_paths(data_dir)[0], "wb") as file:
        np.savez(file, SCORES)
    with pytest.raises(UserError, match=r"weight.npy"):
        load_scores(data_dir, "abc", 3)


def test_bad_description(data_dir):
    _, json_path = score_paths(data_dir)
    for content in (b"", b"[]", b"{}", b'{"text_digest": "a\\nb"}'):
        with open(json_path, "wb") as file:
            file.write(content)
        with pytest.raises(UserError, match=r"run preprocess.py again") as error:
            load_scores(data_dir, "abc", 3)
        assert "\n" not in str(error.value)
    os.remove(json_path)
    with pytest.raises(UserError, match=r"weight.json is missing in the same folder"):
        load_scores(data_dir, "abc", 3)


@pytest.mark.parametrize("scores", [[], [[1.0]], [np.nan], [1.0, np.inf]])
def test_bad_scores_are_not_saved(tmp_path, scores):
    with pytest.raises(ValueError, match="one finite number"):
        save_scores(str(tmp_path), np.array(scores, np.float32), "abc")
    assert not os.path.exists(score_paths(str(tmp_path))[0])


# The map of the training rows


MAP = EmbeddingMap(
    np.arange(6, dtype=np.float32).reshape(3, 2),
    np.array([0, 1, 1], np.int32),
    np.array([1, 0, 2], np.int32),
    np.full((2, 3, 2), np.nan, np.float32),
    np.array([0.5, 0.25]),
)


def test_map_round_trip(tmp_path):
    assert load_map(str(tmp_path), "abc") is None
    save_map(str(tmp_path), MAP, "abc")
    for expected, found in zip(MAP, load_map(str(tmp_path), "abc")):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected, equal_nan=True)
    before = [(tmp_path / "ofrecord" / "train" / name).read_bytes() for name in ("map.json", "map.npz")]
    save_map(str(tmp_path), MAP, "abc")
    assert [(tmp_path / "ofrecord" / "train" / name).read_bytes() for name in ("map.json", "map.npz")] == before
    with pytest.raises(UserError, match=r"a map of text abc, not of other; run preprocess.py again"):
        load_map(str(tmp_path), "other")


@pytest.mark.parametrize(
    "changes",
    [
        {"coordinates": MAP.coordinates[:2]},
        {"coordinates": MAP.coordinates.astype(int)},
        {"domain": MAP.domain.astype(np.float32)},
        {"domain": MAP.domain + 1},
        {"label": MAP.label - 1},
        {"prototypes": MAP.prototypes[0]},
        {"explained": np.zeros(3)},
        {"explained": np.array(["a", "b"])},
        {name: getattr(MAP, name)[:0] for name in ("coordinates", "domain", "label")},
    ],
)
def test_maps_that_do_not_fit(tmp_path, changes):
    save_map(str(tmp_path), MAP._replace(**changes), "abc")
    with pytest.raises(UserError, match=r"map.npz: its arrays.*do not form a map"):
        load_map(str(tmp_path), "abc")


def test_damaged_map(tmp_path):
    save_map(str(tmp_path), MAP, "abc")
    array_path, json_path = map_paths(str(tmp_path))
    with open(array_path, "rb") as file:
        content = file.read()
    for damaged in (b"", content[:-1], b"junk", npy(SCORES), content.replace(b"domain.npy", b"domino.npy")):
        with open(array_path, "wb") as file:
            file.write(damaged)
        with pytest.raises(UserError, match=r"map.npz: is not the file that map.json was written for"):
            load_map(str(tmp_path), "abc")
        with open(json_path, encoding="utf-8") as file:
            told = json.load(file)
        with open(json_path, "w", encoding="utf-8") as file:  # made to fit
            json.dump(dict(told, sha256=hashlib.sha256(damaged).hexdigest()), file)
        with pytest.raises(UserError, match=r"map.npz: is not a map"):
            load_map(str(tmp_path), "abc")
    os.remove(json_path)
    with pytest.raises(UserError, match=r"map.json is missing in the same folder"):
        load_map(str(tmp_path), "abc")
