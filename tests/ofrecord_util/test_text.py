"""Rows of text: what is accepted, and a message with file and row for every fault."""

import os

import numpy as np
import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task, resolve_task
from ofrecord_util.text import TextFolder, read_names, read_text
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import UNLABELLED, find_text, read_rows, text_path
from ofrecord_util.text_warnings import text_warnings

TASK = Task("t", ("books", "dvd"), ("positive", "negative"))
PAIRS = Task("p", ("d",), ("0", "1"), pair=True)


def read(tmp_path, data, task=TASK, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(data)
    return read_text(str(path), task)


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
        (b"a\tbooks\tpositive\n\nb\tbooks\tpositive\n", "row 2: 1 columns"),
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


def test_rows_that_say_enough_bring_no_warning(tmp_path):
    train = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n")
    dev = read(tmp_path, b"c\tbooks\tpositive\nd\tdvd\tnegative\n", name="dev.csv")
    assert text_warnings(train, TASK) == text_warnings(dev, TASK, train) == []


@pytest.mark.parametrize(
    ("data", "of_train", "of_dev"),
    [
        (
            b"a\tbooks\tpositive\nb\tdvd\tpositive\n",
            ["all 2 rows have the label positive (none negative): the classifier cannot learn to separate labels"],
            ["all 2 rows have the label positive (none negative): a constant prediction would"],
        ),
        (
            b"a\tdvd\tpositive\nb\tdvd\tnegative\nc\tdvd\tnegative\n",
            ["all 3 rows have the domain dvd (none books): a score compares with the prototypes of this domain only, and the domain loss"],
            ["all 3 rows have the domain dvd (none books): the accuracy"],
        ),
        (
            b"a\tdvd\tpositive\n",
            ["the only row has the label positive", "the only row has the domain dvd"],
            ["the only row has the label positive", "the only row has the domain dvd"],
        ),
        (
            b"a\tbooks\tpositive\nb\tdvd\tnegative\na\tdvd\tpositive\na\tbooks\tnegative\na\tbooks\tpositive\n",
            ["3 of 5 rows repeat the text of an earlier one, 1 of them under another label"],
            ["3 of 5 rows repeat the text of an earlier one, 1 of them under another label"],
        ),
    ],
)
def test_warnings(tmp_path, data, of_train, of_dev):
    train = read(tmp_path, b"t\tbooks\tpositive\nu\tdvd\tnegative\n")
    split = read(tmp_path, data, name="split.csv")
    for found, expected in ((text_warnings(split, TASK), of_train), (text_warnings(split, TASK, train), of_dev)):
        assert len(found) == len(expected)
        assert all(line.startswith(f"{tmp_path}/split.csv: {part}") for line, part in zip(found, expected)), found


def test_quotes_around_most_texts(tmp_path):
    rows = b'a\tbooks\tpositive\n"b"\tdvd\tnegative\n"c d"\tdvd\tpositive\n'
    (line,) = text_warnings(read(tmp_path, rows), TASK)
    assert line.startswith(f"{tmp_path}/train.csv: 2 of 3 texts, the first in sample 2, are in double quotes")
    assert text_warnings(read(tmp_path, rows.replace(b'"b"', b'"b" or c')), TASK) == []
    some = b"".join(b"%s\tbooks\tpositive\na%d\tdvd\tnegative\n" % (b'"x%d"' % row if row < 4 else b"x%d" % row, row) for row in range(5))
    (line,) = text_warnings(read(tmp_path, some), TASK)
    assert "4 of 10 texts, the first in sample 1, are in double quotes" in line
    doubled = rows.replace(b'"b"', b'"say ""b"""').replace(b'"c d"', b"c d")
    (line,) = text_warnings(read(tmp_path, doubled), TASK)
    assert "1 of 3 texts, the first in sample 2, are in double quotes" in line


def test_one_of_three_domains_is_missing(tmp_path):
    task = Task("t", ("books", "dvd", "kitchen"), ("positive", "negative"))
    split = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n", task)
    assert text_warnings(split, task) == [f"{tmp_path}/train.csv: no row has the domain kitchen: it is not trained"]
    assert text_warnings(split, task, read(tmp_path, b"z\tdvd\tpositive\n")) == [
        f"{tmp_path}/train.csv: no row has the domain kitchen: it is not measured"
    ]


def test_rows_that_were_learned_are_counted(tmp_path):
    """The same text is the same whatever its label and domain; of a pair, both texts."""
    train = read(tmp_path, b"a\tbooks\tpositive\nb\tdvd\tnegative\n")
    dev = read(tmp_path, b"b\tbooks\tpositive\nc\tdvd\tnegative\na\tdvd\tpositive\n", name="dev.csv")
    (line,) = text_warnings(dev, TASK, train)
    assert line.startswith(f"{tmp_path}/dev.csv: 2 of 3 rows have a text that is also in {tmp_path}/train.csv: ")
    train = read(tmp_path, b"a\tb\td\t1\nc\td\td\t0\n", PAIRS)
    (line,) = text_warnings(read(tmp_path, b"a\td\td\t1\nb\ta\td\t1\nc\td\td\t0\n", PAIRS, "dev.csv"), PAIRS, train)
    assert "1 of 3 rows have a text that is also in" in line


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


def names(tmp_path, data):
    return read_names(rows_of(tmp_path, data))


def rows_of(tmp_path, data, *options):
    (tmp_path / "train.csv").write_bytes(data)
    return read_rows(str(tmp_path / "train.csv"), *options)


ROWS = "".join(f"film {number}\t{('books', 'dvd')[number % 2]}\t{('neg', 'pos')[number // 2 % 2]}\n" for number in range(12)).encode()


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


def test_carriage_returns_alone(tmp_path):
    with pytest.raises(UserError, match="the rows end with carriage returns alone"):
        read(tmp_path, b"a\tbooks\tpositive\rb\tdvd\tnegative\r")


# Text without labels


def read_unlabelled(tmp_path, data, task=TASK, options=None, name="unlabelled.csv"):
    (tmp_path / name).write_bytes(data)
    return TextFolder(str(tmp_path), options).read(UNLABELLED, task)


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
        (b"a\n", r"row 1: 1 columns where 2 are expected \(text, domain, tab-separated\); --text_column and so on"),
        (b"a\tbooks\n \tdvd\n", "row 2: the text is empty"),
        (b"a\tcars\n", "row 1: domain 'cars' is not one of task"),
        (b"", "is empty; a row is text TAB domain$"),
    ],
)
def test_faults_of_rows_without_labels(tmp_path, data, said):
    with pytest.raises(UserError, match=f"unlabelled.csv: {said}"):
        read_unlabelled(tmp_path, data)


def test_warnings_do_not_speak_of_labels(tmp_path):
    split = read_unlabelled(tmp_path, b"a\tbooks\na\tdvd\n")
    assert text_warnings(split, TASK) == [f"{tmp_path}/unlabelled.csv: 1 of 2 rows repeat the text of an earlier one"]
    (line,) = text_warnings(read_unlabelled(tmp_path, b"a\tbooks\nb\tbooks\n"), TASK)
    assert line.endswith("all 2 rows have the domain books (none dvd): the student learns from this domain only")


def test_a_split_without_its_training_text_is_measured(tmp_path):
    dev = read(tmp_path, b"a\tbooks\tpositive\nb\tbooks\tnegative\n", name="dev.csv")
    assert text_warnings(dev, TASK, learns=False)[0].endswith(": the accuracy is that of this domain only")
