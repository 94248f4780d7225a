"""What the log says of a split."""

import numpy as np
import pytest
import tiny

from ofrecord_util.records import Records
from ofrecord_util.summary import describe_corpus, describe_split, token_facts, with_unknown
from ofrecord_util.tasks import Task
from ofrecord_util.text import read_text
from ofrecord_util.text_warnings import count_repeats
from ofrecord_util.tokenization import Tokenizer

LENGTH = 9


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")), True)


def read(tmp_path, tokenizer, samples, task, name):
    path = tmp_path / name
    path.write_text("".join("\t".join(sample) + "\n" for sample in samples), encoding="utf-8")
    text = read_text(str(path), task)
    encoded = tokenizer.encode(text.text_a, text.text_b, LENGTH)
    arrays = {key: getattr(encoded, key) for key in ("input_ids", "input_mask", "segment_ids")}
    count = len(text)
    records = Records(
        **arrays,
        domain=text.domain,
        label=text.label,
        idxs=np.arange(count, dtype=np.int32),
        sample_weights=np.ones(count, np.float32),
        manifest={"truncated": encoded.truncated},
    )
    return text, records


def test_every_number(tmp_path, tokenizer):
    task = Task("t", ("books", "dvd"), ("no", "yes"))
    samples = [
        ("the film", "books", "no"),
        ("the film", "books", "yes"),
        ("a zzz film", "dvd", "yes"),
        ("the the the the the the the the", "dvd", "yes"),
        ("a film", "dvd", "yes"),
    ]
    train, records = read(tmp_path, tokenizer, samples, task, "train.csv")
    source, rows, tokens, *examples = describe_split("train", records, task, tokenizer, train, count_repeats(train))
    assert source == f"train: {tmp_path}/train.csv: tab-separated without a header; columns: text, domain, label"
    assert rows == "train: 5 rows; books 2 (no: 1, yes: 1); dvd 3 (no: 0, yes: 3)"
    # 4, 4, 5, 9 (of 10) and 4 tokens with [CLS] and [SEP]; 16 without them
    assert tokens == (
        "train: texts of 4 to 9 tokens, median 4, 95 % have at most 9; 20.0 % cut at --seq_length 9; "
        "1 of 16 tokens are [UNK] (6.2 %); 1 repeated texts"
    )
    assert examples == [
        "train: example (books, no): [CLS] the film [SEP]",
        "train: example (books, yes): [CLS] the film [SEP]",
    ]
    dev, records = read(tmp_path, tokenizer, [*samples[3:], ("new", "dvd", "no")], task, "dev.csv")
    lines = describe_split("dev", records, task, tokenizer, dev, count_repeats(dev, train))
    assert len(lines) == 3
    assert lines[2].endswith("0 repeated texts; 2 also in train")


def test_without_text_and_vocabulary(tmp_path, tokenizer):
    task = Task("t", ("books",), ("no", "yes"))
    _, records = read(tmp_path, tokenizer, [("a film", "books", "no")], task, "train.csv")
    assert describe_split("train", records, task, None) == [
        "train: 1 rows; books 1 (no: 1, yes: 0)",
        "train: texts of 4 to 4 tokens, median 4, 95 % have at most 4; 0.0 % cut at --seq_length 9",
    ]


def test_many_names_and_long_texts_stay_short(tmp_path, tokenizer):
    names = tuple(f"n{number:02}" for number in range(30))
    task = Task("t", ("books",), names)
    samples = [("the film " * 3, "books", names[number % 30]) for number in range(61)]
    text, records = read(tmp_path, tokenizer, samples, task, "train.csv")
    lines = describe_split("train", records, task, tokenizer, text, count_repeats(text))
    assert lines[1] == ("train: 61 rows; domains: books: 61; labels: n00: 3, n01: 2, n02: 2, n03: 2, n04: 2, n05: 2, n06: 2, 23 others: 46")
    assert len(lines) == 5


def test_median_and_share(tmp_path, tokenizer):
    task = Task("t", ("d",), ("no", "yes"))
    samples = [("the " * count, "d", "no") for count in range(1, 8)] * 3
    text, records = read(tmp_path, tokenizer, samples, task, "train.csv")
    expected = sorted(count + 2 for count in range(1, 8) for _ in range(3))
    line = describe_split("train", records, task, tokenizer, text)[2]
    at_most = min(length for length in expected if sum(other <= length for other in expected) >= 0.95 * len(expected))
    assert f"median {expected[10]}, 95 % have at most {at_most};" in line
    assert "repeated" not in line


def test_an_example_of_many_tokens(tmp_path, tokenizer):
    task = Task("t", ("d",), ("no", "yes"))
    encoded = tokenizer.encode(["the " * 60], None, 40)
    arrays = {key: getattr(encoded, key) for key in ("input_ids", "input_mask", "segment_ids")}
    zeros = np.zeros(1, np.int32)
    records = Records(**arrays, domain=zeros, label=zeros, idxs=zeros, sample_weights=np.ones(1, np.float32))
    (example,) = describe_split("train", records, task, tokenizer)[2:]
    assert example == f"train: example (d, no): [CLS]{' the' * 23} … (40 tokens)"


@pytest.mark.parametrize(
    ("unknown", "total", "warns"), [(1, 20, False), (2, 20, True), (19, 19, False), (50, 1000, False), (51, 1000, True)]
)
def test_a_vocabulary_that_hardly_fits(unknown, total, warns):
    """More than 5 % of at least 20 tokens."""
    line = with_unknown(["train: 3 rows", "none cut"], unknown, total, ["last"])
    assert f"train: 3 rows; none cut; {unknown} of {total} tokens are [UNK] ({100 * unknown / total:.1f} %); last" in line
    assert line.startswith("warning: ") == warns
    assert line.endswith(": check --vocab_file and --do_lower_case, or take a model for the language of the text") == warns


def corpus_lines(by_file, evaluation_texts=0, rule="refuse", **facts):
    names = [f"dir/{number}.txt" for number in range(len(by_file))]
    manifest = {"num_records": 5, "texts": 6, "tokens": 31, "longest": 9, "seq_length": 9, "texts_by_file": by_file}
    numbers = {"cut": 1, "unknown": 1, "total": 21, **facts}
    found = token_facts(np.bincount([4, 4, 5, 9, 9]), 6, **numbers) if by_file else None
    return describe_corpus(dict(manifest, evaluation_texts=evaluation_texts), found, names, rule)


def test_a_corpus():
    assert corpus_lines([4, 2], 3, "keep") == [
        "corpus: 5 records of 6 texts, 31 tokens with [CLS] and [SEP], the longest record 9; texts of dev or test: 3, --evaluation_text "
        "keep",
        "corpus: texts: dir/0.txt: 4, dir/1.txt: 2",
        "corpus: records of 4 to 9 tokens, median 5, 95 % have at most 9; 16.7 % of the texts are cut at --seq_length 9; 1 of 21 tokens "
        "are [UNK] (4.8 %)",
    ]
    assert "cut" not in corpus_lines([6], cut=None)[2]
    assert corpus_lines([6], unknown=2)[2].startswith("warning: corpus: records of 4 to 9 tokens")
    older = corpus_lines([])
    assert len(older) == 2
    assert "--resave_ofrecord counts them" in older[1]


@pytest.mark.parametrize(
    ("by_file", "rule", "said"),
    [
        ([6, 0], "refuse", "warning: dir/1.txt: the corpus has no text of it: all lines are blank"),
        ([0, 6, 0], "keep", "warning: dir/0.txt, dir/2.txt: the corpus has no text of them: all lines are blank"),
        (
            [6, 0],
            "leave_out",
            "warning: dir/1.txt: the corpus has no text of it: all lines are blank, or --evaluation_text leave_out leaves out all texts",
        ),
        ([6, *[0] * 10], "keep", " and 2 others: the corpus has no text of them: all lines are blank"),
    ],
)
def test_a_file_that_gives_no_text(by_file, rule, said):
    *_, line = corpus_lines(by_file, 1, rule)
    assert line.startswith("warning: dir/")
    assert line.endswith(said)
