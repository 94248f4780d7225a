"""Sources and targets: rows of text, records, and what a decoder gets."""

import json
import os

import numpy as np
import pytest
import tiny

from ofrecord_util.errors import UserError
from ofrecord_util.target_records import PAIRS, TEXTS, Lengths, TargetData, padded_rows, read_target_rows, source_ids
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.tokenization import Tokenizer, join_pieces

ROWS = [("the film is good", "good film"), ("a boring story", "bad"), ("cats sleep", "dogs run and run")]
PAD, CLS, SEP = 0, 3, 4


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(tmp_path / "vocab.txt"))


def data_of(folder, tokenizer, form=PAIRS, lengths=(7, 6), resave=False, log=lambda _line: None, **options):
    return TargetData(str(folder), tokenizer, Lengths(*lengths), form, TextOptions(**options), resave, log)


def test_records_of_pairs(tmp_path, tokenizer):
    tiny.write_rows(tmp_path, "train", ROWS)
    lines = []
    written = data_of(tmp_path, tokenizer, log=lines.append).split("train")
    assert "3 rows of" in lines[0]
    assert "written as OFRecord" in lines[0]
    assert "sources of 4 to 6 tokens, targets of 3 to 6" in lines[1]
    tokens = [[tokenizer.tokens[number] for number in row] for row in written.samples.word_rows]
    assert tokens[0] == ["[CLS]", "the", "film", "is", "good", "[SEP]", "[PAD]"]
    assert tokens[2] == ["[CLS]", "cats", "sleep", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert written.samples.input_mask[2].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert [tokenizer.tokens[number] for number in written.targets[2]] == ["[CLS]", "dogs", "run", "and", "run", "[SEP]"]
    assert written.target_lengths.tolist() == [4, 3, 6]
    assert written.texts == ROWS
    read = data_of(tmp_path, tokenizer, log=lines.append).split("train")
    assert "written" not in "".join(lines[2:])
    assert read.digest == written.digest
    assert np.array_equal(read.targets, written.targets)
    assert read.first(2).texts == ROWS[:2]
    assert read.first(2).digest != read.digest
    os.remove(tmp_path / "train.csv")
    assert data_of(tmp_path, tokenizer).split("train").texts is None


def test_unknown_tokens_of_sources_and_targets(tmp_path, tokenizer):
    tiny.write_rows(tmp_path, "train", [("zz yy xx", "ww good")] * 4)
    lines = []
    data_of(tmp_path, tokenizer, log=lines.append).split("train")
    assert lines[-1].startswith("warning: train: 4 rows")
    assert "16 of 20 tokens are [UNK] (80.0 %)" in lines[-1]


def test_long_texts_are_cut(tmp_path, tokenizer):
    tiny.write_rows(tmp_path, "train", ROWS)
    split = data_of(tmp_path, tokenizer, lengths=(4, 5)).split("train")
    assert split.facts["truncated"] == 3
    assert (split.samples.word_rows[:, -1] == SEP).all()
    assert split.targets[2].tolist()[-1] == SEP


def test_what_a_decoder_gets(tmp_path, tokenizer):
    tiny.write_rows(tmp_path, "train", ROWS)
    split = data_of(tmp_path, tokenizer).split("train")
    rows = np.array([2, 1])
    found = split.target_arrays(rows, 8)
    assert found["decoder_rows"].shape == (2, 8)
    assert found["decoder_rows"][1].tolist() == [CLS, tokenizer.tokens.index("bad"), SEP, *[PAD] * 5]
    assert found["target_ids"][1].tolist() == [tokenizer.tokens.index("bad"), SEP, *[PAD] * 6]
    assert found["target_weights"].tolist() == [[1] * 5 + [0] * 3, [1] * 2 + [0] * 6]
    weights = split.target_arrays(rows, 8, np.array([2.0, 0.0]))["target_weights"]
    assert weights.sum() == pytest.approx(2)  # rows of the batch, so that a mean over rows is one over tokens
    assert not weights[1].any()


def test_the_separator_in_a_source_separates_its_parts(tokenizer):
    ids, mask, cut = padded_rows(tokenizer, source_ids(tokenizer, ["cats[SEP]dogs sleep", "run"]), 8)
    assert [tokenizer.tokens[number] for number in ids[0]] == ["[CLS]", "cats", "[SEP]", "dogs", "sleep", "[SEP]", "[PAD]", "[PAD]"]
    assert mask.sum(axis=1).tolist() == [6, 3]
    assert cut == 0


def test_text_is_cut_in_two(tmp_path, tokenizer):
    """80 % of its tokens are the source, as far as there is room; a token at least is the target."""
    words = ["cats", "dogs", "sleep", "run", "yes", "no", "maybe", "film", "story", "plot"]
    rows = [(" ".join(words),), ("cats dogs",), (" ".join(words * 3),)]
    tiny.write_rows(tmp_path, "train", rows)
    split = data_of(tmp_path, tokenizer, TEXTS, (14, 6)).split("train")
    assert split.samples.lengths.tolist() == [8 + 2, 1 + 2, 12 + 2]
    assert split.target_lengths.tolist() == [2 + 2, 1 + 2, 4 + 2]
    assert split.texts == rows
    tiny.write_rows(tmp_path, "dev", [("cats",)])
    with pytest.raises(UserError, match=r"dev.csv: sample 1: has 1 token"):
        data_of(tmp_path, tokenizer, TEXTS).split("dev")


def test_stale_records(tmp_path, tokenizer):
    tiny.write_rows(tmp_path, "train", ROWS)
    data_of(tmp_path, tokenizer).split("train")
    for changed, message in (
        (data_of(tmp_path, tokenizer, lengths=(8, 6)), "--seq_length was another one"),
        (data_of(tmp_path, tokenizer, lengths=(7, 5)), "--target_length was another one"),
        (data_of(tmp_path, Tokenizer(tokenizer.vocab_file, False)), "--do_lower_case was another one"),
    ):
        with pytest.raises(UserError, match=f"the records are stale: .*{message}.*--resave_ofrecord"):
            changed.split("train")
    tiny.write_rows(tmp_path, "train", ROWS[:2])
    with pytest.raises(UserError, match=r"train\.csv has changed since"):
        data_of(tmp_path, tokenizer).split("train")
    assert len(data_of(tmp_path, tokenizer, resave=True).split("train")) == 2


def test_records_of_labels_are_refused(tmp_path, tokenizer):
    tiny.write_rows(tmp_path, "train", ROWS)
    data_of(tmp_path, tokenizer).split("train")
    path = tmp_path / "ofrecord" / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["form"], manifest["target_length"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="--objective was another one; --target_length was another one"):
        data_of(tmp_path, tokenizer).split("train")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("a", "b"), ("a",)], {}, "row 2: has 1 column, expected 2: source, target; --text_column and --pair_column choose others"),
        ([("a", " ")], {}, "row 1: the target is empty"),
        ([("id", "first", "second"), ("1", "a", "b")], {"text": "first"}, "no column is known as that of the targets.*--pair_column"),
        ([("answer", "question"), ("a", "b")], {}, "the source comes before its target, but the columns are 'answer', 'question'"),
        ([("context", "question", "answer"), ("a", "b", "c")], {}, "several columns may be the text.*--text_column decides"),
    ],
)
def test_rows_that_are_refused(tmp_path, rows, options, message):
    tiny.write_rows(tmp_path, "train", rows)
    with pytest.raises(UserError, match=message):
        read_target_rows(str(tmp_path / "train.csv"), TextOptions(**options))


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("source\ttarget", "a\tb, c", "text 'source', pair 'target'"),
        ("Target Text\tSource Text", "b, c\ta", "text 'Source Text', pair 'Target Text'"),
        ("id\tarticle\thighlights", "7\ta\tb, c", "text 'article', pair 'highlights', not used: 'id'"),
        ("question\tanswer", "a\tb, c", "text 'question', pair 'answer'"),
        ("input,output", 'a,"b, c"', "text 'input', pair 'output'"),
        ("title,tgt,src", 'x,"b, c",a', "text 'src', pair 'tgt', not used: 'title'"),
    ],
)
def test_a_header_is_no_row(tmp_path, header, row, columns):
    path, lines = tmp_path / "train.csv", []
    path.write_text(f"{header}\n{row}\n{row}\n")
    assert read_target_rows(str(path), TextOptions(), log=lines.append) == [("a", "b, c")] * 2
    assert [line.partition("header; columns: ")[2] for line in lines] == [columns]


@pytest.mark.parametrize("first", ["question\tthing", "source\tinput", "the target\tthe source"])
def test_other_first_rows_are_rows(tmp_path, first):
    path = tmp_path / "train.csv"
    path.write_text(f"{first}\na\tb\n")
    assert read_target_rows(str(path), TextOptions()) == [tuple(first.split("\t")), ("a", "b")]


def test_keys_of_json_lines(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"target": "b", "source": "a", "id": 7}\n')
    assert read_target_rows(str(path), TextOptions()) == [("a", "b")]


@pytest.mark.parametrize("kind", ["header", "jsonl"])
def test_columns(tmp_path, kind):
    path = tmp_path / "train.csv"
    if kind == "header":
        path.write_text("id\ttarget\tsource\n1\tb c\ta\n")
    else:
        path.write_text('{"source": "a", "target": "b\\tc"}\n')
    assert read_target_rows(str(path), TextOptions(text="source", pair="target")) == [("a", "b c")]


def test_join_pieces():
    assert join_pieces(["the", "act", "##or", "##s", "slept", "."]) == "the actors slept ."
    assert join_pieces(["今", "天", "iphone", "很", "好", "，", "ok"]) == "今天iphone很好，ok"
    assert join_pieces([]) == ""
