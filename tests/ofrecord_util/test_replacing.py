"""ofrecord_util/replacing.py: which tokens are drawn, and the noise of their samples."""

import math

import numpy as np
import pytest

from ofrecord_util.replacing import ReplacedMasking, noise_of
from ofrecord_util.seeds import fixed_sample_stream, mask_stream, sample_stream

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(20))]
PAD, UNK, CLS, SEP, MASK = range(5)


def close(share, wanted, count):
    return abs(share - wanted) <= 3 * math.sqrt(wanted * (1 - wanted) / count)


def test_drawn_tokens():
    """Of 100 tokens 15 are drawn with replacement, from 96 of them; 85 % become [MASK], 15 % stay, none becomes another token."""
    draw, rule, sizes, masks = np.random.RandomState(1), ReplacedMasking(TOKENS), [], []
    ids = draw.randint(5, len(TOKENS), 100)
    ids[[0, 50, 99]], ids[7], ids[8] = (CLS, SEP, SEP), MASK, UNK
    for row in range(600):
        places, new = rule.row(ids, mask_stream(3, 0, row))
        assert sorted(set(places)) == places.tolist()
        assert not np.isin(ids[places], (CLS, SEP, MASK, PAD)).any()
        assert np.isin(new, (MASK,)).sum() + (new == ids[places]).sum() == len(places)
        sizes.append(len(places))
        masks += (new == MASK).tolist()
    assert max(sizes) == 15 > min(sizes)  # repeats count once
    distinct = 96 * (1 - (1 - 1 / 96) ** 15)
    assert abs(np.mean(sizes) - distinct) < 3 * np.std(sizes) / math.sqrt(len(sizes))
    assert close(np.mean(masks), 0.85, len(masks))


@pytest.mark.parametrize(("length", "most", "count"), [(3, 80, 1), (5, 80, 1), (10, 80, 2), (40, 80, 6), (40, 4, 4)])
def test_how_many(length, most, count):
    """At most max(1, round(0.15 n)) of the n tokens with [CLS] and [SEP], at most P."""
    rule, ids = ReplacedMasking(TOKENS, most=most), np.array([CLS, *[9] * (length - 2), SEP])
    found = [len(rule.row(ids, mask_stream(1, 0, row))[0]) for row in range(40)]
    assert max(found) == min(count, length - 2) <= rule.places(length) == count


def test_rows_without_tokens():
    assert [part.size for part in ReplacedMasking(TOKENS).row(np.array([CLS, MASK, SEP]), mask_stream(1, 0, 0))] == [0, 0]


def test_noise():
    """Uniform, below 1 in float32, and a function of the stream alone."""
    streams = [sample_stream(3, 1, row) for row in range(300)]
    noise = noise_of(streams, 7)
    assert noise.shape == (300, 7)
    assert noise.dtype == np.float32
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 3 * math.sqrt(1 / 12 / noise.size)
    assert np.array_equal(noise_of(streams[5:6], 7), noise[5:6])
    assert np.array_equal(noise_of(streams[5:6], 3), noise[5:6, :3])
    assert not np.array_equal(noise_of([sample_stream(3, 2, 5)], 7), noise[5:6])
    assert not np.array_equal(noise_of([fixed_sample_stream(5)], 7), noise[5:6])
