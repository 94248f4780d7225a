"""ofrecord_util/corpus_batches.py: windows, batches and the weights of masked tokens of a corpus."""

import numpy as np
import pytest
import tiny
from corpus_samples import LENGTH, lines, write

from ofrecord_util.corpus_batches import batch_weights, iterate_corpus, longest_rows, window_order
from ofrecord_util.masking import Masking
from ofrecord_util.tokenization import Tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt")))


def drawn(corpus, batch, epochs, window, start=0, seed=4):
    return [
        (row, float(counts))
        for found in iterate_corpus(corpus, Masking(tiny.TOKENS), batch, (LENGTH,), epochs, seed, window, start)
        for row, counts in zip(found["idxs"].tolist(), found["loss_mask"])
    ]


@pytest.mark.parametrize("window", [4, 23, 100])
def test_an_epoch_has_each_row_once(tmp_path, tokenizer, window):
    corpus = write(tmp_path, tokenizer, lines(23), 2)
    found = drawn(corpus, 5, 2, window)
    rows = [row for row, counts in found if counts]
    assert len(found) == 50
    assert len(rows) == 46
    assert sorted(rows[:23]) == sorted(rows[23:]) == list(range(23))
    assert rows[:23] != rows[23:]
    for number in range(0, 23, window):  # in order, a window at a time
        assert sorted(rows[number : number + window][: 23 - number]) == list(range(number, min(23, number + window)))


def test_the_parts_do_not_change_the_batches(tmp_path, tokenizer):
    batches = []
    for part_num in (1, 4):
        corpus = write(tmp_path, tokenizer, lines(23), part_num, name=f"data{part_num}")
        batches.append(list(iterate_corpus(corpus, Masking(tiny.TOKENS), 5, (8, LENGTH), 2, 4, 6)))
    for one, other in zip(*batches):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_training_can_start_at_any_step(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(23))
    whole = list(iterate_corpus(corpus, Masking(tiny.TOKENS), 5, (8, LENGTH), 3, 4, 6))
    for start in (1, 4, 9, len(whole) - 1):
        for one, other in zip(iterate_corpus(corpus, Masking(tiny.TOKENS), 5, (8, LENGTH), 3, 4, 6, start), whole[start:]):
            assert all(np.array_equal(one[name], other[name]) for name in other)


def test_masks_are_new_in_each_epoch(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(8))
    epochs = list(iterate_corpus(corpus, Masking(tiny.TOKENS), 8, (LENGTH,), 2, 4, 8))
    places = [batch["masked_places"][np.argsort(batch["idxs"])].sum(axis=1) for batch in epochs]
    assert (places[0] != places[1]).any(axis=1).sum() >= 4


def test_weights_make_the_mean_over_rows_that_over_masked_tokens():
    weights = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    values = np.arange(12.0).reshape(4, 3)
    scaled = batch_weights(weights)
    assert scaled.dtype == np.float32
    assert (scaled * values).sum(axis=1).mean() == pytest.approx(values[weights > 0].mean())
    halves = [(scaled[part] * values[part]).sum(axis=1).mean() for part in (slice(0, 2), slice(2, 4))]
    assert np.mean(halves) == pytest.approx(values[weights > 0].mean())  # parts of a batch
    assert not batch_weights(np.zeros((4, 3), np.float32)).any()


def test_rows_that_only_fill_up_the_last_batch_have_no_weight(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(7))
    (batch,) = iterate_corpus(corpus, Masking(tiny.TOKENS), 12, (LENGTH,), 1, 4, 100)
    assert (batch["loss_mask"] > 0).tolist() == [True] * 7 + [False] * 5
    assert not batch["masked_weights"][7:].any()
    assert batch["masked_weights"].sum() == pytest.approx(12)


def test_longest_rows(tmp_path, tokenizer):
    corpus = write(tmp_path, tokenizer, lines(23))
    batches = list(iterate_corpus(corpus, Masking(tiny.TOKENS), 2, (LENGTH,), 1, 4, 9))
    assert longest_rows(corpus, 2, 4, 9, 7).tolist() == [batch["input_mask"].sum(axis=1).max() for batch in batches[:7]]
    assert sorted(window_order(9, 1, 4, 0).tolist()) == list(range(9))
