"""Results of a long benchmark on disk, one JSON object per line, so that the benchmark can be stopped at any time and continued."""

import json
import os


class Progress:
    """The results so far.

    Args:
        path: file of the results; None to keep them in memory only.
    Attributes:
        results: list of dict, in the order in which they were added. A line that a killed process did not end is left out.
    """

    def __init__(self, path):
        self._path, self.results = path, []
        if path and os.path.exists(path):
            with open(path, "rb") as file:
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self.results = [json.loads(line) for line in whole.splitlines()]
            if len(whole) < len(data):
                os.truncate(path, len(whole))

    def add(self, result):
        """Adds a result and writes it to the file."""
        self.results.append(result)
        if self._path:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
