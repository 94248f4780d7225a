"""Precision, recall and F1 of entities, as conlleval and seqeval count them (seqeval's default mode, micro average).

An entity is a type and its first and last word. It counts as found if all three are right. Tags that do not fit together are read
leniently, as conlleval does: an I- without a B- of its type before it begins an entity.
"""

from typing import Iterable, List, NamedTuple, Sequence, Tuple

from modeling.cli.choices import ENTITY_F1
from modeling.run.measures import ENTITY_PRECISION, ENTITY_RECALL
from ofrecord_util.tagged_text import OUTSIDE

_ENDED = "ES"  # a word with one of these prefixes is the last of its entity


class Counts(NamedTuple):
    """Numbers of entities."""

    right: int = 0  # that are in both
    predicted: int = 0
    true: int = 0

    def __add__(self, other):
        return Counts(*(one + two for one, two in zip(self, other)))


def entities(tags: Sequence[str]) -> List[Tuple[str, int, int]]:
    """The entities of a sentence: list of (type, first word, last word).

    Args:
        tags: of the words: O, or B, I, E or S, with a dash and a type.
    """
    found, start = [], None
    before, type_before = OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = tag[:1], tag[1:].split("-", maxsplit=1)[-1]
        goes_on = prefix in "IE" and before in "BI" and kind == type_before
        if start is not None and not goes_on:
            found.append((type_before, start, place - 1))
            start = None
        if prefix != OUTSIDE and not goes_on:
            start = place
        before, type_before = prefix, kind
    return found


def count_entities(true: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> Counts:
    """The `Counts` of some sentences.

    Args:
        true, predicted: tags of the words of each sentence.
    """
    total = Counts()
    for own, other in zip(true, predicted):
        one, two = set(entities(own)), set(entities(other))
        total += Counts(len(one & two), len(two), len(one))
    return total


def entity_measures(counts: Counts) -> dict:
    """dict of ENTITY_F1, ENTITY_PRECISION and ENTITY_RECALL; 0 where a denominator is 0."""
    precision, recall = (counts.right / number if number else 0.0 for number in (counts.predicted, counts.true))
    total = counts.predicted + counts.true
    return {ENTITY_F1: 2 * counts.right / total if total else 0.0, ENTITY_PRECISION: precision, ENTITY_RECALL: recall}
