"""Files and folders that are there whole or not at all, whenever the process dies and wherever the disk is full."""

import json
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from ofrecord_util import files
from ofrecord_util.errors import UserError

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


def replace(path, content=b"new"):
    with files.replacing(str(path)) as file:
        file.write(content)


def test_a_link_is_followed_and_a_mode_is_kept(tmp_path):
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "target"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to("deep/later")
    replace(tmp_path / "link")
    replace(tmp_path / "dangling")
    assert os.readlink(str(tmp_path / "link")) == str(target)
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("new", 0o640)
    assert (tmp_path / "deep" / "later").read_text() == "new"
    assert sorted(os.listdir(str(tmp_path / "deep"))) == ["later", "target"]


def test_a_fifo_is_written_into(tmp_path):
    path, found = tmp_path / "fifo", []
    os.mkfifo(str(path))
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    reader.start()
    replace(path)
    reader.join(10)
    assert found == [b"new"]
    assert stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device node")
def test_a_device_is_written_into(tmp_path):
    path = tmp_path / "null"
    try:
        os.mknod(str(path), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        replace(path)
    except PermissionError:
        pytest.skip("this container may not make or open device nodes")
    assert stat.S_ISCHR(path.lstat().st_mode)
    assert os.listdir(str(tmp_path)) == ["null"]


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"])
def test_standard_output_is_written_into(tmp_path, path):
    """Redirected to a file, too: what the shell writes there before and after stays."""
    program = f"from ofrecord_util.files import replacing\nwith replacing({path!r}) as file:\n    file.write(b'new ')"
    root = os.path.dirname(os.path.dirname(os.path.dirname(KILL_POINTS)))
    with open(str(tmp_path / "out"), "wb") as out:
        out.write(b"before ")
        out.flush()
        subprocess.run([sys.executable, "-c", program], cwd=root, stdout=out, check=True, timeout=60)
        out.seek(0, os.SEEK_END)
        out.write(b"after")
    assert (tmp_path / "out").read_bytes() == b"before new after"
    assert os.listdir(str(tmp_path)) == ["out"]


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_a_log_is_not_written_through_what_was_planted(tmp_path, kind):
    path, target = tmp_path / "run.log", tmp_path / "target"
    if kind == "fifo":
        os.mkfifo(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    if kind == "link":
        target.write_text("kept")
    with pytest.raises(UserError, match=r"run.log: is not a regular file"):
        files.open_to_append(str(path))
    assert not target.exists() or target.read_text() == "kept"


def test_all_leftovers_of_a_folder_that_is_ours(tmp_path):
    parent = os.getppid()  # an id that is in use
    for name in (f".state_step_5.writing-{parent}", f".best.writing-{NOBODY}", f".kept.writing-{parent}.old"):
        (tmp_path / name).mkdir()
    (tmp_path / f"flags.json.tmp-{parent}").write_text("part")
    (tmp_path / "flags.json").write_text("whole")
    files.clear_leftovers(str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == ["flags.json", "kept"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_nothing_was_written_into_is_removed(tmp_path, exists):
    folder = tmp_path / "data" / "records" / "train"
    if exists:
        folder.parent.mkdir(parents=True)

    def fill(path, work):
        with files.filling(str(path)):
            work()

    with pytest.raises(ZeroDivisionError):
        fill(folder, lambda: 1 // len(os.listdir(folder)))
    assert (tmp_path / "data").exists() == folder.parent.exists() == exists
    with pytest.raises(ZeroDivisionError):
        fill(folder, lambda: 1 // ((folder / "part").write_text("x") - 1))
    assert os.listdir(folder) == ["part"]
    with pytest.raises(UserError, match="the folder cannot be created"):
        fill(folder / "part" / "below", lambda: None)
    fill(tmp_path / "new", lambda: None)
    assert (tmp_path / "new").is_dir()


def under_a_limit(code, folder):
    """Runs code in a process that cannot write files of more than 1024 bytes: a write fails as on a full disk."""
    start = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024));"
    )
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(os.path.dirname(KILL_POINTS))))
    lines = f"{start} import numpy as np; from ofrecord_util import files\n{code}"
    return subprocess.run(
        [sys.executable, "-c", lines], cwd=str(folder), env=environment, capture_output=True, encoding="utf-8", timeout=60
    )


def test_a_full_disk_is_said_of_the_file(tmp_path):
    code = "try:\n  with files.replacing('out') as file: file.write(bytes(5000))\nexcept OSError as error: print(error.filename)"
    assert under_a_limit(code, tmp_path).stdout == str(tmp_path / "out") + "\n"
    assert os.listdir(tmp_path) == []


def test_an_archive_on_a_full_disk_prints_no_traceback(tmp_path):
    code = (
        "try:\n  with files.replacing('out') as file: files.write_npz(file, {'a': np.zeros(999), 'b': np.ones(3)})\n"
        "except OSError as error: print(error.strerror)"
    )
    result = under_a_limit(code, tmp_path)
    assert (result.stdout, result.stderr) == ("File too large\n", "")
    with open(tmp_path / "whole.npz", "wb") as file:
        files.write_npz(file, {"a": np.arange(5)})
    with np.load(tmp_path / "whole.npz", allow_pickle=False) as arrays:
        assert arrays["a"].tolist() == list(range(5))
