"""Files and folders that are there whole or not at all, whenever the process dies and wherever the disk is full."""

import json
import os
import subprocess
import sys

import pytest

from ofrecord_util import files

KILL_POINTS = os.path.join(os.path.dirname(__file__), "kill_points.py")


def write(path, text):
    with files.replacing_folder(str(path)) as new, open(os.path.join(new, "text"), "w") as file:
        file.write(text)


@pytest.fixture
def no_exchange(monkeypatch):
    """A C library without renameat2, as a file system without RENAME_EXCHANGE."""
    monkeypatch.setattr(files.ctypes, "CDLL", lambda name: None)


def points(tmp_path, *words):
    command = [sys.executable, KILL_POINTS, *words[:1], str(tmp_path), *words[1:]]
    paths = os.pathsep.join([os.path.dirname(KILL_POINTS), os.path.dirname(os.path.dirname(os.path.dirname(KILL_POINTS)))])
    result = subprocess.run(command, env=dict(os.environ, PYTHONPATH=paths), capture_output=True, encoding="utf-8", timeout=300)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    return [row for row in rows if row["end"] == "killed"], [row for row in rows if row["end"] != "killed"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--no-exchange",)], ids=("exchange", "renames"))
def test_a_snapshot_at_every_point_of_a_save(tmp_path, words):
    killed, full = points(tmp_path, "snapshot", *words)
    assert {row["kind"] for row in killed} >= {"write", "fsync", "mkdir", "exchange", "unlink"}
    assert sum(row["kind"] == "write" for row in killed) == 6
    assert sum(row["kind"] == "fsync" for row in killed) >= 10
    assert words == () or sum(row["kind"] == "rename" for row in killed) == 3
    for row in killed + full:
        assert row["version"] in (1, 2), row
        assert row["next"] == 3, row
        assert row["left_after"] == [], row
    versions = [row["version"] for row in killed]
    assert versions == sorted(versions)
    assert set(versions) == {1, 2}
    for row in full:
        if row["kind"] in ("write", "exchange"):
            assert (row["end"], row["version"], row["left"]) == ("reported", 1, []), row
        elif row["kind"] in ("fsync", "rename"):  # after the last renaming the new one is there, and the fault is told
            assert row["end"] == "reported", row
        assert row["end"] == "reported" or row["version"] == 2, row


@pytest.mark.slow
def test_records_at_every_point_of_a_save(tmp_path):
    """Several files cannot change in one step: what is neither the old nor the new split is refused by its digests."""
    killed, full = points(tmp_path, "records")
    assert {row["kind"] for row in killed} >= {"write", "fsync", "replace"}
    for row in killed + full:
        assert row["version"] in (1, "refused", 2), row
        assert row["next"] == 3, row
        assert row["left_after"] == [], row
    order = [(1, "refused", 2).index(row["version"]) for row in killed]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}
    assert all(row["end"] == "reported" and row["left"] == [] for row in full if row["kind"] in ("write", "fsync", "replace"))


def test_a_block_that_raises_leaves_the_old_folder(tmp_path):
    write(tmp_path / "f", "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), files.replacing_folder(str(tmp_path / "f")) as new:  # noqa: PT012  the block is what raises
            assert os.path.dirname(new) == str(tmp_path)
            assert os.listdir(new) == []
            raise error
    assert os.listdir(str(tmp_path)) == ["f"]
    assert (tmp_path / "f" / "text").read_text() == "old"


def test_a_removal_that_is_cut_short_leaves_no_part_under_the_name(tmp_path, monkeypatch):
    def cut_short(path):
        os.remove(os.path.join(path, "text"))
        raise KeyboardInterrupt

    write(tmp_path / "f", "old")
    monkeypatch.setattr(files.shutil, "rmtree", cut_short)
    with pytest.raises(KeyboardInterrupt):
        files.remove_folder(str(tmp_path / "f"))
    monkeypatch.undo()
    assert os.listdir(str(tmp_path)) == [f".f.writing-{os.getpid()}"]
    write(tmp_path / "f", "new")
    assert os.listdir(str(tmp_path)) == ["f"]
    files.remove_folder(str(tmp_path / "f"))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.usefixtures("no_exchange")
def test_without_exchange(tmp_path, monkeypatch):
    write(tmp_path / "f", "old")
    write(tmp_path / "f", "new")
    assert os.listdir(str(tmp_path)) == ["f"]
    assert (tmp_path / "f" / "text").read_text() == "new"
    rename, calls = os.rename, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path / "f", "newer")
    assert os.listdir(str(tmp_path)) == ["f"]
    assert (tmp_path / "f" / "text").read_text() == "new"


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    for path in ("f", "f/", "g/deep"):
        write(path, path)
    assert sorted(os.listdir(".")) == ["f", "g"]
    assert (tmp_path / "f" / "text").read_text() == "f/"


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_what_is_no_folder_is_not_replaced(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("kept")
    if kind == "file":
        (tmp_path / "f").write_text("kept")
    else:
        (tmp_path / "f").symlink_to(tmp_path / ("mine" if kind == "link" else "nowhere"))
    with pytest.raises(NotADirectoryError, match="not a folder"):
        write(tmp_path / "f", "new")
    assert sorted(os.listdir(str(tmp_path))) == ["f", "mine"]
    assert (tmp_path / "mine" / "text").read_text() == "kept"


NOBODY = 2**22 + 1  # beyond the highest process number of Linux


def test_planted_folders_are_cleared_and_links_not_followed(tmp_path):
    """What bears the name of a dead or of this very process goes; another program's save, and all else, stays."""
    mine, parent = tmp_path / "mine", os.getppid()
    mine.mkdir()
    (mine / "kept").write_text("")
    for name in (f".f.writing-{NOBODY}", f".f.writing-{NOBODY}.old", f".f.writing-{parent}", ".f.writing-x", ".f.writing-1.older"):
        (tmp_path / name).mkdir()
    (tmp_path / f".f.writing-{os.getpid()}").symlink_to(mine)
    (tmp_path / f".f.writing-{NOBODY + 1}").write_text("a file")
    write(tmp_path / "f", "new")
    assert sorted(os.listdir(str(tmp_path))) == [".f.writing-1.older", f".f.writing-{parent}", ".f.writing-x", "f", "mine"]
    assert os.listdir(str(mine)) == ["kept"]


def test_leftovers_of_a_file(tmp_path):
    for name in (f"a.tmp-{NOBODY}", f"a.tmp-{os.getppid()}", f"ab.tmp-{NOBODY}"):
        (tmp_path / name).write_text("part")
    with files.replacing(str(tmp_path / "a")) as file:
        file.write(b"whole")
    assert sorted(os.listdir(str(tmp_path))) == ["a", f"a.tmp-{os.getppid()}", f"ab.tmp-{NOBODY}"]
