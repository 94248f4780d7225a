"""Which padded lengths pay."""

import itertools

import numpy as np
import ofrecord_samples as samples
import pytest

from ofrecord_util.padded_lengths import choose_buckets, padded_length
from ofrecord_util.records import Records


@pytest.mark.parametrize(("real", "length", "expected"), [(1, 128, 8), (8, 128, 8), (9, 128, 16), (121, 128, 128), (126, 127, 127)])
def test_padded_length(real, length, expected):
    arrays = samples.arrays(3, length)
    arrays["input_mask"][:] = 0
    arrays["input_mask"][:, 0] = 1
    arrays["input_mask"][1, real - 1] = 1
    data = Records(**arrays)
    assert data.lengths.tolist() == [1, real, 1]
    assert padded_length(data) == padded_length(data, False) == expected
    assert padded_length(data, True) == length


def run_cost(lengths, needed, token_seconds, graph_seconds):
    """Seconds of a run, batch by batch."""
    tokens = sum(min(length for length in lengths if length >= need) for need in needed)
    return tokens * token_seconds + len(lengths) * graph_seconds


@pytest.mark.parametrize("graph_seconds", [0.0, 0.5, 3.0, 1e3])
@pytest.mark.parametrize("longest", [5, 8, 24, 61, 64, 127])
def test_chosen_lengths_cost_least(longest, graph_seconds):
    draw = np.random.RandomState(longest)
    for batches in (1, 2, 7, 60):
        needed = np.minimum(longest, 1 + draw.geometric(0.08, batches))
        chosen = choose_buckets(needed, longest, 0.01, graph_seconds)
        assert isinstance(chosen, tuple)
        assert len(chosen) <= 3
        assert list(chosen) == sorted(set(chosen))
        assert chosen[-1] == longest
        assert all(length % 8 == 0 for length in chosen[:-1])
        least = min(
            run_cost((*some, longest), needed, 0.01, graph_seconds)
            for count in range(3)
            for some in itertools.combinations(range(8, longest, 8), count)
        )
        assert run_cost(chosen, needed, 0.01, graph_seconds) == pytest.approx(least, abs=1e-9)


def test_chosen_lengths_by_hand():
    needed = [5] * 50 + [13] * 20 + [30] * 3  # 73 batches
    # all at 32: 2336 tokens; 8 and 32: 400 + 736; 16 and 32: 1120 + 96; 8, 16 and 32: 400 + 320 + 96 = 816
    assert choose_buckets(needed, 32, 1.0, 0.0) == (8, 16, 32)
    assert choose_buckets(needed, 32, 1.0, 319.0) == (8, 16, 32)
    assert choose_buckets(needed, 32, 1.0, 321.0) == (8, 32)
    assert choose_buckets(needed, 32, 1.0, 1199.0) == (8, 32)
    assert choose_buckets(needed, 32, 1.0, 1201.0) == (32,)
    assert choose_buckets(needed, 32, 0.0, 1.0) == (32,)
    assert choose_buckets([3], 7, 1.0, 0.0) == (7,)
    assert choose_buckets(needed, 32, 1.0, 0.0) == choose_buckets(needed[::-1], 32, 1.0, 0.0)
