"""Makes `tiny` importable: pytest's importlib mode puts no test folder on the path."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture(autouse=True, scope="module")
def graphs_are_let_go():
    """A file's graphs go with its tests: kept to the end, those of the whole suite are a thousand threads and 12 GB."""
    yield
    if "modeling.engine.workarounds" in sys.modules:
        sys.modules["modeling.engine.workarounds"].forget_graphs()
