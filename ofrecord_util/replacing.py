"""The inputs of ELECTRA's pre-training (arXiv 2003.10555): which tokens of a row a generator replaces, and the noise of its samples.

As in its authors' code: of the n tokens of a row with [CLS] and [SEP], max(1, round(p n)) are drawn with replacement, at most P, from those
that are none of [CLS], [SEP], [PAD] and [MASK]; a token that is drawn twice counts once. Of the drawn tokens 85 % become [MASK] and 15 %
stay in the input of the generator, which predicts all of them. A sample replaces each of them in the input of the discriminator.
"""

from typing import Dict, Iterator, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch, count_steps
from ofrecord_util.corpus import Corpus
from ofrecord_util.corpus_batches import Windows, batch_weights, masked_batch
from ofrecord_util.masking import Masking
from ofrecord_util.seeds import sample_stream

_MASKED_SHARE = 0.85


class ReplacedMasking(Masking):
    """The rule for one vocabulary. Arguments as for `Masking`, but whole_words has no effect."""

    def places(self, length: int) -> int:
        """The largest number of drawn tokens in a row of `length` tokens with padding."""
        return min(self.most, max(1, round(self.probability * length)))

    def row(self, ids: np.ndarray, stream: np.random.SeedSequence) -> Tuple[np.ndarray, np.ndarray]:
        """The drawn tokens of one row, as `Masking.row`."""
        free = np.flatnonzero(self.maskable[ids] & (ids != self.mask_id))
        if not len(free):
            return free, free
        generator = np.random.PCG64(stream)  # raw words, so that the versions of NumPy agree
        drawn = generator.random_raw(self.places(len(ids))) % np.uint64(len(free))
        places = free[np.unique(drawn.astype(np.int64))]
        share = (generator.random_raw(len(places)) >> np.uint64(11)) * 2.0**-53
        return places, np.where(share < _MASKED_SHARE, self.mask_id, ids[places])


def noise_of(streams: Sequence[np.random.SeedSequence], places: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for the samples of some rows, float32 [B, P].

    Args:
        streams: B streams of `seeds.sample_stream` or `seeds.fixed_sample_stream`.
        places: P.
    """
    words = np.stack([np.random.PCG64(stream).random_raw(places) for stream in streams])
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)  # exact, and below 1


def iterate_replaced(
    corpus: Corpus,
    masking: Masking,
    batch_size: int,
    buckets: Sequence[int],
    num_epochs: int,
    seed: int,
    window: int,
    start_step: int = 0,
) -> Iterator[Batch]:
    """Batches of a training, from a step on. Arguments as for `iterate_corpus`.

    Yields:
        dict: the arrays of `iterate_corpus`, whose masked tokens are the drawn ones; original_rows int32 [B, L], word_rows without masks;
            noise float32 [B, P], of `noise_of`; token_weights float32 [B, L], those of `batch_weights` for tokens, 0 for padding.
    """
    windows = Windows(corpus, seed, window)
    for step in range(start_step, count_steps(len(corpus), num_epochs, batch_size)):
        drawn = windows.samples(step * batch_size, batch_size)
        batch: Dict[str, np.ndarray] = masked_batch(drawn, masking, buckets, num_epochs, seed)
        length, counts = batch["word_rows"].shape[1], batch["loss_mask"] > 0
        yield {
            **batch,
            "original_rows": np.ascontiguousarray(drawn.rows.input_ids[:, :length]),
            "noise": noise_of(drawn.streams(sample_stream, seed), batch["masked_ids"].shape[1]),
            "token_weights": batch_weights(batch["input_mask"] * counts[:, None]),
        }
