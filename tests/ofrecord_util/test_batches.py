"""Exact epochs, full batches of one shape, evaluation of every sample once."""

import types

import numpy as np
import ofrecord_samples as samples
import pytest

from ofrecord_util.batches import (
    count_steps,
    iterate_evaluation,
    iterate_training,
    padded_length,
    real_length,
    train_order,
)
from ofrecord_util.schema import FEATURE_NAMES, FEATURES


class Sized(types.SimpleNamespace):
    def __len__(self):
        return len(self.input_ids)


def records(count, length=7):
    return Sized(seq_length=length, **samples.arrays(count, length))


@pytest.mark.parametrize("n, epochs, batch", [(5, 3, 4), (5, 3, 5), (1, 1, 1), (3, 4, 7), (6, 2, 3), (96, 4, 4), (4, 0, 2)])
def test_every_sample_once_an_epoch(n, epochs, batch):
    data = records(n)
    batches = list(iterate_training(data, batch, 7, epochs, seed=42))
    assert len(batches) == count_steps(n, epochs, batch) == -(-n * epochs // batch)
    valid = np.concatenate([b["valid"] for b in batches]) if batches else np.zeros(0)
    assert valid.tolist() == [1] * (n * epochs) + [0] * (len(batches) * batch - n * epochs)
    seen = np.concatenate([b["idxs"] for b in batches])[: n * epochs] if batches else np.zeros(0)
    for epoch in range(epochs):
        order = seen[epoch * n : (epoch + 1) * n]
        assert sorted(order) == list(range(n))
        assert order.tolist() == train_order(n, epoch, 42).tolist()


def test_batches_hold_the_samples():
    data = records(5)
    for batch in list(iterate_training(data, 3, 7, 2, 1)) + list(iterate_evaluation(data, 3, 7)):
        assert set(batch) == set(FEATURE_NAMES) | {"valid"}
        assert batch["valid"].shape == (3,) and batch["valid"].dtype == np.float32
        for feature in FEATURES:
            array = batch[feature.name]
            assert array.dtype == feature.dtype and array.flags.c_contiguous
            assert array.shape == ((3, 7) if feature.per_token else (3,))
            assert np.array_equal(array, getattr(data, feature.name)[batch["idxs"]])


@pytest.mark.parametrize("start", range(9))
def test_a_run_goes_on_at_any_step(start):
    data = records(5)
    whole = list(iterate_training(data, 2, 7, 3, 7))
    assert len(whole) == 8
    rest = list(iterate_training(data, 2, 7, 3, 7, start_step=start))
    assert len(rest) == 8 - start
    for one, other in zip(whole[start:], rest):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_order():
    order = train_order(1000, 3, 42)
    assert order.dtype == np.int64 and sorted(order) == list(range(1000))
    assert order.tolist() == train_order(1000, 3, 42).tolist()
    for other in (train_order(1000, 4, 42), train_order(1000, 3, 43), train_order(1000, 42, 3), np.arange(1000)):
        assert (order == other).mean() < 0.02
    assert train_order(1, 0, 0).tolist() == [0]
    assert sorted(train_order(3, 0, -1)) == [0, 1, 2]


def test_order_is_the_same_everywhere():
    assert train_order(8, 0, 42).tolist() == [4, 1, 3, 6, 0, 7, 2, 5]
    assert train_order(8, 1, 42).tolist() == [1, 2, 5, 3, 6, 0, 4, 7]


def test_order_is_fair():
    """Each sample comes first about equally often."""
    first = np.bincount([train_order(4, epoch, 0)[0] for epoch in range(2000)], minlength=4)
    assert abs(first / 2000 - 0.25).max() < 0.04


@pytest.mark.parametrize("n, batch", [(1, 1), (1, 4), (5, 2), (6, 3), (5, 8), (5, 17)])
def test_evaluation_counts_every_sample_once(n, batch):
    data = records(n)
    batches = list(iterate_evaluation(data, batch, 7))
    assert len(batches) == -(-n // batch)
    idxs = np.concatenate([b["idxs"] for b in batches])
    valid = np.concatenate([b["valid"] for b in batches])
    assert idxs[valid == 1].tolist() == list(range(n))
    assert len(idxs) == len(batches) * batch and valid.sum() == n
    assert set(idxs) == set(range(n))


@pytest.mark.parametrize("real, length, expected", [(1, 128, 8), (8, 128, 8), (9, 128, 16), (121, 128, 128), (126, 127, 127)])
def test_padded_length(real, length, expected):
    data = records(3, length)
    data.input_mask[:] = 0
    data.input_mask[:, 0] = 1
    data.input_mask[1, real - 1] = 1
    assert real_length(data) == real
    assert padded_length(data) == padded_length(data, False) == expected
    assert padded_length(data, True) == length


def test_shorter_batches():
    data = records(3, 16)
    data.input_mask[:, 5:] = 0
    data.input_ids[:, 5:] = 0
    length = padded_length(data, False)
    batch = next(iterate_training(data, 2, length, 1, 0))
    assert batch["input_ids"].shape == (2, 8)
    for wrong in (4, 17, 0):
        with pytest.raises(ValueError):
            next(iterate_training(data, 2, wrong, 1, 0))
        with pytest.raises(ValueError):
            next(iterate_evaluation(data, 2, wrong))


def test_no_samples_or_no_batch():
    for n, epochs, batch in ((0, 1, 1), (1, 1, 0), (1, -1, 1)):
        with pytest.raises(ValueError):
            count_steps(n, epochs, batch)
