"""tools/report.py: the page of a run's folder again, from the command line."""

import importlib.util
import os
import subprocess
import sys

import pytest
import tiny

_PATH = os.path.join(tiny.ROOT, "tests", "modeling", "report", "run_folder.py")
_SPEC = importlib.util.spec_from_file_location("run_folder_of_a_tool", _PATH)
run_folder = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run_folder)


@pytest.fixture
def folder(tmp_path):
    return run_folder.write_run(str(tmp_path / "run"), str(tmp_path / "data"))


def tool(*arguments):
    command = [sys.executable, os.path.join("tools", "report.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=tiny.ROOT, capture_output=True, encoding="utf-8", timeout=300)


def test_page_and_card(folder, tmp_path):
    result = tool(folder)
    page, card = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert page == os.path.join(folder, "report.html")
    assert os.path.dirname(os.path.dirname(card)) == folder
    assert os.path.basename(card) == "README.md"
    with open(page, encoding="utf-8") as file:
        text = file.read()
    assert all(name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text for name in run_folder.TASK.domains)
    assert run_folder.EVIL not in text
    assert "http" not in text
    os.remove(os.path.join(folder, "predictions_dev.tsv"))
    result = tool(folder + "/", "--output", tmp_path / "page.html", "--data_dir", tmp_path / "data")
    assert result.stdout.splitlines() == [str(tmp_path / "page.html")]
    assert result.returncode == 0
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["missing"]


def test_refusals(tmp_path):
    for argument, message in ((tmp_path, "not the folder of a run"), (tmp_path / "none", "no such folder")):
        result = tool(argument)
        assert result.returncode == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert message in result.stderr


def test_the_page_replaces_no_other_file_of_the_run(folder):
    before = tiny.tree(folder)
    result = tool(folder, "--output", os.path.join(folder, "metrics.jsonl"))
    assert (result.returncode, result.stdout) == (2, "")
    assert "would be overwritten; give another --output" in result.stderr
    assert tiny.tree(folder) == before
    assert tool(folder, "--output", os.path.join(folder, "report.html")).returncode == 0
