"""modeling/cli/errors.py: faults of a disk are the user's to mend, others are ours and keep their traceback."""

import errno
import os
import subprocess
import sys

import pytest

from modeling.cli.errors import run


def failing(number):
    def main():
        raise OSError(number, os.strerror(number), "output/run/metrics.jsonl")

    return main


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_is_one_line(number, capsys):
    with pytest.raises(SystemExit) as end:
        run(failing(number))
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: output/run/metrics.jsonl: {os.strerror(number)}\n"


def test_other_faults_keep_their_traceback():
    with pytest.raises(OSError, match=r"metrics.jsonl"):
        run(failing(errno.EBADF))


def test_a_reader_that_has_gone_ends_a_command_quietly():
    lines = "from modeling.cli.errors import run; run(lambda: [print(n) for n in range(100000)])"
    command = subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout.readline() == b"0\n"
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(60) == 141
    command.stderr.close()
