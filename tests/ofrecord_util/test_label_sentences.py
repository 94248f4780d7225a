"""ofrecord_util/label_sentences.py: what the file of --label_sentences may hold."""

import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.label_sentences import read_label_sentences
from ofrecord_util.tasks import Task

TASK = Task("t", ("films", "books"), ("0", "1"))


@pytest.fixture
def written(tmp_path):
    def write(content, name="sentences.tsv"):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sentences.tsv", "it was bad\t0\nit was good\t1\ngood\t1\n"),
        ("sentences.csv", "text,label\nit was bad,0\nit was good,1\ngood,1\n"),
        ("sentences.jsonl", '{"label": 0, "text": "it was bad"}\n{"text": "it was good", "label": 1}\n{"text": "good", "label": 1}\n'),
    ],
)
def test_rows(written, name, content):
    split = read_label_sentences(written(content, name), TASK)
    assert split.text_a == ["it was bad", "it was good", "good"]
    assert split.text_b is None
    assert split.label.tolist() == [0, 1, 1]
    assert split.domain.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("bad\t0\ngood\tfilms\t1\n", r"row 2: has 3 columns, but a row of --label_sentences has 2: text, label \(no domain\)"),
        ("bad\n", "row 1: has 1 column, but a row"),
        ("bad\t0\n \t1\n", "row 2: the text is empty"),
        ("bad\t0\ngood\tfine\n", r"row 2: label 'fine' is not one of task 't' \(0, 1\); correct the label, or remove the row$"),
        ("bad\t0\nworse\t0\n", r"no row has the label 1: --label_sentences needs rows of each label \(0, 1\)"),
        ("bad\t0\nbad \t1\n", "row 2: 'bad ' has two labels: remove a row"),
        ('{"foo": "bad", "label": 0}\n', "; name the columns text and label, or write text TAB label without a header$"),
        ('{"text": "bad"}\n', "; name the columns text and label, or write text TAB label without a header$"),
        ("", "is empty; a row is text TAB label"),
    ],
)
def test_what_is_refused(written, content, message):
    path = written(content)
    with pytest.raises(UserError, match=message) as error:
        read_label_sentences(path, TASK)
    assert str(error.value).startswith(path)


def test_a_path_with_a_semicolon(written):
    path = written('{"foo": "bad", "label": 0}\n', "a; b.jsonl")
    with pytest.raises(UserError, match=r"no column is known as that of the text: .*; name the columns text and label") as error:
        read_label_sentences(path, TASK)
    assert str(error.value).startswith(path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); check --label_sentences"):
        read_label_sentences(str(tmp_path / "absent.tsv"), TASK)
