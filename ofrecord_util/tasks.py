"""Tasks: domains, labels and their order, and whether a sample is one text or a pair."""

import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Sequence, Set, Tuple, Union

from ofrecord_util import text
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted, listed
from ofrecord_util.json_reading import read_json
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, Classes
from ofrecord_util.names import Confusables, odd_character, spelled, split_by_look
from ofrecord_util.text_columns import TextOptions

Names = Union[str, Sequence[str], None]

HELD_OUT_KEY = "held_out_domains"  # names of held-out domains, in the information about scores and in the manifest of a corpus


def _is_integer(word: str) -> bool:
    return re.match(r"-?[0-9]+\Z", word) is not None


# Bytes of UTF-8. The name of a task becomes a part of the names of folders, which have at most 255.
_LONGEST_TASK_NAME, _LONGEST_NAME = 150, 800


def _check_name(name: str, what: str, longest: int) -> None:
    """UserError for a name that cannot be a column of a file, or would change a terminal or a page that shows it."""
    odd = odd_character(name)
    if odd is not None:
        raise UserError(f"{what} {name!a:.80} contains the character U+{ord(odd):04X}, which is not text: give another name")
    if len(name.encode("utf-8")) > longest:
        raise UserError(f"{what} {name!r:.40} has {len(name.encode('utf-8'))} bytes, at most {longest} are allowed: give another name")


@dataclass(frozen=True)
class Task:
    """Domains and labels of a task. An id is the position in its tuple.

    Attributes:
        name: the value of `--task_name`, lower-cased.
        domains: tuple of str.
        labels: tuple of str; empty for text without labels.
        pair: True where a sample is a pair of texts (four columns).
        task_type: CLASSIFICATION, REGRESSION or MULTI_LABEL. The labels of a regression are the name of its number.
        origins: dict of "domain" and "label" -> the file whose rows gave these names, for messages. A kind of names that a flag or the
            name of the task gave is not in it.

    Raises:
        UserError: no domain, another number of labels than the type allows, a name twice (in any case), or a name with control characters
            or too many bytes.
    """

    name: str
    domains: tuple
    labels: tuple
    pair: bool = False
    task_type: str = CLASSIFICATION
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    # derived once, because a text asks for each of its rows: {name in lower case: id}
    _domain_places: Dict[str, int] = field(init=False, compare=False, repr=False)
    _label_places: Dict[str, int] = field(init=False, compare=False, repr=False)
    _labels_are_words: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name, "--task_name:", _LONGEST_TASK_NAME)
        for kind, flag, values, (least, most) in (
            ("domain", "--domains", self.domains, (1, len(self.domains))),
            ("label", "--label_list", self.labels, self.kind.limits if self.labels else (0, 0)),
        ):
            source = self.origins.get(kind, flag)  # where the names are to be corrected
            for value in values:
                _check_name(value, f"{source}: {kind}", _LONGEST_NAME)
            folded = [value.lower() for value in values]
            if len(values) < least:
                where, remedy = (f"{source}: ", f"rows with others, or {flag}") if kind in self.origins else ("", flag)
                raise UserError(
                    f"{where}task {self.name!r} has {counted(len(values), kind)} ({listed(values) or 'none'}), needs at least {least}: "
                    f"give {remedy}"
                )
            if len(values) > most:
                names = listed(values)
                raise UserError(f"{flag}: task {self.name!r} is a {self.task_type} of one number, but {len(values)} are named ({names})")
            mixed = next((value for value in values if kind == "label" and self.kind.splits(value)), None)
            if mixed is not None:
                raise UserError(f"{source}: the label {mixed!r:.60} has a sign that separates the labels of a row: give it another name")
            alike = split_by_look(values)
            if alike is not None:
                raise UserError(
                    f"{source}: the {kind}s {spelled(alike[0])} and {spelled(alike[1])} look the same; write both in the same way"
                )
            first_places = {value: number for number, value in reversed(list(enumerate(folded)))}
            for place, (value, first) in enumerate(zip(values, map(first_places.__getitem__, folded))):
                if not value.strip():
                    raise UserError(f"{source}: {kind} {value!r} is empty")
                if first != place:
                    also = "" if value == values[first] else f" (also as {values[first]!r}: upper and lower case are the same)"
                    raise UserError(f"{source}: {kind} {value!r} is listed twice{also}")
            object.__setattr__(self, f"_{kind}_places", {value: place for place, value in enumerate(folded)})
        object.__setattr__(self, "_labels_are_words", not any(map(_is_integer, self.labels)))

    @property
    def kind(self) -> Classes:
        """The rules about the labels of the task's type (label_kinds.py)."""
        return LABEL_KINDS[self.task_type]

    @property
    def num_domains(self) -> int:
        return len(self.domains)

    @property
    def num_labels(self) -> int:
        """The number of labels, which is that of the classifier's outputs; 1 for a regression."""
        return len(self.labels)

    @property
    def numbers_are_ids(self) -> bool:
        """True where all labels are words, so that a number in a label column is the id itself (for senti `0` is
        `positive`)."""
        return self.kind.by_position and self._labels_are_words

    def domain_id(self, name: str) -> int:
        """Id of a domain, matched in any case. UserError lists the domains."""
        return self._position(name, self.domains, self._domain_places, "domain", "--domains")

    def label_id(self, name: str) -> int:
        """Id of a label, matched in any case.

        Where all labels are words, a number below `num_labels` is taken as the id itself. UserError lists the
        labels.
        """
        word = name.strip()
        if self.numbers_are_ids and _is_integer(word) and 0 <= int(word) < self.num_labels:
            return int(word)
        return self._position(name, self.labels, self._label_places, "label", "--label_list")

    def _position(self, name: str, values: Tuple[str, ...], places: Dict[str, int], kind: str, flag: str) -> int:
        place = places.get(name.strip().lower())
        if place is not None:
            return place
        alike = Confusables(values).find(name)
        if alike is not None:
            raise UserError(
                f"{kind} {spelled(name)} looks like {spelled(alike)} of task {self.name!r} and is another one; write both alike"
            )
        remedy = f"{flag} or --task_name selects others"
        if kind in self.origins:
            remedy = f"{self.origins[kind]} has no row with it: correct this row, or name all {kind}s with {flag}"
        raise UserError(f"{kind} {name!r:.80} is not one of task {self.name!r} ({listed(values)}); {remedy}")

    def to_dict(self) -> dict:
        """The task as a dict for JSON; `from_dict` reads it."""
        other = {} if self.task_type == CLASSIFICATION else {"task_type": self.task_type}  # as before there were other types
        return {"name": self.name, "domains": list(self.domains), "labels": list(self.labels), "pair": self.pair, **other}

    @classmethod
    def from_dict(cls, values: Any, path: Optional[str] = None, remedy: str = "") -> "Task":
        """The task of `to_dict`.

        Args:
            values: parsed from JSON.
            path: the file that holds them, for messages.
            remedy: what the user can do about a damaged file, for messages.

        Raises:
            UserError: a key is missing or has another type, or the values do not describe a task.
        """
        try:
            return cls._from_values(values if isinstance(values, dict) else {})
        except UserError as error:
            raise UserError(": ".join(filter(None, (path, str(error)))) + (f"; {remedy}" if remedy else "")) from error

    @classmethod
    def _from_values(cls, values: Dict[str, Any]) -> "Task":
        for key, kind in (("name", str), ("domains", (list, tuple)), ("labels", (list, tuple)), ("pair", bool)):
            if not isinstance(values.get(key), kind):
                raise UserError(f"task description: {key!r} is {values.get(key)!r}, which a task cannot have")
            if key in ("domains", "labels") and not all(isinstance(value, str) for value in values[key]):
                raise UserError(f"task description: {key!r} holds {values[key]!r}, not names")
        task_type = values.get("task_type", CLASSIFICATION)
        if not isinstance(task_type, str) or task_type not in LABEL_KINDS:
            raise UserError(f"task description: 'task_type' is {task_type!r:.80}, known are {', '.join(LABEL_KINDS)}")
        return cls(values["name"], tuple(values["domains"]), tuple(values["labels"]), values["pair"], task_type)

    def same_ids(self, other: "Task") -> bool:
        """True where domains, labels, pair-ness and type agree, so that ids mean the same. The task's name does not
        matter."""
        return (
            [d.lower() for d in self.domains] == [d.lower() for d in other.domains]
            and [v.lower() for v in self.labels] == [v.lower() for v in other.labels]
            and self.pair == other.pair
            and self.task_type == other.task_type
        )


_BINARY = ("0", "1")
_INFERENCE = ("entailment", "neutral", "contradiction")

# name: (domains in id order, labels in id order, pairs)
KNOWN_TASKS = {
    "g1": (("SST-2", "mr", "cr"), _BINARY, False),
    "g2": (("mnli", "snli"), _INFERENCE, True),
    "g3": (("mrpc", "qqp"), _BINARY, True),
    "sst-2": (("SST-2",), _BINARY, False),
    "mr": (("mr",), _BINARY, False),
    "cr": (("cr",), _BINARY, False),
    "senti": (("books", "dvd", "electronics", "kitchen"), ("positive", "negative"), False),
    "mnli": (("fiction", "government", "slate", "telephone", "travel"), _INFERENCE, True),
}


def _names(value: Names) -> Optional[Tuple[str, ...]]:
    """Names of a comma list or a sequence; None stays None."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else list(value)
    return tuple(part.strip() for part in parts)


def resolve_task(
    name: str,
    data_dir: str,
    domains: Names = None,
    label_list: Names = None,
    folder: Optional[text.TextFolder] = None,
    task_type: str = CLASSIFICATION,
) -> Task:
    """The task that `--task_name`, `--domains` and `--label_list` mean.

    A known name (any case) has known domains and labels; the flags override either. Where the labels of a known task are words and the
    training text has numbers, the numbers become the names (`0`, `1`): only the user knows which word each number means, and can name
    them with `--label_list`. For any other name, domains and labels that the flags do not name are read from the training text, or,
    without text, from the manifest of existing training records. They are sorted, numbers by value, so that their order does not depend
    on that of the rows. Rows of four columns make a pair task. The labels of a known task are those of its classification.

    Args:
        name: str.
        data_dir: folder of the data.
        domains, label_list: comma list (str), sequence of str, or None.
        folder: `TextFolder` of `data_dir`, which keeps the rows that are read here, with this `task_type`; None uses a new one.
        task_type: value of `--task_type`.

    Raises:
        UserError: the domains or labels of an unknown name are found nowhere, or the training text is invalid.
    """
    domains, labels = _names(domains), _names(label_list)
    key = name.strip().lower()
    if not key:
        raise UserError("--task_name is empty; known names: {}".format(", ".join(sorted(KNOWN_TASKS))))
    if folder is None:
        folder = text.TextFolder(data_dir, TextOptions(only_domain=only_domain(name, domains), task_type=task_type))
    if key in KNOWN_TASKS:
        known_domains, known_labels, pair = KNOWN_TASKS[key]
        if task_type == CLASSIFICATION:
            return Task(key, domains or known_domains, labels or _numbers_in_use(folder, known_labels) or known_labels, pair)
        domains = domains or known_domains
    labels = labels or LABEL_KINDS[task_type].default_labels

    if domains and labels:  # no name is told from the rows
        of_pairs = folder.pair("train")
        if of_pairs is not None:
            return Task(key, domains, labels, of_pairs, task_type)
    found, table = folder.names("train"), folder.table("train")
    if found is not None and table is not None:
        found_domains, found_labels, pair = found
        if not labels and not found_labels:
            raise UserError(
                f"{table.path}: the label of each of the {len(table.rows)} rows is empty, so there is no label to learn: --label_column "
                "chooses another column, and --label_list names the labels"
            )
        origins = {kind: table.path for kind, names in (("domain", domains), ("label", labels)) if not names}
        return Task(key, domains or _sorted_names(found_domains), labels or _sorted_names(found_labels), pair, task_type, origins)
    manifest_path = _train_manifest(data_dir)
    if os.path.isfile(manifest_path):
        stored = _stored_task(manifest_path)
        if stored.task_type != task_type:
            raise UserError(
                f"{manifest_path}: the records have the labels of --task_type {stored.task_type}, not of {task_type}: give --task_type, or "
                "write them again from the text with --resave_ofrecord"
            )
        origins = {kind: manifest_path for kind, names in (("domain", domains), ("label", labels)) if not names}
        return Task(key, domains or stored.domains, labels or stored.labels, stored.pair, task_type, origins)
    if domains and labels:
        return Task(key, domains, labels, False, task_type)
    raise UserError(
        "task {!r} is unknown ({} are known) and {} has no training text to read it from: "
        "give --domains and --label_list, or put {} there".format(name, ", ".join(sorted(KNOWN_TASKS)), data_dir, folder.training_file)
    )


def only_domain(name: str, domains: Names = None) -> Optional[str]:
    """The domain of all rows of text without a column of domains: the only one of `--domains` or of a known task; for an unknown task
    without `--domains`, its name. None if there are several.

    Args:
        name: `--task_name`.
        domains: as of `resolve_task`.
    """
    key = name.strip().lower()
    known = _names(domains) or (KNOWN_TASKS[key][0] if key in KNOWN_TASKS else (key,))
    return known[0] if len(known) == 1 else None


def _numbers_in_use(folder: text.TextFolder, labels: Tuple[str, ...]) -> Optional[Tuple[str, ...]]:
    """Numbers as names, `0` to one less than there are labels, where these are words and the training text has numbers; else None.
    Without text, the manifest of the training records decides."""
    numbers = tuple(map(str, range(len(labels))))
    if any(map(_is_integer, labels)) or not os.path.isdir(folder.data_dir):
        return None
    try:
        table = folder.table("train")
    except UserError:  # the step that uses the training text reports it
        return None
    if table is not None:
        first = next((cells for _, cells in table.rows if any(map(str.strip, cells))), [""])
        return numbers if _is_integer(first[-1].strip()) else None
    manifest_path = _train_manifest(folder.data_dir)
    if os.path.isfile(manifest_path):
        return numbers if _stored_task(manifest_path).labels == numbers else None
    return None


def numbers_for_words(task: Task) -> bool:
    """True where a known task's labels are words, and numbers are used in their place."""
    return task.name in KNOWN_TASKS and all(map(_is_integer, task.labels)) and not any(map(_is_integer, KNOWN_TASKS[task.name][1]))


def _train_manifest(data_dir: str) -> str:
    return os.path.join(data_dir, "ofrecord", "train", "manifest.json")


def _stored_task(manifest_path: str) -> Task:
    remedy = "write the records again with --resave_ofrecord"
    return Task.from_dict(read_json(manifest_path, remedy).get("task"), manifest_path, remedy)


def _sorted_names(names: Set[str]) -> Tuple[str, ...]:
    """Names once in any case (the first spelling in sorted order wins), sorted; all-integer names by value."""
    numbers = all(_is_integer(name) for name in names)
    unique: Dict[str, str] = {}
    for name in sorted(names):
        unique.setdefault(name.lower(), name)
    return tuple(unique[key] for key in sorted(unique, key=(lambda key: (int(key), key)) if numbers else None))


def held_out_phrase(names: Sequence[Any]) -> str:
    """What was made with these held-out domains, for messages: "with --held_out_domains a,b", or "without it" if there are none."""
    return "with --held_out_domains " + ",".join(map(str, names)) if names else "without it"
