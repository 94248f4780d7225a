"""Names of domains and labels in text: in quotes, like names of columns, one per row, or alike to the eye."""

import pytest
from text_samples import ROWS, names, read

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task


def test_names_in_quotes(tmp_path):
    with pytest.raises(UserError, match=r"""row 13: the label '"pos"' is in double quotes, but tab-separated text has no quotes"""):
        names(tmp_path, ROWS + b'film\tdvd\t"pos"\n')
    with pytest.raises(UserError, match=r"""row 13: the domain '"dvd"' is in double quotes"""):
        names(tmp_path, ROWS + b'film\t"dvd"\tpos\n')


def test_words_that_are_names_of_columns_may_be_texts_and_labels(tmp_path):
    data = b"text\tproduct\tpos\nlabel\tproduct\tneg\na label\tdomain\tneutral\n"
    assert names(tmp_path, data) == ({"product", "domain"}, {"pos", "neg", "neutral"}, False)


def test_columns_of_an_index(tmp_path):
    rows = ROWS.decode().splitlines()
    indexed = "".join(f"{number}\t{row}\n" for number, row in enumerate(rows)).encode()
    with pytest.raises(UserError, match=r"row 1: column 1 is '0', and a number in all rows"):
        names(tmp_path, indexed)
    with pytest.raises(UserError, match="column 1 is '0'"):
        read(tmp_path, indexed, Task("p", ("books", "dvd"), ("neg", "pos"), pair=True))
    with pytest.raises(UserError, match=r"4 columns where 3 .* the first column looks like an index"):
        read(tmp_path, indexed, Task("p", ("books", "dvd"), ("neg", "pos")))
    with pytest.raises(UserError, match="each of the 12 rows has a domain of its own"):
        names(tmp_path, "".join(f"{number}\tfilm {number}\tpos\n".replace("\t", "a\t", 1) for number in range(12)).encode())
    with pytest.raises(UserError, match="each of the 12 rows has a label of its own"):
        names(tmp_path, "".join(f"film\tdvd\t{number}\n" for number in range(12)).encode())
    with pytest.raises(UserError, match=r"row 1 \(JSON lines\): no column is known as that of the label"):
        read(tmp_path, b'{"text": "a"}\n')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("né", "ne\u0301"),
        ("pos", "pos\u200b"),
        ("very good", "very\u00a0good"),
        ("pos", "p\u00ados"),
        ("pos", "pos\ufe0f"),
        ("a b", "a  b"),
        ("no", "n\u043e"),
        ("pos", "\u0440os"),
    ],
)
def test_labels_that_look_alike(tmp_path, one, other):
    data = f"a\tdvd\t{one}\nb\tdvd\tneg\nc\tdvd\t{other}\n".encode()
    with pytest.raises(UserError, match=r"row 3: the label .* looks like .* of earlier rows") as error:
        names(tmp_path, data)
    assert ascii(other) in str(error.value)
    with pytest.raises(UserError, match=r"row 3: label .* looks like .* of task"):
        read(tmp_path, data, Task("t", ("dvd",), ("neg", one)))
    with pytest.raises(UserError, match=r"row 3: the domain .* looks like"):
        names(tmp_path, f"a\t{one}\tx\nb\tdvd\ty\nc\t{other}\tx\n".encode())
    with pytest.raises(UserError, match=r"--label_list: the labels .* look the same"):
        Task("t", ("dvd",), (one, "neg", other))
