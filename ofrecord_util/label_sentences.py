"""Sentences that say what a label means, such as "it was terrible": rows `text TAB label` of a file, without a domain."""

import contextlib
import dataclasses
from typing import Dict, Iterator

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.reading import TEXT_LIMIT, read_bytes
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit, read_text
from ofrecord_util.text_files import decode_text, rows_of_text

_FLAG = "--label_sentences"


@contextlib.contextmanager
def _own_remedies(path: str) -> Iterator[None]:
    """Replaces remedies of messages about training text that do not mend this file: flags that name its columns, and other labels."""
    try:
        yield
    except UserError as error:
        message = str(error)
        before, sign, remedy = message[len(path) :].rpartition("; ")  # the path may have a "; " of its own
        if not message.startswith(path):
            raise
        if "_column" in remedy or "--text_format" in remedy:
            own = "name the columns text and label, or write text TAB label without a header"
        elif remedy.startswith("--label_list"):
            own = "correct the label, or remove the row"
        else:
            raise
        raise UserError(f"{path}{before}{sign}{own}") from error


def read_label_sentences(path: str, task: Task) -> TextSplit:
    """The rows of the file of --label_sentences.

    Args:
        path: of a file with the columns text and label, in the formats of training text.
        task: `Task`, without pairs.

    Returns:
        `TextSplit` whose rows have the first domain of the task, since they belong to none.

    Raises:
        UserError: names file and row: an unreadable or empty file, another number of columns, an empty text, a label that the task does not
            have, a text with two labels, or a label of the task without a row.
    """
    content = decode_text(read_bytes(path, f"check {_FLAG}", TEXT_LIMIT), path)
    with _own_remedies(path):
        table = rows_of_text(content, path, roles=("text", "label"))
    rows = []
    for place, cells in table.rows:
        if len(cells) != 2:
            found = counted(len(cells), "column")
            raise UserError(f"{path}: {place}: has {found}, but a row of {_FLAG} has 2: text, label (no domain)")
        rows.append((place, [cells[0], task.domains[0], cells[1]]))
    with _own_remedies(path):
        split = read_text(path, task, dataclasses.replace(table, rows=rows))
    labels: Dict[str, int] = {}
    for (place, cells), label in zip(rows, split.label.tolist()):
        if labels.setdefault(cells[0].strip().lower(), label) != label:
            raise UserError(f"{path}: {place}: {cells[0]!r:.60} has two labels: remove a row")
    missing = [name for number, name in enumerate(task.labels) if not (split.label == number).any()]
    if missing:
        # pairs of different labels would hold sentences of the others only, so the vectors of sentences would become a sign of these labels
        raise UserError(f"{path}: no row has the label {missing[0]}: {_FLAG} needs rows of each label ({', '.join(task.labels)})")
    return split
