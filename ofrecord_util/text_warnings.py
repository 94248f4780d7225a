"""Warnings about the text of a split: quotes, labels and domains without a row, repeated texts."""

from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ofrecord_util.escaping import listed
from ofrecord_util.text import TextSplit

if TYPE_CHECKING:
    from ofrecord_util.tasks import Task

_FEW_QUOTED = 0.05  # of the texts: in reviews, that many may begin and end with a quotation


def _quotes(path: str, texts: List[str]) -> Optional[str]:
    """A warning if many texts are in double quotes, or if the quotes within them are doubled, as programs that quote fields do; else
    None."""
    quoted = [row for row, text in enumerate(texts, 1) if len(text) > 1 and text[0] == text[-1] == '"']
    doubled = [row for row in quoted if '""' in texts[row - 1][1:-1] and '"' not in texts[row - 1][1:-1].replace('""', "")]
    if len(quoted) <= max(1, _FEW_QUOTED * len(texts)) and not doubled:
        return None
    return (
        f"{path}: {len(quoted)} of {len(texts)} texts, the first in sample {(doubled or quoted)[0]}, are in double quotes, which are read "
        "as a part of the text: write the file again without quotes, or as comma-separated text"
    )


_ONE_ONLY = {  # (label or domain, whether the rows are for training): consequence of a single one
    ("label", True): "the classifier cannot learn to separate labels",
    ("label", False): "a constant prediction would have an accuracy of 1",
    ("domain", True): "prototypical scores compare with the prototypes of this domain only, and a domain loss has no effect "
    "(scripts that have one turn it off with --use_domain_loss false)",
    ("domain", False): "the accuracy is that of this domain only",
}
# What follows from a single tag, by whether the rows are for training
ONE_TAG_ONLY = {True: "the model cannot learn to tell tags apart", False: "a constant prediction would have an accuracy of 1"}
_ONE_DOMAIN_UNLABELLED = "the student learns from this domain only"


def missing_names(
    place: str,
    kind: str,
    names: Sequence[str],
    counts: np.ndarray,
    learns: bool,
    only: Optional[str] = None,
    unit: str = "row",
) -> Optional[str]:
    """The warning about domains or labels of a task that a split does not have; None if it has all.

    Args:
        place: the file.
        kind: "label", "domain" or "tag".
        names: of the task.
        counts: int, the number of units with each name.
        learns: whether the rows are for training.
        only: what follows if the rows have a single one of several names.
        unit: what has a name.
    """
    missing = [name for name, count in zip(names, counts.tolist()) if not count]
    if not missing:
        return None
    if np.count_nonzero(counts) == 1 and only is not None:
        total = int(counts.sum())
        rows = f"all {total} {unit}s have" if total > 1 else f"the only {unit} has"
        return f"{place}: {rows} the {kind} {names[int(counts.argmax())]} (none {listed(missing)}): {only}"
    several = ("s", "they are") if len(missing) > 1 else ("", "it is")
    return f"{place}: no {unit} has the {kind}{several[0]} {listed(missing)}: {several[1]} not {'trained' if learns else 'measured'}"


def unread_columns(place: str, count: int, read: str) -> str:
    """The warning about a row whose further columns are not read.

    Args:
        place: the input and the row.
        count: columns of the row.
        read: what is read of it.
    """
    return f"warning: {place} has {count} columns: {read}, the others are not read, in any row"


class Repeats(NamedTuple):
    """Counts of repeated texts in a split.

    Attributes:
        repeated: rows with the text of an earlier row.
        contradictions: those of them with another label than the first row of the text.
        shared: rows with a text of the training split; None for the training split.
    """

    repeated: int
    contradictions: int
    shared: Optional[int] = None


def count_repeats(rows: TextSplit, train: Optional[TextSplit] = None) -> Repeats:
    """The `Repeats` of a split. Arguments as in `text_warnings`."""
    first: Dict[Tuple[str, Optional[str]], int] = {}
    repeated = contradictions = 0
    for text, label in zip(rows.texts(), rows.label.tolist()):
        repeated += text in first
        contradictions += first.setdefault(text, label) != label
    if train is None:
        return Repeats(repeated, contradictions)
    learned = set(train.texts())
    return Repeats(repeated, contradictions, sum(text in learned for text in rows.texts()))


def text_warnings(
    rows: TextSplit, task: "Task", train: Optional[TextSplit] = None, repeats: Optional[Repeats] = None, learns: Optional[bool] = None
) -> List[str]:
    """Warnings about the text of a split, one line each.

    Args:
        rows: `TextSplit`.
        task: its `Task`.
        train: `TextSplit` of the training split where `rows` belong to another split, else None.
        repeats: `count_repeats(rows, train)` if it is known.
        learns: whether `rows` are for training; None: if there is no `train`.

    Returns:
        list of str: quotes around most texts, labels and domains without a row, repeated texts, texts of the training split.
    """
    lines: List[str] = []
    lines += filter(None, (_quotes(rows.path, rows.text_a), _quotes(rows.path, rows.text_b or [])))
    learns = train is None if learns is None else learns
    for kind, names, ids in (("label", task.labels, rows.label), ("domain", task.domains, rows.domain))[not rows.labelled :]:
        only = _ONE_ONLY[kind, learns] if kind == "domain" or task.kind.exclusive else None
        number_of_each = np.bincount(ids, minlength=len(names)) if kind == "domain" else task.kind.counts(ids, len(names))
        missing = missing_names(rows.path, kind, names, number_of_each, learns, only if rows.labelled else _ONE_DOMAIN_UNLABELLED)
        lines += [missing] if missing else []
    odd = task.kind.warning(rows.label) if rows.labelled else None
    lines += [f"{rows.path}: {odd}"] if odd else []
    repeats = repeats or count_repeats(rows, train)
    if repeats.repeated:
        counts = f"{repeats.repeated} of {len(rows)} rows repeat the text of an earlier one"
        lines.append(f"{rows.path}: {counts}" + (f", {repeats.contradictions} of them under another label" if rows.labelled else ""))
    if train is not None and repeats.shared:
        lines.append(
            f"{rows.path}: {repeats.shared} of {len(rows)} rows have a text that is also in {train.path}: they do not measure "
            "generalisation"
        )
    return lines
