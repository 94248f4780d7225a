"""Beam search in NumPy, over any function that gives the log-probabilities of the next token.

    score = (sum of log p of the tokens, [SEP] included) / ((5 + tokens) / 6)^alpha

Each step extends the hypotheses of a source by every token and keeps the best K by score. One that ends takes a place of the K and leaves
the search. The search of a source stops when none of its hypotheses can pass the best ended one: a sum of log-probabilities only falls,
so the score of a continuation is at most that of the same sum at the greatest length, at which all hypotheses end.

SOFA's generator does not remove a hypothesis that has ended, and stops when the best one ends, although a longer one may still have a
higher score. So the results can differ. With K = 1 the search is greedy.
"""

from typing import Callable, List, NamedTuple

import numpy as np

from ofrecord_util.errors import UserError

_NEVER = -1e20  # log-probability of a token that is not allowed


class Search(NamedTuple):
    """The settings of a search."""

    beam: int = 5  # K
    alpha: float = 0.6  # --length_penalty, 0 or more
    min_length: int = 0  # tokens before the end, at least
    max_length: int = 99  # tokens with the end, at most

    def check(self) -> None:
        """Raises a UserError if the shortest text is longer than the longest one."""
        if self.min_length >= self.max_length:
            raise UserError(f"--min_length {self.min_length}: must be below --max_length {self.max_length}, which counts [SEP] too")

    def score(self, total, length):
        """The score of a sum of log-probabilities of `length` tokens."""
        return total / ((5.0 + length) / 6.0) ** self.alpha


class Hypothesis(NamedTuple):
    """The result for a source."""

    tokens: List[int]  # without the end
    score: float
    ended: bool  # False if it was cut at the greatest length


class _Source:
    """The hypotheses of one source."""

    def __init__(self):
        self.best, self.ended, self.done = None, 0, False
        self.texts = [[]]  # tokens of the hypotheses that go on; their places are the rows of the source
        self.sums = np.zeros(1)


def beam_search(step: Callable, count: int, start: int, end: int, search: Search) -> List[Hypothesis]:
    """The best hypothesis of each source.

    Args:
        step: function of (tokens int32 [count * K], parents int32 [count * K], number of the step from 0) -> log-probabilities
            [count * K, V] of the token that follows. `tokens` are the last tokens of the rows; row r continues row parents[r] of the
            step before. The rows of a source are K neighbours. Rows without a hypothesis repeat others; their values are not used.
        count: number of sources.
        start, end: ids of [CLS] and [SEP].
        search: `Search`.
    Returns:
        list of `count` `Hypothesis`.
    """
    search.check()
    beam, sources = search.beam, [_Source() for _ in range(count)]
    tokens, parents = np.full(count * beam, start, np.int32), np.arange(count * beam, dtype=np.int32)
    for number in range(search.max_length):
        log_probs = np.asarray(step(tokens, parents, number), np.float64).reshape(count, beam, -1)
        for place, source in enumerate(sources):
            if not source.done:
                own = log_probs[place, : len(source.texts)].copy()
                if number < search.min_length:
                    own[:, end] = _NEVER
                rows = slice(place * beam, (place + 1) * beam)
                chosen, before = _extend(source, own, end, number + 1, search)
                if chosen:
                    filled = np.resize(np.arange(len(chosen)), beam)  # the other rows repeat these
                    tokens[rows], parents[rows] = np.array(chosen)[filled], place * beam + np.array(before)[filled]
                else:
                    parents[rows] = np.arange(count * beam)[rows]
        if all(source.done for source in sources):
            break
    return [source.best for source in sources]


def _extend(source, log_probs, end, length, search):
    """Extends the hypotheses of a source by one token.

    Args:
        log_probs: float64 [hypotheses, V].
        length: tokens of the new hypotheses.
    Returns:
        (last tokens of the hypotheses that go on, their places in the step before).
    """
    room, vocabulary = search.beam - source.ended, log_probs.shape[1]
    sums = (source.sums[:, None] + log_probs).reshape(-1)
    order = np.argsort(-sums, kind="stable")[:room] if sums.size <= 2 * room else _largest(sums, room)
    texts, kept, last, before = [], [], [], []
    for candidate in order.tolist():
        row, token = divmod(candidate, vocabulary)
        if sums[candidate] <= _NEVER / 2:
            continue
        if token == end or length == search.max_length:
            text = source.texts[row] + ([] if token == end else [token])
            found = Hypothesis(text, float(search.score(sums[candidate], length)), token == end)
            source.ended += 1
            if source.best is None or found.score > source.best.score:
                source.best = found
        else:
            texts.append([*source.texts[row], token])
            kept.append(sums[candidate])
            last.append(token)
            before.append(row)
    source.texts, source.sums = texts, np.array(kept)
    limit = search.score(max(kept), search.max_length) if kept else -np.inf
    source.done = not kept or (source.best is not None and source.best.score >= limit)
    return last, before


def _largest(values, count):
    """Places of the `count` largest values, the largest first; of equal values the first."""
    limit = np.partition(values, len(values) - count)[len(values) - count]
    above, equal = np.flatnonzero(values > limit), np.flatnonzero(values == limit)
    places = np.concatenate([above, equal[: count - len(above)]])
    return places[np.argsort(-values[places], kind="stable")]
