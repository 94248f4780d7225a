"""Rows of text: `text TAB domain TAB label`, or `a TAB b TAB domain TAB label` for pair tasks.

UTF-8, never quoted (a row may begin with a double quote), LF or CRLF, with or without a byte-order mark. A row ends at
LF and nowhere else: U+0085, U+2028, form feeds and the like occur inside reviews, so `str.splitlines` and text-mode
files are not used.
"""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.names import is_header, lookalike, spelled
from ofrecord_util.reading import TEXT_LIMIT, open_file, read_bytes

if TYPE_CHECKING:
    from ofrecord_util.tasks import Task

Rows = List[Tuple[int, List[str]]]  # row numbers (from 1, the header counted) and columns

_HEADER = ("review", "domain", "sentiment")
_MANY_ROWS = 6  # what is said of all rows of a file says little if there are fewer
_LONGEST_NAME = 200  # characters of a domain's or label's name; a longer cell is text in the wrong column


@dataclass(frozen=True)
class TextSplit:
    """The rows of one split.

    Attributes:
        path: the file.
        text_a: list of N str.
        text_b: list of N str for pair tasks, else None.
        domain, label: int32 [N] ids.
        digest: SHA-256 (hex) of texts and ids, the same whatever the line ends, header, spelling of names.
    """

    path: str
    text_a: list
    text_b: Optional[list]
    domain: np.ndarray
    label: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.text_a)

    def texts(self) -> List[Tuple[str, Optional[str]]]:
        """The texts of each row: list of N (a, b), b None for single texts."""
        return list(zip(self.text_a, self.text_b or [None] * len(self)))


def text_path(data_dir: str, split: str) -> Optional[str]:
    """Path of a split's text: the first of DATA_DIR/SPLIT.csv, DATA_DIR/ofrecord/SPLIT.csv, DATA_DIR/SPLIT.tsv,
    DATA_DIR/ofrecord/SPLIT.tsv. None where there is none.
    """
    if not os.path.isdir(data_dir):
        raise UserError(f"{data_dir}: no such folder; check --data_dir")
    return next(filter(os.path.isfile, _places(data_dir, split)), None)


def find_text(data_dir: str, split: str) -> str:
    """Path of a split's text as of `text_path`. UserError where there is none; it names the possible places."""
    path = text_path(data_dir, split)
    if path is None:
        raise UserError("{} text not found, looked for {}; check --data_dir".format(split, ", ".join(_places(data_dir, split))))
    return path


def _places(data_dir: str, split: str) -> List[str]:
    names = ((split + ".csv",), ("ofrecord", split + ".csv"), (split + ".tsv",), ("ofrecord", split + ".tsv"))
    return [os.path.join(data_dir, *name) for name in names]


def read_rows(path: str) -> Rows:
    """Row numbers (from 1, the header counted) and columns of a file's rows. UserError where the bytes are invalid."""
    data = read_bytes(path, "check --data_dir", TEXT_LIMIT)
    position = data.find(b"\0")
    if position >= 0 and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: row {_row_of(data, position)}: NUL at byte {position} of the file; it is not a text file")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the decoder counts from the end of a byte-order mark
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise UserError(
            f"{path}: row {_row_of(data, start)}: byte {start} of the file (0x{data[start]:02x}) is not UTF-8; convert the file to UTF-8"
        ) from error
    lines = content.split("\n")
    while lines and not lines[-1].strip("\r"):  # the last row's end, and blank lines after it
        lines.pop()
    if not lines:
        raise UserError(f"{path}: is empty; a row is text TAB domain TAB label")
    old_rows = lines[0].strip("\r").split("\r")
    if len(lines) == 1 and len(old_rows) > 1 and all(row.count("\t") > 1 for row in old_rows):
        raise UserError(f"{path}: row 1: the rows end with carriage returns alone; convert them, for example with tr '\\r' '\\n'")
    rows = [(line[:-1] if line.endswith("\r") else line).split("\t") for line in lines]
    first = 1
    if is_known_header(rows[0]):
        rows, first = rows[1:], 2
        if not rows:
            raise UserError(f"{path}: holds a header and no rows")
    for number, cells in enumerate(rows, first):
        if is_header(cells):
            found = " TAB ".join(cell.strip() for cell in cells)
            if number == 1:
                raise UserError(
                    f"{path}: row 1 is a header ({found:.100}); remove it: a row is text TAB domain TAB label, and only the header "
                    f"{' TAB '.join(_HEADER)} is known"
                )
            raise UserError(
                f"{path}: row {number} is a header ({found:.100}) in the middle of the file; remove it (of joined files, each may have one)"
            )
    return list(enumerate(rows, first))


def is_known_header(cells: Sequence[str]) -> bool:
    """Whether the cells of a row are the header of the Meta-KD data, which readers skip."""
    return tuple(cell.strip().lower() for cell in cells) == _HEADER


def _row_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1


def first_label(path: str) -> str:
    """The label of a file's first row, "" where there is none. Nothing is checked."""
    with open_file(path, "check --data_dir", TEXT_LIMIT) as file:
        for line in file:
            cells = [cell.strip() for cell in line.decode("utf-8", "replace").split("\t")]
            if line.strip() and tuple(cell.lower().lstrip("\ufeff") for cell in cells) != _HEADER:
                return cells[-1]
    return ""


def read_names(path: str, rows: Optional[Rows] = None) -> Tuple[Set[str], Set[str], bool]:
    """The names that a file's rows use, for an unknown task.

    Args:
        path: the file.
        rows: its rows where `read_rows` has read them before.

    Returns:
        (set of domain names, set of label names, pair): pair is True where the rows have four columns.

    Raises:
        UserError: the rows do not all have three or all four columns, or a name is empty or too long.
    """
    rows = read_rows(path) if rows is None else rows
    width = len(rows[0][1])
    if width not in (3, 4):
        raise UserError(
            f"{path}: row {rows[0][0]}: {width} columns; a row has 3, separated by tabs and not by commas: text TAB domain TAB label "
            "(or 4 with a pair of texts)"
        )
    domains: Set[str] = set()
    labels: Set[str] = set()
    _check_not_index(path, rows, width)
    for number, cells in rows:
        _check_columns(path, number, cells, width)
        for kind, cell, names in (("domain", cells[-2].strip(), domains), ("label", cells[-1].strip(), labels)):
            if cell in names:
                continue
            if not cell:
                raise UserError(f"{path}: row {number}: the {kind} is empty")
            if len(cell) > _LONGEST_NAME:
                raise UserError(
                    f"{path}: row {number}: the {kind} has {len(cell)} characters, allowed are {_LONGEST_NAME}; the columns are text, "
                    "domain, label"
                )
            other = lookalike(cell, names)
            if other is not None:
                raise UserError(
                    f"{path}: row {number}: the {kind} {spelled(cell)} looks like {spelled(other)} of earlier rows and is another one; "
                    "write both in the same way"
                )
            names.add(cell)
    _check_first_row(path, rows)
    for kind, names in (("domain", domains), ("label", labels)):
        if len(names) == len(rows) >= _MANY_ROWS:
            raise UserError(
                f"{path}: each of the {len(rows)} rows has a {kind} of its own; the last column is the label, the one before it the domain"
            )
    return domains, labels, width == 4


def _check_not_index(path: str, rows: Rows, width: int) -> None:
    """Raises a UserError if a text column holds numbers only: it is an index, not a text."""
    for column in range(width - 2):
        if len(rows) > 1 and all(len(cells) == width and _is_number(cells[column]) for _, cells in rows):
            raise UserError(
                f"{path}: row {rows[0][0]}: column {column + 1} is {rows[0][1][column].strip()!r:.40}, and a number in all rows: an index "
                "is not a text; remove the column"
            )


def _check_first_row(path: str, rows: Rows) -> None:
    """Raises a UserError if the domain and the label of the first row occur nowhere else, and all others do: it is a header in words that
    are not known."""
    if len(rows) < _MANY_ROWS or rows[0][0] != 1:
        return
    first = rows[0][1]
    for column in (-2, -1):
        counts = Counter(cells[column].strip().lower() for _, cells in rows)
        if counts.pop(first[column].strip().lower()) > 1 or min(counts.values(), default=0) < 2:
            return
    raise UserError(
        f"{path}: row 1 looks like a header: its domain {first[-2].strip()!r:.60} and label {first[-1].strip()!r:.60} are in no other row; "
        "remove it, or name all domains and labels with --domains and --label_list"
    )


def _is_number(cell: str) -> bool:
    return re.match(r"\s*[-+]?[0-9]+(\.[0-9]*)?\s*\Z", cell) is not None


def _check_columns(path: str, number: int, cells: List[str], width: int) -> None:
    if len(cells) != width:
        hint = ""
        if len(cells) > width and _is_number(cells[0]):
            hint = "; the first column looks like an index, remove it"
        elif len(cells) == 1 and cells[0].lstrip()[:1] in ("{", "["):
            hint = "; the row looks like JSON"
        elif len(cells) == 1 and cells[0].count(",") >= width - 1:
            hint = "; the row may have commas between its columns"
        raise UserError(
            "{}: row {}: {} columns where {} are expected ({}, tab-separated); a pair task has 4 columns, others 3, see "
            "--task_name{}".format(path, number, len(cells), width, "a, b, domain, label" if width == 4 else "text, domain, label", hint)
        )


def read_text(path: str, task: "Task", rows: Optional[Rows] = None) -> TextSplit:
    """Reads and checks the rows of a split.

    Args:
        path: the file.
        task: `Task`; its `pair` says how many columns a row has.
        rows: the rows of the file where `read_rows` has read them before.

    Returns:
        `TextSplit` of N >= 1 rows.

    Raises:
        UserError: names file and row: unreadable file, NUL, bytes that are not UTF-8, no rows, wrong number of columns,
            an empty text, a domain or label that the task does not have, or labels written as words in some rows and as
            numbers in others (for senti the two count in opposite directions, so a mixture is never right).
    """
    width = 4 if task.pair else 3
    texts: Tuple[List[str], List[str]] = ([], [])
    ids: Dict[str, List[int]] = {"domain": [], "label": []}
    known: Dict[str, Dict[str, int]] = {"domain": {}, "label": {}}
    digest = hashlib.sha256()
    rows = read_rows(path) if rows is None else rows
    if task.pair:
        _check_not_index(path, rows, width)
    for number, cells in rows:
        _check_columns(path, number, cells, width)
        for column in range(width - 2):
            if not cells[column].strip():
                raise UserError("{}: row {}: {} is empty".format(path, number, "the text" if width == 3 else "text " + "ab"[column]))
            texts[column].append(cells[column])
        for kind, cell in (("domain", cells[-2]), ("label", cells[-1])):
            if cell not in known[kind]:
                try:
                    known[kind][cell] = task.domain_id(cell) if kind == "domain" else task.label_id(cell)
                except UserError as error:
                    raise UserError(f"{path}: row {number}: {error}") from error
                if kind == "label" and task.numbers_are_ids and len({label.strip().isdigit() for label in known["label"]}) > 1:
                    raise UserError(
                        "{}: row {}: label {!r}, but earlier rows have {}: words and numbers are mixed; write all labels in one way".format(
                            path, number, cell, ", ".join(repr(label) for label in known["label"] if label != cell)
                        )
                    )
            ids[kind].append(known[kind][cell])
        row = "\t".join([*cells[: width - 2], str(ids["domain"][-1]), str(ids["label"][-1])]) + "\n"
        digest.update(row.encode("utf-8"))
    return TextSplit(
        path=path,
        text_a=texts[0],
        text_b=texts[1] if task.pair else None,
        domain=np.array(ids["domain"], np.int32),
        label=np.array(ids["label"], np.int32),
        digest=digest.hexdigest(),
    )


def split_texts(data_dir: str, split: str, task: "Task", digest: str) -> Optional[TextSplit]:
    """The text of a split with a certain digest: a `TextSplit`, or None where there is no text or another one."""
    return TextFolder(data_dir).matching(split, task, digest)


class TextFolder:
    """The text of a data folder. Each file is read at most once.

    Args:
        data_dir: folder of the data.
    """

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self._rows: Dict[str, Rows] = {}  # split -> rows of its file, until `read` has made a `TextSplit` of them
        self._splits: Dict[str, TextSplit] = {}  # split -> `TextSplit`

    def names(self, split: str) -> Optional[Tuple[Set[str], Set[str], bool]]:
        """Domains, labels and pair of a split as of `read_names`; None where there is no text."""
        path = text_path(self.data_dir, split)
        if path is None:
            return None
        self._rows[split] = read_rows(path)
        return read_names(path, self._rows[split])

    def read(self, split: str, task: "Task") -> TextSplit:
        """The `TextSplit` of a split. UserError where there is none, or where it is invalid.

        Args:
            split: "train", "dev" or "test".
            task: `Task`, the same in each call.
        """
        if split not in self._splits:
            path = find_text(self.data_dir, split)
            self._splits[split] = read_text(path, task, self._rows.pop(split, None))
        return self._splits[split]

    def read_valid(self, split: str, task: "Task") -> Optional[TextSplit]:
        """The `TextSplit` of a split; None where there is no text or it is invalid. Arguments as in `read`."""
        try:
            return self.read(split, task)
        except UserError:
            return None

    def matching(self, split: str, task: "Task", digest: str) -> Optional[TextSplit]:
        """The `TextSplit` of a split where its digest is `digest`; None where there is no valid text or another one."""
        rows = self.read_valid(split, task)
        return rows if rows is not None and rows.digest == digest else None


_ONE_ONLY = {  # (label or domain, whether the rows are for training): consequence of a single one
    ("label", True): "the classifier cannot learn to separate labels",
    ("label", False): "a constant prediction would have an accuracy of 1",
    ("domain", True): "a score compares with the prototypes of this domain only, and the domain loss has no effect "
    "(--use_domain_loss false turns it off)",
    ("domain", False): "the accuracy is that of this domain only",
}


def text_warnings(rows: TextSplit, task: "Task", train: Optional[TextSplit] = None) -> List[str]:
    """Warnings about the text of a split, one line each.

    Args:
        rows: `TextSplit`.
        task: its `Task`.
        train: `TextSplit` of the training split where `rows` belong to another split, else None.

    Returns:
        list of str: quotes around most texts, labels and domains without a row, repeated texts, texts of the training split.
    """
    lines: List[str] = []
    quoted = [row for row, text in enumerate(rows.text_a, 1) if len(text) > 1 and text[0] == text[-1] == '"']
    if len(quoted) > len(rows) / 2:
        lines.append(
            f"{rows.path}: {len(quoted)} of {len(rows)} texts, the first in sample {quoted[0]}, are in double quotes, which are read as a "
            "part of the text: write the file again without quotes"
        )
    learns = train is None
    for kind, names, ids in (("label", task.labels, rows.label), ("domain", task.domains, rows.domain)):
        present = np.bincount(ids, minlength=len(names)) > 0
        missing = ", ".join(name for name, there in zip(names, present) if not there)
        if missing and present.sum() == 1:
            all_rows = f"{rows.path}: all {len(rows)} rows have the {kind} {names[int(present.argmax())]} (none {missing})"
            lines.append(f"{all_rows}: {_ONE_ONLY[kind, learns]}")
        elif missing:
            lines.append(f"{rows.path}: no row has the {kind} {missing}: it is not {'trained' if learns else 'measured'}")
    first: Dict[Tuple[str, Optional[str]], int] = {}
    repeats = contradictions = 0
    for text, label in zip(rows.texts(), rows.label.tolist()):
        repeats += text in first
        contradictions += first.setdefault(text, label) != label
    if repeats:
        counts = f"{repeats} of {len(rows)} rows repeat the text of an earlier one"
        lines.append(f"{rows.path}: {counts}, {contradictions} of them under another label")
    if train is not None:
        learned = set(train.texts())
        shared = sum(text in learned for text in rows.texts())
        if shared:
            lines.append(
                f"{rows.path}: {shared} of {len(rows)} rows have a text that is also in {train.path}: they do not measure generalisation"
            )
    return lines
