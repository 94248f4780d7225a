"""Deferred SIGINT and SIGTERM.

A Python exception inside a OneFlow call crashes the process. The first signal is therefore only recorded, and the training loop
checks for it between steps. A second signal ends the process at once.
"""

import contextlib
import os
import signal
from typing import Iterator, Optional

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received = []


class Interrupted(Exception):
    """A signal was received; `exit_code` is 130 for SIGINT and 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted by " + signal.Signals(number).name)
        self.exit_code = 128 + number


def _record(number, _):
    if _received:
        os._exit(128 + number)
    _received.append(number)
    os.write(2, b"\nstopping after this step; send the signal again to stop at once\n")


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Context manager that records both signals while the block runs, so that they do not end the process."""
    before = {number: signal.signal(number, _record) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def received() -> Optional[int]:
    """Number of the recorded signal, or None."""
    return _received[0] if _received else None


def check() -> None:
    """Call this between two OneFlow calls.

    Raises:
        Interrupted: a signal was recorded.
    """
    if _received:
        raise Interrupted(_received[0])
