"""The lines that a script says: on the terminal and, with the time before them, in `run.log` or its log file."""

import fcntl
import os
import time

from ofrecord_util.errors import UserError

LOG_FILE = "run.log"


class Log:
    """Lines for the terminal (standard output) and, with the time before them, for a file.

    Args:
        path: the log file, appended to; None for the terminal alone.
        exclusive: the file's folder belongs to one process as long as it lives.
        silent: nothing is said anywhere, as for all ranks but the first.
    Raises:
        UserError: another process has the folder.
    """

    def __init__(self, path=None, exclusive=False, silent=False):
        self._silent = silent
        self._file = open(path, "a", encoding="utf-8", buffering=1) if path else None
        if exclusive:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{os.path.dirname(path)}: another process is writing this run") from error
        self.progress = None  # a tqdm bar that must be lifted for a line

    def __call__(self, line):
        if self._silent:
            return
        if self.progress is not None:
            self.progress.clear()
        print(line, flush=True)
        if self.progress is not None:
            self.progress.refresh()
        if self._file:
            self._file.write(time.strftime("%Y-%m-%d %H:%M:%S ") + line + "\n")

    def close(self):
        """Closes the file and with it lets its folder go."""
        if self._file:
            self._file.close()
