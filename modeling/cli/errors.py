"""Exit codes and error lines: bad input prints one line on standard error and exits with 2; a signal exits with 130 or 143."""

import atexit
import errno
import os
import signal
import sys
from typing import Callable, Optional

from modeling.cli import interruption
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_terminal

__all__ = ["EXIT_BAD_INPUT", "UserError", "fail", "run"]

EXIT_BAD_INPUT = 2
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # any write to any file can raise these


def _report(error):
    """Prints the line of a `UserError` and returns its exit code."""
    _say(for_terminal("error: " + " ".join(str(error).split())))
    return EXIT_BAD_INPUT


def _say(line):
    sys.stdout.flush()
    print(line, file=sys.stderr)


def fail(error: UserError) -> None:
    """Prints the line of a `UserError` and ends the process with exit code 2."""
    sys.exit(_report(error))


def run(main: Callable[[], Optional[int]]) -> None:
    """Runs `main()` as the entry point of a script and ends the process.

    A `UserError`, or an `OSError` of a full or broken disk, prints one line and exits with 2. SIGINT exits with 130 and
    SIGTERM with 143. A closed standard output (`| head`) exits with 141 and prints nothing, as shell commands do.

    Args:
        main: function without arguments that returns the exit code, None for 0.
    Raises:
        SystemExit: always, unless OneFlow was imported; then the process ends without an exception.
    """
    try:
        with interruption.noted():
            code = main()
        sys.stdout.flush()
    except UserError as error:
        code = _report(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes the rest at exit
        code = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _DISK_FAULTS:
            raise
        code = _report(f"{error.filename or 'the output folder'}: {error.strerror}")
    except interruption.Interrupted as end:
        _say(str(end))
        code = end.exit_code
    except SystemExit as end:  # argparse's
        code = end.code
    if main.__module__ == "__main__" and "oneflow" in sys.modules and isinstance(code, (int, type(None))):
        _leave(code or 0)
    sys.exit(code)


def _leave(code):
    """Ends the process with `code`; runs the functions registered with atexit, but not OneFlow's C++ destructors.

    The destructors race with OneFlow's threads. OneFlow 0.8.0 sometimes aborts there ("terminate called without an active
    exception"), and the exit code is lost.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
