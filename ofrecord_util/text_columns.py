"""Which column of a text file is the text, the second text of a pair, the domain and the label.

Without a header, and without flags, a row is `text TAB domain TAB label` (`a TAB b TAB domain TAB label` for pairs). A header, or the keys
of JSON lines, name the columns; `--text_column`, `--pair_column`, `--domain_column` and `--label_column` choose others, by name or by
number.
"""

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS
from ofrecord_util.names import (
    DOMAIN_COLUMNS,
    INDEX_COLUMNS,
    LABEL_COLUMNS,
    SOURCE_COLUMNS,
    TARGET_COLUMNS,
    TEXT_COLUMNS,
    column_word,
    is_header,
    is_target_header,
)
from ofrecord_util.text_kinds import AUTO, CSV, JSONL, KIND_NAMES, TSV, Row

ROLES = ("text", "pair", "domain", "label")
_WHAT = {"text": "the text", "pair": "the second text", "domain": "the domain", "label": "the label"}
_MAIN = {"text": "text", "domain": "domain", "label": "label"}  # wins over other names of the same meaning
_SURE_TARGETS = (("source", "target"), ("src", "tgt"), ("source_text", "target_text"), ("input", "output"), ("input_text", "output_text"))
_PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text_a", "text_b"), ("texta", "textb")),
    *(("a", "b"), ("question", "sentence"), ("query", "document")),
)
_WORDS = re.compile(r"[^\W\d][\w .:/()-]{0,40}\Z")  # looks like the name of a column, not like a sample


@dataclass(frozen=True)
class TextOptions:
    """What the user says about text files.

    Attributes:
        format: --text_format.
        text, pair, domain, label: names or numbers (from 1) of columns, or None: --text_column, ….
        only_domain: domain of all rows of files without a column of domains, or None if such files are refused.
        task_type: --task_type.
        targets: whether a row is a source and its target, whose columns have other names (recipes/generation.py).
    """

    format: str = AUTO
    text: Optional[str] = None
    pair: Optional[str] = None
    domain: Optional[str] = None
    label: Optional[str] = None
    only_domain: Optional[str] = None
    task_type: str = CLASSIFICATION
    targets: bool = False

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any], only_domain: Optional[str] = None) -> "TextOptions":
        """The options of a dict of flags by name; a flag that is missing or None is not set."""
        columns: Dict[str, Any] = {role: flags.get(role + "_column") for role in ROLES}
        task_type = flags.get("task_type") or CLASSIFICATION
        return cls(flags.get("text_format") or AUTO, only_domain=only_domain, task_type=task_type, **columns)

    def columns(self) -> Dict[str, str]:
        """dict of role -> column of the flags that are set."""
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}


class Columns(NamedTuple):
    """The columns of a file.

    Attributes:
        kind: TSV, CSV or JSONL.
        header: whether the first row has the names of the columns.
        places: dict of role -> position from 0, or key of JSON lines.
        names: of all columns of a table with a header; numbers as text without one; keys of the first row of JSON lines.
        only_domain: domain of all rows, or None if the file has a column of domains.
        task_type: of the labels of JSON lines.
    """

    kind: str
    header: bool
    places: Dict[str, Any]
    names: List[str]
    only_domain: Optional[str] = None
    task_type: str = CLASSIFICATION

    @property
    def pair(self) -> bool:
        return "pair" in self.places

    def name_of(self, role: str) -> str:
        """The column of a role, for people."""
        place = self.places[role]
        if self.kind == JSONL:
            return str(place)
        return self.names[place] if self.header else str(place + 1)

    def describe(self) -> str:
        """One line for the log, without the file."""
        roles = [f"{role} {self.name_of(role)!r}" for role in ROLES if role in self.places]
        if self.only_domain is not None:
            roles.append(f"no column of domains, so all rows have the domain {self.only_domain!r}")
        used = [self.places[role] for role in self.places]
        unused = [name for place, name in enumerate(self.names) if place not in used and name not in used]
        if unused:
            roles.append("not used: {:.200}".format(", ".join(map(repr, unused))))
        head = {True: ", header", False: " without a header"}[self.header] if self.kind != JSONL else ""
        return f"{KIND_NAMES[self.kind]}{head}; columns: {', '.join(roles)}"

    def to_dict(self) -> dict:
        """For the manifest of records."""
        return {"format": self.kind, **{role: self.name_of(role) for role in ROLES if role in self.places}, "only_domain": self.only_domain}

    def pick(self, row: Row, path: str) -> List[str]:
        """The cells of a row in the order text, (second text,) domain, label, of the roles that the file has.

        Raises:
            UserError: the row has another number of columns, lacks a key, or a value is not a text. Names file, row and kind.
        """
        cells = row.cells
        if isinstance(cells, dict):
            values = [self._value(row, role, path) for role in self.places]
        else:
            if len(cells) != len(self.names):
                expected = f"the header has {len(self.names)}" if self.header else f"row 1 has {len(self.names)}"
                hint = "" if self.kind == CSV else "; --text_format csv reads comma-separated text"
                raise UserError(f"{path}: {row.place(self.kind)}: {counted(len(cells), 'column')}, but {expected}{hint}")
            values = [cells[place] for place in self.places.values()]
        if self.only_domain is not None:
            values.insert(1 + self.pair, self.only_domain)
        return values

    def _value(self, row: Row, role: str, path: str) -> str:
        key = self.places[role]
        value = given = row.cells.get(key)  # type: ignore[union-attr]
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int) and role == "domain":
            return str(value)
        if role == "label":
            value = LABEL_KINDS[self.task_type].json_text(value)
        if not isinstance(value, str):
            found = f"{key!r} is {given!r:.40}, which is not a text" if key in row.cells else f"no {key!r}"
            raise UserError(f"{path}: {row.place(self.kind)}: {found}; --{role}_column chooses another key")
        return value


def looks_like_header(cells: Sequence[str], kind: str) -> bool:
    """Whether the first row of a table has names of columns.

    In tab-separated text of three or four columns, which is the documented form, all of them must be known names. Elsewhere, one known name
    of a text and one of a label are enough, if the others look like names.
    """
    if is_header(cells):
        return True
    if kind == TSV and len(cells) in (3, 4):
        return False
    words = [column_word(cell) for cell in cells]
    named = any(word in TEXT_COLUMNS for word in words) and any(word in LABEL_COLUMNS and len(word) > 1 for word in words)
    return named and all(word in INDEX_COLUMNS or _WORDS.match(cell.strip()) for word, cell in zip(words, cells))


def find_columns(
    first: Row, kind: str, options: TextOptions, path: str, roles: Tuple[str, ...] = ROLES, header: Optional[bool] = None
) -> Optional[Columns]:
    """Decides which column has which role.

    Args:
        first: the first row of the file.
        kind: TSV, CSV or JSONL.
        options: `TextOptions`.
        path: of the file, for messages.
        roles: those that the caller needs; "pair" and "domain" may be missing in the file.
        header: whether the first row is a header, if the caller knows; None to find out.

    Returns:
        `Columns`, or None for a table without header and flags, whose columns have the documented order.

    Raises:
        UserError: a column that a flag names is missing, or the columns are ambiguous. The message names the flag.
    """
    given = {role: value for role, value in options.columns().items() if role in roles}
    where = f"{path}: {first.place(kind)}"
    if isinstance(first.cells, dict):
        names, has_names = list(first.cells), True
    else:
        names = [cell.strip().lstrip("\ufeff") for cell in first.cells]
        has_names = any(not _is_number(value) for value in given.values())
        if header is None:
            header = looks_like_header(first.cells, kind) or (options.targets and is_target_header(first.cells))
        has_names = has_names or header
    if not has_names and not given:
        return None
    if kind == TSV and has_names and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
        raise UserError(
            f"{where}: the names of the columns are in quotes, but tab-separated text has no quotes: write the file without quotes, or as "
            "comma-separated text"
        )
    places = {role: _place(value, role, names, kind, where) for role, value in given.items()}
    if has_names:
        by_name = _targets_by_name if options.targets else _by_name
        for role, place in by_name(names, places, roles, where).items():
            places[role] = names[place] if kind == JSONL else place
    else:
        names = [str(number) for number in range(1, len(names) + 1)]
    for role in roles:
        if role in ("text", "label") and role not in places:
            known = f"the columns are {_listed(names)}" if has_names else f"the row has {counted(len(names), 'column')}"
            raise UserError(f"{where}: no column is known as that of {_WHAT[role]}: {known}; --{role}_column names it")
    chosen = list(places.values())
    for position, role in enumerate(places):
        if chosen.index(places[role]) != position:
            other = list(places)[chosen.index(places[role])]
            column = places[role] if kind == JSONL or not has_names else names[places[role]]
            shown = repr(column) if has_names else column + 1
            raise UserError(f"--{role}_column: column {shown} of {path} is {_WHAT[other]} already; give another column")
    only_domain = None
    if "domain" in roles and "domain" not in places:
        only_domain = options.only_domain
        if only_domain is None:
            raise UserError(
                f"{where}: no column is known as that of the domain: the columns are {_listed(names)}; --domain_column names it, and "
                "--domains NAME names the domain of all rows"
            )
    ordered = {role: places[role] for role in ROLES if role in places}
    return Columns(kind, has_names and kind != JSONL, ordered, names, only_domain, options.task_type)


def _is_number(value: str) -> bool:
    return re.match(r"[0-9]+\Z", value.strip()) is not None


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names)):.200}"


def _place(value: str, role: str, names: List[str], kind: str, where: str) -> Any:
    """Position of the column of a flag, or its key in JSON lines."""
    if kind != JSONL and _is_number(value):
        if not 1 <= int(value) <= len(names):
            raise UserError(
                f"{where}: has {counted(len(names), 'column')}, but --{role}_column is {value}: give a number from 1 to {len(names)}"
            )
        return int(value) - 1
    found = [position for position, name in enumerate(names) if name == value]
    found = found or [position for position, name in enumerate(names) if name.lower() == value.strip().lower()]
    if len(found) != 1:
        problem = "no" if not found else f"{len(found)} times the"
        numbers = "" if kind == JSONL else ", or its number from 1"
        raise UserError(
            f"{where}: {problem} column {value!r:.60}: the columns are {_listed(names)}; give --{role}_column one of them{numbers}"
        )
    return names[found[0]] if kind == JSONL else found[0]


def _free(names: List[str], places: Dict[str, Any]) -> List[int]:
    """Positions of the columns that no flag has chosen."""
    taken = {place if isinstance(place, int) else names.index(place) for place in places.values()}
    return [position for position in range(len(names)) if position not in taken]


def _targets_by_name(names: List[str], places: Dict[str, Any], roles: Tuple[str, ...], where: str) -> Dict[str, int]:
    """`_by_name` for rows of a source and its target. The source comes first, unless the names are those of _SURE_TARGETS: the text for an
    answer may be its question, or the other way round."""
    words, free, found = [column_word(name) for name in names], _free(names, places), {}
    for pair in _SURE_TARGETS:
        if all(words.count(word) == 1 for word in pair):
            known = {role: words.index(word) for role, word in zip(("text", "pair"), pair)}
            return {role: place for role, place in known.items() if role in roles and place in free}
    for role, known_words in (("text", SOURCE_COLUMNS), ("pair", TARGET_COLUMNS)):
        positions = [position for position in free if words[position] in known_words]
        if role in roles and role not in places and positions:
            found[role] = _only(role, positions, words, names, where)
    if len(found) == 2 and found["pair"] < found["text"]:
        raise UserError(
            f"{where}: the source comes before its target, but the columns are {_listed(names)}: --text_column names the source, and "
            "--pair_column the target"
        )
    return found


def _by_name(names: List[str], places: Dict[str, Any], roles: Tuple[str, ...], where: str) -> Dict[str, int]:
    """Positions of the roles that no flag has set, from the names of the columns."""
    words, free = [column_word(name) for name in names], _free(names, places)
    found: Dict[str, int] = {}
    if "text" in roles and "text" not in places:
        texts = [position for position in free if words[position] in TEXT_COLUMNS]
        pair = next((pair for pair in _PAIRS if sorted(words[position] for position in texts) == sorted(pair)), None)
        if pair is not None and "pair" in roles and "pair" not in places:
            found["text"], found["pair"] = (words.index(word) for word in pair)
        elif texts:
            found["text"] = _only("text", texts, words, names, where)
    both = DOMAIN_COLUMNS & LABEL_COLUMNS
    labels, domains, either = [], [], []
    for position in free:
        if words[position] in both:
            either.append(position)
        elif words[position] in LABEL_COLUMNS:
            labels.append(position)
        elif words[position] in DOMAIN_COLUMNS:
            domains.append(position)
    if "label" in roles and "label" not in places:
        if not labels and len(either) == 1:
            labels, either = either, []
        if labels:
            found["label"] = _only("label", labels, words, names, where)
    if "domain" in roles and "domain" not in places and (domains or either):
        found["domain"] = _only("domain", domains or either, words, names, where)
    return found


def _only(role: str, positions: List[int], words: List[str], names: List[str], where: str) -> int:
    """The one position, or that of the main name of the role. UserError if there are several."""
    main = [position for position in positions if words[position] == _MAIN.get(role)]
    if len(positions) == 1 or len(main) == 1:
        return (main or positions)[0]
    raise UserError(
        f"{where}: several columns may be {_WHAT[role]}: {_listed([names[position] for position in positions])}; --{role}_column decides"
    )
