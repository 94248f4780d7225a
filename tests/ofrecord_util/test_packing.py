"""ofrecord_util/packing.py: several texts in a row."""

import itertools

import numpy as np
import pytest

from ofrecord_util.packing import Rows, arrange, deal, describe, fill, outputs_of, pack, packed_batches, row_tokens


@pytest.mark.parametrize(("batch", "per_row"), [(2, 2), (4, 2), (6, 2), (6, 3), (12, 4), (5, 5), (3, 1)])
def test_each_text_has_one_place(batch, per_row):
    draw = np.random.RandomState(batch)
    lengths = draw.randint(1, 60, (7, batch))
    rows = deal(lengths, per_row)
    assert rows.shape == (7, batch // per_row, per_row)
    assert rows.dtype == np.int64
    assert np.array_equal(np.sort(rows.reshape(7, batch)), np.tile(np.arange(batch), (7, 1)))
    for one, some in zip(lengths, rows):
        assert np.array_equal(deal(one, per_row), some)  # a batch by itself as among others
        assert row_tokens(one, per_row) == one[some].sum(axis=1).max()
    assert np.array_equal(row_tokens(lengths, per_row), [row_tokens(one, per_row) for one in lengths])


def test_the_fullest_row_has_as_few_tokens_as_can_be_of_pairs():
    draw = np.random.RandomState(1)
    for lengths in draw.randint(3, 80, (40, 6)):
        least = min(max(lengths[list(order)].reshape(3, 2).sum(axis=1)) for order in itertools.permutations(range(6)))
        assert row_tokens(lengths, 2) == least


def test_by_hand():
    assert deal([5, 75, 20, 40], 2).tolist() == [[1, 0], [3, 2]]
    assert deal([9, 9, 9, 9], 2).tolist() == [[0, 2], [1, 3]]
    lengths, values = [3, 1, 2, 4], np.arange(20).reshape(4, 5) + 1
    assert pack(values, lengths, 2, 7).tolist() == [[1, 2, 3, 6, 0, 0, 0], [11, 12, 16, 17, 18, 19, 0]]
    about = describe(lengths, 2, 7)
    assert about["positions"].tolist() == [[0, 1, 2, 0, 0, 0, 0], [0, 1, 0, 1, 2, 3, 0]]
    assert about["input_mask"].tolist() == [
        [[1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0]],
        [[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0]],
    ]
    assert about["starts"].tolist() == [
        [[1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0]],
        [[1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]],
    ]
    assert {name: array.dtype for name, array in about.items()} == {"positions": np.int32, "input_mask": np.float32, "starts": np.float32}


def test_a_row_that_is_too_short():
    for function in (lambda: pack(np.ones((2, 5), np.int32), [3, 2], 2, 4), lambda: describe([3, 2], 2, 4)):
        with pytest.raises(ValueError, match="rows of 4 tokens: a row's texts have 5"):
            function()


@pytest.mark.parametrize(("length", "most"), [(40, 1), (40, 3), (64, 8), (41, 40)])
def test_filled_rows_have_room(length, most):
    lengths = np.random.RandomState(length).randint(1, 41, 300)
    rows = fill(lengths, length, most)
    assert np.array_equal(np.unique(rows), np.arange(rows.max() + 1))
    assert np.bincount(rows, weights=lengths).max() <= length
    assert np.bincount(rows).max() <= most
    assert most > 1 or rows.max() + 1 == len(lengths)


def test_filled_rows_are_full():
    assert fill([5, 5, 6, 4, 10, 3], 10, 9).tolist() == [2, 2, 1, 1, 0, 3]
    lengths = np.random.RandomState(2).randint(5, 40, 1000)
    assert lengths.sum() > 0.98 * (fill(lengths, 64, 8).max() + 1) * 64
    assert len(fill([], 10, 2)) == 0
    with pytest.raises(ValueError, match="rows of 10 tokens: a text has 11"):
        fill([3, 11], 10, 2)


def test_arranged_texts_come_back():
    draw = np.random.RandomState(8)
    lengths = draw.randint(1, 14, 50)
    words, segments = draw.randint(1, 99, (50, 13)).astype(np.int32), draw.randint(0, 2, (50, 13)).astype(np.int32)
    shape, seen = Rows(3, 20, 4), []
    for texts, places in packed_batches(lengths, shape):
        batch = arrange(words[texts], segments[texts], lengths[texts], places, shape)
        assert batch["word_rows"].shape == batch["segment_ids"].shape == batch["positions"].shape == (3, 20)
        assert batch["input_mask"].shape == batch["starts"].shape == (3, 4, 20)
        numbers = np.repeat(np.arange(12)[:, None], 2, axis=1)
        assert np.array_equal(outputs_of(numbers, places, shape)[:, 0], places.row * 4 + places.slot)
        for text, row, slot in zip(texts, places.row, places.slot):
            here = batch["input_mask"][row, slot] == 1
            count = lengths[text]
            assert np.array_equal(batch["word_rows"][row][here], words[text, :count])
            assert np.array_equal(batch["segment_ids"][row][here], segments[text, :count])
            assert np.array_equal(batch["positions"][row][here], np.arange(count))
            assert np.flatnonzero(batch["starts"][row, slot]).tolist() == [np.flatnonzero(here)[0]]
        assert batch["input_mask"].sum() == lengths[texts].sum()
        assert batch["input_mask"].sum(axis=1).max() == 1
        seen += texts.tolist()
    assert sorted(seen) == list(range(50))
    assert list(packed_batches([], shape)) == []
