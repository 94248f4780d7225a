"""A corpus without the rows of held-out domains: what is left out, and records that were written with others."""

import json
import os

import numpy as np
import pytest
import tiny
from corpus_samples import LENGTH, write_lines

from ofrecord_util.corpus import Corpus, write_corpus
from ofrecord_util.corpus_text import CorpusText, HeldOutRows
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import HELD_OUT_KEY, Task
from ofrecord_util.text import TextFolder
from ofrecord_util.tokenization import Tokenizer

TASK = Task("t", ("mr", "cr"), ("0", "1"))
ROWS = [("the plot. it was good", "mr", "1"), ("a phone", "cr", "0"), ("a story. it was bad", "mr", "0"), ("the screen", "cr", "1")]
PHONES = HeldOutRows(["cr"], frozenset([1, 3]))


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")))


@pytest.fixture
def rows(tmp_path):
    tiny.write_rows(str(tmp_path / "train"), "train", ROWS)
    return TextFolder(str(tmp_path / "train")).read("train", TASK)


def write(tmp_path, tokenizer, text, packing="line"):
    write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, packing)
    return Corpus(str(tmp_path / "data"))


@pytest.mark.parametrize("packing", ["line", "packed", "sentences"])
def test_their_rows_are_left_out(tmp_path, tokenizer, rows, packing):
    """Whatever a record holds. A line of a file with the same words has no domain, and stays."""
    path = write_lines(tmp_path / "c.txt", ["a phone", "the dogs. it was bad"])
    found = write(tmp_path, tokenizer, CorpusText([path], rows, {}, left_out=PHONES), packing)
    others = TextFolder(str(tmp_path / "train"))
    tiny.write_rows(others.data_dir, "train", [row for row in ROWS if row[1] == "mr"])
    wanted = CorpusText([path], others.read("train", TASK), {})
    write_corpus(str(tmp_path / "wanted"), 1, wanted, tokenizer, LENGTH, packing)
    expected = Corpus(str(tmp_path / "wanted"))
    assert found.manifest["texts_by_file"] == [2, 2]
    assert found.manifest[HELD_OUT_KEY] == ["cr"]
    assert HELD_OUT_KEY not in expected.manifest
    assert np.array_equal(found.read(0, len(found)).input_ids, expected.read(0, len(expected)).input_ids)
    assert CorpusText([path], rows, {}, left_out=PHONES).size == wanted.size


def test_records_of_other_held_out_domains_are_stale(tmp_path, tokenizer, rows):
    text = CorpusText([], rows, {}, left_out=PHONES)
    for written, own, made, needed in (
        (text, None, "with --held_out_domains cr", "without it"),
        (text, ["mr", "cr"], "with --held_out_domains cr", "with --held_out_domains mr,cr"),
        (CorpusText([], rows, {}), ["cr"], "without it", "with --held_out_domains cr"),
    ):
        found = write(tmp_path, tokenizer, written)
        said = f"--held_out_domains: they were made {made}, this run is {needed}"
        assert found.differences({HELD_OUT_KEY: own, **written.digests()}) == [said]
        assert found.differences({HELD_OUT_KEY: written.held_out, **written.digests()}) == []


def test_what_is_left_out_is_in_no_message(tmp_path, rows):
    """A text of dev among the rows that are left out is no fault, and the others keep their numbers."""
    tiny.write_rows(str(tmp_path / "dev"), "dev", [("a phone", "cr", "0"), ("a story. it was bad", "mr", "0")])
    dev = {"dev": TextFolder(str(tmp_path / "dev")).read("dev", TASK)}
    with pytest.raises(UserError, match=r"train\.csv: sample 3: is a text of dev, and 1 texts of the corpus are"):
        CorpusText([], rows, dev, left_out=PHONES).check()
    CorpusText([], rows, dev, left_out=HeldOutRows(["mr", "cr"], frozenset([1, 2, 3]))).check()


@pytest.mark.parametrize("value", ["cr", [1], None, {"cr": 1}])
def test_a_damaged_manifest(tmp_path, tokenizer, rows, value):
    found = write(tmp_path, tokenizer, CorpusText([], rows, {}, left_out=PHONES))
    path = os.path.join(found.path, "manifest.json")
    with open(path, encoding="utf-8") as file:
        values = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**values, HELD_OUT_KEY: value}, file)
    with pytest.raises(UserError, match="is not the manifest of a corpus"):
        Corpus(str(tmp_path / "data"))
