"""The kinds of text files: tab-separated, comma-separated, JSON lines. Tells the kind from the content, and parses rows.

- Tab-separated text has no quotes. A row ends at LF and nowhere else: U+0085, U+2028, form feeds and the like occur inside reviews, so
  `str.splitlines` and text-mode files are not used.
- Comma-separated text is that of RFC 4180: a field in double quotes may contain commas, line ends and doubled quotes. Blanks before a
  field are not part of it, since many programs write them before the opening quote.
- JSON lines have one JSON object per line.

`text_columns.py` decides which column has which meaning.
"""

import csv
import re
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import any_json, parse_json
from ofrecord_util.names import is_header
from ofrecord_util.reading import LINE_LIMIT, size_text

AUTO, TSV, CSV, JSONL = "auto", "tsv", "csv", "jsonl"
FORMATS = (AUTO, TSV, CSV, JSONL)  # values of --text_format
KIND_NAMES = {TSV: "tab-separated", CSV: "comma-separated", JSONL: "JSON lines"}

_QUOTED = re.compile(r'"(?:[^"]|"")*"')
SEMICOLONS = "semicolons between columns are not read, save the file with commas or tabs"
_CSV_FAULTS = (  # (part of the message of Python's csv module, what is wrong)
    ("unexpected end of data", "a field begins with a double quote that is not closed"),
    ("field larger than field limit", f"a field has more than {size_text(LINE_LIMIT)}; a double quote may not be closed"),
    ("expected after", "a double quote within a field in quotes is not doubled, or something other than a comma follows the last quote"),
    ("new-line character", "a carriage return outside of quotes"),
)


class Row(NamedTuple):
    """A row of a text file.

    Attributes:
        number: position in the file, from 1; a header counts.
        line: number of the line where the row begins, from 1.
        cells: list of str, or for JSON lines a dict.
    """

    number: int
    line: int
    cells: Union[List[str], dict]

    def place(self, kind: str) -> str:
        """The row for messages: "row 3 (comma-separated)", "row 3 (line 5, comma-separated)"."""
        return place_of(self.number, self.line, kind)


def place_of(number: int, line: int, kind: str) -> str:
    """Number, line and kind of a row for messages."""
    line_text = f"line {line}, " if line != number else ""
    return f"row {number} ({line_text}{KIND_NAMES[kind]})"


def lines_of_text(content: str) -> List[str]:
    """The lines of a text with their ends. They end at LF only. Blank lines at the end are left out."""
    lines = [line + "\n" for line in content.split("\n")]
    while lines and not lines[-1].strip("\r\n"):
        lines.pop()
    return lines


def parse_rows(lines: Iterable[str], kind: str, name: str) -> Iterator[Row]:
    """Yields the rows of a file. The lines are read as they are needed.

    Args:
        lines: with or without LF at their ends.
        kind: TSV, CSV or JSONL.
        name: of the file, for messages.

    Raises:
        UserError: a row is not of this kind. The message names file, row and kind.
    """
    return {TSV: _tab_rows, CSV: _comma_rows, JSONL: _json_rows}[kind](lines, name)


def _tab_rows(lines: Iterable[str], _name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        line = line[:-1] if line.endswith("\n") else line
        yield Row(number, number, (line[:-1] if line.endswith("\r") else line).split("\t"))


def _comma_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    csv.field_size_limit(LINE_LIMIT)  # 128 KB otherwise, less than a long document
    ended = (line if line.endswith("\n") else line + "\n" for line in lines)
    reader = csv.reader(ended, strict=True, skipinitialspace=True)
    number = line = 0
    while True:
        number, line = number + 1, reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = next((text for part, text in _CSV_FAULTS if part in str(error)), str(error))
            raise UserError(f"{name}: {place_of(number, line, CSV)}: {reason}; --text_format tsv reads tab-separated text") from error
        yield Row(number, line, cells)


def _json_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line.encode("utf-8"))
        except ValueError as error:
            raise UserError(
                f"{name}: {place_of(number, number, JSONL)}: is not JSON ({error}); each line must be one JSON object"
            ) from error
        if not isinstance(value, dict):
            raise UserError(f"{name}: {place_of(number, number, JSONL)}: holds {type(value).__name__}; each line must be one JSON object")
        yield Row(number, number, value)


def _parsed(line: str) -> object:
    """The value of a line of JSON that is an object or an array; None for any other line. Also of JSON that `parse_json` refuses: it is no
    plain text, and the reader of the rows says what is wrong with it."""
    if line.lstrip()[:1] not in ("{", "["):
        return None
    return any_json(line)


def check_no_other_json(line: str, name: str, number: int = 1) -> None:
    """Raises a UserError if a line begins JSON that is not JSON lines: an object on several lines, or an array of objects or texts."""
    value = _parsed(line)
    array = isinstance(value, list) and bool(value) and all(isinstance(item, (dict, list, str)) for item in value)
    if line.strip() in ("{", "[") or array:
        raise UserError(f"{name}: row {number} is JSON ({line.strip()!r:.60}), but not one object per line; write the file as JSON lines")


def _comma_widths(lines: Iterable[str]) -> Optional[List[int]]:
    """Numbers of columns of each row as comma-separated text; None if it is none."""
    try:
        return [len(row.cells) for row in _comma_rows(lines, "")]
    except UserError:
        return None


def _same_columns(widths: Optional[List[int]]) -> bool:
    return widths is not None and len(set(widths)) == 1 and widths[0] > 1


def find_separator(lines: Sequence[str]) -> Optional[str]:
    """The sign between the columns of a table without tabs; None if the lines are more likely plain texts.

    All lines of a table have the same number of columns, at least two (if there is only one line, three). Texts may too; but in texts a
    blank follows a comma, and the last part of a line does not repeat.

    Args:
        lines: the first lines of a stream.

    Returns:
        "," or ";" or None.
    """
    text = _QUOTED.sub('""', "\n".join(lines))
    for sign in ",;":
        table: List[List[str]] = []
        try:
            table.extend(csv.reader([line.rstrip("\r\n") + "\n" for line in lines], delimiter=sign, strict=True, skipinitialspace=True))
        except csv.Error as error:
            if "end of data" not in str(error):  # the last line may end within quotes
                continue
        width = len(table[0]) if table else 0
        if width < (2 if len(lines) > 1 else 3) or any(len(cells) != width for cells in table):
            continue
        repeats = len(table) > 3 and len({cells[-1].strip() for cells in table}) <= len(table) / 2
        if repeats or re.search(sign + r"[^\S\n]+[^\s\"]", text) is None:
            return sign
    return None


def first_cells(line: str, kind: str) -> List[str]:
    """The cells of the first line as a kind of table; [] if it is none."""
    try:
        row = next(parse_rows([line], kind, ""), None)
    except UserError:
        return []
    return row.cells if row is not None and isinstance(row.cells, list) else []


def find_kind(lines: List[str], name: str) -> str:
    """The kind of a file: TSV, CSV or JSONL.

    JSON lines begin with a JSON object. A file is tab-separated if all rows have the same number of tabs, and comma-separated if all rows
    have the same number of columns as such. If both hold, it is tab-separated if a tab comes after the last comma of each row: a label
    ends a row. If neither holds, the first row decides.

    Args:
        lines: of the file, at least one.
        name: of the file, for messages.

    Raises:
        UserError: the file may be tab-separated or comma-separated, or is another kind of JSON.
    """
    first = lines[0]
    if isinstance(_parsed(first), dict):
        return JSONL
    check_no_other_json(first, name)
    tabs = {line.count("\t") for line in lines}
    if len(tabs) == 1 and tabs != {0}:
        if all(line.rfind("\t") > line.rfind(",") for line in lines):
            return TSV
        widths = _comma_widths(lines)
        if widths is not None and _same_columns(widths):
            raise UserError(
                f"{name}: each row has {tabs.pop() + 1} columns as tab-separated text and {widths[0]} as comma-separated text; "
                "--text_format tsv or --text_format csv decides"
            )
        return TSV
    if "," not in first:
        return TSV
    if "\t" in first:
        return CSV if _same_columns(_comma_widths(lines)) else TSV
    cells = first_cells(first, CSV)
    return CSV if len(cells) > 2 or is_header(cells) or _same_columns(_comma_widths(lines)) else TSV


def kind_of_stream(line: str, name: str, columns_given: bool = False, lines: Sequence[str] = ()) -> str:
    """The kind of a stream of texts of which only the first lines are known.

    A line that is neither a JSON object nor a header of comma-separated text is tab-separated, or a plain text.

    Args:
        line: the first one.
        name: of the stream, for messages.
        columns_given: whether the user names columns, so that a line with commas and without tabs is no plain text.
        lines: the first lines, or () if only one is looked at.

    Raises:
        UserError: the line begins another kind of JSON, or the lines are a table, each row of which would be taken for a text.
    """
    if isinstance(_parsed(line), dict):
        return JSONL
    check_no_other_json(line, name)
    if "\t" in line:
        return TSV
    if "," in line and (columns_given or is_header(first_cells(line, CSV))):
        return CSV
    sign = ";" if lines and is_header(line.split(";")) else find_separator(lines)
    if sign is not None:
        found = f"{name}: the rows have {'commas' if sign == ',' else 'semicolons'} between their columns ({line!r:.60})"
        remedy = "--text_column NUMBER or NAME chooses the column of the texts" if sign == "," else SEMICOLONS
        raise UserError(f"{found}: {remedy}; --text_format tsv reads each row as a text")
    return TSV
