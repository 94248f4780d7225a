"""tools/compare.py: the page of a comparison replaces no file of the runs."""

import sys

import pytest

from modeling.cli.errors import run
from tools.compare import main


@pytest.mark.parametrize("name", ["metrics.jsonl", "flags.json", "report.html"])
def test_a_file_of_a_run_is_not_replaced(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "run").mkdir()
    for file in ("metrics.jsonl", "flags.json", "report.html"):
        (tmp_path / "run" / file).write_text("{}\n")
    path = tmp_path / "run" / name
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "run"), "--html", str(path)])
    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 2
    assert "would be overwritten; give another --html" in capsys.readouterr().err
    assert path.read_text() == "{}\n"
