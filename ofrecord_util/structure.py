"""The structural objectives of StructBERT (arXiv 1908.04577, section 2): which words of a row are shuffled, and which sentences are a pair.

Word structure: a trigram is three tokens in succession without [CLS], [SEP] and [PAD]. Of the m trigrams of a row, max(1, round(0.05 m))
are shuffled, fewer if there are no more: trigrams without a masked token that do not overlap. The order of the three becomes one of the
six with equal probability; the model predicts at each place the token that was there.

Sentence structure: a record is cut in two before one of its sentences. With equal probability the pair is (first part, second part), class
`next`; (second part, first part), class `previous`; or (first part, second part of a record of another document), class `other`. The latter
part has at most as many tokens as the own one. A record of one sentence forms no pair and has no class.
"""

import itertools
from typing import Dict, List, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch, count_steps
from ofrecord_util.corpus import Corpus
from ofrecord_util.corpus_batches import Windows, batch_weights, masked_batch
from ofrecord_util.corpus_rows import Rows
from ofrecord_util.masking import Masking
from ofrecord_util.seeds import sentence_stream, trigram_stream
from ofrecord_util.sentences import sentence_starts

TRIGRAM_SHARE = 0.05
NEXT, PREVIOUS, OTHER = range(3)
SENTENCE_CLASSES = 3
_ORDERS = np.array(list(itertools.permutations(range(3))))  # of the tokens of a trigram


# ---------------------------------------------------------------------------------------------------------- word structure


def _number_of_trigrams(trigrams: int) -> int:
    return max(1, round(TRIGRAM_SHARE * trigrams)) if trigrams > 0 else 0


def most_shuffled(length: int) -> int:
    """The largest number of shuffled tokens in a row of `length` tokens with padding."""
    return 3 * max(1, _number_of_trigrams(length - 4))  # a row has [CLS] and [SEP]


def shuffled_trigrams(free: np.ndarray, masked: np.ndarray, stream: np.random.SeedSequence) -> Tuple[np.ndarray, np.ndarray]:
    """The shuffled tokens of a row.

    Args:
        free: bool [n], whether a token is none of [CLS], [SEP].
        masked: bool [n], whether it is masked.
        stream: of `seeds.trigram_stream`.
    Returns:
        (int64 [3 t], places; int64 [3 t], the places whose tokens stand there instead).
    """
    generator = np.random.PCG64(stream)  # raw words, so that the versions of NumPy agree
    starts = np.flatnonzero(free[:-2] & free[1:-1] & free[2:])
    wanted, order = _number_of_trigrams(len(starts)), np.argsort(generator.random_raw(len(starts)), kind="stable")
    taken, places = masked.copy(), []  # type: np.ndarray, List[int]
    for start in starts[order].tolist():
        if len(places) == wanted:
            break
        if not taken[start : start + 3].any():
            taken[start : start + 3] = True
            places.append(start)
    first = np.array(places, np.int64)[:, None]
    orders = _ORDERS[(generator.random_raw(len(places)) % np.uint64(len(_ORDERS))).astype(np.int64)]  # [t, 3]
    return (first + np.arange(3)).reshape(-1), (first + orders).reshape(-1)


def add_shuffled(batch: Batch, rows: Rows, maskable: np.ndarray, streams: Sequence[np.random.SeedSequence]) -> Dict[str, np.ndarray]:
    """Shuffles trigrams of a masked batch.

    Args:
        batch: of `masked_batch`, B rows of length L with P places.
        rows: `Rows` of the batch, without masks.
        maskable: of `Masking`.
        streams: B streams of `seeds.trigram_stream`.
    Returns:
        the batch with word_rows that are shuffled too. With Q = `most_shuffled(L)` the arrays of masked tokens have P + Q places, and
        shuffled_weights, float32 [B, P + Q], is 1 at shuffled tokens.
    """
    word_rows, (count, most, length) = batch["word_rows"].copy(), batch["masked_places"].shape
    extra = most_shuffled(length)
    where, wanted = np.zeros((count, extra, length), np.float32), np.zeros((count, extra), np.int32)
    weights = np.zeros((count, extra), np.float32)
    masked = batch["masked_places"].sum(axis=1) > 0  # [B, L]
    for row, (tokens, stream) in enumerate(zip(rows.lengths.tolist(), streams)):
        ids = rows.input_ids[row, :tokens]
        places, sources = shuffled_trigrams(maskable[ids], masked[row, :tokens], stream)
        here = np.arange(len(places))
        where[row, here, places] = weights[row, here] = 1.0
        wanted[row, here], word_rows[row, places] = ids[places], ids[sources]
    return {
        **batch,
        "word_rows": word_rows,
        "masked_places": np.concatenate([batch["masked_places"], where], axis=1),
        "masked_ids": np.concatenate([batch["masked_ids"], wanted], axis=1),
        "masked_weights": np.concatenate([batch["masked_weights"], np.zeros_like(weights)], axis=1),
        "shuffled_weights": np.concatenate([np.zeros((count, most), np.float32), weights], axis=1),
    }


# ------------------------------------------------------------------------------------------------------ sentence structure


class SentencePairs:
    """The sentence pairs of a corpus of sentences.

    Args:
        corpus: `Corpus` with `documents`, at least two.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._starts: np.ndarray = corpus.documents if corpus.documents is not None else np.zeros(1, np.int64)

    def pairs(self, rows: Rows, numbers: np.ndarray, streams: Sequence[np.random.SeedSequence]) -> Tuple[Rows, np.ndarray, np.ndarray]:
        """The pairs of some rows.

        Args:
            rows: `Rows` of N records.
            numbers: int64 [N], their row numbers.
            streams: N streams of `seeds.sentence_stream`.
        Returns:
            (`Rows` of N pairs [CLS] a [SEP] b [SEP] with segment ids 0 and 1; int32 [N], NEXT, PREVIOUS or OTHER; float32 [N], 1, but 0 for
            a record of one sentence, which stays as it is and has segment ids 0).
        """
        found, classes, paired = [], np.zeros(len(numbers), np.int32), np.zeros(len(numbers), np.float32)
        for place, (number, stream) in enumerate(zip(numbers.tolist(), streams)):
            words = np.random.PCG64(stream).random_raw(4).tolist()
            length = int(rows.lengths[place])
            cls, sep = rows.input_ids[place, :1], rows.input_ids[place, length - 1 : length]
            first, second = _cut(rows, place, words[1])
            if len(second):
                classes[place], paired[place] = words[0] % SENTENCE_CLASSES, 1.0
                if classes[place] == PREVIOUS:
                    first, second = second, first
                elif classes[place] == OTHER:
                    second = self._of_another_document(number, words[2], words[3])[: len(second)]
            found.append([cls, first, sep, *([second, sep] if len(second) else [])])
        return _joined(found, rows.input_ids.shape[1]), classes, paired

    def _of_another_document(self, number: int, row_word: int, cut_word: int) -> np.ndarray:
        """Tokens of a random record of another document than that of row `number`: its second part, of one sentence all of it."""
        document = int(np.searchsorted(self._starts, number, side="right")) - 1
        first, last = self._starts[document : document + 2].tolist()
        row = row_word % (len(self._corpus) - (last - first))
        row += last - first if row >= first else 0
        whole, second = _cut(self._corpus.read(row, row + 1), 0, cut_word)
        return second if len(second) else whole


def _cut(rows: Rows, place: int, word: int) -> Tuple[np.ndarray, np.ndarray]:
    """The two parts of a record, the second one empty if it has one sentence; tokens without [CLS] and [SEP]."""
    end = int(rows.lengths[place]) - 1
    tokens, starts = rows.input_ids[place, 1:end], sentence_starts(rows.segment_ids[place, 1:end])
    start = int(starts[word % len(starts)]) if len(starts) else len(tokens)
    return tokens[:start], tokens[start:]


def _joined(found: List[List[np.ndarray]], seq_length: int) -> Rows:
    """`Rows` of parts [CLS], a, [SEP], and b, [SEP] if there is a second sentence."""
    ids, segments = np.zeros((len(found), seq_length), np.int32), np.zeros((len(found), seq_length), np.int32)
    lengths = np.array([sum(map(len, parts)) for parts in found], np.int64)
    for row, parts in enumerate(found):
        ids[row, : lengths[row]] = np.concatenate(parts)
        segments[row, sum(map(len, parts[:3])) : lengths[row]] = 1
    return Rows(ids, segments, lengths)


# ----------------------------------------------------------------------------------------------------------------- batches


class StructuralSteps:
    """The batches of a training with both structural objectives.

    Args:
        corpus: `Corpus` of sentences.
        masking: `Masking`.
        batch_size: B.
        num_epochs: int.
        seed, window: as for `iterate_corpus`.
    """

    def __init__(self, corpus: Corpus, masking: Masking, batch_size: int, num_epochs: int, seed: int, window: int) -> None:
        self._windows, self._pairs, self._masking = Windows(corpus, seed, window), SentencePairs(corpus), masking
        self._batch_size, self._epochs, self._seed = batch_size, num_epochs, seed
        self.steps = count_steps(len(corpus), num_epochs, batch_size)

    def batch(self, step: int, buckets: Sequence[int]) -> Batch:
        """The batch of a step (from 0), as of `iterate_corpus`, with the arrays of `add_shuffled`; sentence, int32 [B], the class of each
        pair; sentence_weights, float32 [B]. All weights are those of `batch_weights`."""
        drawn = self._windows.samples(step * self._batch_size, self._batch_size)
        rows, classes, paired = self._pairs.pairs(drawn.rows, drawn.numbers, drawn.streams(sentence_stream, self._seed))
        batch = masked_batch(drawn._replace(rows=rows), self._masking, buckets, self._epochs, self._seed)
        batch = add_shuffled(batch, rows, self._masking.maskable, drawn.streams(trigram_stream, self._seed))
        counts = batch["loss_mask"] > 0
        batch["shuffled_weights"] = batch_weights(batch["shuffled_weights"] * counts[:, None])
        return dict(batch, sentence=classes, sentence_weights=batch_weights(paired * counts))
