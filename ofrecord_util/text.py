"""The text of a split: texts, domains and labels, checked against the task. `text_files.py` reads the rows of the files."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, REGRESSION
from ofrecord_util.names import MANY_ROWS, Confusables, is_number, odd_character, spelled, unlike_the_rest
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import TEXT_FILES, TextRows, find_text, read_rows, roles_of, text_path
from ofrecord_util.text_kinds import JSONL, KIND_NAMES, SEMICOLONS, TSV

if TYPE_CHECKING:
    from ofrecord_util.tasks import Task

_LONGEST_NAME = 200  # characters of a domain's or label's name; a longer cell is text in the wrong column


@dataclass(frozen=True)
class TextSplit:
    """The rows of one split.

    Attributes:
        path: the file.
        text_a: list of N str.
        text_b: list of N str for pair tasks, else None.
        domain: int32 [N] ids.
        label: int32 [N] ids, 0 without labels; float32 [N] of a regression; int32 [N, C] of sets, 1 for the labels of a row.
        digest: SHA-256 (hex) of texts and ids, the same whatever the kind of the file, line ends, header, spelling of names.
        source: one line about file, kind and columns.
        columns: kind and columns for the manifest of records; None for the documented form.
        labelled: whether the rows have labels.
        by_position: whether the labels are numbers, read as positions in the task's labels, which are words.
    """

    path: str
    text_a: list
    text_b: Optional[list]
    domain: np.ndarray
    label: np.ndarray
    digest: str
    source: str = ""
    columns: Optional[dict] = None
    labelled: bool = True
    by_position: bool = False

    def __len__(self) -> int:
        return len(self.text_a)

    def texts(self) -> List[Tuple[str, Optional[str]]]:
        """The texts of each row: list of N (a, b), b None for single texts."""
        return list(zip(self.text_a, self.text_b or [None] * len(self)))


def read_names(table: TextRows, task_type: str = CLASSIFICATION) -> Tuple[Set[str], Set[str], bool]:
    """The names that a file's rows use, for an unknown task.

    Args:
        table: of `read_rows`.
        task_type: what a label is.

    Returns:
        (set of domain names, set of label names, pair): pair is True where the rows have two texts. Without labels, and for
        a regression, there are no names of labels.

    Raises:
        UserError: the rows do not all have the columns of one text or all those of two, or a name is empty, too long, has a control
            character or looks like another one. Names file and row.
    """
    path, rows, labels_of = table.path, table.rows, LABEL_KINDS[task_type]
    width = len(rows[0][1])
    pair = _check_width(table)
    domains: Set[str] = set()
    labels: Set[str] = set()
    earlier = {"domain": Confusables(), "label": Confusables()}
    _check_not_index(table, width)
    for place, cells in rows:
        _check_columns(table, place, cells, width)
        domain, *label = map(str.strip, cells[1 + pair :])
        try:
            found = [("domain", domain, domains), *(("label", name, labels) for cell in label for name in labels_of.names(cell))]
        except UserError as error:
            raise UserError(f"{path}: {place}: {error}") from error
        for kind, cell, names in found:
            if cell in names:
                continue
            if not cell:
                raise UserError(f"{path}: {place}: the {kind} is empty")
            if len(cell) > _LONGEST_NAME:
                raise UserError(
                    f"{path}: {place}: the {kind} has {len(cell)} characters, allowed are {_LONGEST_NAME}; the columns are text, "
                    "domain, label, or those of --text_column, --domain_column and --label_column"
                )
            odd = odd_character(cell)
            if odd is not None:
                what = f"the {kind} {cell!a:.80} contains the character U+{ord(odd):04X}, which is not text"
                raise UserError(f"{path}: {place}: {what}; remove it")
            other = earlier[kind].find(cell)
            if other is not None:
                raise UserError(
                    f"{path}: {place}: the {kind} {spelled(cell)} looks like {spelled(other)} of earlier rows and is another one; "
                    "write both in the same way"
                )
            if table.kind == TSV and len(cell) > 1 and cell[0] == cell[-1] == '"':
                raise UserError(
                    f"{path}: {place}: the {kind} {cell!r:.60} is in double quotes, but tab-separated text has no quotes: write the file "
                    "without quotes, or as comma-separated text"
                )
            names.add(cell)
            earlier[kind].add(cell)
    _check_first_row(table, task_type)
    for kind, names in (("domain", domains), ("label", labels)):
        if len(names) == len(rows) >= MANY_ROWS and (kind == "domain" or labels_of.exclusive):
            raise UserError(
                f"{path}: each of the {len(rows)} rows has a {kind} of its own; without a header, the last column is the label and the one "
                f"before it the domain; --{kind}_column chooses another"
            )
    return domains, labels, width == 4


def _check_not_index(table: TextRows, width: int) -> None:
    """Raises a UserError if a text column holds numbers only: it is an index, not a text."""
    rows = table.rows
    for column in range(width - 2):
        if len(rows) > 1 and all(len(cells) == width and is_number(cells[column]) for _, cells in rows):
            raise UserError(
                f"{table.path}: {rows[0][0]}: column {column + 1} is {rows[0][1][column].strip()!r:.40}, and a number in all rows: an "
                "index is not a text; remove the column, or choose others with --text_column, --domain_column and --label_column, by number"
            )


def _check_first_row(table: TextRows, task_type: str) -> None:
    """Raises a UserError if the first row is a header in words that are not known."""
    # the names of a header that was recognised are not among the rows; keys of JSON lines are none
    if table.columns is not None and (table.columns.header or table.kind == JSONL):
        return
    first = table.rows[0][1]
    columns = (-1,) if table.columns is not None and table.columns.only_domain is not None else (-2, -1)
    if unlike_the_rest([cells for _, cells in table.rows], columns):
        if task_type == REGRESSION:  # a header has a word where the numbers are
            try:
                LABEL_KINDS[task_type].read(first[-1], None)
            except UserError as error:
                raise UserError(f"{table.path}: row 1: {error}; if the row is a header, remove it") from error
            return
        raise UserError(
            f"{table.path}: row 1 looks like a header: its domain {first[-2].strip()!r:.60} and label {first[-1].strip()!r:.60} are unlike "
            "those of the other rows; give --text_column, --domain_column and --label_column the names of its columns, not their numbers; "
            "if it is none, name all domains and labels with --domains and --label_list"
        )


def _check_columns(table: TextRows, place: str, cells: List[str], width: int) -> None:
    pair = width - table.labelled == 3
    if len(cells) != width and table.columns is not None:
        wanted, found = ("two texts", "one text") if pair else ("one text", "two texts")
        raise UserError(
            f"{table.path}: {place}: the task has {wanted} per row, but the columns have {found} ({table.columns.describe()}); "
            "--text_column and --pair_column choose others"
        )
    if len(cells) != width:
        raise UserError(
            "{}: {}: {} where {} are expected ({}{}, {}); {}{}".format(
                table.path,
                place,
                counted(len(cells), "column"),
                width,
                "a, b, domain" if pair else "text, domain",
                ", label" if table.labelled else "",
                KIND_NAMES[table.kind],
                "a pair task has 4 columns, others 3, see --task_name" if table.labelled else _of_unlabelled(cells, width),
                _hint(cells, width),
            )
        )


def _of_unlabelled(cells: List[str], width: int) -> str:
    """What to do about a row of unlabelled text with another number of columns than `width`."""
    if len(cells) > width:
        return "remove the column of labels, or choose columns with --text_column and --domain_column"
    return "--text_column and so on choose columns"


def _check_width(table: TextRows) -> bool:
    """Whether the first row has two texts. UserError if it has neither three nor four columns; without labels, neither two nor three."""
    place, cells = table.rows[0]
    if not table.labelled and len(cells) not in (2, 3):
        raise UserError(
            f"{table.path}: {place}: {counted(len(cells), 'column')} ({KIND_NAMES[table.kind]}); without labels and without a header, a "
            f"row has 2: text, domain (or 3 with a pair of texts); {_of_unlabelled(cells, 3)}{_hint(cells, 3 if len(cells) > 3 else 2)}"
        )
    if table.labelled and len(cells) not in (3, 4):
        raise UserError(
            f"{table.path}: {place}: {counted(len(cells), 'column')} ({KIND_NAMES[table.kind]}); without a header, a row has 3: text, "
            "domain, label (or 4 with a pair of texts); --text_column, --domain_column and --label_column choose others, by number"
            f"{_hint(cells, 4 if len(cells) > 4 else 3)}"
        )
    return len(cells) - table.labelled == 3


def _hint(cells: List[str], width: int) -> str:
    """What a row with another number of columns than `width` may be; "" if nothing is known."""
    if len(cells) > width and is_number(cells[0]):
        return "; the first column looks like an index: remove it, or choose the others with --text_column and so on"
    if len(cells) == 1 and cells[0].lstrip()[:1] in ("{", "["):
        return "; the row looks like JSON, of which each line must be one object"
    if len(cells) < width and cells and cells[-1].count(";") >= width - 1:
        return f"; {SEMICOLONS}"
    if len(cells) == 1 and cells[0].count(",") >= width - 1:
        return "; the row may have commas between its columns: --text_format csv"
    return ""


def read_text(path: str, task: "Task", table: Optional[TextRows] = None, options: Optional[TextOptions] = None) -> TextSplit:
    """Reads and checks the rows of a split. Rows without labels need a `table`.

    Args:
        path: the file.
        task: `Task`; its `pair` says how many columns a row has.
        table: the rows of the file where `read_rows` has read them before.
        options: `TextOptions` to read them with.

    Returns:
        `TextSplit` of N >= 1 rows.

    Raises:
        UserError: names file and row: faults of `read_rows`, wrong number of columns, an empty text, a domain or label that the task does
            not have, or labels written as words in some rows and as numbers in others (for senti the two count in opposite directions,
            so a mixture is never right).
    """
    table = read_rows(path, options) if table is None else table
    kinds = ("domain", "label") if table.labelled else ("domain",)
    of_texts = 2 if task.pair else 1  # columns
    width = of_texts + len(kinds)
    texts: Tuple[List[str], List[str]] = ([], [])
    ids: Dict[str, List[Any]] = {"domain": [], "label": []}
    known: Dict[str, Dict[str, Any]] = {"domain": {}, "label": {}}
    digest = hashlib.sha256()
    if task.pair:
        _check_not_index(table, width)
    for place, cells in table.rows:
        _check_columns(table, place, cells, width)
        for column in range(of_texts):
            if not cells[column].strip():
                raise UserError("{}: {}: {} is empty".format(path, place, "text " + "ab"[column] if task.pair else "the text"))
            texts[column].append(cells[column])
        for kind, cell in zip(kinds, cells[of_texts:]):
            if cell not in known[kind]:
                try:
                    known[kind][cell] = task.domain_id(cell) if kind == "domain" else task.kind.read(cell, task)
                except UserError as error:
                    raise UserError(f"{path}: {place}: {error}") from error
                if kind == "label" and task.numbers_are_ids and len({label.strip().isdigit() for label in known["label"]}) > 1:
                    raise UserError(
                        "{}: {}: label {!r}, but earlier rows have {}: words and numbers are mixed; write all labels in one way".format(
                            path, place, cell, ", ".join(repr(label) for label in known["label"] if label != cell)
                        )
                    )
            ids[kind].append(known[kind][cell])
        found = [str(ids["domain"][-1]), *(task.kind.digest_text(value) for value in ids["label"][-1:])]
        row = "\t".join([*cells[:of_texts], *found]) + "\n"
        digest.update(row.encode("utf-8"))
    return TextSplit(
        path=path,
        text_a=texts[0],
        text_b=texts[1] if task.pair else None,
        domain=np.array(ids["domain"], np.int32),
        label=task.kind.array(ids["label"], task.num_labels) if table.labelled else np.zeros(len(table.rows), np.int32),
        digest=digest.hexdigest(),
        source=table.describe() + _other_spelling(known["domain"], task.domains) + _numbers_read(known["label"], task),
        columns=table.columns_dict(),
        labelled=table.labelled,
        by_position=bool(_numbers_read(known["label"], task)),
    )


def _other_spelling(spelled_ids: Dict[str, int], names: Tuple[str, ...]) -> str:
    """The part of a line that says which domains of the text are spelled otherwise in the task; "" if there are none."""
    pairs = sorted({(cell.strip(), names[number]) for cell, number in spelled_ids.items() if cell.strip() != names[number]})
    return "; " + ", ".join(f"the domain {cell!r:.60} is {name!r:.60} in the task" for cell, name in pairs[:4]) if pairs else ""


def _numbers_read(spelled_ids: Dict[str, int], task: "Task") -> str:
    """The part of a line that says which label each number is, where the task's labels are words; "" if the text has words."""
    if not task.numbers_are_ids or not any(cell.strip().isdigit() for cell in spelled_ids):
        return ""
    meanings = ", ".join(f"{number} is {label!r:.60}" for number, label in enumerate(task.labels[:4]))
    return f"; its labels are numbers, read as positions: {meanings}{', …' if task.num_labels > 4 else ''}"


class TextFolder:
    """The text of a data folder. Each file is read at most once.

    Args:
        data_dir: folder of the data.
        options: `TextOptions`; None for those without flags.
    """

    training_file = "train.csv"  # for messages
    ends: Sequence[str] = TEXT_FILES  # of the name of a split's file

    def __init__(self, data_dir: str, options: Optional[TextOptions] = None) -> None:
        self.data_dir, self.options = data_dir, options or TextOptions()
        self._tables: Dict[str, TextRows] = {}  # split -> rows of its file, until `read` has made a `TextSplit` of them
        self._splits: Dict[str, TextSplit] = {}  # split -> `TextSplit`

    def path(self, split: str) -> Optional[str]:
        """Path of a split's text, or None."""
        return text_path(self.data_dir, split, self.ends)

    def table(self, split: str) -> Optional[TextRows]:
        """The `TextRows` of a split; None where there is no text. To be called before `read`, if at all."""
        path = self.path(split)
        if path is None:
            return None
        if split not in self._tables:
            self._tables[split] = read_rows(path, self.options, roles_of(split))
        return self._tables[split]

    def names(self, split: str) -> Optional[Tuple[Set[str], Set[str], bool]]:
        """Domains, labels and pair of a split as of `read_names`; None where there is no text."""
        table = self.table(split)
        return None if table is None else read_names(table, self.options.task_type)

    def pair(self, split: str) -> Optional[bool]:
        """Whether the rows of a split have two texts, as of the first row; None where there is no text."""
        table = self.table(split)
        return None if table is None else _check_width(table)

    def read(self, split: str, task: "Task") -> TextSplit:
        """The `TextSplit` of a split. UserError where there is none, or where it is invalid.

        Args:
            split: "train", "dev", "test" or `UNLABELLED`.
            task: `Task`, the same in each call.
        """
        if split not in self._splits:
            path = find_text(self.data_dir, split, ends=self.ends)
            self.table(split)
            self._splits[split] = read_text(path, task, self._tables.pop(split))
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
