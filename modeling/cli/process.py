"""Prepares the process of a script or tool. `modeling/__init__.py` calls `prepare` before any other module is imported.

This module imports only what Python has loaded at its start, so that the time in which Ctrl-C shows a traceback is short. `signal` and
`typing` would take longer than the rest of it.
"""

import _signal
import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_SCRIPT_FOLDERS = ("", "tools", "recipes", "benchmarks")

_closed: frozenset = frozenset()  # the standard streams that were closed when the process started


def runs_script() -> bool:
    """Whether this process runs a script or tool of the project. A program that imports the project keeps its own streams and signals."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return bool(path) and os.path.dirname(os.path.realpath(str(path))) in [
        os.path.join(_ROOT, name).rstrip("/") for name in _SCRIPT_FOLDERS
    ]


def prepare() -> None:
    """Lets SIGINT end the imports silently, makes one line of a fault of the imports, opens closed standard streams, and escapes characters
    that an output stream cannot encode.

    It does nothing in a process that does not run a script of the project.
    """
    if not runs_script():
        return
    # A KeyboardInterrupt inside an import shows a traceback, and inside that of OneFlow it becomes an ImportError. The default action ends
    # the process at once. `modeling.cli.errors.run` handles the signal from the first line of main() on
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    sys.excepthook = _say_fault_of_imports
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_closed(descriptor: int) -> bool:
    """Whether a standard stream (0, 1, 2) was closed when the process started. It is then /dev/null."""
    return descriptor in _closed


def _say_fault_of_imports(kind, error, trace):
    """The `sys.excepthook` until `modeling.cli.errors.run` starts. The user can install a package that is missing, and can mend a system
    that has no memory or no place for temporary files."""
    own = (getattr(error, "name", None) or "modeling").split(".")[0] in ("modeling", "ofrecord_util", "tools", "benchmarks", "tests")
    if not isinstance(error, (ImportError, OSError, MemoryError)) or (isinstance(error, ImportError) and own):
        sys.__excepthook__(kind, error, trace)
        return
    from ofrecord_util.escaping import say

    remedy = ""
    if isinstance(error, ImportError):
        remedy = ": install requirements.txt in a CPython 3.7 to 3.10 environment on x86-64 Linux (`make test` sets one up)"
    say("error: " + (" ".join(str(error).split()) or kind.__name__) + remedy, sys.stderr)
    sys.stdout.flush()
    os._exit(2)  # Python itself would exit with 1


def _open_streams():
    """Opens /dev/null in place of closed standard streams. Otherwise the next file that is opened, such as a snapshot, would have the
    number of the stream, and messages of C libraries would be written into it."""
    global _closed
    closed = []
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            closed.append(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    _closed = frozenset(closed)
