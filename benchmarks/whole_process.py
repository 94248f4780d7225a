"""Times a command as its user sees it: seconds to its end and to a certain line of output, and peak memory."""

import os
import subprocess
import tempfile
import time
from typing import NamedTuple, Optional

from benchmarks.side_by_side import ROOT
from modeling.cli import interruption
from ofrecord_util.errors import UserError


class Timing(NamedTuple):
    """Time and memory of a command."""

    seconds: float  # wall-clock, whole process
    first: Optional[float]  # seconds until the awaited line, None without such a line
    peak_bytes: int  # of its largest process
    output: str  # what it printed
    cpu_seconds: float  # user and system time, which other processes of the machine disturb less than the wall-clock time


def time_command(command, awaited=None):
    """Runs a command from the project's root.

    Args:
        command: list of program and arguments.
        awaited: beginning of a line of output. The time until the first such line is measured, to 20 ms.
    Returns:
        `Timing`.
    Raises:
        UserError: the command failed; the message ends with its last output.
        Interrupted: a signal was received; the command is killed.
    """
    started, first = time.perf_counter(), None
    with interruption.deferred(), tempfile.NamedTemporaryFile() as written, open(
        written.name, encoding="utf-8", errors="replace"
    ) as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=written, stderr=subprocess.STDOUT, env=dict(os.environ, PYTHONUNBUFFERED="1"))
        ended, seen = 0, "\n"
        while not ended:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            seen += output.read()
            if awaited is not None and first is None and "\n" + awaited in seen:
                first = time.perf_counter() - started
            if interruption.received() and not ended:
                process.kill()
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        interruption.check()
        if process.returncode:
            raise UserError(f"{command[1]}: exit code {process.returncode}: {seen[-300:]}")
    return Timing(seconds, first, usage.ru_maxrss * 1024, seen, usage.ru_utime + usage.ru_stime)
