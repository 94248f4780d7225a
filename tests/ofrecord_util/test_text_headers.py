"""The first row of text: the names of its columns in known words or in others, and a header where none belongs."""

import pytest
from text_samples import ROWS, names, rows_of

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import resolve_task
from ofrecord_util.text import read_names, read_text
from ofrecord_util.text_columns import TextOptions


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('"sentence"\t"category"\t"target"', r"row 1 \(tab-separated\): the names of the columns are in quotes"),
        ("sentence\tlabel", r"row 1 \(tab-separated\): no column is known as that of the domain"),
        ("\ttext\tdomain\tlabel", r"row 2 \(tab-separated\): 3 columns, but the header has 4"),
        ("text\tlabel\trating", r"row 1 \(tab-separated\): no column is known as that of the domain"),
        ("text\tgenre\ttopic\tlabel", r"row 1 \(tab-separated\): several columns may be the domain: 'genre', 'topic'; --domain_column"),
        ("text\tdomain\tgenre", r"row 1 \(tab-separated\): no column is known as that of the label"),
    ],
)
def test_headers_that_do_not_fit(tmp_path, header, message):
    with pytest.raises(UserError, match="train.csv: " + message):
        names(tmp_path, header.encode("utf-8") + b"\n" + ROWS)


@pytest.mark.parametrize("header", ["text\tdomain\tlabel", "\ufeffText\tDomain\tLabel", "review\tdomain\trating"])
def test_a_header_is_no_sample(tmp_path, header):
    assert names(tmp_path, header.encode("utf-8") + b"\n" + ROWS) == ({"books", "dvd"}, {"neg", "pos"}, False)
    with pytest.raises(UserError, match=r"train.csv: row 13 is a header .* in the middle of the file"):
        names(tmp_path, ROWS + header.encode("utf-8").replace(b"\xef\xbb\xbf", b"") + b"\n" + ROWS)


def test_the_known_header_in_the_middle(tmp_path):
    known = b"review\tdomain\tsentiment\n"
    with pytest.raises(UserError, match=r"row 14 \(tab-separated\) is a header"):
        names(tmp_path, known + ROWS + known + ROWS)
    assert names(tmp_path, known + ROWS) == ({"books", "dvd"}, {"neg", "pos"}, False)


def test_a_header_in_other_words(tmp_path):
    with pytest.raises(UserError, match=r"row 1 looks like a header: its domain 'domaine' and label 'étiquette'.*--domains"):
        names(tmp_path, "texte\tdomaine\tétiquette\n".encode() + ROWS)
    assert names(tmp_path, b"film\tmusic\tpos\n" + ROWS)[0] == {"books", "dvd", "music"}
    numbers = TextOptions(text="1", domain="2", label="3")
    with pytest.raises(UserError, match=r"row 1 looks like a header: .*the names of its columns, not their numbers"):
        read_names(rows_of(tmp_path, "texte,domaine,étiquette\n".encode() + ROWS.replace(b"\t", b","), numbers))
    assert read_names(rows_of(tmp_path, ROWS.replace(b"\t", b","), numbers))[0] == {"books", "dvd"}


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("texte\tdomaine\tétiquette\n", ROWS + b"film\tbooks\tpositve\n"),  # one label is spelled oddly
        ("texte\tdomaine\tétiquette\n", ROWS + b"film\tmusic\tpos\n"),
        ("texte\tdomaine\tétiquette\n", b"film\tdvd\t1\nanother\tbooks\t0\n"),  # words over numbers
        ("texte\tdomaine\tétiquette\n", b"film\t3\ta\nanother\t4\tb\n"),
    ],
)
def test_odd_rows_do_not_hide_a_header(tmp_path, header, rows):
    with pytest.raises(UserError, match="row 1 looks like a header: its domain 'domaine' and label 'étiquette'"):
        names(tmp_path, header.encode("utf-8") + rows)


def test_a_header_in_other_words_without_domains(tmp_path):
    options = TextOptions(text="1", label="2", only_domain="d")
    rows = "".join(f"film {number},{('neg', 'pos')[number % 2]}\n" for number in range(8)).encode()
    with pytest.raises(UserError, match="row 1 looks like a header"):
        read_names(rows_of(tmp_path, "texte,étiquette\n".encode() + rows, options))
    assert read_names(rows_of(tmp_path, b'"a film, and one more to see again",neutral\n' + rows, options))[1] == {"neg", "pos", "neutral"}


def test_named_labels_let_the_first_row_in(tmp_path):
    """As the message says."""
    (tmp_path / "train.csv").write_bytes("texte\tdomaine\tétiquette\n".encode() + ROWS)
    task = resolve_task("mine", str(tmp_path), "books,dvd,domaine", "neg,pos,étiquette")
    assert read_text(str(tmp_path / "train.csv"), task).label[0] == 2
    with pytest.raises(UserError, match="row 1: domain 'domaine' is not one of task 'mine'"):
        read_text(str(tmp_path / "train.csv"), resolve_task("mine", str(tmp_path), "books,dvd", "neg,pos"))
