"""Exact match and F1 of answers, as SQuAD's official script computes them (Rajpurkar et al. 2016), as shares of 1 and not of 100.

Before a comparison an answer is lower-cased, and loses ASCII punctuation, the articles a, an and the, and repeated white space. A question
has the best value of its true answers. One without a true answer has 1 for an empty answer and 0 for any other, as in SQuAD 2.0.
"""

import collections
import re
import string
from typing import List, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> List[str]:
    """The words of an answer that count."""
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def exact_match(predicted: str, true: str) -> float:
    """1 if the words are the same, else 0."""
    return float(normalized(predicted) == normalized(true))


def f1(predicted: str, true: str) -> float:
    """Harmonic mean of the shares of the words that are in both answers; a word counts as often as it occurs in both."""
    own, other = normalized(predicted), normalized(true)
    same = sum((collections.Counter(own) & collections.Counter(other)).values())
    if not same:
        return 0.0
    precision, recall = same / len(own), same / len(other)
    return 2 * precision * recall / (precision + recall)


def best_of(measure, predicted: str, answers: Sequence[str]) -> float:
    """The best value of a measure over the true answers of a question."""
    if not answers:
        return float(not normalized(predicted))
    return max(measure(predicted, true) for true in answers)
