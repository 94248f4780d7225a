"""Exact epochs, full batches of a few shapes, evaluation of every sample once."""

import numpy as np
import ofrecord_samples as samples
import pytest

from ofrecord_util.batches import (
    count_steps,
    evaluation_needs,
    iterate_evaluation,
    iterate_training,
    train_order,
    training_needs,
)
from ofrecord_util.records import SAMPLE_ARRAYS, TOKEN_ARRAYS, Records, count_tokens


def records(count, length=7):
    return Records(**samples.arrays(count, length)).samples()


@pytest.mark.parametrize(("n", "epochs", "batch"), [(5, 3, 4), (5, 3, 5), (1, 1, 1), (3, 4, 7), (6, 2, 3), (96, 4, 4), (4, 0, 2)])
def test_every_sample_once_an_epoch(n, epochs, batch):
    data = records(n)
    batches = list(iterate_training(data, batch, (7,), epochs, seed=42))
    assert len(batches) == count_steps(n, epochs, batch) == -(-n * epochs // batch)
    counts = np.concatenate([b["loss_mask"] > 0 for b in batches]) if batches else np.zeros(0)
    assert counts.tolist() == [1] * (n * epochs) + [0] * (len(batches) * batch - n * epochs)
    seen = np.concatenate([b["idxs"] for b in batches])[: n * epochs] if batches else np.zeros(0)
    for epoch in range(epochs):
        order = seen[epoch * n : (epoch + 1) * n]
        assert sorted(order) == list(range(n))
        assert order.tolist() == train_order(n, epoch, 42).tolist()


@pytest.mark.parametrize(("n", "counted", "rows"), [(5, 2, 3), (5, 1, 2), (4, 2, 4), (3, 3, 3)])
def test_batches_of_which_a_part_counts(n, counted, rows):
    """The others are repeats with a loss mask of 0, so that the mean over the rows is that over the samples that count."""
    batches, values, order = list(iterate_training(records(n), rows, (7,), 1, 42, counted=counted)), np.arange(n) ** 2.0, []
    assert len(batches) == -(-n // counted)
    for batch in batches:
        assert batch["word_rows"].shape == (rows, 7)
        own = batch["idxs"][batch["loss_mask"] > 0]
        assert len(own) <= counted
        assert set(batch["idxs"]) - set(train_order(n, 1, 42)[:rows].tolist()) <= set(own.tolist())
        assert (batch["loss_mask"] * values[batch["idxs"]]).mean() == pytest.approx(values[own].mean())
        order += own.tolist()
    assert order == train_order(n, 0, 42).tolist()


def test_batches_hold_the_samples():
    data = records(5)
    for batch in list(iterate_training(data, 3, (7,), 2, 1)) + list(iterate_evaluation(data, 3, (7,))):
        assert set(batch) == set(SAMPLE_ARRAYS) | {"loss_mask"}
        assert batch["loss_mask"].shape == (3,)
        assert batch["loss_mask"].dtype == np.float32
        assert batch["loss_mask"].mean() == pytest.approx(1)
        assert len(set(batch["loss_mask"]) - {0}) == 1
        for name in SAMPLE_ARRAYS:
            array = batch[name]
            assert array.dtype == (np.float32 if name == "sample_weights" else np.int32)
            assert array.flags.c_contiguous
            assert array.shape == ((3, 7) if name in TOKEN_ARRAYS else (3,))
            assert np.array_equal(array, getattr(data, name)[batch["idxs"]])


@pytest.mark.parametrize("start", range(9))
def test_a_run_goes_on_at_any_step(start):
    data = records(5)
    whole = list(iterate_training(data, 2, (7,), 3, 7))
    assert len(whole) == 8
    rest = list(iterate_training(data, 2, (7,), 3, 7, start_step=start))
    assert len(rest) == 8 - start
    for one, other in zip(whole[start:], rest):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_order():
    order = train_order(1000, 3, 42)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(1000))
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


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (1, 4), (5, 2), (6, 3), (5, 8), (5, 17)])
def test_evaluation_counts_every_sample_once(n, batch):
    data = records(n)
    batches = list(iterate_evaluation(data, batch, (7,)))
    assert len(batches) == -(-n // batch)
    idxs = np.concatenate([b["idxs"] for b in batches])
    counts = np.concatenate([b["loss_mask"] > 0 for b in batches])
    assert idxs[counts].tolist() == list(range(n))
    assert len(idxs) == len(batches) * batch
    assert counts.sum() == n
    assert set(idxs) == set(range(n))


def lengthy(*real, length=48):
    """Records of the given real lengths."""
    arrays = samples.arrays(len(real), length)
    arrays["input_mask"][:] = np.arange(length) < np.array(real)[:, None]
    arrays["input_ids"] *= arrays["input_mask"]
    return Records(**arrays).samples()


def test_real_lengths():
    data = lengthy(1, 48, 7, 8, 9)
    assert data.lengths.tolist() == [1, 48, 7, 8, 9]
    assert data.lengths.dtype == np.int64
    mask = data.input_mask.copy()
    mask[2, 3] = 0  # a hole does not end a text
    mask[3] = 0  # a record without tokens still takes one
    assert count_tokens(mask).tolist() == [1, 48, 7, 1, 9]
    assert data.select(np.array([4, 1])).lengths.tolist() == [9, 48]


REAL = (3, 40, 8, 9, 16, 17, 25, 5, 4, 31, 6)


@pytest.mark.parametrize("lengths", [(40,), (48,), (8, 40), (16, 24, 48), (9, 31, 41)])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 13])
def test_batches_have_the_shortest_length_that_holds_them(lengths, batch_size):
    data = lengthy(*REAL)
    seen = set()
    for batch in [*iterate_training(data, batch_size, lengths, 3, 5), *iterate_evaluation(data, batch_size, lengths)]:
        needed = max(REAL[row] for row in batch["idxs"])
        length = min(length for length in lengths if length >= needed)
        seen.add(length)
        for name in ("word_rows", "input_mask", "segment_ids"):
            assert batch[name].shape == (batch_size, length)
            assert np.array_equal(batch[name], getattr(data, name)[batch["idxs"], :length])
        assert batch["input_mask"].sum() == sum(REAL[row] for row in batch["idxs"])  # no real token is cut off
    assert seen == set(lengths) if batch_size == 1 else seen <= set(lengths)


def test_lengths_that_do_not_hold_the_records():
    data = lengthy(3, 5, 8, length=16)
    assert next(iterate_training(data, 2, (8,), 1, 0))["word_rows"].shape == (2, 8)
    assert next(iterate_evaluation(data, 2, (4, 8)))["word_rows"].shape == (2, 8)
    for wrong in ((4,), (7,), (17,), (8, 17), (0,), (0, 8)):
        with pytest.raises(ValueError, match="buckets "):
            next(iterate_training(data, 2, wrong, 1, 0))
        with pytest.raises(ValueError, match="buckets "):
            next(iterate_evaluation(data, 2, wrong))


@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 11, 12, 30])
def test_training_needs_are_those_of_the_batches(batch_size, epochs):
    data = lengthy(*REAL)
    batches = list(iterate_training(data, batch_size, (48,), epochs, seed=9))
    needed = training_needs(data, batch_size, epochs, 9)
    assert needed.shape == (count_steps(len(REAL), epochs, batch_size),) == (len(batches),)
    assert needed.tolist() == [max(REAL[row] for row in batch["idxs"]) for batch in batches]
    if 1 < batch_size < 11:
        assert needed.tolist() != training_needs(data, batch_size, epochs, 10).tolist()  # the seed's own order


@pytest.mark.parametrize("batch_size", [1, 2, 3, 11, 12, 30])
def test_evaluation_needs_are_those_of_the_batches(batch_size):
    data = lengthy(*REAL)
    order = np.argsort(data.lengths, kind="stable")
    batches = list(iterate_evaluation(data.select(order), batch_size, (48,)))
    needed = evaluation_needs(data, batch_size)
    assert needed.tolist() == [max(REAL[row] for row in batch["idxs"]) for batch in batches]
    assert sorted(needed) == needed.tolist()
    assert needed[-1] == max(REAL)


def test_no_samples_or_no_batch():
    for n, epochs, batch in ((0, 1, 1), (1, 1, 0), (1, -1, 1)):
        with pytest.raises(ValueError, match=f"{n} samples"):
            count_steps(n, epochs, batch)
