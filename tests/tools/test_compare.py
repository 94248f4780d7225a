"""tools/compare.py: the page of a comparison replaces no file of the runs."""

import os
import sys

import pytest

from modeling.cli.errors import UserError, run
from modeling.report.page import check_page
from tools.compare import main


@pytest.mark.parametrize("name", ["metrics.jsonl", "flags.json", "report.html", os.path.join("snapshot", "meta")])
def test_a_file_of_a_run_is_not_replaced(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "run" / "snapshot").mkdir(parents=True)
    for file in ("metrics.jsonl", "flags.json", "report.html", "snapshot/meta"):
        (tmp_path / "run" / file).write_text("{}\n")
    path = tmp_path / "run" / name
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "run"), "--html", str(path)])
    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 2
    assert "would be overwritten; give another --html" in capsys.readouterr().err
    assert path.read_text() == "{}\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "report.html"])
def test_a_file_of_another_run_is_not_replaced(tmp_path, name):
    """A run that is not compared."""
    (tmp_path / "other").mkdir()
    for file in ("run.flags", name):
        (tmp_path / "other" / file).write_text("x")
    with pytest.raises(UserError, match=rf"{name}: is a file that the run in .*other wrote, .*; give another --html$"):
        check_page(str(tmp_path / "other" / name), "--html", [str(tmp_path / "run")])


def test_a_page_of_an_earlier_call_is_replaced(tmp_path):
    """By its own name only: a link may lead to another file."""
    (tmp_path / "run").mkdir()
    for name in ("page.html", "metrics.jsonl"):
        (tmp_path / "run" / name).write_text("x")
    check_page(str(tmp_path / "run" / "page.html"), "--html", [str(tmp_path / "run")])
    (tmp_path / "link.html").symlink_to(tmp_path / "run" / "metrics.jsonl")
    for name in ("link.html", "run/report.html", "run/new.txt"):
        with pytest.raises(UserError, match="give another --html"):
            check_page(str(tmp_path / name), "--html", [str(tmp_path / "run")])
