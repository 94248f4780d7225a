"""Files with two texts per line (--paired_lines): records, lines that are refused, and text of dev and test in them."""

import numpy as np
import pytest
import tiny
from corpus_samples import LENGTH, write_lines

from ofrecord_util.corpus import Corpus, is_written, write_corpus
from ofrecord_util.corpus_text import CorpusText
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder
from ofrecord_util.tokenization import Tokenizer

TASK = Task("t", ("mr",), ("0", "1"))


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")))


def test_lines_with_two_texts(tmp_path, tokenizer):
    """They are records as the pairs of a task are, beside single texts of a task."""
    pairs = [("the plot was good", "yes"), ("no", "the cats sleep and the dogs run and sleep"), ("a film", "it is bad !")]
    path = write_lines(tmp_path / "c.txt", ["\t".join(pairs[0]), "", f" {pairs[1][0]} \t  {pairs[1][1]}", "\t".join(pairs[2]) + "\r"])
    tiny.write_rows(str(tmp_path / "train"), "train", [("a good plot", "mr", "1"), ("a story", "mr", "0")])
    rows = TextFolder(str(tmp_path / "train")).read("train", TASK)
    text = CorpusText([path], rows, {}, paired=True)
    manifest = write_corpus(str(tmp_path / "data"), 2, text, tokenizer, LENGTH, "pairs")
    assert (manifest["packing"], manifest["texts_by_file"], manifest["truncated"], manifest["num_records"]) == ("pairs", [2, 3], 1, 5)
    found, encoded = Corpus(str(tmp_path / "data")).read(0, 5), tokenizer.encode(*map(list, zip(*pairs)), LENGTH)
    assert np.array_equal(found.input_ids[2:], encoded.input_ids)
    assert np.array_equal(found.segment_ids[2:], encoded.segment_ids)
    assert np.array_equal(found.input_ids[:2], tokenizer.encode(["a good plot", "a story"], None, LENGTH).input_ids)
    changed = Corpus(str(tmp_path / "data")).differences({"packing": "line"})
    assert changed == [
        "they hold the two texts of a line (recipes/pretrain_pairs.py --paired_lines), and this run needs one text per record "
        "(recipes/pretrain_mlm.py --packing line)"
    ]


def test_lines_of_which_a_text_has_no_token(tmp_path, tokenizer):
    """They have no record, in which the other text would be cut in two."""
    path = write_lines(tmp_path / "c.txt", ["the plot was good\t\u0007", "\u0007\tthe plot was good", "no\tyes"])
    write_corpus(str(tmp_path / "data"), 1, CorpusText([path], None, {}, paired=True), tokenizer, LENGTH, "pairs")
    rows = Corpus(str(tmp_path / "data")).read(0, 1)
    assert [tiny.TOKENS[token] for token in rows.input_ids[0, :5]] == ["[CLS]", "no", "[SEP]", "yes", "[SEP]"]
    assert Corpus(str(tmp_path / "data")).manifest["num_records"] == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a\tb\nno pair\n", r"line 2 \('no pair'\): has 1 column, but with --paired_lines each line of --corpus_file has two texts"),
        ("a\tb\na film\tmr\t1\n", r"line 2 \('a film.tmr.t1'\): has 3 columns, but with --paired_lines"),
        ("a film\t \n", "line 1 .*: the second text is empty, but --paired_lines needs two per line: remove the line"),
        ("a\tb\n\tb\n", "line 2 .*: the first text is empty"),
        ("sentence1\tsentence2\na\tb\n", "line 1 .* is a header"),
    ],
)
def test_a_line_without_two_texts(tmp_path, tokenizer, data, said):
    (tmp_path / "c.txt").write_text(data, encoding="utf-8")
    text = CorpusText([str(tmp_path / "c.txt")], None, {}, paired=True)
    with pytest.raises(UserError, match=said):
        write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, "pairs")
    assert not is_written(str(tmp_path / "data"))


def test_a_file_of_pairs_is_no_file_of_texts(tmp_path, tokenizer):
    text = CorpusText([write_lines(tmp_path / "c.txt", ["a\tb", "c\td"])], None, {})
    with pytest.raises(UserError, match=r"line 1 .* is a table.*; --paired_lines takes the two texts of each line as a pair"):
        write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, "line")


def test_lines_with_a_text_of_dev(tmp_path, tokenizer):
    """One of its two texts, or both as one text that was cut in two."""
    tiny.write_rows(str(tmp_path / "task"), "dev", [("A good  film", "mr", "1"), ("it was bad", "mr", "0")])
    dev = {"dev": TextFolder(str(tmp_path / "task")).read("dev", TASK)}
    path = write_lines(tmp_path / "c.txt", ["the plot\tno", "no\tA Good film", "it was\tbad", "it was\ta film", "a good film\tyes"])
    with pytest.raises(UserError, match=r"c\.txt: line 2: is a text of dev, and 3 texts of the corpus are"):
        CorpusText([path], None, dev, paired=True).check()
    text = CorpusText([path], None, dev, "leave_out", paired=True)
    manifest = write_corpus(str(tmp_path / "data"), 1, text, tokenizer, LENGTH, "pairs")
    assert (manifest["texts"], manifest["evaluation_texts"]) == (2, 3)
    tiny.write_rows(str(tmp_path / "pair_task"), "dev", [("a plot", "no", "mnli", "1"), ("yes", "no", "mnli", "0")])
    task = Task("t", ("mnli",), ("0", "1"), True)
    pairs = {"dev": TextFolder(str(tmp_path / "pair_task")).read("dev", task)}
    with pytest.raises(UserError, match=r"c\.txt: line 1: is a text of dev, and 3 texts"):
        CorpusText([path], None, pairs, paired=True).check()
