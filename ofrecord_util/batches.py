"""Order and shape of the batches.

Pure functions of the records, the seed and the step: a run can be continued at any step. An epoch is exact: every
sample once. Batches run on over the ends of epochs, so all are full but the very last, which is filled up with samples
of `valid` 0. Evaluation counts every sample once in the same way. Every batch of a run has one shape: a graph has no
other.
"""

import numpy as np

from ofrecord_util.schema import FEATURES

_LENGTH_STEP = 8


def real_length(records):
    """Tokens of the longest record, padding excluded (int)."""
    return int(np.flatnonzero(records.input_mask.any(axis=0))[-1]) + 1


def padded_length(records, pad_to_max_length=False):
    """Length to which batches are cut: the longest real length rounded up to a multiple of 8.

    It is never above the records' own length.

    Args:
        records: `Records` of N >= 1 samples.
        pad_to_max_length: return the records' own length instead.
    """
    if pad_to_max_length:
        return records.seq_length
    return min(records.seq_length, -(-real_length(records) // _LENGTH_STEP) * _LENGTH_STEP)


def train_order(n, epoch, seed):
    """The order of an epoch's samples: int64 [n], each of 0 to n - 1 once.

    Depends on nothing but the arguments: raw words of PCG64, sorted, so that NumPy's versions agree too.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed % 2**64, epoch])).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)


def count_steps(n, epochs, batch):
    """Steps that n samples take for a number of epochs: ceil(n * epochs / batch)."""
    if n < 1 or epochs < 0 or batch < 1:
        raise ValueError(f"{n} samples, {epochs} epochs, batches of {batch}")
    return -(-n * epochs // batch)


def iterate_training(records, batch_size, length, num_epochs, seed, start_step=0):
    """Batches of a training run, from a step on.

    Args:
        records: `Records` of N >= 1 samples.
        batch_size: B.
        length: tokens kept of each sample (L), see `padded_length`.
        num_epochs: int.
        seed: int, of the order.
        start_step: the first step to yield, for runs that continue.

    Yields:
        dict: input_ids, input_mask, segment_ids int32 [B, L]; domain, label, idxs int32 [B]; weights float32 [B]; valid
            float32 [B], 1 for
        the samples that count (0 only in the last batch).

    Raises:
        ValueError: a sample has real tokens behind `length`.
    """
    _check_length(records, length)
    n = len(records)
    orders = {}
    for step in range(start_step, count_steps(n, num_epochs, batch_size)):
        place = np.arange(step * batch_size, (step + 1) * batch_size)  # place of each sample in the run
        epochs = place // n
        orders = {epoch: orders.get(epoch) for epoch in range(epochs[0], epochs[-1] + 1)}
        rows = np.empty(batch_size, np.int64)
        for epoch in orders:
            if orders[epoch] is None:
                orders[epoch] = train_order(n, epoch, seed)
            here = epochs == epoch
            rows[here] = orders[epoch][place[here] % n]
        yield _batch(records, rows, length, epochs < num_epochs)


def iterate_evaluation(records, batch_size, length):
    """Batches with every sample once, in order; the last one is filled up with repeats whose `valid` is 0.

    Arguments and yields as in `iterate_training`.
    """
    _check_length(records, length)
    n = len(records)
    for start in range(0, n, batch_size):
        place = np.arange(start, start + batch_size)
        yield _batch(records, place % n, length, place < n)


def _check_length(records, length):
    if not 1 <= length <= records.seq_length or length < real_length(records):
        raise ValueError(f"length {length}: the records have {records.seq_length} tokens, {real_length(records)} of them real")


def _batch(records, rows, length, valid):
    batch = {}
    for feature in FEATURES:
        values = getattr(records, feature.name)
        batch[feature.name] = np.ascontiguousarray(values[rows, :length] if feature.per_token else values[rows])
    batch["valid"] = valid.astype(np.float32)
    return batch
