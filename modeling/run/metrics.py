"""`metrics.jsonl`: one JSON object per line, for each training report and each evaluation."""

import json
import os

import numpy as np

from modeling.run.held_out import held_out_name
from modeling.run.measures import FURTHER, INTERVALS, MSE, OF_PARTS, TASKS, TEXT_SCORES, ClassMeasures, values_needed
from ofrecord_util.errors import UserError
from ofrecord_util.files import open_to_append, replacing
from ofrecord_util.json_reading import read_json_lines

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Appends one JSON object per line to `metrics.jsonl` and keeps the objects for the curves. Without `writes` it only keeps them."""

    def __init__(self, folder, writes=True):
        self.folder, self.rows = folder, []
        self._path = os.path.join(folder, METRICS_FILE)
        self._existed = os.path.exists(self._path)
        self._file = open_to_append(self._path) if writes else None

    def continue_from(self, step):
        """Keeps the earlier rows of steps before `step`, and all rows of the current process. `step` will be reported again.

        Returns:
            a warning if the file was missing, None otherwise.
        Raises:
            UserError: a line is damaged. The message names it.
        """
        if self._file is None:
            return None
        self.rows = [row for row in read_metrics(self._path) if row.get("step", step) < step] + self.rows
        with replacing(self._path) as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode("utf-8"))
        self._file.close()
        self._file = open_to_append(self._path)
        return None if self._existed else f"warning: {self._path} was missing: it has no lines of the steps before {step}"

    def close(self):
        """Closes the file, which takes no more rows."""
        if self._file is not None:
            self._file.close()

    def add(self, kind, **values):
        """Adds one object of a kind ("train", "dev", "test", …)."""
        row = dict(kind=kind, **values)
        self.rows.append(row)
        if self._file:
            self._file.write(json.dumps(row) + "\n")


_MEASURED = ("dev", "test", *map(held_out_name, ("dev", "test")))
EVALUATED = (*_MEASURED, *("teacher_" + name for name in _MEASURED))  # kinds of rows that are evaluations


def read_metrics(path):
    """The objects of a metrics.jsonl, without a last line that a killed run did not end.

    Raises:
        UserError: a line is damaged, or lacks what the readers of the file need. The message names the line.
    """
    rows, remedy = [], "no run writes this: restore the file, or remove the line"
    for number, row in read_json_lines(path, remedy):
        try:
            rows.append(_checked_row(row))
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}; {remedy}") from error
    return rows


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _checked_row(row):
    """Checks one object of metrics.jsonl and returns it. The ValueError says what is wrong in it."""
    if not isinstance(row.get("kind"), str):
        raise ValueError("it is not an object with a kind")
    if not _is_number(row.get("step", 0)):
        raise ValueError("step is not a number")
    if row["kind"] == "train":
        odd = [name for name, value in row.items() if name != "kind" and not _is_number(value)]
        if odd or "step" not in row:
            raise ValueError(f"{', '.join(odd) or 'step'} is not a number")
    elif row["kind"] in EVALUATED:
        by_domain = row.get("by_domain", {})
        if not isinstance(by_domain, dict):
            raise ValueError("by_domain is not an object")
        counted = ("total",) if MSE in row else ("correct", "total")
        for values in (row, *by_domain.values()):
            names = (*values_needed(row), *counted)
            odd = [name for name in names if not isinstance(values, dict) or not _is_number(values.get(name))]
            if odd or values["total"] < 1 or not 0 <= values.get("correct", 0) <= values["total"]:
                raise ValueError(f"an evaluation has invalid {', '.join(odd) or 'counts'}")
            odd = [name for name in (*FURTHER, *OF_PARTS) if name in values and not _is_number(values[name])]
            if odd:
                raise ValueError(f"an evaluation has invalid {', '.join(odd)}")
        tasks = row.get(TASKS, 1)
        if type(tasks) is not int or tasks < 1:
            raise ValueError(f"an evaluation has invalid {TASKS}")
        _check_details(row)
    elif row["kind"] == "generation":
        odd = [name for name in ("rows", "ended", *TEXT_SCORES) if not _is_number(row.get(name))]
        if odd or not isinstance(row.get("split"), str):
            raise ValueError(f"generated texts have invalid {', '.join(odd) or 'split'}")
    return row


def _check_details(row):
    """Checks the keys of an evaluation that runs of earlier versions do not have."""
    classes, intervals = row.get("by_class", {}), row.get("intervals", {})
    for name, values, kind in (("by_class", classes, dict), ("intervals", intervals, list)):
        if not isinstance(values, dict) or not all(isinstance(value, kind) for value in values.values()):
            raise ValueError(f"{name} is not an object of {'objects' if kind is dict else 'lists'}")
    if not all(_is_number(values.get(name)) for values in classes.values() for name in ClassMeasures._fields):
        raise ValueError(f"by_class lacks one of {', '.join(ClassMeasures._fields)}")
    if not all(name in INTERVALS and len(ends) == 2 and all(map(_is_number, ends)) for name, ends in intervals.items()):
        raise ValueError("intervals has another key, or not two numbers")


def mean_rows(rows, counts):
    """Element-wise mean of float arrays, one for each step, over the samples of all steps.

    Args:
        rows: list of float arrays, the means of a step.
        counts: number of samples of each step.
    """
    return np.average(np.stack(rows), axis=0, weights=counts)
