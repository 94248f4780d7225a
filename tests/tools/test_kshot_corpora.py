"""tools/kshot_corpora.py: every form and encoding of a source is read."""

import json

import pytest
from kshot_files import fdu, kshot, reviews, sentence, table, texts_of, write

from ofrecord_util.errors import UserError
from tools.kshot_corpora import clean, parse_source, read_source


def expected(numbers=range(6)):
    return {sentence("d", number): str(number % 2) for number in numbers}


def read_back(tmp_path, source, *words):
    """All texts and labels that a source gives: K = 1, so 2 rows per class for train and dev, the rest for test."""
    kshot(tmp_path / "out", "--k", 1, "--source", source, "--test_cap", 2, *words)
    found = {}
    for split in ("train", "dev", "test"):
        part = texts_of(tmp_path / "out", split)
        assert len(part) == 2
        assert not set(part) & set(found)
        found.update(part)
    return found


@pytest.mark.parametrize(
    ("form", "order", "header"),
    [
        ("tsv", (0, 1), ""),
        ("tsv-header", (0, 1), "Review\tSentiment\n"),
        ("tsv-header", (1, 0), "label\ttext\n"),
        ("sst2", (0, 1), "sentence\tlabel\n"),
        ("fdu", (1, 0), ""),
    ],
)
def test_tables(tmp_path, form, order, header):
    path = table(tmp_path / "a.tsv", "d", range(6), order, header)
    assert read_back(tmp_path, f"d={form}:{path}") == expected()


@pytest.mark.parametrize(
    ("form", "words", "row", "header"),
    [
        ("csv", (), '"{text}",{label}', ""),
        ("csv", (), '{label},7,"{text}"', "stars,id,review\n"),
        ("csv", ("--text_column", "x", "--label_column", "2"), '"{text}",{label}', "x,y\n"),
        ("jsonl", (), '{{"label": {label}, "text": "{text}"}}', ""),
        ("tsv-header", ("--text_column", "body"), "{text}\t{label}\tno", "body\tlabel\tnote\n"),
    ],
)
def test_tables_of_any_kind(tmp_path, form, words, row, header):
    rows = "".join(row.format(text=text, label=label) + "\n" for text, label in expected().items())
    path = write(tmp_path / "a.txt", header + rows)
    assert read_back(tmp_path, f"d={form}:{path}", *words) == expected()


def test_a_bad_row_of_comma_separated_text(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a\nb",1\nc\n')
    with pytest.raises(UserError, match=r"a.csv: row 3 \(line 4, comma-separated\): 1 column, but the header has 2"):
        kshot(tmp_path / "out", "--test_cap", 2, "--source", f"d=csv:{path}")


def test_several_files_blank_rows_and_line_ends(tmp_path):
    first = write(tmp_path / "a.tsv", f"\ufeff{sentence('d', 0)}\t0\r\n\r\n{sentence('d', 1)}\t1\r\n \t1\r\n")
    second = table(tmp_path / "b.tsv", "d", range(2, 6))
    assert read_back(tmp_path, f"d=tsv:{first},{second}") == expected()
    manifest = json.loads((tmp_path / "out" / "make_kshot.json").read_text())
    assert manifest["counts"]["d"]["without text"] == 2
    assert [file["rows"] for file in manifest["sources"]["d"]] == [2, 4]


def test_class_files(tmp_path):
    # as in MR: cp1252, U+0085 is an ellipsis there and no line end; a class may have two files
    positive = write(tmp_path / "rt.pos", "".join(sentence("d", n) + " caf\xe9 \u2026 so\n" for n in (1, 3)), "cp1252")
    more = write(tmp_path / "rt2.pos", sentence("d", 5) + "\tfine \n\n")
    negative = write(tmp_path / "rt.neg", "".join(sentence("d", n) + "\n" for n in (0, 2, 4)))
    found = read_back(tmp_path, f"d=lines:1={positive},0={negative},1={more}")
    assert found == {
        **{sentence("d", n): "0" for n in (0, 2, 4)},
        **{sentence("d", n) + " caf\xe9 \u2026 so": "1" for n in (1, 3)},
        sentence("d", 5) + " fine": "1",
    }


@pytest.mark.parametrize("named", [False, True])
def test_reviews(tmp_path, named):
    for word, numbers in (("negative", (0, 2, 4)), ("positive", (1, 3, 5))):
        texts = [sentence("d", n).replace(" thing", "\n\n thing\x1a") + "  &quot;" for n in numbers]
        write(tmp_path / "books" / f"{word}.review", reviews(texts))
    folder = tmp_path / "books"
    files = f"1={folder}/positive.review,0={folder}/negative.review" if named else folder
    labels = ("0", "1") if named else ("negative", "positive")
    wanted = {sentence("d", n) + "  &quot;": labels[n % 2] for n in range(6)}  # line ends became one space, entities stay
    assert read_back(tmp_path, f"d=reviews:{files}") == wanted


def test_encodings(tmp_path, capsys):
    text = "".join(f"{sentence('d', n)} \u044f\t{n % 2}\n" for n in range(6))
    write(tmp_path / "a.tsv", text, "cp1251")
    wanted = {sentence("d", n) + " \u044f": str(n % 2) for n in range(6)}
    assert read_back(tmp_path, f"d=tsv:{tmp_path}/a.tsv", "--encoding", "utf-8", "d=cp1251") == wanted
    assert "cp1252" not in capsys.readouterr().out
    write(tmp_path / "b.tsv", text, "utf-16")
    assert read_back(tmp_path, f"d=tsv:{tmp_path}/b.tsv", "--encoding", "utf-16", "--overwrite") == wanted
    # UTF-8 that is none is Windows-1252, and that is said
    assert read_back(tmp_path, f"d=tsv:{tmp_path}/a.tsv", "--overwrite") != wanted
    assert "a.tsv: 6 rows; row 1: byte 30 of the file (0xff) is not UTF-8, read as cp1252" in capsys.readouterr().out


def test_clean():
    assert clean("\ufeff a \t\r\n b  c\x00\x85d\u2028\x1a ") == "a b  c d"
    assert clean("   " * 1000) == ""
    assert clean("\x1a\t") == ""


def test_single_bytes_among_utf8(tmp_path):
    """As in the published files: the row with such a byte keeps its other characters, and so do the rows around it."""
    path = fdu(tmp_path / "raw", "d", range(4), "1\tun été \n".encode() + b"0\tcaf\xe9 cr\xc3\xa8me\n")
    lines = []
    rows = read_source(parse_source("--source", f"d=fdu:{path}"), "--source", log=lines.append).rows
    assert [row.text for row in rows[4:]] == ["un été", "café crème"]
    assert "row 6: byte" in lines[0]
    assert "such bytes are read as cp1252" in lines[0]
    path.write_bytes(path.read_bytes() + b"1\t\x81\n")  # no character of cp1252
    with pytest.raises(UserError, match=r"raw: row 7: byte [0-9]+ of the file .0x81. is not UTF-8"):
        read_source(parse_source("--source", f"d=fdu:{path}"), "--source", log=lines.append)


def test_one_stray_byte_is_no_reason_to_read_utf8_as_another_encoding(tmp_path):
    """Each accent would become two characters."""
    rows = [f"un café très réussi numéro {number}\t{number % 2}\n".encode() for number in range(30)]
    rows[24] = b"un caf\xe9 bien r\xe9ussi\t0\n"
    (tmp_path / "raw.tsv").write_bytes(b"".join(rows))
    source = parse_source("--source", f"d=tsv:{tmp_path / 'raw.tsv'}")
    with pytest.raises(UserError, match=r"raw.tsv: row 25: byte [0-9]+ of the file .0xe9. is not UTF-8, but other rows are; .*--encoding"):
        read_source(source, "--source", log=lambda line: None)
    assert "cafÃ©" in read_source(source, "--source", "cp1252", log=lambda line: None).rows[0].text  # as asked for
    (tmp_path / "raw.tsv").write_bytes(rows[24] + b"plain\t1\n")
    lines = []
    assert read_source(source, "--source", log=lines.append).rows[0].text == "un café bien réussi"
    assert "read as cp1252" in lines[0]


def test_labels_that_look_alike(tmp_path):
    """The scripts would refuse the files that were made."""
    rows = [f"text number {row}\t{label}\n" for row in range(20) for label in ("positif", "positif\u200b")]
    (tmp_path / "raw.tsv").write_text("".join(rows), encoding="utf-8")
    source = parse_source("--source", f"d=tsv:{tmp_path}/raw.tsv")
    with pytest.raises(UserError, match=r"--source d: the labels 'positif.*' and 'positif.*' look the same"):
        read_source(source, "--source")
