"""Which texts metric learning compares: pairs and episodes. Pure functions of the records, the seed and the step."""

import math

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.seeds import episode_stream, pair_stream

_EQUAL, _OTHER = 1, 2  # kinds of pairs
_MOST_LISTED = 2**22  # pairs of a kind that are put in order; of more, each is drawn by itself


class PairSampler:
    """Draws pairs of different rows, as SetFit: as many of equal labels as of different ones. Each pair of a kind comes once before any
    comes again.

    Args:
        domain, label: int [N], of the training split.
        task: `Task`, for messages.
        within_domain: whether both rows have the same domain.
        seed: of the run.
        source: the file of the rows, for messages.
    Attributes:
        count: dict of kind -> number of pairs.
    Raises:
        UserError: there are no pairs of a kind.
    """

    texts = 2  # of a group

    def __init__(self, domain, label, task, within_domain, seed, source):
        self._seed, self._orders = seed, {}
        scope = np.asarray(domain) if within_domain else np.zeros(len(label), np.int64)
        cells = sorted(set(zip(scope.tolist(), np.asarray(label).tolist())))
        rows = {cell: np.flatnonzero((scope == cell[0]) & (label == cell[1])) for cell in cells}
        equal = [(rows[cell], None, len(rows[cell]) * (len(rows[cell]) - 1) // 2) for cell in cells]
        other = [
            (rows[one], rows[two], len(rows[one]) * len(rows[two]))
            for place, one in enumerate(cells)
            for two in cells[place + 1 :]
            if one[0] == two[0]
        ]
        self._blocks = {_EQUAL: equal, _OTHER: other}
        self.count = {kind: sum(block[2] for block in blocks) for kind, blocks in self._blocks.items()}
        compares = "but --objective contrastive compares"
        if not self.count[_EQUAL]:
            rows_of = "rows of a domain" if within_domain else "rows"
            raise UserError(f"{source}: no two {rows_of} have the same label, {compares} such rows: add rows")
        if not self.count[_OTHER]:
            one = f"all {len(label)} rows have the label {task.labels[cells[0][1]]}"
            one = "the rows of each domain have one label" if within_domain else one
            raise UserError(f"{source}: {one}, {compares} rows of different labels: add rows with others of {', '.join(task.labels)}")

    def draw(self, step, number):
        """The pairs of a step (from 0).

        Args:
            number: P, even.
        Returns:
            (rows int64 [P, 2], target float32 [P]). Pairs of equal labels (1) and of others (0) alternate.
        """
        half = number // 2
        rows = np.empty((number, 2), np.int64)
        for kind in (_EQUAL, _OTHER):
            rows[kind - 1 :: 2] = [self._pair(kind, step * half + place) for place in range(half)]
        return rows, np.tile(np.array([1.0, 0.0], np.float32), half)

    def _pair(self, kind, place):
        """The pair at a place of the run."""
        number, blocks = self._number(kind, place), iter(self._blocks[kind])
        first, second, size = next(blocks)
        while number >= size:
            number -= size
            first, second, size = next(blocks)
        if second is not None:
            return first[number // len(second)], second[number % len(second)]
        larger = int((1 + math.sqrt(1 + 8 * number)) / 2)  # pairs (0, 1), (0, 2), (1, 2), (0, 3), …
        larger += (larger * (larger + 1) // 2 <= number) - (larger * (larger - 1) // 2 > number)  # the root is rounded
        return first[number - larger * (larger - 1) // 2], first[larger]

    def _number(self, kind, place):
        turn, within = divmod(place, self.count[kind])
        if self.count[kind] > _MOST_LISTED:
            return int(np.random.PCG64(pair_stream(self._seed, kind, turn)).advance(within).random_raw()) % self.count[kind]
        if self._orders.get(kind, (None,))[0] != turn:
            words = np.random.PCG64(pair_stream(self._seed, kind, turn)).random_raw(self.count[kind])
            self._orders[kind] = turn, np.argsort(words, kind="stable")
        return int(self._orders[kind][1][within])


class EpisodeSampler:
    """Draws episodes: some labels, and K support rows and Q query rows of each.

    Args:
        domain, label: int [N], of the training split.
        task: `Task`, with the names of domains and labels.
        labels: number of labels of an episode; None for all.
        support, query: K and Q.
        within_domain: whether all rows have the same domain.
        seed: of the run.
        source: the file of the rows, for messages.
    Attributes:
        labels, texts: number of labels, and of rows, of an episode.
    Raises:
        UserError: there are too few rows.
    """

    def __init__(self, domain, label, task, labels, support, query, within_domain, seed, source):
        self.labels = task.num_labels if labels is None else labels
        if not 2 <= self.labels <= task.num_labels:
            raise UserError(f"--episode_labels {self.labels}: an episode has 2 to {task.num_labels} labels, those of the task")
        self._support, self._query, self._seed = support, query, seed
        self.texts = self.labels * (support + query)
        present = np.unique(domain).tolist() if within_domain else [None]
        self._scopes = []  # for each domain: one array of rows per label that has enough
        for scope in present:
            here = np.ones(len(label), bool) if scope is None else np.asarray(domain) == scope
            rows = [np.flatnonzero(here & (np.asarray(label) == number)) for number in range(task.num_labels)]
            enough = [some for some in rows if len(some) >= support + query]
            if len(enough) < self.labels:
                # of as many labels as an episode has, those with the most rows: the last one lacks rows
                number = sorted(range(len(rows)), key=lambda label: (-len(rows[label]), label))[self.labels - 1]
                short = len(rows[number])
                where = source if scope is None else f"{source}: domain {task.domains[scope]}"
                remedies = [f"give smaller numbers, at most {short} together"] if short > 1 else []  # a row for each of the two
                remedies += [f"give a smaller --episode_labels, at most {len(enough)}"] if len(enough) > 1 else []
                raise UserError(
                    f"{where}: an episode needs {counted(support + query, 'row')} of each of {self.labels} labels (--support_num, "
                    f"--query_num), and {task.labels[number]} has {short}: " + ", or ".join([*remedies, "add rows"])
                )
            self._scopes.append(enough)

    def draw(self, step, number):
        """The episodes of a step (from 0).

        Args:
            number: E.
        Returns:
            (rows int64 [E, R], target int32 [E, N Q]): first the support rows label by label, then the query rows.
        """
        target = np.repeat(np.arange(self.labels, dtype=np.int32), self._query)
        return np.stack([self._episode(step, place) for place in range(number)]), np.tile(target, (number, 1))

    def _episode(self, step, number):
        generator = np.random.PCG64(episode_stream(self._seed, step, number))
        scope = self._scopes[int(generator.random_raw()) % len(self._scopes)]
        chosen = np.argsort(generator.random_raw(len(scope)), kind="stable")[: self.labels]
        rows = [scope[place][np.argsort(generator.random_raw(len(scope[place])), kind="stable")] for place in chosen]
        support = [some[: self._support] for some in rows]
        return np.concatenate([*support, *(some[self._support : self._support + self._query] for some in rows)])
