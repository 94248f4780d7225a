"""Makes `run_folder` importable: pytest's importlib mode puts no test folder on the path."""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
