"""Reads JSON that a user or another program hands over, with the limits of ofrecord_util/reading.py."""

import json
import math
from typing import Any, Iterator, List, Tuple

from ofrecord_util.errors import UserError
from ofrecord_util.reading import JSON_LIMIT, TEXT_LIMIT, first_byte, lines_of, open_file, read_bytes

_DEEPEST = 64  # levels of a JSON file; more break recursive functions that get the value
_INTEGERS = 1 << 63


def _whole_number(text: str) -> int:
    if len(text) > 20 or not -_INTEGERS <= int(text) < _INTEGERS:
        raise ValueError(f"the number {text:.20}… has more than 64 bits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.20} is too large")
    return value


def _object(pairs: List[Tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r:.60} is there twice")
    return found


def _json_text(data: bytes) -> str:
    """The text of JSON. ValueError where it is not UTF-8."""
    encoding = json.detect_encoding(data)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"it looks like {encoding.upper():.6}, and JSON is UTF-8: convert it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = first_byte(data, error)
        raise ValueError(f"byte {start} of it (0x{data[start]:02x}) is not UTF-8, as JSON is: convert it") from error


def parse_json(data: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not UTF-8 or not JSON, is nested more than 64 levels deep, has a key twice in one object, or holds a number of
            more than 64 bits or half of a surrogate pair, which no other file or terminal could take. NaN and Infinity are read, because
            a run that diverges reports them.
    """
    try:
        value = json.loads(_json_text(data), parse_int=_whole_number, parse_float=_number, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        inside: List[Any] = []
        for item in level:
            if isinstance(item, dict):
                inside += item.keys()
                inside += item.values()
            elif isinstance(item, list):
                inside += item
            elif isinstance(item, str) and not item.isascii():
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise ValueError(f"{item!r:.40} has half of a surrogate pair") from error
        level = inside
    return value


def any_json(text: str) -> Any:
    """The value of a text that is JSON, also where `parse_json` would refuse it; None for any other text. It tells what a text is, and is
    not for use."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_json(path: str, remedy: str, limit: int = JSON_LIMIT) -> dict:
    """A JSON file that holds an object. Arguments and errors as in `open_file`; a UserError, too, where it holds anything else."""
    try:
        value = parse_json(read_bytes(path, remedy, limit))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {type(value).__name__}, not a JSON object; {remedy}")
    return value


def read_json_lines(path: str, remedy: str, limit: int = TEXT_LIMIT) -> Iterator[Tuple[int, dict]]:
    """Yields (number from 1, object) of each complete line of a file of JSON objects. A last line without an end is incomplete: the
    process that wrote it was killed.

    Arguments and errors as in `open_file`; a UserError, too, for a line that holds anything but an object. It names the line.
    """
    try:
        with open_file(path, remedy, limit) as file:
            for number, line in enumerate(lines_of(file, path, remedy), 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    value = parse_json(line)
                except ValueError as error:
                    raise UserError(f"{path}: line {number}: is not JSON ({error}); {remedy}") from error
                if not isinstance(value, dict):
                    raise UserError(f"{path}: line {number}: holds {type(value).__name__}, not a JSON object; {remedy}")
                yield number, value
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
