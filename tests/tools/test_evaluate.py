"""tools/evaluate.py: what it says of the file that it has read, and what it refuses. test_sweep.py has its numbers."""

import importlib
import json
import os
import shutil
import sys

import pytest
import tiny

from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.errors import run
from tools.evaluate import main


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return tiny.write_classifier(str(tmp_path_factory.mktemp("evaluate") / "snapshot"), ("negative", "positive"))


def evaluate(tmp_path, monkeypatch, capsys, snapshot, text):
    """(exit code, standard output, standard error) for a file with this text."""
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", snapshot, str(tmp_path / "rows.csv"), "--device", "cpu"])
    with pytest.raises(SystemExit) as end:
        run(main)
    return (end.value.code or 0, *capsys.readouterr())


def test_it_says_which_number_is_which_label(tmp_path, monkeypatch, capsys, snapshot):
    code, output, _ = evaluate(tmp_path, monkeypatch, capsys, snapshot, "text,label\na good film,1\nbad,0\n")
    assert code == 0
    assert "; its labels are numbers, read as positions: 0 is 'negative', 1 is 'positive'" in output
    code, output, _ = evaluate(tmp_path, monkeypatch, capsys, snapshot, "text,label\na good film,positive\nbad,Negative\n")
    assert code == 0
    assert "numbers" not in output


def test_the_folder_of_a_run(tmp_path, monkeypatch, capsys, snapshot):
    """Its one best snapshot is measured, and --output names the digest of that."""
    os.makedirs(str(tmp_path / "run"))
    shutil.copytree(snapshot, str(tmp_path / "run" / "snapshot_best_mft_model_t_dev_0.5"))
    (tmp_path / "rows.csv").write_text("text,label\na good film,1\nbad,0\n", encoding="utf-8")
    words = [str(tmp_path / "run"), str(tmp_path / "rows.csv"), "--device", "cpu", "--output", str(tmp_path / "measures.json")]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    with pytest.raises(SystemExit) as end:
        run(main)
    assert not end.value.code, capsys.readouterr().err
    assert json.loads((tmp_path / "measures.json").read_text())["snapshot_digest"] == Snapshot(snapshot).digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a film\tmr\tperhaps\nb\tmr\tnegative\n", "row 1: label 'perhaps' is not one of task 't' (negative, positive)"),
        ("a film\tmr\t1\nb\tmr\t2\n", "row 2: label '2' is not one of task 't' (negative, positive)"),
        ("", "is empty; a row is text TAB domain TAB label"),
    ],
)
def test_refusals_name_no_flags_of_the_scripts(tmp_path, monkeypatch, capsys, snapshot, text, message):
    assert evaluate(tmp_path, monkeypatch, capsys, snapshot, text) == (2, "", f"error: {tmp_path}/rows.csv: {message}\n")


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        ("evaluate", "SNAPSHOT FILE --seq_length 0"),
        ("predict", "--model_load_dir SNAPSHOT --seq_length 0 text"),
        ("inspect", "SNAPSHOT --records -3"),
    ],
)
def test_numbers_that_mean_nothing(monkeypatch, capsys, snapshot, tool, line):
    """They would be taken for a flag that is not given, or for a count from the end."""
    monkeypatch.setattr(sys, "argv", [tool + ".py", *line.replace("SNAPSHOT", snapshot).split()])
    with pytest.raises(SystemExit) as end:
        run(importlib.import_module("tools." + tool).main)
    assert end.value.code == 2
    assert "or more" in capsys.readouterr().err
