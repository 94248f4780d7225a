"""WordPiece of Google's BERT, with the `tokenizers` library.

The library's own `BertNormalizer` differs from Google's in a few characters (private-use characters are dropped, the
final sigma is not known, its Unicode tables are of another version), and it would treat a `[SEP]` in a review as the
special token. So the cleaning runs here, with Python's `str.translate` and `unicodedata` as in Google's
`BasicTokenizer`, and the library does the WordPiece.
"""

import hashlib
import os
import re
import string
import unicodedata
from dataclasses import dataclass
from typing import List, Optional, Tuple, Union

import numpy as np
import six
from tokenizers import Tokenizer as _LibraryTokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit

from ofrecord_util.errors import UserError
from ofrecord_util.reading import VOCABULARY_LIMIT, read_bytes

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_MAX_WORD_CHARS = 200  # Google's; a longer word is [UNK]
_BATCH = 2048
_MOST_TOKENS = 2_000_000  # the largest public vocabularies have half a million
_UPPER_CASE_SHARE = 0.05  # of words in scripts other than Latin; an uncased vocabulary has letters A to Z in brackets only

# silences the library's warning when a later subprocess forks after its threads have been used
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

_CJK_BLOCKS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class _CleanTable(dict):
    """For `str.translate`: control characters go, whitespace becomes a space, a CJK character a word of its own."""

    def __missing__(self, code: int) -> Union[int, str, None]:
        char = chr(code)
        category = unicodedata.category(char)
        value: Union[int, str, None] = code
        if char in "\t\n\r" or category == "Zs":
            value = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            value = None
        elif any(first <= code <= last for first, last in _CJK_BLOCKS):
            value = " " + char + " "
        self[code] = value
        return value


class _PunctuationTable(dict):
    """For `str.translate`: a punctuation character becomes a word of its own; accents (category Mn) go where `strip` is
    set."""

    def __init__(self, strip: bool) -> None:
        super().__init__()
        self.strip = strip

    def __missing__(self, code: int) -> Union[int, str, None]:
        char = chr(code)
        category = unicodedata.category(char)
        value: Union[int, str, None] = code
        # all ASCII that is neither letter, digit nor space counts as punctuation, also "$", "^" and the like
        if char in string.punctuation or category.startswith("P"):
            value = " " + char + " "
        elif self.strip and category == "Mn":
            value = None
        self[code] = value
        return value


@dataclass(frozen=True)
class Encoded:
    """Token arrays of N texts or pairs.

    Attributes:
        input_ids: int32 [N, S], `[CLS] a [SEP] (b [SEP])`, then [PAD].
        input_mask: int32 [N, S], 1 for real tokens.
        segment_ids: int32 [N, S], 1 for b and its [SEP].
        truncated: how many of the N did not fit.
    """

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    truncated: int


class Tokenizer:
    """WordPiece over a vocabulary file.

    Args:
        vocab_file: one token per line, UTF-8.
        do_lower_case: lower-case and strip accents, as uncased models need.

    Attributes:
        vocab_file, do_lower_case: the arguments.
        vocab_size: int, ids are below it.
        digest: SHA-256 (hex) of the tokens in order.

    Raises:
        UserError: the file is missing, empty, not UTF-8, or lacks [PAD], [UNK], [CLS] or [SEP].
    """

    def __init__(self, vocab_file: str, do_lower_case: bool = True) -> None:
        self.vocab_file = vocab_file
        self.do_lower_case = bool(do_lower_case)
        tokens = read_vocabulary(vocab_file)
        self.vocab_size = len(tokens)
        self.digest = hashlib.sha256("\n".join(tokens).encode("utf-8")).hexdigest()
        self._ids = {token: position for position, token in enumerate(tokens)}  # as Google's: the last of equal tokens counts
        missing = [token for token in (PAD, UNK, CLS, SEP) if token not in self._ids]
        if missing:
            raise UserError(
                "{}: {} tokens without {}; --vocab_file must be the vocabulary of a BERT model".format(
                    vocab_file, len(tokens), ", ".join(missing)
                )
            )
        words = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
        self._upper_case = [token for token in words if token != token.lower()]
        self._is_cased = len(self._upper_case) > _UPPER_CASE_SHARE * len(words) or any(map(re.compile("[A-Z]").search, self._upper_case))
        self._library = _LibraryTokenizer(WordPiece(vocab=self._ids, unk_token=UNK, max_input_chars_per_word=_MAX_WORD_CHARS))
        self._library.pre_tokenizer = WhitespaceSplit()
        self._encode_batch = getattr(self._library, "encode_batch_fast", self._library.encode_batch)
        self._clean = _CleanTable()
        self._split = _PunctuationTable(strip=self.do_lower_case)

    def check_casing(self) -> Optional[str]:
        """Compares vocabulary and `--do_lower_case`.

        Returns:
            None, or one line to warn with: words are not lower-cased though the vocabulary has no upper-case word.

        Raises:
            UserError: words are lower-cased though the vocabulary is a cased one.
        """
        if self.do_lower_case and self._is_cased:
            raise UserError(
                "{}: {} of its words have upper-case letters ({}, …), so the model is cased: give --do_lower_case false".format(
                    self.vocab_file, len(self._upper_case), ", ".join(self._upper_case[:3])
                )
            )
        if not self.do_lower_case and not self._upper_case:
            return (
                f"{self.vocab_file}: no word has upper-case letters, so capitalised words become [UNK]: "
                "--do_lower_case true suits this vocabulary"
            )
        return None

    def words(self, text: str) -> List[str]:
        """The words and punctuation marks of a text, as Google's `BasicTokenizer` splits it (list of str)."""
        return self._normalize(text).split()

    def tokenize(self, text: str) -> List[str]:
        """The WordPiece tokens of a text (list of str)."""
        return self._library.encode(" ".join(self.words(text)), add_special_tokens=False).tokens

    def _normalize(self, text: str) -> str:
        text = text.translate(self._clean)
        if self.do_lower_case:
            text = unicodedata.normalize("NFD", text.lower())
        return text.translate(self._split)

    def _normalize_plain(self, text: str) -> str:
        """`_normalize` of a text that is ASCII and printable: nothing to clean, no accents. A quarter of its time."""
        if self.do_lower_case:
            text = text.lower()
        for mark in string.punctuation:
            if mark in text:
                text = text.replace(mark, f" {mark} ")
        return text

    def _first_words(self, text: str, limit: int) -> str:
        """A normalised text, cut after `limit` words: each of them has at least one token."""
        if text.isascii() and text.isprintable():
            # cleaning removes no word, so the text is cut first
            return self._normalize_plain(" ".join(text.split(None, limit)[:limit]))
        return " ".join(self._normalize(text).split(None, limit)[:limit])

    def _token_ids(self, texts: List[str], limit: int) -> List[List[int]]:
        """Ids of each text; of a long text not all, but at least `limit`."""
        prepared = [self._first_words(text, limit) for text in texts]
        return [encoding.ids for encoding in self._encode_batch(prepared, add_special_tokens=False)]

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
        specials = 2 if text_b is None else 3
        if seq_length < specials + specials - 1:
            raise UserError(
                f"--seq_length {seq_length} is too short: {specials} special tokens and a token of each text need {specials + specials - 1}"
            )
        count, room = len(text_a), seq_length - specials
        input_ids = np.full([count, seq_length], self._ids[PAD], np.int32)
        input_mask = np.zeros([count, seq_length], np.int32)
        segment_ids = np.zeros([count, seq_length], np.int32)
        cls, sep = [self._ids[CLS]], [self._ids[SEP]]
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
                ids = cls + a + sep
                if b:  # as Google's: a second text without tokens (control characters only) has no [SEP] either
                    segment_ids[row, len(ids) : len(ids) + len(b) + 1] = 1
                    ids = ids + b + sep
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


def read_vocabulary(path: str) -> List[str]:
    """Tokens of a vocabulary file, in id order. Lines end at LF; spaces and CR around a token do not belong to it."""
    data = read_bytes(path, "check --vocab_file", VOCABULARY_LIMIT)
    count = data.count(b"\n")
    if count > _MOST_TOKENS:
        raise UserError(f"{path}: has {count:,} lines, at most {_MOST_TOKENS:,} are read; check --vocab_file")
    lines = data.split(b"\n")
    tokens = []
    for number, line in enumerate(lines, 1):
        try:
            tokens.append(six.ensure_text(line, "utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: line {number} is not UTF-8; check --vocab_file") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return tokens
