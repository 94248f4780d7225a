"""The one way in which a command of this project says that its input is bad: one line on standard error, exit code 2."""

import sys

EXIT_BAD_INPUT = 2


class UserError(Exception):
    """Bad input (a flag, a file, a value). The message is one line that names file, row and value, and the flag or step that mends it."""


def fail(error):
    """Prints a `UserError`'s one line and ends the process with exit code 2."""
    sys.stdout.flush()
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def run(main):
    """Calls `main()` as a script's entry and turns a `UserError` into its one line and exit code 2.

    Args:
        main: function without arguments; what it returns (None or an int) is the exit code.
    """
    try:
        sys.exit(main())
    except UserError as error:
        fail(error)
