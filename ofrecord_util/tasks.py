"""Tasks: domains, labels and their order, and whether a sample is one text or a pair."""

import os
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Set, Tuple, Union

from ofrecord_util import text
from ofrecord_util.errors import UserError
from ofrecord_util.names import lookalike, spelled, split_by_look
from ofrecord_util.reading import read_json
from ofrecord_util.text_columns import TextOptions

Names = Union[str, Sequence[str], None]


def _is_integer(word: str) -> bool:
    return re.match(r"-?[0-9]+\Z", word) is not None


# Bytes of UTF-8. The name of a task becomes a part of the names of folders, which have at most 255.
_LONGEST_TASK_NAME, _LONGEST_NAME = 150, 800


def _check_name(name: str, what: str, longest: int) -> None:
    """UserError for a name that cannot be a column of a file, or would change a terminal or a page that shows it."""
    odd = next((char for char in name if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")), None)
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

    Raises:
        UserError: no domain, a single label, a name twice (in any case), or a name with control characters or too many bytes.
    """

    name: str
    domains: tuple
    labels: tuple
    pair: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name, "--task_name:", _LONGEST_TASK_NAME)
        for kind, flag, values, least in (
            ("domain", "--domains", self.domains, 1),
            ("label", "--label_list", self.labels, 2 if self.labels else 0),
        ):
            for value in values:
                _check_name(value, f"{flag}: {kind}", _LONGEST_NAME)
            folded = [value.lower() for value in values]
            if len(values) < least:
                raise UserError(
                    "task {!r} has {} {}s ({}), needs at least {}: give {}".format(
                        self.name, len(values), kind, ", ".join(values) or "none", least, flag
                    )
                )
            alike = split_by_look(values)
            if alike is not None:
                raise UserError(
                    f"{flag}: the {kind}s {spelled(alike[0])} and {spelled(alike[1])} look the same; write both in the same way"
                )
            for value in folded:
                if not value.strip() or folded.count(value) > 1:
                    raise UserError("{}: {} {!r} is {}".format(flag, kind, value, "listed twice" if value.strip() else "empty"))

    @property
    def num_domains(self) -> int:
        return len(self.domains)

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @property
    def numbers_are_ids(self) -> bool:
        """True where all labels are words, so that a number in a label column is the id itself (for senti `0` is
        `positive`)."""
        return not any(_is_integer(label) for label in self.labels)

    def domain_id(self, name: str) -> int:
        """Id of a domain, matched in any case. UserError lists the domains."""
        return self._position(name, self.domains, "domain", "--domains")

    def label_id(self, name: str) -> int:
        """Id of a label, matched in any case.

        Where all labels are words, a number below `num_labels` is taken as the id itself. UserError lists the
        labels.
        """
        word = name.strip()
        if self.numbers_are_ids and _is_integer(word) and 0 <= int(word) < self.num_labels:
            return int(word)
        return self._position(name, self.labels, "label", "--label_list")

    def _position(self, name: str, values: Tuple[str, ...], kind: str, flag: str) -> int:
        folded = name.strip().lower()
        for position, value in enumerate(values):
            if value.lower() == folded:
                return position
        alike = lookalike(name, values)
        if alike is not None:
            raise UserError(
                f"{kind} {spelled(name)} looks like {spelled(alike)} of task {self.name!r} and is another one; write both alike"
            )
        raise UserError(
            "{} {!r:.80} is not one of task {!r} ({}); {} or --task_name selects others".format(
                kind, name, self.name, ", ".join(values), flag
            )
        )

    def to_dict(self) -> dict:
        """The task as a dict for JSON; `from_dict` reads it."""
        return {"name": self.name, "domains": list(self.domains), "labels": list(self.labels), "pair": self.pair}

    @classmethod
    def from_dict(cls, values: Any) -> "Task":
        """The task of `to_dict`. UserError where a key is missing or has another type."""
        values = values if isinstance(values, dict) else {}
        for key, kind in (("name", str), ("domains", (list, tuple)), ("labels", (list, tuple)), ("pair", bool)):
            if not isinstance(values.get(key), kind):
                raise UserError(f"task description: {key!r} is {values.get(key)!r}, which a task cannot have")
            if key in ("domains", "labels") and not all(isinstance(value, str) for value in values[key]):
                raise UserError(f"task description: {key!r} holds {values[key]!r}, not names")
        return cls(values["name"], tuple(values["domains"]), tuple(values["labels"]), values["pair"])

    def same_ids(self, other: "Task") -> bool:
        """True where domains, labels and pair-ness agree, so that ids mean the same. The task's name does not
        matter."""
        return (
            [d.lower() for d in self.domains] == [d.lower() for d in other.domains]
            and [v.lower() for v in self.labels] == [v.lower() for v in other.labels]
            and self.pair == other.pair
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
    name: str, data_dir: str, domains: Names = None, label_list: Names = None, folder: Optional[text.TextFolder] = None
) -> Task:
    """The task that `--task_name`, `--domains` and `--label_list` mean.

    A known name (any case) has known domains and labels; the flags override either. Where the labels of a known task are words and the
    training text has numbers, the numbers become the names (`0`, `1`): only the user knows which word each number means, and can name
    them with `--label_list`. For any other name, domains and labels that the flags do not name are read from the training text, or,
    without text, from the manifest of existing training records. They are sorted, numbers by value, so that their order does not depend
    on that of the rows. Rows of four columns make a pair task.

    Args:
        name: str.
        data_dir: folder of the data.
        domains, label_list: comma list (str), sequence of str, or None.
        folder: `TextFolder` of `data_dir`, which keeps the rows that are read here; None uses a new one.

    Raises:
        UserError: the domains or labels of an unknown name are found nowhere, or the training text is invalid.
    """
    domains, labels = _names(domains), _names(label_list)
    key = name.strip().lower()
    if not key:
        raise UserError("--task_name is empty; known names: {}".format(", ".join(sorted(KNOWN_TASKS))))
    if folder is None:
        folder = text.TextFolder(data_dir, TextOptions(only_domain=only_domain(name, domains)))
    if key in KNOWN_TASKS:
        known_domains, known_labels, pair = KNOWN_TASKS[key]
        return Task(key, domains or known_domains, labels or _numbers_in_use(folder, known_labels) or known_labels, pair)

    if domains and labels:  # no name is told from the rows
        of_pairs = folder.pair("train")
        if of_pairs is not None:
            return Task(key, domains, labels, of_pairs)
    found = folder.names("train")
    if found is not None:
        found_domains, found_labels, pair = found
        return Task(key, domains or _sorted_names(found_domains), labels or _sorted_names(found_labels), pair)
    manifest_path = _train_manifest(data_dir)
    if os.path.isfile(manifest_path):
        stored = _stored_task(manifest_path)
        return Task(key, domains or stored.domains, labels or stored.labels, stored.pair)
    if domains and labels:
        return Task(key, domains, labels, False)
    raise UserError(
        "task {!r} is unknown ({} are known) and {} has no training text to read it from: "
        "give --domains and --label_list, or put train.csv there".format(name, ", ".join(sorted(KNOWN_TASKS)), data_dir)
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
    return Task.from_dict(read_json(manifest_path, "write the records again with --resave_ofrecord").get("task"))


def _sorted_names(names: Set[str]) -> Tuple[str, ...]:
    """Names once in any case (the first spelling in sorted order wins), sorted; all-integer names by value."""
    numbers = all(_is_integer(name) for name in names)
    unique: Dict[str, str] = {}
    for name in sorted(names):
        unique.setdefault(name.lower(), name)
    return tuple(unique[key] for key in sorted(unique, key=(lambda key: (int(key), key)) if numbers else None))
