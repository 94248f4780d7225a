"""modeling/cli/errors.py: faults of the system are the user's to mend, others are ours and keep their traceback."""

import contextlib
import errno
import os
import signal
import subprocess
import sys

import pytest

from modeling.cli import interruption
from modeling.cli.errors import UserError, on_failure, run
from modeling.cli.interruption import Interrupted


def failing(number):
    def main():
        raise OSError(number, os.strerror(number), "output/run/metrics.jsonl")

    return main


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EBADF])
def test_a_disk_that_fails_is_one_line(number, capsys):
    with pytest.raises(SystemExit) as end:
        run(failing(number))
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: output/run/metrics.jsonl: {os.strerror(number)}\n"


def test_other_faults_keep_their_traceback():
    """They are errors of this program. The log of the run gets them too."""
    seen = []

    def main():
        on_failure(seen.append)
        raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        run(main)
    assert seen[0].startswith("error: KeyError: 'weights'\nTraceback")


def test_a_reader_that_has_gone_ends_a_command_quietly():
    lines = "from modeling.cli.errors import run; run(lambda: [print(n) for n in range(100000)])"
    command = subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout.readline() == b"0\n"
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(60) == 141
    command.stderr.close()


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "snapshot/meta"), "snapshot/meta: Permission denied"),
        (OSError(errno.EFBIG, "File too large"), "the output: File too large"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "the current folder: No such file or directory"),
        (
            MemoryError("Unable to allocate 119. GiB"),
            "not enough memory (Unable to allocate 119. GiB): give smaller batches or shorter texts",
        ),
        (RecursionError("maximum recursion depth exceeded"), "the input is nested too deeply (maximum recursion depth exceeded)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_the_system_is_one_line(error, line, capsys):
    """The log of the run gets the traceback too."""
    seen = []

    def main():
        on_failure(seen.append)
        raise error

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert seen[0].startswith(f"error: {line}\nTraceback")


def test_witnesses_belong_to_one_run(capsys):
    seen = []

    def main():
        on_failure(seen.append)
        raise UserError("bad\ninput")

    for _ in range(2):
        with pytest.raises(SystemExit):
            run(main)
    assert seen == ["error: bad input"] * 2
    with pytest.raises(SystemExit):
        run(raising(UserError("another")))
    assert len(seen) == 2
    assert capsys.readouterr().err == "error: bad input\n" * 2 + "error: another\n"


def test_a_signal_after_the_last_check_is_not_lost(capsys):
    def main():
        with contextlib.suppress(Interrupted):  # as work that cannot be interrupted
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 143
    assert "interrupted by SIGTERM" in capsys.readouterr().err


def test_a_signal_after_complete_work_changes_nothing(capsys):
    def main():
        interruption.finish()
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        run(main)
    assert not end.value.code
    assert capsys.readouterr().err == ""
