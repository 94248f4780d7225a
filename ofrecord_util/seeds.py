"""The random streams of a run. Every number that a run draws comes from one of these functions and the run's seed.

    stream                          words of the SeedSequence
    order of an epoch               seed, epoch
    corrupted domains of a step     seed, 0xC0, step
    dropout of a step               seed, 0xD0, step
    bootstrap of an evaluation      seed, 0xB0, number of rows
    Child-Tuning mask of a step     seed, 0xF0, step
    task of a meta step             seed, 0xA0, step, task
    task of a meta evaluation       seed, 0xE0, domain
    pairs of a pass                 seed, 0x90, kind (from 1), pass
    episode of a step               seed, 0x80, step + 1, episode
    noise of a step                 seed, 0x70, step + 1
    fixed masks of a row            0, 0x60, row + 1
    order of a corpus' window       seed, 0x50, epoch + 1, window
    masks of a row in an epoch      seed, 0x40, epoch + 1, row
    blocks of a recall              0, 0x30, number of pairs
    sentence pair of a row          seed, 0x110, epoch + 1, row
    trigrams of a row               seed, 0x120, epoch + 1, row
    sampled tokens of a row         seed, 0x130, epoch + 1, row
    fixed sampled tokens of a row   0, 0x140, row + 1
    initial value of a variable     seed, crc32(name)

Each stream depends on its own words only, so a run can continue at any step. The streams of one seed never meet, with three exceptions.
`SeedSequence` reads a missing word as 0. Therefore the order of epoch 192 (0xC0) starts from the words of the corrupted domains of step
0, the order of epoch 208 (0xD0) from those of the dropout of step 0, and the order of epoch 240 (0xF0) from those of the Child-Tuning
mask of step 0. The two uses of the same words lie far apart in a run (step 0, and epoch 192, 208 or 240) and read them in different
ways. An evaluation has at least one row, so its bootstrap does not start from the words of an epoch. Runs with tasks have no epochs.
The words stay as they are, so that earlier runs can be repeated. The CRC-32 of a variable's name is far above any number of epochs
(tests/ofrecord_util/test_seeds.py checks all names of BERT-base).
"""

import zlib

import numpy as np

CORRUPTION_WORD = 0xC0
DROPOUT_WORD = 0xD0
BOOTSTRAP_WORD = 0xB0
CHILD_MASK_WORD = 0xF0
TASK_WORD = 0xA0
EVALUATION_TASK_WORD = 0xE0
PAIR_WORD = 0x90
EPISODE_WORD = 0x80
NOISE_WORD = 0x70
FIXED_MASK_WORD = 0x60
WINDOW_WORD = 0x50
MASK_WORD = 0x40
RECALL_WORD = 0x30
SENTENCE_WORD = 0x110
TRIGRAM_WORD = 0x120
SAMPLE_WORD = 0x130
FIXED_SAMPLE_WORD = 0x140


def order_stream(seed: int, epoch: int) -> np.random.SeedSequence:
    """Seed of the order of the samples in an epoch (from 0). The seed may be any integer, negative ones included."""
    return np.random.SeedSequence([seed % 2**64, epoch])


def corruption_stream(seed: int, step: int) -> np.random.Generator:
    """Generator of the corrupted domains of a step (from 0)."""
    return np.random.default_rng([seed, CORRUPTION_WORD, step])


def dropout_stream(seed: int, step: int) -> np.random.SeedSequence:
    """Seed of the dropout masks of a step (from 0)."""
    return np.random.SeedSequence([seed, DROPOUT_WORD, step])


def bootstrap_stream(seed: int, rows: int) -> np.random.Generator:
    """Generator of the bootstrap resamples of an evaluation of `rows` rows, at least one."""
    return np.random.default_rng([seed, BOOTSTRAP_WORD, rows])


def child_mask_stream(seed: int, step: int) -> np.random.SeedSequence:
    """Seed of the masks of Child-Tuning-F in a step (from 0)."""
    return np.random.SeedSequence([seed, CHILD_MASK_WORD, step])


def task_stream(seed: int, step: int, task: int) -> np.random.Generator:
    """Generator of task number `task` of an outer step of meta-learning (both from 0)."""
    return np.random.default_rng([seed, TASK_WORD, step, task])


def evaluation_task_stream(seed: int, domain: int, number: int = 0) -> np.random.Generator:
    """Generator of task `number` (from 0) on which a meta learner is evaluated on a domain."""
    return np.random.default_rng([seed, EVALUATION_TASK_WORD, domain, *([number] if number else [])])


def pair_stream(seed: int, kind: int, number: int) -> np.random.SeedSequence:
    """Seed of the order of all pairs of a kind (from 1) in pass `number` (from 0) over them."""
    return np.random.SeedSequence([seed, PAIR_WORD, kind, number])


def episode_stream(seed: int, step: int, episode: int) -> np.random.SeedSequence:
    """Seed of episode number `episode` of a step (both from 0)."""
    return np.random.SeedSequence([seed, EPISODE_WORD, step + 1, episode])


def noise_stream(seed: int, step: int) -> np.random.SeedSequence:
    """Seed of the noise on the word embeddings in a step (from 0)."""
    return np.random.SeedSequence([seed, NOISE_WORD, step + 1])


def mask_stream(seed: int, epoch: int, row: int) -> np.random.SeedSequence:
    """Seed of the masked tokens of a row of a corpus in an epoch (both from 0)."""
    return np.random.SeedSequence([seed, MASK_WORD, epoch + 1, row])


def fixed_mask_stream(row: int) -> np.random.SeedSequence:
    """Seed of the masked tokens of a row (from 0) in every evaluation. The run's seed has no part in it, so that perplexities compare."""
    return np.random.SeedSequence([0, FIXED_MASK_WORD, row + 1])


def sentence_stream(seed: int, epoch: int, row: int) -> np.random.SeedSequence:
    """Seed of the sentence pair that a row of a corpus becomes in an epoch (both from 0)."""
    return np.random.SeedSequence([seed, SENTENCE_WORD, epoch + 1, row])


def trigram_stream(seed: int, epoch: int, row: int) -> np.random.SeedSequence:
    """Seed of the shuffled trigrams of a row of a corpus in an epoch (both from 0)."""
    return np.random.SeedSequence([seed, TRIGRAM_WORD, epoch + 1, row])


def sample_stream(seed: int, epoch: int, row: int) -> np.random.SeedSequence:
    """Seed of the noise with which tokens of a row of a corpus are sampled from a generator in an epoch (both from 0)."""
    return np.random.SeedSequence([seed, SAMPLE_WORD, epoch + 1, row])


def fixed_sample_stream(row: int) -> np.random.SeedSequence:
    """Seed of the noise with which tokens of a row (from 0) are sampled in every evaluation. The run's seed has no part in it."""
    return np.random.SeedSequence([0, FIXED_SAMPLE_WORD, row + 1])


def window_stream(seed: int, epoch: int, window: int) -> np.random.SeedSequence:
    """Seed of the order of the rows in a window of a corpus in an epoch (both from 0)."""
    return np.random.SeedSequence([seed, WINDOW_WORD, epoch + 1, window])


def recall_stream(pairs: int) -> np.random.SeedSequence:
    """Seed of the blocks in which `pairs` pairs, at least one, are compared in every evaluation. The run's seed has no part in it."""
    return np.random.SeedSequence([0, RECALL_WORD, pairs])


def initial_value_stream(seed: int, name: str, replaced: bytes = b"") -> np.random.Generator:
    """Generator of the initial value of a variable. No other variable influences it.

    Args:
        seed: of the run.
        name: documented name of the variable.
        replaced: the value that the initial one replaces, if there is one.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode("utf-8"))] + [zlib.crc32(replaced)] * bool(replaced))
