"""modeling/run/metrics.py and log.py: damaged lines, planted files, and characters that a terminal would obey."""

import os

import pytest

from modeling.run.log import Log
from modeling.run.metrics import Metrics, read_metrics
from ofrecord_util.errors import UserError

EVALUATION = '{"kind": "dev", "accuracy": 1, "correct": 1, "total": 1, "cross_entropy": 0, %s}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("3", "holds int"),
        ("[" * 2000, "is not JSON"),
        ('{"step": 1}', "not an object with a kind"),
        ('{"kind": "train", "step": "1"}', "step is not a number"),
        ('{"kind": "snapshot", "step": []}', "step is not a number"),
        ('{"kind": "dev", "accuracy": 1}', "an evaluation has invalid"),
        (EVALUATION % '"macro_f1": "high"', "an evaluation has invalid macro_f1"),
        (
            EVALUATION % '"by_domain": {"a": {"accuracy": 1, "correct": 1, "total": 1, "cross_entropy": 0, "matthews": []}}',
            "invalid matthews",
        ),
        (EVALUATION % '"by_class": {"a": 3}', "by_class is not an object of objects"),
        (EVALUATION % '"by_class": {"a": {"f1": 1}}', "by_class lacks one of precision, recall, f1, support"),
        (EVALUATION % '"intervals": {"accuracy": [0]}', "intervals has another key, or not two numbers"),
        (EVALUATION % '"intervals": 3', "intervals is not an object of lists"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, said):
    """By --resume, too, which leaves the file as it is."""
    text = f'{{"kind": "train", "step": 1}}\n{line}\n{{"kind": "train", "step": 2}}\n'
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=rf"metrics.jsonl: line 2: .*{said}.*; no run writes this"):
        read_metrics(str(tmp_path / "metrics.jsonl"))
    with pytest.raises(UserError, match="line 2"):
        Metrics(str(tmp_path)).continue_from(2)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_rows_before_a_step_stay(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n{"kind": "train", "step": 2}\n{"kind": "tr')
    metrics = Metrics(str(tmp_path))
    assert metrics.continue_from(2) is None
    metrics.add("train", step=2)
    assert [row["step"] for row in read_metrics(str(tmp_path / "metrics.jsonl"))] == [1, 2]


def test_a_missing_file_is_said(tmp_path):
    metrics = Metrics(str(tmp_path))
    assert metrics.continue_from(4) == f"warning: {tmp_path}/metrics.jsonl was missing: it has no lines of the steps before 4"
    metrics.add("train", step=4)
    assert [row["step"] for row in read_metrics(str(tmp_path / "metrics.jsonl"))] == [4]


@pytest.mark.parametrize("name", ["run.log", "metrics.jsonl"])
def test_planted_files_are_not_written_through(tmp_path, name):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / name).symlink_to("mine")
    with pytest.raises(UserError, match=f"{name}: is not a regular file"):
        Log(str(tmp_path / name)) if name == "run.log" else Metrics(str(tmp_path))
    assert (tmp_path / "mine").read_text() == "kept"
    os.remove(str(tmp_path / name))
    os.link(str(tmp_path / "mine"), str(tmp_path / name))
    with pytest.raises(UserError, match=rf"{name}: has 2 names \(hard links\)"):
        Log(str(tmp_path / name)) if name == "run.log" else Metrics(str(tmp_path))
    assert (tmp_path / "mine").read_text() == "kept"
    os.remove(str(tmp_path / name))
    os.mkfifo(str(tmp_path / name))
    with pytest.raises(UserError, match=f"{name}: is not a regular file"):  # and does not wait for a reader
        Log(str(tmp_path / name)) if name == "run.log" else Metrics(str(tmp_path))


def test_a_log_shows_escape_sequences(tmp_path, capsys):
    log = Log(str(tmp_path / "run.log"))
    log("domain a\x1b[31m\nb: accuracy 0.5")
    log.close()
    assert capsys.readouterr().out == "domain a\\x1b[31m\\x0ab: accuracy 0.5\n"
    assert (tmp_path / "run.log").read_text()[20:] == "domain a\\x1b[31m\\x0ab: accuracy 0.5\n"
