"""SIGINT and SIGTERM as a flag that is read between steps: OneFlow dies of an exception raised inside one of its calls.

The first signal lets the step in hand end; a second one ends the process at once.
"""

import contextlib
import os
import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received = []


class Interrupted(Exception):
    """A signal asked the run to end; `exit_code` is 130 for SIGINT and 143 for SIGTERM."""

    def __init__(self, number):
        super().__init__("interrupted by " + signal.Signals(number).name)
        self.exit_code = 128 + number


def _note(number, _):
    if _received:
        os._exit(128 + number)
    _received.append(number)
    os.write(2, b"\nstopping after this step; once more to stop at once\n")


@contextlib.contextmanager
def noted():
    """Notes both signals instead of dying of them, while the block runs."""
    before = {number: signal.signal(number, _note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def received():
    """The number of the signal that has come, or None."""
    return _received[0] if _received else None


def check():
    """Raises `Interrupted` where a signal has come; between two calls of OneFlow."""
    if _received:
        raise Interrupted(_received[0])
