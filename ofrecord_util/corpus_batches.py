"""The batches of a training on a corpus. Pure functions of the records, the seed and the step, so that a run can continue at any step.

An epoch has every row once. The rows are read in order, a window at a time, and shuffled within the window; a corpus of one window is
shuffled as a whole. The masks of a row are drawn again in each epoch.
"""

from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch, count_steps
from ofrecord_util.corpus import Corpus
from ofrecord_util.corpus_rows import Rows
from ofrecord_util.masking import Masking
from ofrecord_util.seeds import mask_stream, window_stream


def window_order(count: int, epoch: int, seed: int, window: int) -> np.ndarray:
    """The order of the `count` rows of a window in an epoch: int64 [count], each of 0 to count - 1 once."""
    words = np.random.PCG64(window_stream(seed, epoch, window)).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


class Drawn(NamedTuple):
    """Consecutive samples of a training."""

    rows: Rows
    numbers: np.ndarray  # int64 [N], row numbers in the corpus
    epochs: np.ndarray  # int64 [N]

    def streams(self, stream: Callable[[int, int, int], np.random.SeedSequence], seed: int) -> List[np.random.SeedSequence]:
        """The streams of the samples.

        Args:
            stream: function of `seeds` of a seed, an epoch and a row.
            seed: of the run.
        """
        return [stream(seed, epoch, row) for epoch, row in zip(self.epochs.tolist(), self.numbers.tolist())]


class Windows:
    """The samples of a training in their order. One window is in memory."""

    def __init__(self, corpus: Corpus, seed: int, size: int) -> None:
        self._corpus, self._seed, self._size = corpus, seed, size
        self._loaded: Optional[Tuple[int, int]] = None  # (epoch, window)
        self._rows: Optional[Rows] = None
        self._order = np.empty(0, np.int64)

    def samples(self, place: int, count: int) -> Drawn:
        """`count` samples from sample number `place` of the training on."""
        parts: List[Drawn] = []
        while count:
            epoch, row = divmod(place, len(self._corpus))
            window, within = divmod(row, self._size)
            rows = self._load(epoch, window)
            here = self._order[within : within + count]
            parts.append(Drawn(rows.select(here), window * self._size + here, np.full(len(here), epoch)))
            place, count = place + len(here), count - len(here)
        rows = Rows(*map(np.concatenate, zip(*(part.rows for part in parts))))
        return Drawn(rows, *(np.concatenate([getattr(part, name) for part in parts]) for name in ("numbers", "epochs")))

    def _load(self, epoch: int, window: int) -> Rows:
        """The rows of a window, in the order of the corpus. Sets the order in which they are drawn."""
        start = window * self._size
        if self._rows is None or self._loaded is None or self._loaded[1] != window:
            self._rows = None  # before the next ones are read
            self._rows = self._corpus.read(start, min(start + self._size, len(self._corpus)))
        if self._loaded != (epoch, window):
            self._order = window_order(len(self._rows.lengths), epoch, self._seed, window)
            self._loaded = epoch, window
        return self._rows


def longest_rows(corpus: Corpus, batch_size: int, seed: int, window: int, steps: int) -> np.ndarray:
    """Tokens of the longest row in each of the first steps of a training: int64 [steps]."""
    windows = Windows(corpus, seed, window)
    return np.array([windows.samples(step * batch_size, batch_size).rows.lengths.max() for step in range(steps)], np.int64)


def iterate_corpus(
    corpus: Corpus,
    masking: Masking,
    batch_size: int,
    buckets: Sequence[int],
    num_epochs: int,
    seed: int,
    window: int,
    start_step: int = 0,
) -> Iterator[Batch]:
    """Batches of a training, from a step on.

    Args:
        corpus: `Corpus` of N rows.
        masking: `Masking`.
        batch_size: B.
        buckets: ints, ascending. Each batch is cut to the smallest bucket that holds its rows (L).
        num_epochs: int.
        seed: of the order and of the masks.
        window: rows of a window.
        start_step: the first step to yield, for runs that continue.

    Yields:
        dict: input_mask, segment_ids int32 [B, L]; the arrays of `Masking.batch`, with the weights of `batch_weights`; idxs int32 [B];
            loss_mask float32 [B], as in `batches.iterate_training`.
    """
    windows = Windows(corpus, seed, window)
    for step in range(start_step, count_steps(len(corpus), num_epochs, batch_size)):
        yield masked_batch(windows.samples(step * batch_size, batch_size), masking, buckets, num_epochs, seed)


def masked_batch(drawn: Drawn, masking: Masking, buckets: Sequence[int], num_epochs: int, seed: int) -> Batch:
    """The batch of some samples, see `iterate_corpus`."""
    lengths, counts = drawn.rows.lengths, drawn.epochs < num_epochs
    length = min(bucket for bucket in buckets if bucket >= lengths.max())
    streams = drawn.streams(mask_stream, seed)
    masked = masking.batch(np.ascontiguousarray(drawn.rows.input_ids[:, :length]), lengths, streams)
    batch: Dict[str, np.ndarray] = {
        "word_rows": masked.pop("word_rows"),
        "input_mask": (np.arange(length) < lengths[:, None]).astype(np.int32),
        "segment_ids": np.ascontiguousarray(drawn.rows.segment_ids[:, :length]),
        **masked,
        "idxs": drawn.numbers.astype(np.int32),
        "loss_mask": (counts * (len(counts) / max(1, counts.sum()))).astype(np.float32),
    }
    batch["masked_weights"] = batch_weights(batch["masked_weights"] * counts[:, None])
    return batch


def batch_weights(weights: np.ndarray) -> np.ndarray:
    """Weights w of masked tokens [B, P], or of rows [B], times B / sum(w), float32.

    The mean over the B rows of sum_p w x is then the weighted mean of x over all masked tokens of the batch. A mean over rows is what the
    parts, lanes and ranks of a step compute together, whatever their number.
    """
    return (weights * (len(weights) / max(1.0, float(weights.sum(dtype=np.float64))))).astype(np.float32)
