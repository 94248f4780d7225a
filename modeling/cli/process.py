"""Prepares the process of a script or tool. `modeling/__init__.py` calls `prepare` before any other module is imported."""

import os
import signal
import sys
from typing import FrozenSet

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_SCRIPT_FOLDERS = ("", "tools", "recipes", "benchmarks")

_EXIT_BAD_INPUT = 2  # EXIT_BAD_INPUT of modeling/cli/errors.py, which is imported later
_PACKAGES = {  # module: the package that has it
    **{name: name for name in ("matplotlib", "numpy", "oneflow", "rich", "safetensors", "scipy", "six", "tokenizers", "tqdm")},
    "google": "protobuf",
}
HOW_TO_INSTALL = "install requirements.txt in a CPython 3.7 to 3.10 environment on x86-64 Linux (`make test` sets one up)"

_closed: FrozenSet[int] = frozenset()  # the standard streams that were closed when the process started


def runs_script() -> bool:
    """Whether this process runs a script or tool of the project. A program that imports the project keeps its own streams and signals."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return bool(path) and os.path.dirname(os.path.realpath(str(path))) in [
        os.path.join(_ROOT, name).rstrip("/") for name in _SCRIPT_FOLDERS
    ]


def prepare() -> None:
    """Opens closed standard streams, escapes characters that an output stream cannot encode, and lets SIGINT end the imports silently.

    It does nothing in a process that does not run a script of the project.
    """
    if not runs_script():
        return
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # A KeyboardInterrupt inside an import shows a traceback, and inside that of OneFlow it becomes an ImportError. The default action ends
    # the process at once. `modeling.cli.errors.run` handles the signal from the first line of main() on
    sys.excepthook = _excepthook
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _excepthook(kind, error, trace):
    """Says in one line that a package is missing, as during the imports of a Python that is not the project's. It ends the process, because
    the exit code after an exception is otherwise 1."""
    package = _PACKAGES.get((getattr(error, "name", None) or "").split(".")[0])
    if not isinstance(error, ModuleNotFoundError) or package is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: the package {package} is not installed for {sys.executable}: {HOW_TO_INSTALL}", file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(_EXIT_BAD_INPUT)


def is_closed(descriptor: int) -> bool:
    """Whether a standard stream (0, 1, 2) was closed when the process started. It is then /dev/null."""
    return descriptor in _closed


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
