"""The texts of the tools that read them for a snapshot: lines, tables and JSON lines; what is no text or no pair is refused. No output
replaces what a tool reads."""

import importlib
import io
import itertools
import json
import os
import subprocess
import sys

import pytest
import tiny

from modeling.predictor import Prediction, Predictor
from ofrecord_util.errors import UserError
from ofrecord_util.text_columns import TextOptions
from tools.predict import as_text
from tools.texts import decode_argument, read_lines, texts_of


def test_lines_and_columns():
    lines = list(read_lines(io.BytesIO(b"\xef\xbb\xbfone\r\ntwo\tmr\t1\n\nlast"), "FILE"))
    assert lines == ["one", "two\tmr\t1", "", "last"]
    assert list(texts_of(lines, False, "FILE")) == ["one", "two", "", "last"]
    with pytest.raises(UserError, match=r"FILE: line 2 is not UTF-8 \(byte 3 of it: 0xE9\); mend it"):
        list(read_lines(io.BytesIO(b"ok\nca\xe9\n"), "FILE"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"good film\rbad film\rthird\r", "line 1 has a carriage return at character 10"),
        (b"one\ntwo\rthree\n", "line 2 has a carriage return"),
        (b"one\nt\0wo\n", "line 2 has a NUL"),
        (b'\n{"text": "one"}\n', "line 2 is JSON"),
        (b'["one", "two"]\n', "row 1 is JSON"),
        (b'[\n{"text": "one"},\n', "row 1 is JSON"),
        (b'{"text": "one"}\n{"review": "two"}\n', r"row 2 .JSON lines.: no 'text'"),
        (b'{"text": "one"}\n\n{"text": "two"}\n', r"row 2 .JSON lines.: is not JSON"),
        (b'text,label\n"one,1\n', r"row 2 .comma-separated.: a field begins with a double quote that is not closed"),
        (b"text\ttitle\tlabel\none\tmr\n", r"row 2 .tab-separated.: 2 columns, but the header has 3"),
        (b"title\tsentence\tlabel\none\tmr\t1\n", "row 1 .tab-separated.: several columns may be the text: 'title', 'sentence'"),
        (b"review\tdomain\tsentiment\none\tmr\t1\nreview\tdomain\tsentiment\n", r"row 3 .tab-separated. is the header again"),
        (b"one\tmr\t1\nreview\tdomain\tsentiment\n", "line 2 is a header"),
        (b"a good film,mr,1\nbad,cr,0\n", r"the rows have commas between their columns \('a good film,mr,1'\): --text_column NUMBER"),
        (b"Bewertung,Note\ngut,1\nnicht gut,0\n", "the rows have commas between their columns .*; --text_format tsv reads each row"),
        (b"a good film;mr;1\nbad;cr;0\n", "the rows have semicolons between their columns .*: semicolons between columns are not read"),
        (b"text;label\na film, really;1\n", "the rows have semicolons"),
        (b"texte\tdomaine\tnote\none\tmr\t1\ntwo\tmr\t0\n", r"row 1 looks like a header \(texte, domaine, note\), which would be"),
        (b"0\tone\n1\ttwo\n", r"lines 1 and 2 begin with a number \(1\) and a tab: an index would be read as a text"),
    ],
)
def test_lines_that_are_not_texts(data, message):
    with pytest.raises(UserError, match=f"FILE: {message}"):
        list(texts_of(read_lines(io.BytesIO(data), "FILE"), False, "FILE"))


@pytest.mark.parametrize("rows", [b'Bewertung,Note\ngut,1\n"nicht\ngut",0\n', b"Note,Bewertung\n1,gut\n0,schlecht\n1,gut\n"])
def test_a_header_over_numbered_columns(rows):
    number = "1" if rows.startswith(b"B") else "2"
    with pytest.raises(UserError, match=r"FILE: row 1 looks like a header \(.*Bewertung.*\).*give --text_column the name"):
        list(texts_of(read_lines(io.BytesIO(rows), "FILE"), False, "FILE", TextOptions(text=number)))
    named = list(texts_of(read_lines(io.BytesIO(rows), "FILE"), False, "FILE", TextOptions(text="Bewertung")))
    assert named[0] == "gut"
    without = list(texts_of(read_lines(io.BytesIO(rows[rows.index(b"\n") + 1 :]), "FILE"), False, "FILE", TextOptions(text=number)))
    assert without == named


def test_the_name_of_a_single_column_is_said():
    said = []
    assert list(texts_of(["Sentence", "one"], False, "FILE", warn=said.append)) == ["Sentence", "one"]
    assert said == ["warning: FILE: line 1 is read as a text ('Sentence'): remove it if it is the name of the column"]
    assert list(texts_of(["one", "text"], False, "FILE", warn=said.append)) == ["one", "text"]
    assert len(said) == 1


def test_columns_that_are_not_read_are_said():
    """Once, for the first such row; not where a header or a flag names the columns. Those of training text are no warning."""
    said = []
    assert list(texts_of(["one", "two\tmr", "three\tcr"], False, "FILE", warn=said.append)) == ["one", "two", "three"]
    assert list(texts_of(["a\tb", "c\td\tmr"], True, "FILE", warn=said.append)) == [("a", "b"), ("c", "d")]
    assert said == [
        "warning: FILE: line 2 has 2 columns: the first one is the text, the others are not read, in any row",
        "warning: FILE: line 2 has 3 columns: the first two are the texts, the others are not read, in any row",
    ]
    list(texts_of(["review\tdomain", "one\tmr"], False, "FILE", warn=said.append))
    list(texts_of(["1\tone", "0\ttwo"], False, "FILE", TextOptions(text="2"), warn=said.append))
    list(texts_of(["one", "two, three"], False, "FILE", warn=said.append))
    assert list(texts_of(["one\tmr\t1"], False, "FILE", warn=said.append)) == ["one"]
    assert list(texts_of(["a\tb\tmr\t1"], True, "FILE", warn=said.append)) == [("a", "b")]
    assert said[2:] == [
        "FILE: line 1 has 3 columns, as training text: the first one is the text, the others are not read, in any row",
        "FILE: line 1 has 4 columns, as training text: the first two are the texts, the others are not read, in any row",
    ]
    del said[:]
    list(texts_of(["one\tmr\t1", "two\tmr\t1\tx", "three\tcr\t0", "four\tcr"], False, "FILE", warn=said.append))
    list(texts_of(["one\tmr", "two\tmr\t1", "three\tcr"], False, "FILE", warn=said.append))
    first = "the first one is the text, the others are not read, in any row"
    assert said == [
        f"FILE: line 1 has 3 columns, as training text: {first}",
        f"warning: FILE: line 2 has 4 columns: {first}",
        f"warning: FILE: line 1 has 2 columns: {first}",
    ]


def test_lines_without_a_text_are_left_out():
    data = b"review\tdomain\tsentiment\r\none\tmr\t1\n\n[not JSON]\tmr\t0\n\n \n\r\n"
    assert list(texts_of(read_lines(io.BytesIO(data), "FILE"), False, "FILE")) == ["one", "", "[not JSON]"]
    assert list(texts_of(read_lines(io.BytesIO(b"a\tb\nc\td\n\n"), "FILE"), True, "FILE")) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("data", "pair", "options", "expected"),
    [
        (b'text,label\n"one, two",1\n"three\nfour",0\n', False, {}, ["one, two", "three\nfour"]),
        (b"label\ttext\n1\tone\n0\ttwo\n", False, {}, ["one", "two"]),
        (b"index\tsentence\n0\tone\n1\ttwo\n", False, {}, ["one", "two"]),
        (b"10\tmr\nbad\tmr\n", False, {}, ["10", "bad"]),
        (b'{"id": 1, "review": "one"}\n{"review": "two\\nlines"}\n', False, {}, ["one", "two\nlines"]),
        (b"a1,b1\none,two\n", False, {"text": "b1"}, ["two"]),
        (b"one,two\nthree\n", False, {}, ["one,two", "three"]),
        (b"a film, good\na book, bad\n", False, {}, ["a film, good", "a book, bad"]),
        (b"one,two\nthree,four\n", False, {"format": "tsv"}, ["one,two", "three,four"]),
        (b"one,two\nthree,four\n", False, {"text": "2"}, ["two", "four"]),
        (b'"one,two",3\n', False, {"format": "csv"}, ["one,two"]),
        (b"1\tone\n0\ttwo\n", False, {"text": "2"}, ["one", "two"]),
        (b"sentence2,sentence1\none,two\n", True, {"text": "sentence1", "pair": "sentence2"}, [("two", "one")]),
        (b"sentence2,sentence1,label\none,two,1\n", True, {}, [("two", "one")]),
        (b'{"a": "one", "b": "two"}\n', True, {}, [("one", "two")]),
    ],
)
def test_tables_and_json(data, pair, options, expected):
    assert list(texts_of(read_lines(io.BytesIO(data), "FILE"), pair, "FILE", TextOptions(**options))) == expected


def test_a_stream_of_json_is_read_as_it_is_needed():
    def endless():
        for number in itertools.count():
            read.append(number)
            yield json.dumps({"text": f"text {number}"})

    read = []
    assert list(itertools.islice(texts_of(endless(), False, "FILE"), 3)) == ["text 0", "text 1", "text 2"]
    assert len(read) == 3


def test_pairs_need_a_second_column():
    with pytest.raises(UserError, match="no column of second texts, which the task needs; --pair_column"):
        list(texts_of(["text,label", "one,1"], True, "FILE"))


def test_each_output_is_one_line():
    prediction = Prediction("yes", {"yes": 0.75})
    assert as_text("two\r\nlines\tand a tab", prediction) == "yes\t0.750000\ttwo lines and a tab"
    assert as_text(("a\nb", "c"), prediction) == "yes\t0.750000\ta b\tc"


def test_arguments_in_another_locale():
    assert decode_argument("f\udcc3\udcbcr") == "f\u00fcr"  # UTF-8 bytes that Python did not decode
    with pytest.raises(UserError, match=r"is not UTF-8 \(byte 2: 0xFF\)"):
        decode_argument("f\udcffr")


def test_what_is_no_pair(tmp_path):
    predictor = Predictor(tiny.write_classifier(str(tmp_path / "pairs"), pair=True))
    for text in ("ab", ("a", "b", "c"), None, {"a": 1, "b": 2}):  # a text of two characters, and a dict, would unpack to two
        with pytest.raises(UserError, match="trained for pairs of texts"):
            list(predictor([text]))
    with pytest.raises(UserError, match="is None, which is NoneType"):
        list(predictor([("a", None)]))
    assert len(list(predictor([["a", "b"], ("a", "b")]))) == 2


@pytest.mark.parametrize("more", ['"id": 99999999999999999999', '"id": 1e999', '"note": "\\ud800"', '"text": "b"'])
def test_json_that_is_refused_is_no_plain_text(more):
    """Also in the first line, which tells the kind of the stream."""
    line = '{"text": "a", ' + more + "}"
    with pytest.raises(UserError, match=r"input: row 1 \(JSON lines\): is not JSON"):
        list(texts_of([line, line], False, "input"))


@pytest.mark.parametrize("header", ["source\ttarget", "id\tarticle\thighlights", "target\tsource"])
def test_sources_of_a_table_with_targets(header):
    """As tools/generate.py reads the text that recipes/generation.py was trained on."""
    names = header.split("\t")
    row = "\t".join({"source": "a", "article": "a"}.get(name, "b") for name in names)
    assert list(texts_of([header, row, row], False, "FILE", TextOptions(targets=True))) == ["a", "a"]


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("predict", ["--input", "in.txt", "--output"]),
        ("embed", ["--input", "in.txt", "--output"]),
        ("tag_words", ["--input", "in.txt", "--output"]),
        ("generate", ["--input", "in.txt", "--output"]),
        ("answer_questions", ["--input", "in.txt", "--output", "answers.json", "--nbest"]),
        ("evaluate", ["in.txt", "--predictions", "out.tsv", "--output"]),
    ],
)
@pytest.mark.parametrize(
    "output",
    [
        *("run/snapshot_best_x/task.json", "run/flags.json", "run/metrics.jsonl", "vocab.txt", "in.txt"),
        *("run/predictions_dev.tsv", "run/generations_test.tsv", "run/answers_test.json", "run/nbest_test.json", "run/tagged_test.tsv"),
        *("other/run.log", "other/predictions_dev.tsv"),
    ],
)
def test_an_output_replaces_nothing_that_the_tool_reads(tool, words, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = {
        "run/snapshot_best_x/task.json": "{}",
        "run/snapshot_best_x/snapshot_done": "",
        "run/flags.json": "{}",
        "run/metrics.jsonl": "",
        "run/predictions_dev.tsv": "index\n",
        "run/generations_test.tsv": "row\n",
        "run/answers_test.json": "{}",
        "run/nbest_test.json": "{}",
        "run/tagged_test.tsv": "a\n",
        "other/run.flags": "",
        "other/run.log": "began\n",
        "other/predictions_dev.tsv": "index\n",
        "in.txt": "good\tmr\t1\n",
        "vocab.txt": "[PAD]\n",
    }
    os.makedirs("run/snapshot_best_x")
    os.mkdir("other")
    for name, text in kept.items():
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    snapshot = ["run"] if tool == "evaluate" else ["--model_load_dir", "run"]
    module = importlib.import_module(f"tools.{tool}")
    monkeypatch.setattr(sys, "argv", [tool, *snapshot, *words, output, "--vocab_file", "vocab.txt"])
    folder = os.path.dirname(output)
    whose = f"that the run in {tmp_path / folder} wrote" if folder in ("run", "other") else "of this command or of the run"
    with pytest.raises(UserError, match=f"^{output}: is a file {whose}, and would be overwritten; give another --(output|nbest)$"):
        module.main()
    for name, text in kept.items():
        with open(name, encoding="utf-8") as file:
            assert file.read() == text


def test_an_output_does_not_replace_the_file_of_standard_input(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("good\n", encoding="utf-8")
    command = [sys.executable, os.path.join(tiny.ROOT, "tools", "predict.py"), "--model_load_dir", "none", "--output", str(path)]
    with open(path, "rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "in.txt: is a file of this command or of the run, and would be overwritten" in done.stderr
    assert path.read_text(encoding="utf-8") == "good\n"


def test_a_folder_that_is_no_snapshot_is_reported_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predict", "--model_load_dir", str(tmp_path), "--output", str(tmp_path / "out.txt"), "good"])
    with pytest.raises(UserError, match="contains no variables"):
        importlib.import_module("tools.predict").main()
