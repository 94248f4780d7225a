"""Masked language modelling (Devlin et al. 2019, section 3.1): which tokens of a row are masked, and what replaces them. In NumPy.

Of the n tokens of a row without [CLS], [SEP] and [PAD], max(1, round(p n)) are masked, at most P. A masked token becomes [MASK] with
probability 0.8, another token of the vocabulary with 0.1, and stays as it is with 0.1; the model predicts the token that was there.

With whole words, a word is masked with all of its pieces or not at all. A piece that begins with ## continues the word before it, which is
what `Encoding.word_ids` of the tokenizers library says for BERT. Words are drawn in random order; a word that does not fit into the rest
of the number is passed over, as in Google's code. If no word fits, the first drawn word of at most 4 pieces is taken.
"""

from typing import Dict, List, Sequence, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.tokenization import CLS, MASK, PAD, SEP

_MASKED_SHARE, _RANDOM_SHARE = 0.8, 0.1
_PIECES = 4  # of a word that is taken although it has more pieces than are to be masked


class Masking:
    """The rule for one vocabulary.

    Args:
        tokens: the vocabulary, list of V str in the order of the ids.
        probability: p, share of the tokens that are masked.
        most: P, largest number of masked tokens in a row.
        whole_words: whether words are masked as a whole.
        source: file of the vocabulary, for the message.

    Attributes:
        maskable: bool [V], whether a token may be masked.
        mask_id: id of [MASK].

    Raises:
        UserError: the vocabulary has no [MASK].
    """

    def __init__(
        self, tokens: Sequence[str], probability: float = 0.15, most: int = 80, whole_words: bool = True, source: str = ""
    ) -> None:
        if MASK not in tokens:
            raise UserError(f"{source}: has no {MASK}, so no token can be masked; --vocab_file must be the vocabulary of a BERT model")
        self.probability, self.most, self.whole_words = probability, most, whole_words
        self.mask_id = len(tokens) - 1 - list(reversed(tokens)).index(MASK)  # the last of equal tokens counts, as in the tokenizer
        self.maskable = np.array([token not in (PAD, CLS, SEP) for token in tokens])
        self._continues = np.array([whole_words and token.startswith("##") for token in tokens])
        self._ordinary = np.array([number for number, token in enumerate(tokens) if not (token.startswith("[") and token.endswith("]"))])

    def places(self, length: int) -> int:
        """The largest number of masked tokens in a row of `length` tokens with padding: the size of the arrays of `batch`."""
        return min(self.most, max(_PIECES, round(self.probability * (length - 1))))

    def words(self, ids: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """The words of a row, or its tokens without whole words.

        Args:
            ids: int [n], the tokens of the row with special tokens, without padding.

        Returns:
            (int64 [m], places of the tokens that may be masked; int64 [w + 1], where each of the w words begins in them, then m).
        """
        free = np.flatnonzero(self.maskable[ids])
        first = ~self._continues[ids[free]]
        first[:1] = True
        first[1:] |= np.diff(free) > 1  # a piece after a special token begins a word
        return free, np.append(np.flatnonzero(first), len(free))

    def row(self, ids: np.ndarray, stream: np.random.SeedSequence) -> Tuple[np.ndarray, np.ndarray]:
        """The masked tokens of one row.

        Args:
            ids: as in `words`.
            stream: of `seeds.mask_stream` or `seeds.fixed_mask_stream`.

        Returns:
            (int64 [k], places in ascending order; int64 [k], the ids that stand there instead). A row without tokens, or with words of more
            pieces only than may be masked, has k = 0.
        """
        free, starts = self.words(ids)
        sizes = np.diff(starts)
        generator = np.random.PCG64(stream)  # raw words, so that the versions of NumPy agree
        order = np.argsort(generator.random_raw(len(sizes)), kind="stable")
        chosen = self._choose(sizes, order.tolist(), min(self.most, max(1, round(self.probability * len(free)))))
        places = np.array(sorted(free[place] for word in chosen for place in range(starts[word], starts[word + 1])), np.int64)
        share = (generator.random_raw(len(places)) >> np.uint64(11)) * 2.0**-53
        others = self._ordinary[(generator.random_raw(len(places)) % np.uint64(len(self._ordinary))).astype(np.int64)]
        new = np.where(share < _MASKED_SHARE, self.mask_id, np.where(share < _MASKED_SHARE + _RANDOM_SHARE, others, ids[places]))
        return places, new

    def _choose(self, sizes: np.ndarray, order: List[int], count: int) -> List[int]:
        """The words that are masked, of the sizes [w], in the drawn order; `count` is the number of tokens to mask."""
        chosen = []
        for word in order:
            if sizes[word] <= count:
                chosen.append(word)
                count -= sizes[word]
                if not count:
                    break
        return chosen or [word for word in order if sizes[word] <= min(self.most, _PIECES)][:1]

    def batch(self, ids: np.ndarray, lengths: np.ndarray, streams: Sequence[np.random.SeedSequence]) -> Dict[str, np.ndarray]:
        """The masked rows of a batch.

        Args:
            ids: int32 [B, L], with padding.
            lengths: int [B], tokens of each row.
            streams: B streams, as in `row`.

        Returns:
            dict: word_rows, int32 [B, L], the ids with masks; with P = `places(L)`: masked_places, float32 [B, P, L], 1 at the place of
            each masked token; masked_ids, int32 [B, P], the tokens that were there; masked_weights, float32 [B, P], 1 for a masked token.
            Where a row has fewer than P, the rest is 0.
        """
        count, length = ids.shape
        most = self.places(length)
        masked, weights = ids.copy(), np.zeros((count, most), np.float32)
        where, wanted = np.zeros((count, most, length), np.float32), np.zeros((count, most), np.int32)
        for row, stream in enumerate(streams):
            places, new = self.row(ids[row, : lengths[row]], stream)
            here = np.arange(len(places))
            where[row, here, places] = weights[row, here] = 1.0
            wanted[row, here], masked[row, places] = ids[row, places], new
        return {"word_rows": masked, "masked_places": where, "masked_ids": wanted, "masked_weights": weights}
