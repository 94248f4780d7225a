"""Makes `tiny` importable: pytest's importlib mode puts no test folder on the path."""

import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

# Under nohup, or in the background of a script, signals are ignored, and the processes of the tests would inherit this
for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, default)


@pytest.fixture(autouse=True, scope="module")
def graphs_are_let_go():
    """A file's graphs go with its tests: kept to the end, those of the whole suite are a thousand threads and 12 GB."""
    yield
    if "modeling.engine.workarounds" in sys.modules:
        sys.modules["modeling.engine.workarounds"].forget_graphs()
