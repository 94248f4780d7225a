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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
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
