"""Order, shape and length of the batches. Pure functions of the records, the seed and the step: a run can be continued
at any step.

An epoch is exact: every sample once. Batches run on over the ends of epochs, so all are full but the very last,
    which is filled up with samples of `loss_mask` 0. Evaluation counts every sample once in the same way. A static graph
    has one shape, so batches are padded to one of a few lengths: padding all to the split's longest text would cost
    several times the work on short sentences. Training batches may hold several texts in a row (packing.py).
"""

import itertools

import numpy as np

from ofrecord_util.packing import deal, describe, pack, row_tokens
from ofrecord_util.records import SAMPLE_ARRAYS, TOKEN_ARRAYS
from ofrecord_util.seeds import order_stream

LENGTH_STEP = 8
_MOST_LENGTHS = 3


def padded_length(records, pad_to_max_length=False):
    """The longest real length rounded up to a multiple of 8, never above the records' own length.

    Args:
        records: `Records` of N >= 1 samples.
        pad_to_max_length: return the records' own length instead.
    """
    if pad_to_max_length:
        return records.seq_length
    return min(records.seq_length, -(-int(records.lengths.max()) // LENGTH_STEP) * LENGTH_STEP)


def choose_lengths(needed, longest, token_seconds, graph_seconds, pair_seconds=0.0):
    """The lengths that batches are padded to: at most three, `longest` among them, the cheapest by estimate.

    Another length saves padding and costs the compilation of another static graph.

    Args:
        needed: int [batches], tokens of the fullest row of each batch of the run.
        longest: int, at least the largest of `needed`.
        token_seconds: estimated seconds that one more token in each row of a batch costs.
        graph_seconds: estimated seconds that a graph costs.
        pair_seconds: estimated seconds that each pair of tokens in each row costs (attention).
    Returns:
        tuple of ints, ascending.
    """
    needed = np.sort(np.asarray(needed))
    shorter = range(LENGTH_STEP, longest, LENGTH_STEP)
    choices = [(*some, longest) for count in range(_MOST_LENGTHS) for some in itertools.combinations(shorter, count)]
    return min(choices, key=lambda lengths: _padded_seconds(lengths, needed, token_seconds, graph_seconds, pair_seconds))


def padded_seconds(lengths, needed, token_seconds, graph_seconds, pair_seconds=0.0):
    """Estimated seconds of a run whose batches are padded to `lengths`; arguments as in `choose_lengths`."""
    return _padded_seconds(lengths, np.sort(np.asarray(needed)), token_seconds, graph_seconds, pair_seconds)


def _padded_seconds(lengths, needed, token_seconds, graph_seconds, pair_seconds):
    batches = np.diff(np.searchsorted(needed, lengths, side="right"), prepend=0)
    seconds = [length * (token_seconds + length * pair_seconds) for length in lengths]
    return float(np.dot(batches, seconds)) + len(lengths) * graph_seconds


def training_needs(records, batch_size, num_epochs, seed, per_row=1):
    """Tokens of the fullest row in each batch of a training run: int64 [steps], for `choose_lengths`."""
    lengths = records.lengths
    n, steps = len(records), count_steps(len(records), num_epochs, batch_size)
    run = np.concatenate([lengths[train_order(n, epoch, seed)] for epoch in range(-(-steps * batch_size // n))])
    run = run[: steps * batch_size].reshape(steps, batch_size)
    return run.max(axis=1) if per_row == 1 else row_tokens(run, per_row)


def evaluation_needs(records, batch_size):
    """Tokens of the longest sample in each batch of `iterate_evaluation` over records sorted by length: int64 [batches]."""
    lengths = np.sort(records.lengths)
    return np.array([lengths[start : start + batch_size].max() for start in range(0, len(lengths), batch_size)])


def train_order(n, epoch, seed):
    """The order of an epoch's samples: int64 [n], each of 0 to n - 1 once.

    Depends on nothing but the arguments: raw words of PCG64, sorted, so that NumPy's versions agree too.
    """
    words = np.random.PCG64(order_stream(seed, epoch)).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)


def count_steps(n, epochs, batch):
    """Steps that n samples take for a number of epochs: ceil(n * epochs / batch)."""
    if n < 1 or epochs < 0 or batch < 1:
        raise ValueError(f"{n} samples, {epochs} epochs, batches of {batch}")
    return -(-n * epochs // batch)


def iterate_training(samples, batch_size, lengths, num_epochs, seed, start_step=0, per_row=1):
    """Batches of a training run, from a step on.

    Args:
        samples: `Samples` of N >= 1 samples.
        batch_size: B.
        lengths: tuple of ints, ascending; each batch is cut to the shortest that holds its samples whole (L).
        num_epochs: int.
        seed: int, of the order.
        start_step: the first step to yield, for runs that continue.
        per_row: C, texts that share a row; a divisor of B. With more than one the samples of a batch are in the order of the rows.

    Yields:
        dict: word_rows, input_mask, segment_ids int32 [B, L]; domain, label, idxs int32 [B]; sample_weights float32 [B]; loss_mask
            float32 [B] of mean 1: B / n for the n samples that count, 0 for the others (in the last batch only), so that
            the mean of values * loss_mask is the mean over the samples that count, whatever parts a batch is cut into.
            With several texts a row, word_rows and segment_ids are [B / C, L], and what `packing.describe` returns is there
            in the place of input_mask.

    Raises:
        ValueError: a row has real tokens behind the last of `lengths`.
    """
    needed = samples.lengths if per_row > 1 else _check_lengths(samples, lengths)
    n = len(samples)
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
        if per_row == 1:
            yield _batch(samples, rows, _fitting(lengths, needed[rows].max()), epochs < num_epochs)
        else:
            dealt = deal(needed[rows], per_row).reshape(-1)
            yield _packed_batch(samples, rows[dealt], needed[rows[dealt]], per_row, lengths, (epochs < num_epochs)[dealt])


def iterate_evaluation(samples, batch_size, lengths):
    """Batches with every sample once, in order; the last one is filled up with repeats whose `loss_mask` is 0.

    Arguments and yields as in `iterate_training`.
    """
    needed = _check_lengths(samples, lengths)
    n = len(samples)
    for start in range(0, n, batch_size):
        place = np.arange(start, start + batch_size)
        yield _batch(samples, place % n, _fitting(lengths, needed[place % n].max()), place < n)


def _check_lengths(samples, lengths):
    """Tokens of each record, when the lengths can hold them."""
    needed = samples.lengths
    if min(lengths) < 1 or max(lengths) > samples.seq_length or max(lengths) < needed.max():
        raise ValueError(f"lengths {lengths}: the samples have {samples.seq_length} tokens, {needed.max()} of them real")
    return needed


def _fitting(lengths, needed):
    return min(length for length in lengths if length >= needed)


def _batch(samples, rows, length, counts):
    batch = {}
    for name in SAMPLE_ARRAYS:
        values = getattr(samples, name)
        batch[name] = np.ascontiguousarray(values[rows, :length] if name in TOKEN_ARRAYS else values[rows])
    return dict(batch, loss_mask=_loss_mask(counts))


def _packed_batch(samples, rows, needed, per_row, lengths, counts):
    tokens = int(needed.reshape(-1, per_row).sum(axis=1).max())
    if tokens > max(lengths):
        raise ValueError(f"lengths {lengths}: the texts of a row have {tokens} tokens")
    length = _fitting(lengths, tokens)
    batch = {name: getattr(samples, name)[rows] for name in SAMPLE_ARRAYS}
    for name in TOKEN_ARRAYS:
        if name != "input_mask":
            batch[name] = pack(batch[name], needed, per_row, length)
    return {**batch, **describe(needed, per_row, length), "loss_mask": _loss_mask(counts)}


def _loss_mask(counts):
    return (counts * (len(counts) / max(1, counts.sum()))).astype(np.float32)
