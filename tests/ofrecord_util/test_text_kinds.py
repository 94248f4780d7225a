"""Kinds of text files: how a file is recognised, what its rows are, and a message with file, row and kind for every fault."""

import csv
import io
import json

import numpy as np
import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split
from ofrecord_util.tasks import Task, only_domain, resolve_task
from ofrecord_util.text import TextFolder, read_text
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import read_rows, text_path
from ofrecord_util.text_kinds import CSV, JSONL, TSV, find_kind, find_separator, lines_of_text, parse_rows

TASK = Task("t", ("books", "dvd"), ("no", "yes"))
SAMPLES = [
    ('"quoted, at first', "books", "yes"),
    ("a, b and c", "dvd", "no"),
    ("é \u2028 \x85 \U0001f600 {not} [json]", "dvd", "yes"),
    ("5", "books", "no"),
    ("plain", "books", "no"),
]


def as_tsv(samples):
    return "".join("\t".join(sample) + "\n" for sample in samples)


def as_csv(samples, header=("text", "domain", "label"), end="\r\n"):
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows([header, *samples] if header else samples)
    return out.getvalue()


def as_jsonl(samples, keys=("text", "domain", "label"), **options):
    return "".join(json.dumps(dict(zip(keys, sample)), **options) + "\n" for sample in samples)


def write(tmp_path, content, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def kind(content):
    return find_kind(lines_of_text(content), "FILE")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (as_tsv(SAMPLES), TSV),
        ("text\tdomain\tlabel\n" + as_tsv(SAMPLES), TSV),
        ("good, bad, ugly\tmr\t1\n", TSV),
        ("a, b\tmr\t1\nc, d\tmr\t0\n", TSV),
        ('"a, b"\tmr\t1\n', TSV),
        ("one text\n", TSV),
        ("one text, with a comma\nanother\n", TSV),
        ('{"a": 1}\tmr\t1\n', TSV),
        ("{sic} good\tmr\t1\n", TSV),
        ("a\tmr\t1\nb\tmr\n", TSV),
        (as_csv(SAMPLES), CSV),
        (as_csv(SAMPLES, None), CSV),
        ("text,label\na,1\n", CSV),
        ("a,b\nc,d\n", CSV),
        ('"a\tb",mr,1\nc,mr,0\n', CSV),
        ("a,mr,1\nb,mr\n", CSV),
        (as_jsonl(SAMPLES), JSONL),
        ('{"text": "a"}\nnot json\n', JSONL),
    ],
)
def test_kinds(content, expected):
    assert kind(content) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a\tb,mr\t1,x\nc\td,mr\t0,y\n",
            "FILE: each row has 3 columns as tab-separated text and 3 as comma-separated text; --text_format tsv",
        ),
        ('[\n{"text": "a"}\n]\n', "FILE: row 1 is JSON .*, but not one object per line"),
        ('[{"text": "a"}, {"text": "b"}]\n', "FILE: row 1 is JSON"),
        ('{\n"text": "a"\n}\n', "FILE: row 1 is JSON"),
    ],
)
def test_what_is_not_clear(content, message):
    with pytest.raises(UserError, match=message) as error:
        kind(content)
    assert "\n" not in str(error.value)


def test_the_flag_decides(tmp_path):
    path = write(tmp_path, "a\tb,mr\t1,x\nc\td,mr\t0,y\n")
    assert [cells for _, cells in read_rows(path, TextOptions(TSV)).rows] == [["a", "b,mr", "1,x"], ["c", "d,mr", "0,y"]]
    assert [cells for _, cells in read_rows(path, TextOptions(CSV)).rows] == [["a b", "mr 1", "x"], ["c d", "mr 0", "y"]]


def test_rows_of_comma_separated_text():
    content = 'a,"b\nc\n",1\n"say ""x""",,2\n\n"last"\n'
    rows = list(parse_rows(lines_of_text(content), CSV, "FILE"))
    assert [row.cells for row in rows] == list(csv.reader(io.StringIO(content)))
    assert [(row.number, row.line) for row in rows] == [(1, 1), (2, 4), (3, 5), (4, 6)]
    assert rows[1].place(CSV) == "row 2 (line 4, comma-separated)"
    assert rows[0].place(CSV) == "row 1 (comma-separated)"


def test_blanks_before_a_quote_are_no_text(tmp_path):
    rows = read_rows(write(tmp_path, 'text, domain, label\n "a, b", "dvd", yes\n"c",dvd,  "no, never"\n')).rows
    assert [cells for _, cells in rows] == [["a, b", "dvd", "yes"], ["c", "dvd", "no, never"]]
    assert kind('a, "dvd", "yes, please"\nb, "dvd", no\n') == CSV
    with pytest.raises(UserError, match="something other than a comma follows the last quote"):
        read_rows(write(tmp_path, 'text,domain,label\n"a" ,dvd,yes\n'))


@pytest.mark.parametrize(
    ("lines", "sign"),
    [
        (["a good film,mr,1", "bad,mr,0"], ","),
        (["text,x", "a,1"], ","),
        (["a,mr,1"], ","),
        (['"one, two",3', "four,5"], ","),
        (["a good film, mr, pos", "bad, mr, neg", "worse, cr, neg", "good, cr, pos"], ","),
        (["a;mr;1", "b, c;mr;0"], ";"),
        (["a film, I think", "bad, I know"], None),
        (["well,no"], None),
        (["one,two", "three"], None),
        (['"Great," he said', '"Bad," she said'], None),
        (["a; b", "c; d"], None),
        ([], None),
        ([""], None),
    ],
)
def test_tables_without_a_known_header(lines, sign):
    assert find_separator(lines) == sign
    assert find_separator([*lines, '"stray, quotes" in texts']) is None
    if lines and sign == ",":
        assert find_separator([*lines, '"a field that goes on']) == sign


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_three_kinds_of_the_same_rows(tmp_path, ends):
    """The texts, the ids and the digest are the same, and those of the rows as they are."""
    contents = {
        "documented.csv": as_tsv(SAMPLES),
        "header.tsv": "Text\tDomain\tLabel\n" + as_tsv(SAMPLES),
        "commas.csv": as_csv(SAMPLES),
        "commas without header.csv": as_csv(SAMPLES, None),
        "other order.csv": as_csv([(label, domain, text, "x") for text, domain, label in SAMPLES], ("stars", "genre", "review", "id")),
        "lines.jsonl": as_jsonl(SAMPLES),
        "escaped.jsonl": "".join(as_jsonl([sample], ensure_ascii=False, sort_keys=True) for sample in SAMPLES),
    }
    splits = [
        read_text(write(tmp_path, content.replace("\r\n", "\n").replace("\n", ends), name), TASK) for name, content in contents.items()
    ]
    for split in splits:
        assert split.text_a == [text for text, _, _ in SAMPLES]
        assert [TASK.domains[domain] for domain in split.domain] == [domain for _, domain, _ in SAMPLES]
        assert [TASK.labels[label] for label in split.label] == [label for _, _, label in SAMPLES]
        assert split.digest == splits[0].digest
    assert splits[0].columns is None
    assert all(split.columns is not None for split in splits[1:])


def test_line_ends_and_tabs_within_a_text_are_spaces(tmp_path):
    for name, content in (("a.csv", as_csv([("a\r\n\tb\nc", "books", "yes")])), ("a.jsonl", as_jsonl([("a\r\n\tb\nc", "books", "yes")]))):
        assert read_text(write(tmp_path, content, name), TASK).text_a == ["a b c"]


def test_records_of_three_kinds_are_equal(tmp_path):
    """Byte for byte, with the scores' place and all."""
    import tiny

    from ofrecord_util.dataset import Dataset
    from ofrecord_util.tokenization import Tokenizer

    tokenizer = Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")), True)
    made = []
    for name, content in (("tsv", as_tsv(SAMPLES)), ("csv", as_csv(SAMPLES)), ("jsonl", as_jsonl(SAMPLES))):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, content, "dev.jsonl" if name == "jsonl" else "dev.csv")
        lines = []
        Dataset(str(folder), TASK, tokenizer, 13, resave=True, log=lines.append).records("dev")
        made.append((folder / "ofrecord" / "dev" / "dev.of_record-0").read_bytes())
        assert read_split(str(folder), "dev").manifest.get("text_columns") == (
            None if name == "tsv" else {"format": name, "text": "text", "domain": "domain", "label": "label", "only_domain": None}
        )
        (said,) = [line for line in lines if "columns: " in line]
        assert {"tsv": "tab-separated without a header", "csv": "comma-separated, header", "jsonl": "JSON lines"}[name] in said
        Dataset(str(folder), TASK, tokenizer, 13).records("dev")  # not stale
    assert made[0] == made[1] == made[2]


def test_other_columns_make_records_stale(tmp_path):
    import tiny

    from ofrecord_util.dataset import Dataset
    from ofrecord_util.tokenization import Tokenizer

    tokenizer = Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")), True)
    write(tmp_path, as_csv([("a", "b", "dvd", "no"), ("c", "d", "books", "yes")], ("text", "title", "domain", "label")), "dev.csv")
    Dataset(str(tmp_path), TASK, tokenizer, 13, resave=True, log=lambda _: None).records("dev")
    other = TextFolder(str(tmp_path), TextOptions(text="title"))
    with pytest.raises(UserError, match=r"stale.*its columns were .*'text': 'text'.* and are .*'text': 'title'.*--text_column"):
        Dataset(str(tmp_path), TASK, tokenizer, 13, log=lambda _: None, text=other).records("dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'text,domain,label\na,books,yes\n"b,books,yes\n',
            r"row 3 \(comma-separated\): a field begins with a double quote that is not closed",
        ),
        ('text,domain,label\n"a\nb",books,yes\n"c"d,books,yes\n', r"row 3 \(line 4, comma-separated\): a double quote within a field"),
        ("text,domain,label\na\rb,books,yes\n", r"row 2 \(comma-separated\): a carriage return outside of quotes"),
        ('text,domain,label\n"a\nb",books,yes\nc,books\n', r"row 3 \(line 4, comma-separated\): 2 columns, but the header has 3"),
        ("text,domain,label\na,books,yes\n\nb,books,no\n", r"row 3 \(comma-separated\): 0 columns"),
        ('text,domain,label\n"a\nb",books,yes\nc,books,maybe\n', r"row 3 \(line 4, comma-separated\): label 'maybe' is not one of"),
        ("text,domain,label\n ,books,yes\n", r"row 2 \(comma-separated\): the text is empty"),
        ("text,domain,label\n", "holds a header and no rows"),
        ("a,books,yes\rb,books,no\r", "the rows end with carriage returns alone"),
        ("a b\rc d\r", "the rows end with carriage returns alone"),
        (b'text,domain,label\n"a\nb",books,yes\nc\xff,books,yes\n', "line 4: byte .* is not UTF-8"),
        ('{"text": "a", "domain": "books", "label": "yes"}\n\n{}\n', r"row 2 \(JSON lines\): is not JSON"),
        ('{"text": "a", "domain": "books", "label": "yes"}\n["b"]\n', r"row 2 \(JSON lines\): holds list"),
        ('{"text": "a", "domain": "books", "label": "yes"}\n{"text": "b", "label": "no"}\n', r"row 2 \(JSON lines\): no 'domain'"),
        ('{"text": null, "domain": "books", "label": "yes"}\n', r"row 1 \(JSON lines\): 'text' is None, which is not a text"),
        ('{"text": "a", "domain": "books", "label": 1.5}\n', r"row 1 \(JSON lines\): 'label' is 1.5, which is not a text"),
        ('{"text": "a\\u0000b", "domain": "books", "label": "yes"}\n', r"row 1 \(JSON lines\): has a NUL"),
        ('{"text": "a\\ud800b", "domain": "books", "label": "yes"}\n', r"row 1 \(JSON lines\): is not JSON .*surrogate"),
        ("text;domain;label\na;books;yes\n", "semicolons between columns are not read"),
        ("a,b,c,d,e\n", r"row 1 \(comma-separated\): 5 columns where 3 are expected"),
    ],
)
def test_faults(tmp_path, content, message):
    with pytest.raises(UserError, match="train.csv: .*" + message if not message.startswith("row") else "train.csv: " + message) as error:
        read_text(write(tmp_path, content), TASK)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("a film;books;yes\nb;books;no\n", "; semicolons between columns are not read"),
        ("a film, good;books;yes\nb, c;books;no\n", "; semicolons between columns are not read"),
        ('{"text": "a", "domain": "books"\n', "; the row looks like JSON"),
        ("0\ta\tb\tbooks\tyes\n1\tc\td\tbooks\tno\n", "; the first column looks like an index"),
    ],
)
def test_what_another_number_of_columns_may_be(tmp_path, content, hint):
    """Said for a task that is known and for one whose names are told from the rows."""
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=f"train.csv: row 1.*{hint}"):
        read_text(path, TASK)
    with pytest.raises(UserError, match=f"train.csv: row 1.*{hint}"):
        resolve_task("mine", str(tmp_path))


def test_numbers_and_truths_of_json_are_labels(tmp_path):
    path = write(tmp_path, '{"text": "a", "domain": 1, "label": 0}\n{"text": "b", "domain": 2, "label": 1}\n')
    assert read_rows(path).rows[1][1] == ["b", "2", "1"]
    path = write(tmp_path, '{"text": "a", "domain": "d", "label": false}\n')
    assert read_rows(path).rows[0][1] == ["a", "d", "false"]


def test_a_field_of_a_megabyte(tmp_path):
    """Python's csv module refuses fields above 128 KB by default."""
    split = read_text(write(tmp_path, as_csv([("x" * 2**20, "books", "yes"), ("a", "dvd", "no")])), TASK)
    assert [len(text) for text in split.text_a] == [2**20, 1]


def test_text_without_domains(tmp_path):
    write(tmp_path, as_csv([("a", "no"), ("b", "yes")], ("text", "label")))
    task = resolve_task("Mine", str(tmp_path))
    assert (task.domains, task.labels) == (("mine",), ("no", "yes"))
    assert resolve_task("mine", str(tmp_path), "shop").domains == ("shop",)
    with pytest.raises(UserError, match=r"no column is known as that of the domain.*--domain_column.*--domains NAME"):
        resolve_task("mine", str(tmp_path), "shop,home")
    folder = TextFolder(str(tmp_path), TextOptions(only_domain=only_domain("mine")))
    split = folder.read("train", task)
    np.testing.assert_array_equal(split.domain, [0, 0])
    assert "no column of domains, so all rows have the domain 'mine'" in split.source
    assert [only_domain("sst-2"), only_domain("g1"), only_domain("g1", "mr")] == ["SST-2", None, "mr"]


def test_json_lines_have_their_own_name(tmp_path):
    write(tmp_path, as_jsonl(SAMPLES), "dev.jsonl")
    assert text_path(str(tmp_path), "dev").endswith("dev.jsonl")
