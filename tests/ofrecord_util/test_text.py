"""Rows of text: what is accepted, and a message with file and row for every fault."""

import numpy as np
import pytest
from text_samples import PAIRS, TASK, read

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task
from ofrecord_util.text import read_names, read_text
from ofrecord_util.text_files import find_text, read_rows, text_path


def test_rows(tmp_path):
    split = read(tmp_path, b'"quoted, at first\tbooks\tpositive\nsecond \xc3\xa9\tDVD\tNegative\nthird\tdvd\tpositive\n')
    assert split.text_a == ['"quoted, at first', "second é", "third"]
    assert split.text_b is None
    assert split.domain.tolist() == [0, 1, 1]
    assert split.domain.dtype == np.int32
    assert split.label.tolist() == [0, 1, 0]
    assert split.label.dtype == np.int32
    assert len(split) == 3


def test_pairs(tmp_path):
    split = read(tmp_path, b"a\tb\td\t1\nc\te\td\t0\n", PAIRS)
    assert (split.text_a, split.text_b, split.label.tolist()) == (["a", "c"], ["b", "e"], [1, 0])


def test_digest_knows_samples_and_nothing_else(tmp_path):
    digest = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n").digest
    for same in (
        b"a\tbooks\tpositive\r\nb\tdvd\tnegative\r\n",
        b"\xef\xbb\xbfa\tbooks\tpositive\nb\tdvd\tnegative",
        b"a\tBOOKS\tPositive\nb\tdvd\t negative\n\n\r\n",
        b"review\tdomain\tsentiment\na\tbooks\tpositive\nb\tdvd\tnegative\n",
        b"a\tbooks\t0\nb\tdvd\t1\n",
    ):
        assert read(tmp_path, same).digest == digest
    for other in (
        b"a\tbooks\tnegative\nb\tdvd\tnegative\n",
        b"a\tdvd\tpositive\nb\tdvd\tnegative\n",
        b"a \tbooks\tpositive\nb\tdvd\tnegative\n",
        b"b\tdvd\tnegative\na\tbooks\tpositive\n",
        b"a\tbooks\tpositive\n",
    ):
        assert read(tmp_path, other).digest != digest


def test_rows_end_at_line_feeds_only(tmp_path):
    text = "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\rj\x1ak"
    split = read(tmp_path, (text + "\tbooks\tpositive\n").encode("utf-8"))
    assert split.text_a == [text]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"review\tdomain\tsentiment\n", "no rows"),
        (b"a\tbooks\tpositive\nb\x00\tbooks\tpositive\n", "row 2: NUL at byte 18"),
        (b"a\tbooks\tpositive\nb\xe9\tbooks\tpositive\n", "row 2: byte 18 .*0xe9.* not UTF-8"),
        (b"\xef\xbb\xbfa\tbooks\tpositive\nb\xe9\tbooks\tpositive\n", "row 2: byte 21 .*0xe9.* not UTF-8"),
        ("a\tbooks\tpositive\n".encode("utf-16"), "row 1: byte 0 .* not UTF-8"),
        (b"a\tbooks\n", "row 1: 2 columns where 3"),
        (b"a\tbooks\tpositive\n\nb\tbooks\tpositive\n", "row 2: 1 column where 3"),
        (b"a\tbooks\tpositive\nb\tc\tbooks\tpositive\n", "row 2: 4 columns where 3"),
        (b"a\tbooks\tpositive\n \tbooks\tpositive\n", "row 2: the text is empty"),
        (b"a\tbooks\tpositive\nb\tfilms\tpositive\n", "row 2: domain 'films' is not one of task 't' .books, dvd."),
        (b"a\tbooks\tpositive\nb\tbooks\tfine\n", "row 2: label 'fine' is not one of"),
        (b"a\tbooks\tpositive\nb\tbooks\t\n", "row 2: label '' is not"),
        (b"a\tbooks\t0\nb\tbooks\t2\n", "row 2: label '2' is not"),
        (b"a\tbooks\t0\nb\tbooks\tnegative\n", "row 2: label 'negative'.*mixed"),
        (b"review\tdomain\tsentiment\na\tbooks\n", r"row 2 .tab-separated.: 2 columns, but the header has 3"),
    ],
)
def test_faults(tmp_path, data, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, data)
    assert "train.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_windows_text(tmp_path):
    """CRLF, a byte-order mark, blank lines at the end."""
    split = read(tmp_path, b"\xef\xbb\xbfa b\tbooks\tpositive\r\nc\tdvd\tnegative\r\n\r\n")
    assert split.text_a == ["a b", "c"]
    assert split.label.tolist() == [0, 1]


LONG = b"x" * 2**20


def test_a_field_of_a_megabyte(tmp_path):
    split = read(tmp_path, LONG + b"\tbooks\tpositive\n" + b"a b " * 2**18 + b"\tdvd\tnegative\n")
    assert [len(text) for text in split.text_a] == [2**20, 2**20]
    for row, message in (
        (b"a\t" + LONG + b"\tpositive\n", "row 1: domain 'xxx"),
        (b"a\tbooks\t" + LONG + b"\n", "row 1: label 'xxx"),
        (b"a\tbooks\tpositive\t" + LONG + b"\n", "row 1: 4 columns"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read(tmp_path, row)
        assert len(str(error.value)) < 600
    for row, kind in ((b"a\t" + LONG + b"\t1\n", "domain"), (b"a\tbooks\t" + LONG + b"\n", "label")):
        (tmp_path / "train.csv").write_bytes(b"a\tb\t1\n" + row)
        with pytest.raises(UserError, match=f"train.csv: row 2: the {kind} has 1048576 characters, allowed are 200") as error:
            read_names(read_rows(str(tmp_path / "train.csv")))
        assert len(str(error.value)) < 600


def test_faults_of_pairs(tmp_path):
    with pytest.raises(UserError, match="row 1: text b is empty"):
        read(tmp_path, b"a\t\td\t1\n", PAIRS)
    with pytest.raises(UserError, match="row 1: 3 columns where 4"):
        read(tmp_path, b"a\td\t1\n", PAIRS)


def test_number_labels_may_be_mixed_with_words_where_they_are_labels(tmp_path):
    task = Task("t", ("d",), ("1", "other"))
    assert read(tmp_path, b"a\td\t1\nb\td\tother\n", task).label.tolist() == [0, 1]


def test_places(tmp_path):
    data_dir = str(tmp_path)
    with pytest.raises(UserError, match=r"dev.csv.*dev.tsv.*--data_dir"):
        find_text(data_dir, "dev")
    assert text_path(data_dir, "dev") is None
    (tmp_path / "ofrecord").mkdir()
    for part in ("ofrecord/dev.tsv", "dev.tsv", "ofrecord/dev.csv", "dev.csv"):
        (tmp_path / part).write_bytes(b"a\tbooks\t0\n")
        assert find_text(data_dir, "dev") == str(tmp_path / part)
    with pytest.raises(UserError, match="--data_dir"):
        find_text(str(tmp_path / "nowhere"), "dev")


def test_a_folder_is_not_text(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_text(str(tmp_path), TASK)


def test_carriage_returns_alone(tmp_path):
    with pytest.raises(UserError, match="the rows end with carriage returns alone"):
        read(tmp_path, b"a\tbooks\tpositive\rb\tdvd\tnegative\r")
