"""Deferred signals: SIGINT, SIGTERM, and SIGHUP and SIGXCPU, which batch systems send.

A Python exception inside a OneFlow call crashes the process. In a script that uses OneFlow the first signal is therefore only recorded, and
the script checks for it between two calls. Other tools are interrupted at once. A second signal ends the process without cleaning up.
"""

import contextlib
import os
import signal
import stat
from typing import Iterable, Iterator, Optional, TypeVar

Item = TypeVar("Item")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU)
_received = []
_raises = False  # whether the first signal raises `Interrupted` from its handler
_finished = False  # whether the work is complete, so that a signal no longer changes the result


class Interrupted(Exception):
    """A signal was received; `exit_code` is 128 plus its number: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted by " + signal.Signals(number).name)
        self.exit_code = 128 + number


def _record(number, _):
    if number == signal.SIGXCPU and _received:
        return  # the system repeats it every second of CPU time
    if _received:
        os._exit(128 + number)
    _received.append(number)
    if number == signal.SIGHUP:
        _leave_terminal()
    if _finished:
        return
    if _raises:
        raise Interrupted(number)
    with contextlib.suppress(OSError):
        os.write(2, b"\nstopping after this step; send the signal again to stop at once\n")


def _leave_terminal():
    """Sends the output to /dev/null where it went to the terminal, which is gone: each write would raise an error."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def noted(at_once: bool = False) -> Iterator[None]:
    """Context manager that records the signals while the block runs, so that they do not end the process.

    Args:
        at_once: whether the first signal raises `Interrupted` at once, for work that does not call OneFlow.
    """
    global _raises, _finished
    # nohup ignores SIGHUP for the commands that it starts
    numbers = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    _raises, _finished = at_once, False
    before = {number: signal.signal(number, _record) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()
        _raises = _finished = False


def received() -> Optional[int]:
    """Number of the recorded signal, or None."""
    return _received[0] if _received else None


def check() -> None:
    """Call this between two OneFlow calls.

    Raises:
        Interrupted: a signal was recorded.
    """
    if _received and not _finished:
        raise Interrupted(_received[0])


def finish() -> None:
    """Declares the work complete. From now on a signal does not interrupt it and does not change the exit code; a second one ends the
    process."""
    global _finished
    _finished = True


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Context manager in which the first signal is only recorded, for work with child processes that must end in order. It raises
    `Interrupted` at the end of the block, or where the block calls `check`."""
    global _raises
    before, _raises = _raises, False
    try:
        yield
    finally:
        _raises = before
    check()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Context manager in which a signal raises `Interrupted` at once, for work that waits and does not call OneFlow: a named pipe opens
    only when another program writes to it."""
    global _raises
    before, _raises = _raises, True
    try:
        check()
        yield
    finally:
        _raises = before


def interruptible(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the items of an iterable. A signal that arrives while the iterable waits for its next item, such as a line of standard
    input, raises `Interrupted` at once. The iterable must not call OneFlow."""
    iterator, end = iter(items), object()
    while True:
        with at_once():
            item = next(iterator, end)
        if item is end:
            return
        yield item  # type: ignore[misc]
