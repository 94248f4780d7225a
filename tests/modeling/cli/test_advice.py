"""An error names only flags that the running program has."""

import importlib
import json
import sys

import pytest
import tiny

from modeling.cli import advice
from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from modeling.cli.scripts import SCRIPTS, script_path
from ofrecord_util.errors import UserError

ROWS = b"a good film\tmr\t1\nbad\tmr\t0\n"
BAD_TEXTS = (
    b"",
    b"one\n",
    b"a\xff\tmr\t1\n",
    b"a;mr;1\nb;mr;0\n",
    b"a\tb,mr\t1,x\nc\td,mr\t0,y\n",
    b"text,topic\na,b\n",
    b"title,sentence,label\na,b,1\n",
    b"text\tdomain\tlabel\n",
    b"a\tmr\tperhaps\nb\tmr\tmaybe\n",
    b'text,domain,label\n"a,mr,1\n',
    b'{"text": 1}\n',
    b"7\ta\tmr\t1\n8\tb\tmr\t0\n",
    b"".join(b"%d\t%d\t%d\n" % (row, row, row) for row in range(7)),
)
FILES = [(tool, text) for tool in ("evaluate", "inspect", "predict", "make_kshot") for text in BAD_TEXTS]


@pytest.fixture(autouse=True)
def forgotten():
    advice.forget_flags()  # those of earlier tests in this process
    yield
    advice.forget_flags()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("FILE: row 2: label 'x' is not one; --label_list or --task_name selects others", "FILE: row 2: label 'x' is not one"),
        ("FILE: no vocab.txt: give --vocab_file", "FILE: no vocab.txt: give --vocab_file"),
        ("FILE: no such file; check --data_dir", "FILE: no such file"),
        ("FILE: has 2 rows: remove it; check --data_dir; or wait", "FILE: has 2 rows: remove it; or wait"),
        ("FILE: stale; write it with preprocess.py --resave_ofrecord", "FILE: stale; write it with preprocess.py --resave_ofrecord"),
        ("unknown flag --seed, did you mean --vocab_file?", "unknown flag --seed, did you mean --vocab_file?"),
        ("FILE: row 1: --no_flag_of_any_script", "FILE: row 1: --no_flag_of_any_script"),
        ("FILE: the data are those of --data_dir; check --data_dir", "FILE: the data are those of --data_dir"),  # FILE alone says nothing
        ("one", "one"),
    ],
)
def test_parts_that_are_left_out(line, expected):
    assert advice.fitting(line) == line
    parser = Parser()
    parser.add_argument("--vocab_file")
    parser.parse_args([])
    assert advice.fitting(line) == expected


def test_an_error_of_a_program(capsys):
    def main():
        Parser().parse_args([])
        raise UserError("FILE: is empty; check --data_dir")

    with pytest.raises(SystemExit):
        run(main)
    assert capsys.readouterr().err == "error: FILE: is empty\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(tmp_path, script):
    """Whatever they refuse first."""
    project = tiny.Project(tmp_path / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_rows(project.path("data"), "train", [("one", "mr", "perhaps")])
    model = "--teacher_model encoder --student_model encoder" if script == "meta_distill" else "--model_load_dir encoder"
    line = f"{script_path(script)} --task_name mr --device cpu --data_dir".replace("recipes/", "recipes.")
    for rest in ("nowhere", f"data {model}", f"data {model} --seq_length 12 --resave_ofrecord", f"data {model} --vocab_size 9"):
        code, output, errors = project.call(f"{line} {rest}")  # checks the flags of the error
        assert code == 2, output
        assert errors.count("error: ") == 1


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return tiny.write_classifier(str(tmp_path_factory.mktemp("advice") / "snapshot"))


@pytest.mark.parametrize(("tool", "text"), FILES)
def test_tools(tmp_path, tool, text, snapshot, monkeypatch, capsys):
    path = tmp_path / "rows.csv"
    path.write_bytes(text)
    argv = {
        "evaluate": [snapshot, str(path), "--device", "cpu"],
        "inspect": [str(path)],
        "predict": ["--model_load_dir", snapshot, "--input", str(path), "--device", "cpu"],
        "make_kshot": ["kshot", "--group", "g", "--source", f"mr=csv:{path}", "--output_dir", str(tmp_path / "out")],
    }[tool]
    monkeypatch.setattr(sys, "argv", [tool + ".py", *argv])
    with pytest.raises(SystemExit) as end:
        run(importlib.import_module("tools." + tool).main)
    errors = capsys.readouterr().err
    assert end.value.code in (0, None, 2)
    assert "Traceback" not in errors
    tiny.check_advice(errors)


def test_snapshots_of_tools(tmp_path, snapshot, monkeypatch, capsys):
    """A vocabulary that is missing, lengths and sizes that do not fit."""
    bad = tmp_path / "snapshot"
    tiny.write_encoder(str(bad))
    (bad / "bert_config.json").write_text(json.dumps({"hidden_size": 7}))
    for tool, *argv in (
        ("predict", "--model_load_dir", str(bad), "a"),
        ("evaluate", str(bad), str(bad)),
        ("inspect", str(bad)),
        ("convert_checkpoint", "--model_dir", str(bad), "--output_dir", str(tmp_path / "out")),
        ("predict", "--model_load_dir", snapshot, "--seq_length", "4000", "a"),
        ("evaluate", snapshot, str(bad), "--vocab_file", str(tmp_path / "none")),
    ):
        monkeypatch.setattr(sys, "argv", [tool + ".py", *argv])
        with pytest.raises(SystemExit) as end:
            run(importlib.import_module("tools." + tool).main)
        errors = capsys.readouterr().err
        assert end.value.code == 2, (tool, errors)
        tiny.check_advice(errors)
