"""What the label of a sample is, by the type of its task (`--task_type`): a class, a number, or a set of names.

All rules about labels as data are here: how a cell of a text is read, what a record holds, how rows are counted and how a label is
written. `modeling/objectives/losses.py` has the losses of the three types, `modeling/run/task_outputs.py` what their logits mean.
"""

import math
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ofrecord_util.errors import UserError

TASK_TYPES = CLASSIFICATION, REGRESSION, MULTI_LABEL = ("classification", "regression", "multi_label")

SEPARATORS = ",|"  # between the names of a set of labels; the first is the one that is written
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z")
# The largest number of a regression. Losses are squares in float32, whose largest number is 3.4e38: those of 100 million samples have a sum
LARGEST_NUMBER = 1e15


class Classes:
    """Classification: one of the task's labels. Its value is the position in the list of labels.

    Attributes:
        task_type: value of `--task_type`.
        problem_type: the same in config.json of Hugging Face.
        limits: least and greatest number of names in `Task.labels`, which is the number of outputs of the classifier.
        default_labels: names of the outputs if nothing gives them; None if the text has the names.
        exclusive: whether a sample has exactly one of the labels.
        by_position: whether a text may have positions from 0 in place of names.
        record_kind, dtype: of the feature `label` of a record, see `ofrecord_util/schema.py`.
    """

    task_type, problem_type = CLASSIFICATION, "single_label_classification"
    limits: Tuple[int, float] = (2, math.inf)
    default_labels: Optional[Tuple[str, ...]] = None
    exclusive = by_position = True
    record_kind = "int32_list"
    dtype: Any = np.int32

    def count(self, num_labels: int) -> Optional[int]:  # noqa: ARG002
        """Number of values in the feature `label` of a record; None for one value without an axis of its own."""
        return None

    def names(self, cell: str) -> List[str]:
        """The names of labels in a cell of text."""
        return [cell.strip()]

    def splits(self, name: str) -> bool:  # noqa: ARG002
        """Whether a name of a label would be read as several."""
        return False

    def json_text(self, value: Any) -> Optional[str]:
        """The cell for a label of JSON lines; None if it is no label."""
        return str(value) if isinstance(value, int) else value if isinstance(value, str) else None

    def read(self, cell: str, task: Any) -> Any:
        """The value of a cell of text.

        Args:
            cell: str.
            task: `Task`.

        Raises:
            UserError: the task has no such label.
        """
        return task.label_id(cell)

    def digest_text(self, value: Any) -> str:
        """A value of `read` for the digest of a text."""
        return str(value)

    def array(self, values: Sequence[Any], num_labels: int) -> np.ndarray:  # noqa: ARG002
        """Values of `read` as the array of `Records`: int32 [N]."""
        return np.array(values, self.dtype)

    def wrong(self, label: np.ndarray, num_labels: int) -> Optional[Tuple[int, str]]:
        """(row, what is allowed) of the first invalid value of an array of labels; None if all are valid."""
        bad = np.flatnonzero((label < 0) | (label >= num_labels))
        return (int(bad[0]), f"0 to {num_labels - 1}") if bad.size else None

    def counts(self, label: np.ndarray, num_labels: int) -> np.ndarray:
        """Number of samples with each label: int [C]."""
        return np.bincount(label, minlength=num_labels)

    def spell(self, value: Any, labels: Sequence[str]) -> str:
        """A value of an array of labels for people: the name."""
        return labels[value]

    def warning(self, label: np.ndarray) -> Optional[str]:  # noqa: ARG002
        """What is odd about the labels of all rows of a split apart from those that are missing; None if nothing is."""
        return None

    def summary(self, label: np.ndarray, labels: Sequence[str]) -> Optional[str]:  # noqa: ARG002
        """What a line of the log says of the labels of some rows; None for a count of each label."""
        return None


class Numbers(Classes):
    """Regression: a number of at most LARGEST_NUMBER. The one output has a name too, `score` unless `--label_list` gives another."""

    task_type, problem_type = REGRESSION, "regression"
    limits = (1, 1)
    default_labels = ("score",)
    exclusive = by_position = False
    record_kind = "float_list"
    dtype = np.float32

    def names(self, cell: str) -> List[str]:  # noqa: ARG002
        return []

    def json_text(self, value: Any) -> Optional[str]:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return repr(value) if number else value if isinstance(value, str) else None

    def read(self, cell: str, task: Any) -> float:  # noqa: ARG002
        """The number. UserError if the cell is none, or its square is too large for float32."""
        word = cell.strip()
        if not _NUMBER.match(word):
            raise UserError(
                f"the label {word!r:.60} is not a finite number (--task_type regression); --label_column chooses another column"
            )
        value = float(word)
        if abs(value) > LARGEST_NUMBER:
            raise UserError(
                f"the label {word!r:.60} is not from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}, and float32 cannot add up the squares of "
                "larger numbers: divide all labels by the same number"
            )
        return value

    def digest_text(self, value: Any) -> str:
        return repr(float(value))

    def wrong(self, label: np.ndarray, num_labels: int) -> Optional[Tuple[int, str]]:  # noqa: ARG002
        bad = np.flatnonzero(~(np.abs(label) <= np.float32(LARGEST_NUMBER)))  # so that NaN is bad
        return (int(bad[0]), f"{-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}") if bad.size else None

    def counts(self, label: np.ndarray, num_labels: int) -> np.ndarray:  # noqa: ARG002
        return np.array([len(label)])

    def spell(self, value: Any, labels: Sequence[str]) -> str:  # noqa: ARG002
        return f"{float(value):.6g}"

    def warning(self, label: np.ndarray) -> Optional[str]:
        if len(label) < 2 or label.min() < label.max():
            return None
        return f"all {len(label)} rows have the number {float(label[0]):g}: there is no correlation to learn or to measure"

    def summary(self, label: np.ndarray, labels: Sequence[str]) -> Optional[str]:
        if not len(label):
            return "no rows"
        values = label.astype(np.float64)
        spread = f"mean {values.mean():.4g}, standard deviation {values.std():.4g}"
        return f"{labels[0]} from {values.min():.4g} to {values.max():.4g}, {spread}"


class Sets(Classes):
    """Multi-label classification: any number of the task's labels. Its value in a text is a tuple of positions, in arrays and records one 0
    or 1 for each label."""

    task_type, problem_type = MULTI_LABEL, "multi_label_classification"
    limits = (1, math.inf)
    exclusive = by_position = False

    def count(self, num_labels: int) -> Optional[int]:
        return num_labels

    def names(self, cell: str) -> List[str]:
        """The names of a cell, of which each is given once; an empty cell has none.

        Raises:
            UserError: there is no name before, after or between two separators.
        """
        if not cell.strip():
            return []
        words = [word.strip() for word in re.split(f"[{re.escape(SEPARATORS)}]", cell)]
        if not all(words):
            raise UserError(f"an empty name in the labels {cell.strip()!r:.60}; a row without labels has an empty cell")
        return words

    def splits(self, name: str) -> bool:
        return not set(SEPARATORS).isdisjoint(name)

    def json_text(self, value: Any) -> Optional[str]:
        if isinstance(value, list) and all(isinstance(name, str) and name.strip() and not self.splits(name) for name in value):
            return SEPARATORS[0].join(value)
        return value if isinstance(value, str) else None

    def read(self, cell: str, task: Any) -> Tuple[int, ...]:
        """Positions of the labels, ascending. UserError if the task has no such label, or a name is empty or given twice."""
        found = [task.label_id(name) for name in self.names(cell)]
        if len(set(found)) < len(found):
            raise UserError(f"a label occurs twice in {cell.strip()!r:.60}; write each label once")
        return tuple(sorted(found))

    def digest_text(self, value: Any) -> str:
        return ",".join(map(str, value))

    def array(self, values: Sequence[Any], num_labels: int) -> np.ndarray:
        """int32 [N, C], 1 for the labels of a sample."""
        label = np.zeros((len(values), num_labels), self.dtype)
        for row, positions in enumerate(values):
            label[row, list(positions)] = 1
        return label

    def wrong(self, label: np.ndarray, num_labels: int) -> Optional[Tuple[int, str]]:  # noqa: ARG002
        bad = np.flatnonzero(((label < 0) | (label > 1)).any(axis=1))
        return (int(bad[0]), "0 and 1 for each label") if bad.size else None

    def counts(self, label: np.ndarray, num_labels: int) -> np.ndarray:
        return label.reshape(-1, num_labels).sum(axis=0)

    def spell(self, value: Any, labels: Sequence[str]) -> str:
        return spell_set(name for name, there in zip(labels, value) if there)

    def summary(self, label: np.ndarray, labels: Sequence[str]) -> Optional[str]:
        """The number of labels of a row; the counts of each label follow it."""
        sizes = label.reshape(-1, len(labels)).sum(axis=1)
        return f"{sizes.mean() if len(sizes) else 0:.2f} labels per row, {int((sizes == 0).sum())} rows without one"


def spell_set(names: Any) -> str:
    """A set of labels as it is written: its names with commas."""
    return SEPARATORS[0].join(names)


LABEL_KINDS: Dict[str, Classes] = {kind.task_type: kind for kind in (Classes(), Numbers(), Sets())}
