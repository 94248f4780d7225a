"""Puts the project's root on the import path of a script that runs as a file. Such a script imports this file before anything else.

Python puts the script's own folder first on the path. This file replaces that entry, because tools/inspect.py would hide the module
inspect of the standard library. The files _root.py in the other folders are symbolic links to this one.
"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

import modeling  # noqa: E402, F401  prepares the process before the other imports (modeling/cli/process.py)
