"""Signs of life of the ranks of a run, for the process that supervises them (modeling/engine/launch.py).

The supervisor opens one file per rank, which the rank inherits. A rank writes the time into its file whenever it starts a graph or meets
the other ranks. The file of rank 0 also holds the path of the run's log.
"""

import os
import struct
import time
from typing import BinaryIO, Optional

FD_VARIABLE = "RANK_PULSE_FD"  # environment variable with the file descriptor
_TIME = struct.Struct("<d")


def _descriptor():
    value = os.environ.get(FD_VARIABLE, "")
    return int(value) if value.isdigit() else None


_own = _descriptor()


def beat() -> None:
    """Records that this rank is alive. It does nothing in a process without a supervisor."""
    if _own is not None:
        # CLOCK_MONOTONIC is the same for all processes of a machine
        os.pwrite(_own, _TIME.pack(time.monotonic()), 0)


def tell_log(path: str) -> None:
    """Tells the supervisor the path of the run's log, to which it adds the error of a rank."""
    if _own is not None:
        os.pwrite(_own, os.fsencode(os.path.abspath(path)), _TIME.size)


def last_beat(file: BinaryIO, started: float) -> float:
    """Time of the last sign of life of a rank (`time.monotonic`), or `started` if there was none.

    Args:
        file: the rank's file.
        started: when the rank was started.
    """
    data = os.pread(file.fileno(), _TIME.size, 0)
    return max(started, _TIME.unpack(data)[0]) if len(data) == _TIME.size else started


def log_path(file: BinaryIO) -> Optional[str]:
    """The path that a rank has told with `tell_log`, or None."""
    return os.fsdecode(os.pread(file.fileno(), 1 << 16, _TIME.size)) or None
