"""`metrics.jsonl`: one JSON object per line, for each training report and each evaluation."""

import json
import os

import numpy as np

from ofrecord_util.files import replacing

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Appends one JSON object per line to `metrics.jsonl` and keeps the objects for the curves. Without `writes` it only keeps them."""

    def __init__(self, folder, writes=True):
        self.folder, self.rows = folder, []
        self._path = os.path.join(folder, METRICS_FILE)
        self._file = open(self._path, "a", encoding="utf-8", buffering=1) if writes else None  # noqa: SIM115  open for the whole run

    def continue_from(self, step):
        """Keeps the earlier rows of steps before `step`, and all rows of the current process. `step` will be reported again."""
        if self._file is None:
            return
        with open(self._path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        self.rows = [row for row in lines if row.get("step", step) < step] + self.rows
        with replacing(self._path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode("utf-8"))
        self._file.close()
        self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def add(self, kind, **values):
        """Adds one object of a kind ("train", "dev", "test", …)."""
        row = dict(kind=kind, **values)
        self.rows.append(row)
        if self._file:
            self._file.write(json.dumps(row) + "\n")


def mean_rows(rows):
    """Element-wise mean of a list of float arrays."""
    return np.mean(np.stack(rows), axis=0)
