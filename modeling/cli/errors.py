"""Exit codes and error lines. Bad input, a fault of the system (disk, memory, rights) and a signal each print one line on standard error.

| exit code | end |
| --- | --- |
| 0 | success |
| 2 | bad input, or a fault of the system |
| 128 + n | signal n: 129 SIGHUP, 130 SIGINT, 143 SIGTERM, 152 SIGXCPU; 141 if the reader of the output has gone |
"""

import atexit
import contextlib
import errno
import os
import signal
import sys
import traceback
from typing import Any, Callable, List, Optional

from modeling.cli import advice, interruption
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say

__all__ = ["EXIT_BAD_INPUT", "UserError", "fail", "on_failure", "run"]

EXIT_BAD_INPUT = 2
_LONGEST_LINE = 2000  # characters; a value in it may be as long as the user likes

_witnesses: List[Callable[[str], Any]] = []
_leaving = False


def on_failure(witness: Callable[[str], Any]) -> None:
    """Registers a function for the current `run`. If the run ends with an error or a signal, the function gets the text of it before it
    is printed: one line, and for an error that is not a `UserError` the traceback too."""
    _witnesses.append(witness)


def _end(line, details=""):
    """Tells the witnesses how the run ended, and prints the line."""
    _tell_witnesses(line, details)
    _say(line)


def _tell_witnesses(line, details=""):
    for witness in _witnesses:
        with contextlib.suppress(OSError, ValueError):  # the same full disk or closed file, perhaps
            witness(line + ("\n" + details.rstrip() if details else ""))


def _one_line(error):
    line = " ".join(str(error).split())
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 500]} … {line[-400:]}"


def _say(line):
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        say(line, sys.stderr)


def fail(error: UserError) -> None:
    """Prints the line of a `UserError` and ends the process with exit code 2."""
    _end("error: " + advice.fitting(_one_line(error)))
    sys.exit(EXIT_BAD_INPUT)


def _system_fault(error):
    """Line of an `OSError`, `MemoryError` or `RecursionError`."""
    if isinstance(error, MemoryError):
        return f"not enough memory ({_one_line(error) or 'the system gives no more'}): give smaller batches or shorter texts"
    if isinstance(error, RecursionError):
        return f"the input is nested too deeply ({_one_line(error)})"
    # only the current folder can be missing without a name; other calls without a name write
    place = error.filename or ("the current folder" if error.errno == errno.ENOENT else "the output")
    place = f"{place} -> {error.filename2}" if error.filename2 else place
    return f"{_one_line(os.fsdecode(place) if isinstance(place, bytes) else place)}: {error.strerror or _one_line(error)}"


def run(main: Callable[[], Optional[int]]) -> None:
    """Runs `main()` as the entry point of a script and ends the process.

    A `UserError`, an `OSError`, a `MemoryError` and a `RecursionError` print one line and exit with 2. A signal exits with 128 plus its
    number. A closed standard output (`| head`) exits with 141 and prints nothing, as shell commands do.

    Args:
        main: function without arguments that returns the exit code, None for 0.
    Raises:
        SystemExit: always, unless OneFlow was imported; then the process ends without an exception.
        Exception: any other exception of `main()` is an error of this program and keeps its traceback.
    """
    _witnesses.clear()
    advice.forget_flags()
    sys.excepthook = sys.__excepthook__  # from here on an exception that nothing catches is an error of this program
    code: Any
    try:
        with interruption.noted(at_once="oneflow" not in sys.modules):
            code = main()
            interruption.check()
        sys.stdout.flush()
    except UserError as error:
        _end("error: " + advice.fitting(_one_line(error)))
        code = EXIT_BAD_INPUT
    except BrokenPipeError:
        _tell_witnesses("the reader of the output has gone")
        _discard_output()
        code = 128 + signal.SIGPIPE
    except (OSError, MemoryError, RecursionError) as error:
        _end("error: " + _system_fault(error), traceback.format_exc())
        _discard_output(only_broken=True)
        code = EXIT_BAD_INPUT
    except interruption.Interrupted as end:
        _end(str(end))
        code = end.exit_code
    except SystemExit as end:  # argparse's
        code = end.code
    except Exception as error:
        _tell_witnesses(f"error: {type(error).__name__}: {_one_line(error)}", traceback.format_exc())
        raise
    if main.__module__ == "__main__" and "oneflow" in sys.modules and isinstance(code, (int, type(None))):
        _leave(code or 0)
    sys.exit(code)


def _discard_output(only_broken=False):
    """Sends what is left of the output to /dev/null. Python flushes it at exit, and would report the error of a broken stream again."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if only_broken:
                try:
                    stream.flush()
                    continue
                except OSError:
                    pass
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_leaving() -> bool:
    """Whether `run` ends the process now, without the destructors of its libraries."""
    return _leaving


def _leave(code):
    """Ends the process with `code`; runs the functions registered with atexit, but not OneFlow's C++ destructors.

    The destructors race with OneFlow's threads. OneFlow 0.8.0 sometimes aborts there ("terminate called without an active
    exception"), and the exit code is lost.
    """
    global _leaving
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    _leaving = True
    atexit._run_exitfuncs()
    os._exit(code)
