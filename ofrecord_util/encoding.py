"""From texts to the arrays of a batch: what all tokenizers share, whatever splits the text into tokens."""

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.tokenizer_settings import TokenizerSettings

_BATCH = 2048


@dataclass(frozen=True)
class Encoded:
    """Token arrays of N texts or pairs.

    Attributes:
        input_ids: int32 [N, S], of WordPiece `[CLS] a [SEP] (b [SEP])`, then [PAD].
        input_mask: int32 [N, S], 1 for real tokens.
        segment_ids: int32 [N, S], of WordPiece 1 for b and its [SEP].
        truncated: how many of the N did not fit.
    """

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    truncated: int


class TextEncoder:
    """A tokenizer. A subclass splits texts into tokens, and sets the attributes.

    Attributes:
        vocab_file: path of its file.
        file_name: the name of this file in a snapshot.
        vocabulary: bytes, the content of the file when it was read.
        settings: `TokenizerSettings`; `do_lower_case` is True or False.
        do_lower_case: bool.
        tokens: list of str, in id order.
        vocab_size: int, ids are below it.
        digest: SHA-256 (hex) of what decides the ids, apart from the casing.
        unknown_id: id of the unknown token, [UNK].
        special_ids: ids of padding, of the first token and of the separator: [PAD], [CLS] and [SEP].
        separators: number of separators between the texts of a pair.
        second_segment: segment id of the second text of a pair.
    """

    vocab_file: str
    file_name: str
    vocabulary: bytes
    settings: TokenizerSettings
    do_lower_case: bool
    tokens: List[str]
    vocab_size: int
    digest: str
    unknown_id: int
    special_ids: List[int]
    separators = 1
    second_segment = 1

    def check_casing(self) -> Optional[str]:
        """One line to warn with if vocabulary and casing do not belong together, else None. A subclass may raise a UserError instead."""
        return None

    def tokenize(self, text: str) -> List[str]:
        """The tokens of a text (list of str), without special tokens."""
        return [self.tokens[number] for number in self.whole_texts([text])[0]]

    def _token_ids(self, texts: List[str], limit: Optional[int]) -> List[List[int]]:
        """Ids of each text without special tokens; of a long text perhaps not all, but at least `limit`. None for all."""
        raise NotImplementedError

    def whole_texts(self, texts: List[str]) -> List[List[int]]:
        """Ids of all tokens of each text, without special tokens."""
        return self._token_ids(texts, None)

    def word_ids(self, words: List[str]) -> List[List[int]]:
        """Ids of the tokens of each word of a sentence, without special tokens. A word of control characters has none."""
        return self.whole_texts(words)

    def ids_and_spans(self, text: str) -> Tuple[List[int], np.ndarray]:
        """The tokens of a text and where they are in it, without special tokens.

        Returns:
            (n ids, those of `whole_texts`; int32 [n, 2], the first and the last + 1 character of each token).
        """
        raise NotImplementedError

    def count_unknown(self, input_ids: np.ndarray, input_mask: np.ndarray) -> Tuple[int, int]:
        """(number of [UNK], number of tokens without [PAD], [CLS] and [SEP]) in arrays of any shape."""
        real = (input_mask != 0) & ~np.isin(input_ids, self.special_ids)
        return int((real & (input_ids == self.unknown_id)).sum()), int(real.sum())

    def encode(self, text_a: List[str], text_b: Optional[List[str]], seq_length: int) -> Encoded:
        """Token arrays of texts or pairs.

        Args:
            text_a: list of N str.
            text_b: list of N str, or None.
            seq_length: S; pairs are shortened token by token at the end of the longer one (of b where they are equal),
                as in BERT.

        Returns:
            `Encoded` with arrays of shape [N, S].

        Raises:
            UserError: S has no room for a token of each text.
        """
        specials, texts = (2, 1) if text_b is None else (2 + self.separators, 2)
        if seq_length < specials + texts:
            raise UserError(
                f"--seq_length {seq_length} is too short: {specials} special tokens and a token of each text need {specials + texts}"
            )
        pad, cls, sep = self.special_ids
        count, room = len(text_a), seq_length - specials
        input_ids = np.full([count, seq_length], pad, np.int32)
        input_mask = np.zeros([count, seq_length], np.int32)
        segment_ids = np.zeros([count, seq_length], np.int32)
        truncated = 0
        for start in range(0, count, _BATCH):
            rows_a = self._token_ids(text_a[start : start + _BATCH], room + 1)
            rows_b = None if text_b is None else self._token_ids(text_b[start : start + _BATCH], room + 1)
            for row, a in enumerate(rows_a, start):
                b = [] if rows_b is None else rows_b[row - start]
                if len(a) + len(b) > room:
                    truncated += 1
                    keep_a, keep_b = pair_lengths(len(a), len(b), room)
                    a, b = a[:keep_a], b[:keep_b]
                ids = [cls, *a, sep]
                if b:  # as Google's: a second text without tokens (control characters only) has no [SEP] either
                    ids += [sep] * (self.separators - 1)
                    segment_ids[row, len(ids) : len(ids) + len(b) + 1] = self.second_segment
                    ids += [*b, sep]
                input_ids[row, : len(ids)] = ids
                input_mask[row, : len(ids)] = 1
        return Encoded(input_ids, input_mask, segment_ids, truncated)


def pair_lengths(length_a: int, length_b: int, room: int) -> Tuple[int, int]:
    """How many tokens of a and of b remain when the last token of the longer one (of b where they are equal) goes until
    `room` are left.

    Returns:
        (int, int), their sum at most `room`.
    """
    if length_a + length_b <= room:
        return length_a, length_b
    half_a, half_b = room - room // 2, room // 2
    if length_a <= half_a:
        return length_a, room - length_a
    if length_b <= half_b:
        return room - length_b, length_b
    return half_a, half_b
