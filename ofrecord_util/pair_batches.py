"""The pairs of a training on the halves of texts: how a text is cut in two, which pairs a step compares, and the blocks of the recall.

Pure functions of the records, the seed and the step, so that a run can continue at any step. An epoch has only full steps: the rows that
are left over at its end, other ones in each epoch of a shuffled corpus, are not used in it. So no step has a text twice.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch
from ofrecord_util.corpus import Corpus
from ofrecord_util.corpus_batches import Windows
from ofrecord_util.corpus_rows import Rows
from ofrecord_util.seeds import recall_stream

MOST_COMPARED = 100  # pairs of a block: recall 1 of 100


def cut_in_halves(rows: Rows) -> Rows:
    """The two parts of each row, each as a text of its own: rows 2 i and 2 i + 1 are those of row i.

    A text pair is cut between its texts, where it has one separator or two (RoBERTa), another row in the middle; of an odd number of
    tokens the first part has one more. The second part of a text of one token is empty.

    Args:
        rows: `Rows` of N texts or text pairs, [CLS] a [SEP], [CLS] a [SEP] b [SEP] or [CLS] a [SEP] [SEP] b [SEP].
    Returns:
        `Rows` of 2 N texts [CLS] a [SEP]. Token types are 0.
    """
    parts: List[np.ndarray] = []
    for row, length in zip(rows.input_ids, rows.lengths.tolist()):
        cls, sep, ids = row[:1], row[length - 1 : length], row[1 : length - 1]
        separators = np.flatnonzero(ids == sep)
        if len(separators):
            start = int(separators[0]) + 1
            halves = ids[: start - 1], ids[start + int(start in separators) :]
        else:
            middle = (len(ids) + 1) // 2
            halves = ids[:middle], ids[middle:]
        parts += [np.concatenate([cls, half, sep]) for half in halves]
    lengths = np.array(list(map(len, parts)), np.int64)
    input_ids = np.zeros((len(parts), int(lengths.max())), np.int32)
    for row, part in zip(input_ids, parts):
        row[: len(part)] = part
    return Rows(input_ids, np.zeros_like(input_ids), lengths)


def padded(texts: Rows, length: int) -> Dict[str, np.ndarray]:
    """word_rows, input_mask, segment_ids of some texts, int32 [N, length]."""
    ids = np.zeros((len(texts.lengths), length), np.int32)
    width = min(length, texts.input_ids.shape[1])
    ids[:, :width] = texts.input_ids[:, :width]
    return {
        "word_rows": ids,
        "input_mask": (np.arange(length) < texts.lengths[:, None]).astype(np.int32),
        "segment_ids": np.zeros_like(ids),
    }


class PairSteps:
    """The pairs of each step of a training.

    Args:
        corpus: `Corpus` of at least `groups` * `pairs` rows.
        groups, pairs: G groups per step of P pairs that are compared with each other.
        seed: of the order.
        window: rows of a window.
    Attributes:
        per_epoch: steps of an epoch.
    """

    def __init__(self, corpus: Corpus, groups: int, pairs: int, seed: int, window: int) -> None:
        self._groups, self._pairs, self._count = groups, pairs, len(corpus)
        self._windows = Windows(corpus, seed, window)
        self.per_epoch = len(corpus) // (groups * pairs)

    def longest(self, steps: int) -> np.ndarray:
        """Tokens of the longest half in each of the first steps: int64 [steps]."""
        return np.array([self._halves(step)[0].lengths.max() for step in range(steps)], np.int64)

    def _halves(self, step: int) -> Tuple[Rows, np.ndarray]:
        """The halves of the texts of a step, and the row numbers of these texts."""
        epoch, within = divmod(step, self.per_epoch)
        number = self._groups * self._pairs
        drawn = self._windows.samples(epoch * self._count + within * number, number)
        return cut_in_halves(drawn.rows), drawn.numbers

    def batch(self, step: int, buckets: Sequence[int]) -> Batch:
        """The batch of a step (from 0).

        Args:
            buckets: ints, ascending. The texts are padded to the smallest one that holds them (L).
        Returns:
            dict: word_rows, input_mask, segment_ids int32 [G, 2 P L], the texts of a group one after the other; target int32 [G, P], the
                number of each pair in its group; idxs int64 [G P]; loss_mask float32 [G P], ones.
        """
        texts, numbers = self._halves(step)
        length = min(bucket for bucket in buckets if bucket >= texts.lengths.max())
        batch = {name: array.reshape(self._groups, -1) for name, array in padded(texts, length).items()}
        target = np.tile(np.arange(self._pairs, dtype=np.int32), (self._groups, 1))
        return dict(batch, target=target, idxs=numbers, loss_mask=np.ones(len(numbers), np.float32))


class RecallBlock(NamedTuple):
    """Pairs whose second texts are compared with a first text."""

    pairs: np.ndarray  # int64 [C], their numbers
    counted: int  # the first texts of so many of them, from the first one, are looked for here


def recall_blocks(count: int) -> List[RecallBlock]:
    """The blocks among which recall is measured, the same for every run: of 100 pairs each, or of all if there are fewer.

    The last block is filled up with pairs of others, which are counted where they come first. So each pair counts once, and is compared
    with as many others as any.

    Args:
        count: number of pairs.
    """
    order = np.argsort(np.random.PCG64(recall_stream(count)).random_raw(count), kind="stable")
    parts = [order[start : start + MOST_COMPARED] for start in range(0, count, MOST_COMPARED)]
    lacking = min(MOST_COMPARED, count) - len(parts[-1])
    return [*(RecallBlock(part, len(part)) for part in parts[:-1]), RecallBlock(np.append(parts[-1], order[:lacking]), len(parts[-1]))]
