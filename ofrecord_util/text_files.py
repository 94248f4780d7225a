"""Text files: where they are, and their rows as cells in one order, whatever the kind of the file.

UTF-8, LF or CRLF, with or without a byte-order mark. `text_kinds.py` parses the kinds, `text_columns.py` chooses the columns.
"""

import os
import re
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from ofrecord_util.errors import UserError
from ofrecord_util.names import is_header
from ofrecord_util.reading import TEXT_LIMIT, first_byte, read_bytes, utf8_remedy
from ofrecord_util.text_columns import ROLES, Columns, TextOptions, find_columns
from ofrecord_util.text_kinds import AUTO, KIND_NAMES, TSV, find_kind, lines_of_text, parse_rows

Rows = List[Tuple[str, List[str]]]  # ("row 3", for messages; cells) of each row

UNLABELLED = "unlabelled"  # the split whose text has no column of labels; its records have the label 0, which nothing reads
SENTI_HEADER = ("review", "domain", "sentiment")  # of the Meta-KD data
TEXT_FILES = (".csv", ".tsv", ".jsonl")  # of the names of files with a row per sample
_BREAKS = re.compile(r"[\t\r\n]+")


@dataclass(frozen=True)
class TextRows:
    """The rows of a text file.

    Attributes:
        path: the file.
        kind: TSV, CSV or JSONL.
        columns: `Columns`, or None for the documented order of columns: text, (second text,) domain, label.
        header: whether the file has a header, which is not among the rows.
        rows: list of (place, cells). The cells are in the documented order, also if the file has another one.
        labelled: whether a row has a label.
    """

    path: str
    kind: str
    columns: Optional[Columns]
    header: bool
    rows: Rows
    labelled: bool = True

    def describe(self) -> str:
        """One line for the log: kind, header and columns."""
        if self.columns is not None:
            return f"{self.path}: {self.columns.describe()}"
        pair = len(self.rows[0][1]) == (4 if self.labelled else 3)
        order = ("second text, domain" if pair else "domain") + (", label" if self.labelled else "")
        return f"{self.path}: {KIND_NAMES[self.kind]} {'with' if self.header else 'without'} a header; columns: text, {order}"

    def columns_dict(self) -> Optional[dict]:
        """Kind and columns for the manifest of records; None for the documented form."""
        if self.columns is not None and not (self.kind == TSV and self.header and tuple(self.columns.names) == SENTI_HEADER):
            return self.columns.to_dict()
        return None if self.kind == TSV else {"format": self.kind}


def roles_of(split: str) -> Tuple[str, ...]:
    """The columns of a split's text that are read."""
    return tuple(role for role in ROLES if role != "label" or split != UNLABELLED)


def text_path(data_dir: str, split: str, ends: Sequence[str] = TEXT_FILES) -> Optional[str]:
    """Path of a split's text: the first of DATA_DIR/SPLIT.csv, DATA_DIR/ofrecord/SPLIT.csv, and the same with .tsv and .jsonl, or with
    other `ends`. None where there is none.
    """
    if not os.path.isdir(data_dir):
        raise UserError(f"{data_dir}: no such folder; check --data_dir")
    return next(filter(os.path.isfile, _places(data_dir, split, ends)), None)


def find_text(data_dir: str, split: str, also: str = "", ends: Sequence[str] = TEXT_FILES) -> str:
    """Path of a split's text as of `text_path`. UserError where there is none; it names the possible places, and says `also`."""
    path = text_path(data_dir, split, ends)
    if path is None:
        raise UserError(f"{split} text not found, looked for {', '.join(_places(data_dir, split, ends))}; {also}check --data_dir")
    return path


def _places(data_dir: str, split: str, ends: Sequence[str]) -> List[str]:
    return [os.path.join(data_dir, *folder, split + end) for end in ends for folder in ((), ("ofrecord",))]


def decode_text(data: bytes, path: str) -> str:
    """The text of a file's bytes. UserError where they are not UTF-8, or hold a NUL; it names row (or line) and byte."""
    position = data.find(b"\0")
    if position >= 0 and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: {_row_at(data, position)}: NUL at byte {position} of the file; it is not a text file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = first_byte(data, error)
        raise UserError(
            f"{path}: {_row_at(data, start)}: byte {start} of the file (0x{data[start]:02x}) is not UTF-8; {utf8_remedy(data)}"
        ) from error


def _row_at(data: bytes, position: int) -> str:
    """The row of a byte, or its line where earlier quotes may enclose line ends."""
    word = "line" if b'"' in data[:position] else "row"
    return f"{word} {data.count(10, 0, position) + 1}"


def one_line(text: str) -> str:
    """A text of comma-separated text or JSON on one line: each run of tabs and line ends is a space."""
    return _BREAKS.sub(" ", text)


def read_rows(path: str, options: Optional[TextOptions] = None, roles: Tuple[str, ...] = ROLES) -> TextRows:
    """The rows of a file.

    Args:
        path: the file.
        options: `TextOptions`; None for those without flags.
        roles: columns that the caller needs, as in `find_columns`.

    Raises:
        UserError: the file cannot be read, is empty, has several possible kinds or columns, or a row does not fit the kind. The message
            names file, row and flag.
    """
    return rows_of_text(decode_text(read_bytes(path, "check --data_dir", TEXT_LIMIT), path), path, options, roles)


def check_line_ends(content: str, path: str) -> None:
    """Raises a UserError if the rows of a text end with carriage returns alone. Within quotes, a carriage return is one of a text."""
    rows = content.strip("\r\n").split("\r")
    if "\n" in content.rstrip("\n") or len(rows) == 1:
        return
    whole = "\n" not in content and '"' not in content  # else a single row, with a carriage return in its text
    if whole or any(all(row.count(sign) > 1 for row in rows) for sign in "\t,"):
        raise UserError(f"{path}: row 1: the rows end with carriage returns alone; convert them, for example with tr '\\r' '\\n'")


def rows_of_text(content: str, path: str, options: Optional[TextOptions] = None, roles: Tuple[str, ...] = ROLES) -> TextRows:
    """`read_rows` for the content of a file. `path` is its name for messages."""
    options = options or TextOptions()
    lines = lines_of_text(content)
    if not lines:
        raise UserError(f"{path}: is empty; a row is {' TAB '.join(role for role in roles if role != 'pair')}")
    check_line_ends(content, path)
    kind = find_kind(lines, path) if options.format == AUTO else options.format
    parsed = list(parse_rows(lines, kind, path))
    columns = find_columns(parsed[0], kind, options, path, roles)
    header = columns is not None and columns.header
    if header:
        if len(parsed) == 1:
            raise UserError(f"{path}: holds a header and no rows")
        first, parsed = parsed[0].cells, parsed[1:]
    rows = []
    for row in parsed:
        place = f"row {row.number}" if kind == TSV and columns is None else row.place(kind)
        if not isinstance(row.cells, dict) and (is_header(row.cells) or (header and row.cells == first)):
            found = f" {'TAB' if kind == TSV else ','} ".join(cell.strip() for cell in row.cells)
            raise UserError(
                f"{path}: {place} is a header ({found:.100}) in the middle of the file; remove it (of joined files, each may have one)"
            )
        cells: Sequence[str] = row.cells if columns is None else columns.pick(row, path)  # type: ignore[assignment]
        if kind != TSV:
            cells = [one_line(cell) for cell in cells]
            if any("\0" in cell for cell in cells):  # JSON can escape it
                raise UserError(f"{path}: {place}: has a NUL; remove it")
        rows.append((place, list(cells)))
    return TextRows(path, kind, columns, header, rows, "label" in roles)
