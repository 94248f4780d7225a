"""The log of a script: lines on the terminal and, with the time, in `run.log` or another log file."""

import fcntl
import os
import time

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_terminal
from ofrecord_util.files import open_to_append

LOG_FILE = "run.log"
READY = "compiling the graphs"  # end of the line of a training run that has read its records and models; tools/sweep.py waits for it


class Log:
    """Prints lines on standard output and appends them, with the time, to a file. Names in a line may come from files of others: characters
    that a terminal would obey are shown as escape sequences.

    Args:
        path: the log file; None for standard output only.
        exclusive: whether to lock the file, so that only one process at a time can use its folder.
        silent: whether to suppress all output, for all ranks except the first.
    Raises:
        UserError: another process has locked the file, or its name is taken by a link or a FIFO (see `files.open_to_append`).
    """

    def __init__(self, path=None, exclusive=False, silent=False):
        self._silent = silent
        self._file = open_to_append(path) if path else None
        if exclusive:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{os.path.dirname(path)}: another process is writing to this folder") from error
        self._waiting = []  # lines with their times until there is a file, see `continue_in`
        self.progress = None  # a tqdm bar that must be cleared before a line is printed

    def __call__(self, line):
        if self._silent:
            return
        line = for_terminal(line)
        if self.progress is not None:
            self.progress.clear()
        print(line, flush=True)
        if self.progress is not None:
            self.progress.refresh()
        self.note(line)

    def note(self, text):
        """Adds lines to the file only."""
        if self._silent:
            return
        now = time.strftime("%Y-%m-%d %H:%M:%S ")
        lines = [now + line + "\n" for line in text.splitlines() or [""]]
        if self._file:
            self._file.write("".join(lines))
        else:
            self._waiting += lines

    def continue_in(self, other):
        """Moves the file of another `Log` to this one, and writes all lines so far to it."""
        self._file, other._file = other._file, None
        self._file.write("".join(self._waiting))
        self._waiting = []

    def close(self):
        """Closes the file and releases its lock."""
        if self._file:
            self._file.close()
