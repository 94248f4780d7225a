"""The random streams of a run: their numbers, and which of them share a seed."""

import itertools
import zlib

import numpy as np
import pytest

from modeling.bert.config import BertConfig
from modeling.bert.variables import classifier_shapes, domain_head_shapes, encoder_shapes
from ofrecord_util.seeds import (
    bootstrap_stream,
    child_mask_stream,
    corruption_stream,
    dropout_stream,
    episode_stream,
    evaluation_task_stream,
    fixed_mask_stream,
    fixed_sample_stream,
    initial_value_stream,
    mask_stream,
    noise_stream,
    order_stream,
    pair_stream,
    recall_stream,
    sample_stream,
    sentence_stream,
    task_stream,
    trigram_stream,
    window_stream,
)

SEEDS = (0, 1, 42)
NUMBERS = (0, 1, 2, 63, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xBF, 0xC0, 0xC1, 0xD0, 0xF0, 0x110, 0x120, 0x130, 1000, 999_999)
_CONFIG = BertConfig()
NAMES = sorted({**encoder_shapes(_CONFIG), **classifier_shapes(_CONFIG, 2), **domain_head_shapes(_CONFIG, 3)})


def first_words(stream):
    """The first three raw words of PCG64: of a `SeedSequence`, or of a generator as it comes."""
    generator = np.random.PCG64(stream) if isinstance(stream, np.random.SeedSequence) else stream.bit_generator
    return tuple(generator.random_raw(3).tolist())


@pytest.mark.parametrize("seed", [*SEEDS, 2**32 + 7])
def test_the_numbers_of_each_stream(seed):
    for number in NUMBERS:
        order = np.random.SeedSequence([seed % 2**64, number])
        assert first_words(order_stream(seed, number)) == first_words(order)
        corruption = np.random.default_rng([seed, 0xC0, number])
        assert corruption_stream(seed, number).integers(1, 5, size=9).tolist() == corruption.integers(1, 5, size=9).tolist()
        bootstrap = np.random.default_rng([seed, 0xB0, number])
        assert bootstrap_stream(seed, number).integers(1, 5, size=9).tolist() == bootstrap.integers(1, 5, size=9).tolist()
        dropout = np.random.SeedSequence([seed, 0xD0, number])
        assert dropout_stream(seed, number).generate_state(4, np.uint64).tolist() == dropout.generate_state(4, np.uint64).tolist()
        child = np.random.SeedSequence([seed, 0xF0, number])
        assert child_mask_stream(seed, number).generate_state(4, np.uint64).tolist() == child.generate_state(4, np.uint64).tolist()
        task = np.random.default_rng([seed, 0xA0, number, 3])
        assert task_stream(seed, number, 3).integers(1, 5, size=9).tolist() == task.integers(1, 5, size=9).tolist()
        pairs = np.random.SeedSequence([seed, 0x90, 2, number])
        assert first_words(pair_stream(seed, 2, number)) == first_words(pairs)
        episode = np.random.SeedSequence([seed, 0x80, number + 1, 5])
        assert first_words(episode_stream(seed, number, 5)) == first_words(episode)
        assert first_words(noise_stream(seed, number)) == first_words(np.random.SeedSequence([seed, 0x70, number + 1]))
        masks = np.random.SeedSequence([seed, 0x40, number + 1, 5])
        assert first_words(mask_stream(seed, number, 5)) == first_words(masks)
        assert first_words(fixed_mask_stream(number)) == first_words(np.random.SeedSequence([0, 0x60, number + 1]))
        assert first_words(recall_stream(number)) == first_words(np.random.SeedSequence([0, 0x30, number]))
        for stream, word in ((sentence_stream, 0x110), (trigram_stream, 0x120), (sample_stream, 0x130)):
            assert first_words(stream(seed, number, 5)) == first_words(np.random.SeedSequence([seed, word, number + 1, 5]))
        assert first_words(fixed_sample_stream(number)) == first_words(np.random.SeedSequence([0, 0x140, number + 1]))
        window = np.random.SeedSequence([seed, 0x50, number + 1, 5])
        assert first_words(window_stream(seed, number, 5)) == first_words(window)
        task = np.random.default_rng([seed, 0xE0, number])
        assert evaluation_task_stream(seed, number).integers(1, 5, size=9).tolist() == task.integers(1, 5, size=9).tolist()
    for name in NAMES[:5]:
        value = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8"))])
        assert initial_value_stream(seed, name).standard_normal(7).tolist() == value.standard_normal(7).tolist()


def test_the_numbers_are_the_same_everywhere():
    assert first_words(order_stream(-1, 0)) == first_words(order_stream(2**64 - 1, 0))
    assert first_words(order_stream(42, 0))[0] == 14276969152011380360
    assert corruption_stream(42, 3).integers(1, 5, size=8).tolist() == [4, 3, 2, 1, 4, 4, 3, 1]
    assert dropout_stream(42, 3).generate_state(2, np.uint64).tolist() == [18446460604912086811, 18229101892773799786]
    assert initial_value_stream(42, "bert-embeddings-word_embeddings").integers(0, 100, size=4).tolist() == [6, 20, 62, 65]


@pytest.mark.parametrize("seed", SEEDS)
def test_which_streams_of_a_seed_meet(seed):
    """Three pairs do: `SeedSequence` reads a missing third word as the step 0."""
    streams = {("order", number): order_stream(seed, number) for number in NUMBERS}
    streams.update({("corruption", number): corruption_stream(seed, number) for number in NUMBERS})
    streams.update({("dropout", number): dropout_stream(seed, number) for number in NUMBERS})
    streams.update({("bootstrap", number): bootstrap_stream(seed, number) for number in NUMBERS if number})
    streams.update({("child mask", number): child_mask_stream(seed, number) for number in NUMBERS})
    streams.update({("task", number, task): task_stream(seed, number, task) for number in NUMBERS for task in range(1, 3)})
    streams.update({("noise", number): noise_stream(seed, number) for number in NUMBERS})
    streams.update({("evaluation", number): evaluation_task_stream(seed, number) for number in NUMBERS})
    streams.update({("evaluation again", number): evaluation_task_stream(seed, number, 1) for number in NUMBERS})
    streams.update({("pair", kind, number): pair_stream(seed, kind, number) for kind in (1, 2) for number in NUMBERS})
    streams.update({("episode", number, place): episode_stream(seed, number, place) for number in NUMBERS for place in range(2)})
    streams.update({("mask", number, row): mask_stream(seed, number, row) for number in NUMBERS for row in range(2)})
    for of_rows in (sentence_stream, trigram_stream, sample_stream):
        streams.update({(of_rows.__name__, number, row): of_rows(seed, number, row) for number in NUMBERS for row in range(2)})
    streams.update({("fixed sample", row): fixed_sample_stream(row) for row in NUMBERS})
    streams.update({("fixed mask", row): fixed_mask_stream(row) for row in NUMBERS})
    streams.update({("recall", pairs): recall_stream(pairs) for pairs in NUMBERS if pairs})
    streams.update({("window", number, window): window_stream(seed, number, window) for number in NUMBERS for window in range(2)})
    streams.update({("initial value", name): initial_value_stream(seed, name) for name in NAMES})
    words = {name: first_words(stream) for name, stream in streams.items()}
    meeting = [(one, other) for one, other in itertools.combinations(words, 2) if words[one] == words[other]]
    assert meeting == [(("order", 0xC0), ("corruption", 0)), (("order", 0xD0), ("dropout", 0)), (("order", 0xF0), ("child mask", 0))]


def test_no_name_of_a_variable_is_the_number_of_an_epoch():
    assert len(NAMES) > 190
    numbers = [zlib.crc32(name.encode("utf-8")) for name in NAMES]
    assert min(numbers) > 1_000_000
    assert len(set(numbers)) == len(numbers)
