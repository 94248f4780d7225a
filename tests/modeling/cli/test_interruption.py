"""modeling/cli/interruption.py: a first signal is noted, a second one ends the process."""

import os
import signal
import subprocess
import sys

import pytest
from tiny_model import ROOT

from modeling.cli import interruption

PROGRAM = """
import os, signal
from modeling.cli import interruption
with interruption.noted():
    for number in SIGNALS:
        os.kill(os.getpid(), number)
        print("alive after", number, flush=True)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGXCPU, 152)])
def test_first_signal_is_noted(number, code):
    before = signal.getsignal(number)
    with interruption.noted():
        interruption.check()
        assert interruption.received() is None
        os.kill(os.getpid(), number)
        with pytest.raises(interruption.Interrupted, match=f"interrupted by {number.name}") as error:
            interruption.check()
    assert error.value.exit_code == code
    assert interruption.received() is None
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("signals", "code"), [((2, 2), 130), ((15, 15), 143), ((2, 15), 143)])
def test_second_signal_ends_at_once(signals, code):
    program = PROGRAM.replace("SIGNALS", repr(signals))
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout == f"alive after {signals[0]}\n"
    assert "send the signal again to stop at once" in done.stderr


def test_the_system_repeats_sigxcpu():
    program = PROGRAM.replace("SIGNALS", "(24, 24, 24)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.count("alive after 24") == 3


def test_nohup_stays():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.noted():
            os.kill(os.getpid(), signal.SIGHUP)
            interruption.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_work_without_oneflow_is_interrupted_at_once():
    with interruption.noted(at_once=True), pytest.raises(interruption.Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_waiting_for_input_is_interrupted_at_once():
    """Between the items the signal is recorded only."""

    def lines():
        yield "first"
        os.kill(os.getpid(), signal.SIGINT)  # as while a pipe is empty
        pytest.fail("the signal was ignored")

    with interruption.noted():
        items = interruption.interruptible(lines())
        assert next(items) == "first"
        with pytest.raises(interruption.Interrupted, match="SIGINT"):
            next(items)
    with interruption.noted():
        items = interruption.interruptible(iter(["first", "second"]))
        next(items)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(interruption.Interrupted, match="SIGINT"):
            next(items)


def test_complete_work_is_not_interrupted():
    with interruption.noted():
        interruption.finish()
        os.kill(os.getpid(), signal.SIGTERM)
        interruption.check()
    with interruption.noted():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(interruption.Interrupted):
            interruption.check()


def test_work_with_child_processes_is_interrupted_at_its_end():
    ended = []

    def work():
        with interruption.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append(True)

    with interruption.noted(at_once=True), pytest.raises(interruption.Interrupted):
        work()
    assert ended
