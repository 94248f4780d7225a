"""BLEU-1 to BLEU-4 and ROUGE-L of generated texts, each with one reference, as SOFA measures PALM (dureader_eval.py).

    BLEU-n   = exp(min(0, 1 - r / c)) * (p_1 ... p_n)^(1/n)      over the corpus: p_k clipped matches / k-grams of the hypotheses, c and r
               the units of hypotheses and references
    ROUGE-L  = mean over rows of (1 + b^2) P R / (R + b^2 P), b = 1.2, P = LCS / units of the hypothesis, R = LCS / units of the reference

Units are the characters without spaces, as for Chinese, or the words between spaces.
"""

import collections
import math
from typing import Dict, List, Sequence

from modeling.cli.choices import CHARACTERS
from modeling.run.measures import TEXT_SCORES

_BETA = 1.2
_ORDERS = 4


def units_of(text: str, kind: str = CHARACTERS) -> List[str]:
    """The units of a text: one of `choices.SCORE_UNITS`."""
    words = text.split()
    return list("".join(words)) if kind == CHARACTERS else words


def _grams(units: Sequence[str], order: int) -> collections.Counter:
    return collections.Counter(tuple(units[start : start + order]) for start in range(len(units) - order + 1))


def bleu(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> List[float]:
    """BLEU-1 to BLEU-4 of N hypotheses, lists of units; 0 where no n-gram matches."""
    matches, totals = [0] * _ORDERS, [0] * _ORDERS
    for hypothesis, reference in zip(hypotheses, references):
        for order in range(1, _ORDERS + 1):
            own, other = _grams(hypothesis, order), _grams(reference, order)
            matches[order - 1] += sum((own & other).values())
            totals[order - 1] += sum(own.values())
    length, wanted = sum(map(len, hypotheses)), sum(map(len, references))
    penalty = 0.0 if length >= wanted else 1.0 - wanted / length if length else -math.inf
    found, logs = [], 0.0
    for order, (matched, total) in enumerate(zip(matches, totals), 1):
        logs += math.log(matched / total) if matched else -math.inf
        found.append(math.exp(penalty + logs / order))
    return found


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for unit in one:
        before = 0  # of the row above, one place to the left
        for place, second in enumerate(other, 1):
            before, row[place] = row[place], before + 1 if unit == second else max(row[place], row[place - 1])
    return row[-1]


def rouge_l(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L of N hypotheses, lists of units; 0 for a row without a common unit."""
    total = 0.0
    for hypothesis, reference in zip(hypotheses, references):
        common = longest_common(hypothesis, reference)
        if common:
            precision, recall = common / len(hypothesis), common / len(reference)
            total += (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return total / len(hypotheses)


def text_scores(hypotheses: Sequence[str], references: Sequence[str], kind: str = CHARACTERS) -> Dict[str, float]:
    """dict of `measures.TEXT_SCORES` -> value, of N >= 1 generated texts and their references."""
    own, others = ([units_of(text, kind) for text in texts] for texts in (hypotheses, references))
    return dict(zip(TEXT_SCORES, (*bleu(own, others), rouge_l(own, others))))
