"""What the log says of a split."""

import numpy as np
import pytest
import tiny

from ofrecord_util.records import Records
from ofrecord_util.summary import describe_split
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
