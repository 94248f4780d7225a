"""How a command of this project ends: bad input is one line on standard error and exit code 2, a signal 130 or 143."""

import atexit
import errno
import os
import signal
import sys

from modeling.cli import interruption
from ofrecord_util.errors import UserError

__all__ = ["EXIT_BAD_INPUT", "UserError", "fail", "run"]

EXIT_BAD_INPUT = 2
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # may come at any write of any file


def _report(error):
    """Prints a `UserError`'s one line; returns its exit code."""
    _say("error: " + " ".join(str(error).split()))
    return EXIT_BAD_INPUT


def _say(line):
    sys.stdout.flush()
    print(line, file=sys.stderr)


def fail(error):
    """Prints a `UserError`'s one line and ends the process with exit code 2."""
    sys.exit(_report(error))


def run(main):
    """Calls `main()` as a script's entry; turns a `UserError` into its one line and exit code 2, SIGINT and SIGTERM into 130 and 143,
    a reader of its output that has gone (`| head`) into a silent 141, as a shell knows it.

    Args:
        main: function without arguments; what it returns (None or an int) is the exit code.
    """
    try:
        with interruption.noted():
            code = main()
        sys.stdout.flush()
    except UserError as error:
        code = _report(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the end
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
    """Ends the process with `code` and without OneFlow's C++ destructors.

    They race with its threads: 0.8.0 now and then aborts there ("terminate called without an active exception") when all
    work is done, and the exit code is lost. What Python has registered for its end still runs.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
