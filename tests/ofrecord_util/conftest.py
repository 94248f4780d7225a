"""Makes `corpus_samples`, `ofrecord_samples` and `split_data` importable: pytest's importlib mode puts no test folder on the path."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from split_data import Data


@pytest.fixture
def data(tmp_path):
    """The folder of a test of `Dataset`; other test files have their own `data`."""
    return Data(tmp_path)
