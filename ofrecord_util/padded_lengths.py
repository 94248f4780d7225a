"""The lengths to which batches are padded: multiples of 8, at most three per run, those with the least estimated time.

A static graph has one shape. So the batches of a run are padded to one of a few lengths, the buckets. Padding all batches to the longest
text of the split would cost several times the work on short sentences.
"""

import itertools
from typing import Sequence, Tuple

import numpy as np

from ofrecord_util.records import Records

LENGTH_STEP = 8
MOST_BUCKETS = 3


def padded_length(records: Records, pad_to_max_length: bool = False) -> int:
    """The longest real length rounded up to a multiple of 8, never above the length of the records themselves.

    Args:
        records: `Records` of N >= 1 samples.
        pad_to_max_length: return the length of the records themselves instead.
    """
    if pad_to_max_length:
        return records.seq_length
    return min(records.seq_length, -(-int(records.lengths.max()) // LENGTH_STEP) * LENGTH_STEP)


def choose_buckets(
    needed: Sequence[int], longest: int, token_seconds: float, graph_seconds: float, pair_seconds: float = 0.0, most: int = MOST_BUCKETS
) -> Tuple[int, ...]:
    """The buckets of a run: at most `most`, `longest` among them, the cheapest by estimate.

    Another bucket saves padding and costs the compilation of another static graph.

    Args:
        needed: int [batches], tokens of the fullest row of each batch of the run.
        longest: int, at least the largest of `needed`.
        token_seconds: estimated seconds that one more token in each row of a batch costs.
        graph_seconds: estimated seconds that a graph costs.
        pair_seconds: estimated seconds that each pair of tokens in each row costs (attention).
        most: largest number of buckets.
    Returns:
        tuple of ints, ascending.
    """
    ascending = np.sort(np.asarray(needed))
    shorter = range(LENGTH_STEP, longest, LENGTH_STEP)
    choices = [(*some, longest) for count in range(most) for some in itertools.combinations(shorter, count)]
    return min(choices, key=lambda buckets: _bucket_seconds(buckets, ascending, token_seconds, graph_seconds, pair_seconds))


def bucket_seconds(
    buckets: Sequence[int], needed: Sequence[int], token_seconds: float, graph_seconds: float, pair_seconds: float = 0.0
) -> float:
    """Estimated seconds of a run with these buckets; other arguments as in `choose_buckets`."""
    return _bucket_seconds(buckets, np.sort(np.asarray(needed)), token_seconds, graph_seconds, pair_seconds)


def _bucket_seconds(buckets: Sequence[int], needed: np.ndarray, token_seconds: float, graph_seconds: float, pair_seconds: float) -> float:
    batches = np.diff(np.searchsorted(needed, buckets, side="right"), prepend=0)
    seconds = [bucket * (token_seconds + bucket * pair_seconds) for bucket in buckets]
    return float(np.dot(batches, seconds)) + len(buckets) * graph_seconds
