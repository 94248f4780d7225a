"""Text without labels: which columns are read, and a message with file and row for every fault."""

import os

import pytest
from text_samples import PAIRS, read_unlabelled

from ofrecord_util.errors import UserError
from ofrecord_util.text_columns import TextOptions


def test_rows_without_labels(tmp_path):
    split = read_unlabelled(tmp_path, b"a film, really\tDVD\nb\tbooks\n")
    assert (split.text_a, split.domain.tolist(), split.label.tolist(), split.labelled) == (["a film, really", "b"], [1, 0], [0, 0], False)
    assert split.source.endswith("columns: text, domain; the domain 'DVD' is 'dvd' in the task")
    assert split.digest == read_unlabelled(tmp_path, b"text\tdomain\na film, really\tdvd\nb\tbooks\n").digest
    assert split.digest != read_unlabelled(tmp_path, b"a film, really\tdvd\nb\tdvd\n").digest
    pairs = read_unlabelled(tmp_path, b"a\tb\td\nc\te\td\n", PAIRS)
    assert (pairs.text_a, pairs.text_b, pairs.domain.tolist()) == (["a", "c"], ["b", "e"], [0, 0])
    assert pairs.source.endswith("columns: text, second text, domain")


def test_labels_that_are_not_read(tmp_path):
    """A header or keys name the columns; those of labels are left out. One domain needs no column."""
    labelled = read_unlabelled(tmp_path, b'text,label,domain\n"a, b",?,dvd\n')
    assert (labelled.text_a, labelled.domain.tolist()) == (["a, b"], [1])
    os.remove(tmp_path / "unlabelled.csv")
    keys = read_unlabelled(tmp_path, b'{"text": "a, b", "domain": "dvd"}\n', name="unlabelled.jsonl")
    assert keys.digest == labelled.digest
    os.remove(tmp_path / "unlabelled.jsonl")
    options = TextOptions(format="tsv", only_domain="dvd", text="1", label="7")
    for data in (b"a, b\n", b"a, b\t1\n"):
        assert read_unlabelled(tmp_path, data, options=options, name="unlabelled.tsv").digest == labelled.digest
    pairs = TextOptions(format="tsv", only_domain="d", text="1", pair="2")
    assert read_unlabelled(tmp_path, b"a\tb\n", PAIRS, pairs, "unlabelled.tsv").text_b == ["b"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a\tbooks\tpositive\n", r"row 1: 3 columns where 2 are expected \(text, domain, tab-separated\); remove the column of labels"),
        (b"a\n", r"row 1: 1 column where 2 are expected \(text, domain, tab-separated\); --text_column and so on"),
        (b"a\tbooks\n \tdvd\n", "row 2: the text is empty"),
        (b"a\tcars\n", "row 1: domain 'cars' is not one of task"),
        (b"", "is empty; a row is text TAB domain$"),
    ],
)
def test_faults_of_rows_without_labels(tmp_path, data, said):
    with pytest.raises(UserError, match=f"unlabelled.csv: {said}"):
        read_unlabelled(tmp_path, data)
