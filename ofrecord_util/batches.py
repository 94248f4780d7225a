"""Order, shape and length of the batches. Pure functions of the records, the seed and the step, so that a run can continue at any
step.

An epoch is exact: it has every sample once. Batches continue over the ends of epochs, so all are full except the very last one, which is
filled up with samples of `loss_mask` 0. Evaluation counts every sample once in the same way. A static graph has one shape, so batches are
padded to one of a few lengths (padded_lengths.py). A training batch has one text per row, or several (packing.py).
"""

from typing import Dict, Iterator, Optional, Sequence

import numpy as np

from ofrecord_util.packing import deal, describe, pack, row_tokens
from ofrecord_util.records import SAMPLE_ARRAYS, TOKEN_ARRAYS, Records, Samples
from ofrecord_util.seeds import order_stream

Batch = Dict[str, np.ndarray]


def training_needs(records: Records, batch_size: int, num_epochs: int, seed: int, per_row: int = 1) -> np.ndarray:
    """Tokens of the fullest row in each batch of a training run: int64 [steps], for `choose_buckets`."""
    lengths = records.lengths
    n, steps = len(records), count_steps(len(records), num_epochs, batch_size)
    run = np.concatenate([lengths[train_order(n, epoch, seed)] for epoch in range(-(-steps * batch_size // n))])
    run = run[: steps * batch_size].reshape(steps, batch_size)
    return run.max(axis=1) if per_row == 1 else row_tokens(run, per_row)


def evaluation_needs(records: Records, batch_size: int) -> np.ndarray:
    """Tokens of the longest sample in each batch of `iterate_evaluation` over records sorted by length: int64 [batches]."""
    lengths = np.sort(records.lengths)
    return np.array([lengths[start : start + batch_size].max() for start in range(0, len(lengths), batch_size)])


def train_order(n: int, epoch: int, seed: int) -> np.ndarray:
    """The order of the samples in an epoch: int64 [n], each of 0 to n - 1 once.

    Depends on nothing but the arguments. Raw words of PCG64 are sorted, so the versions of NumPy agree too.
    """
    words = np.random.PCG64(order_stream(seed, epoch)).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)


def count_steps(n: int, epochs: int, batch: int) -> int:
    """Steps that n samples take for a number of epochs: ceil(n * epochs / batch)."""
    if n < 1 or epochs < 0 or batch < 1:
        raise ValueError(f"{n} samples, {epochs} epochs, batches of {batch}")
    return -(-n * epochs // batch)


def iterate_training(
    samples: Samples,
    batch_size: int,
    buckets: Sequence[int],
    num_epochs: int,
    seed: int,
    start_step: int = 0,
    per_row: int = 1,
    counted: Optional[int] = None,
) -> Iterator[Batch]:
    """Batches of a training run, from a step on.

    Args:
        samples: `Samples` of N >= 1 samples.
        batch_size: B.
        buckets: ints, ascending. Each batch is cut to the smallest bucket that holds its rows (L).
        num_epochs: int.
        seed: int, of the order.
        start_step: the first step to yield, for runs that continue.
        per_row: C, texts per row; a divisor of B. With more than one the samples of a batch are in the order of the rows.
        counted: samples of a batch that count, at most B; None for B. Repeats of them fill up the batch.

    Yields:
        dict: word_rows, input_mask, segment_ids int32 [B, L]; domain, label, idxs int32 [B]; sample_weights float32 [B]; loss_mask
            float32 [B] of mean 1: B / n for the n samples that count, 0 for the others (in the last batch only, if `counted` is not
            less than B). Thus the mean of values * loss_mask is the mean over the samples that count, also where a batch is cut into parts.
            With several texts per row, word_rows and segment_ids are [B / C, L], and the arrays of `packing.describe` replace input_mask.

    Raises:
        ValueError: a row has more tokens than the last bucket.
    """
    if per_row == 1:
        _check_buckets(samples, buckets)
    n, counted = len(samples), batch_size if counted is None else counted
    filled = np.arange(batch_size) % counted
    orders: Dict[int, np.ndarray] = {}
    for step in range(start_step, count_steps(n, num_epochs, counted)):
        place = step * counted + filled  # place of each sample in the run
        epochs = place // n
        here = range(epochs.min(), epochs.max() + 1)
        orders = {epoch: orders[epoch] if epoch in orders else train_order(n, epoch, seed) for epoch in here}
        rows = np.array([orders[epoch][position] for epoch, position in zip(epochs.tolist(), (place % n).tolist())], np.int64)
        yield _batch(samples, rows, (epochs < num_epochs) & (np.arange(batch_size) < counted), buckets, per_row)


def iterate_evaluation(samples: Samples, batch_size: int, buckets: Sequence[int]) -> Iterator[Batch]:
    """Batches with every sample once, in order. The last one is filled up with repeats whose `loss_mask` is 0.

    Arguments and yields as in `iterate_training`.
    """
    _check_buckets(samples, buckets)
    n = len(samples)
    for start in range(0, n, batch_size):
        place = np.arange(start, start + batch_size)
        yield _batch(samples, place % n, place < n, buckets)


def _check_buckets(samples: Samples, buckets: Sequence[int]) -> None:
    """Raises a ValueError where the buckets cannot hold the samples one per row."""
    longest = samples.lengths.max()
    if min(buckets) < 1 or max(buckets) > samples.seq_length or max(buckets) < longest:
        raise ValueError(f"buckets {buckets}: the samples have {samples.seq_length} tokens, {longest} of them real")


def _batch(samples: Samples, rows: np.ndarray, counts: np.ndarray, buckets: Sequence[int], per_row: int = 1) -> Batch:
    """The batch of some samples.

    Args:
        rows: int64 [B], which samples.
        counts: bool [B], whether each of them counts.
        buckets, per_row: as in `iterate_training`.
    """
    dealt = np.arange(len(rows)) if per_row == 1 else deal(samples.lengths[rows], per_row).reshape(-1)
    rows, counts = rows[dealt], counts[dealt]
    lengths = samples.lengths[rows]
    needed = int(lengths.reshape(-1, per_row).sum(axis=1).max())
    if needed > max(buckets):
        raise ValueError(f"buckets {buckets}: the texts of a row have {needed} tokens")
    bucket = min(bucket for bucket in buckets if bucket >= needed)
    packed = describe(lengths, per_row, bucket) if per_row > 1 else {}
    batch = {}
    for name in SAMPLE_ARRAYS:
        values = getattr(samples, name)
        if name in packed:
            batch[name] = packed.pop(name)
        elif name not in TOKEN_ARRAYS:
            batch[name] = values[rows]
        elif per_row == 1:
            batch[name] = np.ascontiguousarray(values[rows, :bucket])
        else:
            batch[name] = pack(values[rows], lengths, per_row, bucket)
    batch.update(packed)
    batch["loss_mask"] = (counts * (len(counts) / max(1, counts.sum()))).astype(np.float32)
    return batch
