"""ofrecord_util/pair_batches.py: the halves of a text, the pairs of a step, the blocks of the recall."""

import numpy as np
import pytest

from ofrecord_util.corpus_rows import Rows
from ofrecord_util.pair_batches import PairSteps, cut_in_halves, padded, recall_blocks

CLS, SEP = 2, 3


def rows_of(texts):
    """`Rows` of lists of tokens; a pair is a tuple of two lists."""
    ids, segments = [], []
    for text in texts:
        first, second = text if isinstance(text, tuple) else (text, None)
        own = [CLS, *first, SEP]
        other = [] if second is None else [*second, SEP]
        ids.append(own + other)
        segments.append([0] * len(own) + [1] * len(other))
    longest = max(map(len, ids))
    array = [np.array([row + [0] * (longest - len(row)) for row in rows], np.int32) for rows in (ids, segments)]
    return Rows(*array, np.array(list(map(len, ids)), np.int64))


def texts_of(rows):
    return [row[:length].tolist() for row, length in zip(rows.input_ids, rows.lengths)]


def test_halves():
    rows = rows_of([[11, 12, 13, 14], [21, 22, 23], [31], ([41, 42, 43], [44]), ([51], [52, 53])])
    halves = cut_in_halves(rows)
    expected = [[11, 12], [13, 14], [21, 22], [23], [31], [], [41, 42, 43], [44], [51], [52, 53]]
    assert texts_of(halves) == [[CLS, *half, SEP] for half in expected]
    assert not halves.segment_ids.any()
    ids = np.array([[CLS, 41, 42, SEP, SEP, 44, SEP], [CLS, 51, SEP, SEP, 0, 0, 0], [CLS, 61, SEP, SEP, SEP, 0, 0]], np.int32)
    two = cut_in_halves(Rows(ids, np.zeros_like(ids), np.array([7, 4, 5])))  # RoBERTa's pair; pairs with an empty second text
    assert texts_of(two) == [[CLS, *half, SEP] for half in ([41, 42], [44], [51], [], [61], [])]
    arrays = padded(halves, 7)
    assert {array.shape for array in arrays.values()} == {(10, 7)}
    assert arrays["input_mask"].sum(axis=1).tolist() == halves.lengths.tolist()
    assert [row[mask > 0].tolist() for row, mask in zip(arrays["word_rows"], arrays["input_mask"])] == texts_of(halves)


class FakeCorpus:
    def __init__(self, count):
        self.rows = rows_of([[100 + number, 200 + number, 300 + number] for number in range(count)])

    def __len__(self):
        return len(self.rows.lengths)

    def read(self, start, stop):
        return self.rows.select(np.arange(start, stop))


def test_steps():
    """A step has no row twice, an epoch neither, and the steps depend on seed and number alone."""
    steps = PairSteps(FakeCorpus(17), 2, 3, 5, 100)
    assert steps.per_epoch == 2
    epochs = []
    for epoch in range(3):
        found = [steps.batch(2 * epoch + step, (4, 8)) for step in range(2)]
        numbers = np.concatenate([batch["idxs"] for batch in found])
        assert len(set(numbers.tolist())) == 12
        epochs.append(numbers.tolist())
        for batch in found:
            assert batch["word_rows"].shape == (2, 6 * 4)
            texts = batch["word_rows"].reshape(-1, 4)
            assert texts[::2, 1].tolist() == (100 + batch["idxs"]).tolist()
            assert texts[1::2, 1].tolist() == (300 + batch["idxs"]).tolist()
            assert batch["target"].tolist() == [[0, 1, 2]] * 2
    assert len({tuple(sorted(numbers)) for numbers in epochs}) == 3  # other rows are left out
    again = PairSteps(FakeCorpus(17), 2, 3, 5, 100)
    assert again.batch(5, (4, 8))["idxs"].tolist() == epochs[2][6:]
    assert steps.longest(3).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("count", "counted"), [(1, [1]), (7, [7]), (100, [100]), (101, [100, 1]), (199, [100, 99]), (200, [100, 100]), (250, [100, 100, 50])]
)
def test_blocks(count, counted):
    """Each pair counts once, and is compared with 99 others, or with all if there are fewer."""
    blocks = recall_blocks(count)
    assert [block.counted for block in blocks] == counted
    assert {len(set(block.pairs.tolist())) for block in blocks} == {len(block.pairs) for block in blocks} == {min(count, 100)}
    assert sorted(pair for block in blocks for pair in block.pairs[: block.counted].tolist()) == list(range(count))
    again = recall_blocks(count)
    assert all(np.array_equal(one.pairs, other.pairs) for one, other in zip(blocks, again))
    assert count < 100 or blocks[0].pairs.tolist() != list(range(100))
