"""modeling/engine/launch.py: the signals of a run of several processes. The runs themselves: tests/test_parallel.py."""

import os
import signal
import sys

from modeling.engine.launch import _Ranks

SLEEPS = "import time; time.sleep(60)"


def test_a_signal_during_the_start_reaches_all_processes(monkeypatch):
    """It may come before the last process has started."""
    monkeypatch.setattr(sys, "argv", ["-c", SLEEPS])
    before = signal.getsignal(signal.SIGTERM)
    with _Ranks([dict(os.environ)] * 2, 0, 50.0) as ranks:
        os.kill(os.getpid(), signal.SIGTERM)
        assert ranks.wait() == 128 + signal.SIGTERM
        assert [process.returncode for process in ranks._processes] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == before
