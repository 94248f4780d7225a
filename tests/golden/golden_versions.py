"""The versions that made a golden file, which the file stores as JSON under ``versions``."""

import platform
import unicodedata
from importlib.metadata import version


def versions(*packages):
    """Returns the versions of Python, of its Unicode tables and of `packages`, by name."""
    found = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "unicode": unicodedata.unidata_version, **found}
