"""WordPiece of Google's BERT, with the `tokenizers` library.

The library's own `BertNormalizer` differs from Google's in a few characters (private-use characters are dropped, the
final sigma is not known, its Unicode tables are of another version), and it would treat a `[SEP]` in a review as the
special token. So the cleaning runs here, with Python's `str.translate` and `unicodedata` as in Google's
`BasicTokenizer`, and the library does the WordPiece.
"""

import dataclasses
import hashlib
import json
import os
import re
import string
import sys
import unicodedata
from typing import Callable, List, Optional, Sequence, Tuple, Union

import numpy as np
import six
from tokenizers import Tokenizer as _LibraryTokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit

from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.reading import VOCABULARY_LIMIT, read_bytes
from ofrecord_util.tokenizer_settings import AddedToken, TokenizerSettings

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
MASK = "[MASK]"  # of language modelling only
_MOST_TOKENS = 2_000_000  # the largest public vocabularies have half a million
_UPPER_CASE_SHARE = 0.05  # of words in scripts other than Latin; an uncased vocabulary has letters A to Z in brackets only
_OTHER_SHARE = 0.05  # of pieces with the mark of another kind of vocabulary
_OTHER_VOCABULARIES = (  # (whether a piece has the mark, kind)
    (lambda piece: len(piece) > 1 and piece[0] == "\u2581", "SentencePiece"),
    (lambda piece: len(piece) > 1 and piece[0] == "\u0120", "byte-level BPE"),
    (lambda piece: piece.endswith("</w>"), "BPE"),
)

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


_WIDE_MARKS = ((0x3000, 0x303F), (0xFF00, 0xFFEF))  # punctuation that stands between CJK characters


class _CleanTable(dict):
    """For `str.translate`: control characters go, whitespace becomes a space, a CJK character a word of its own where `split_cjk` is
    set."""

    def __init__(self, split_cjk: bool) -> None:
        super().__init__()
        self.split_cjk = split_cjk

    def __missing__(self, code: int) -> Union[int, str, None]:
        char = chr(code)
        category = unicodedata.category(char)
        value: Union[int, str, None] = code
        if char in "\t\n\r" or category == "Zs":
            value = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            value = None
        elif self.split_cjk and any(first <= code <= last for first, last in _CJK_BLOCKS):
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


class Tokenizer(TextEncoder):
    """WordPiece over a vocabulary file.

    Args:
        vocab_file: one token per line, UTF-8.
        settings: `TokenizerSettings`, or a bool: lower-case and strip accents, as uncased models need.
        trusted: the casing is the model's own, so `check_casing` does not doubt it.

    Attributes:
        digest: SHA-256 (hex) of the tokens in order and of the settings, apart from the casing, that are not the defaults.

    Raises:
        UserError: the file is missing, empty, not UTF-8, lacks [PAD], [UNK], [CLS] or [SEP], is a vocabulary of another kind than
            WordPiece, or lacks an added token.
    """

    file_name = "vocab.txt"

    def __init__(self, vocab_file: str, settings: Union[bool, TokenizerSettings] = True, trusted: bool = False) -> None:
        self.vocab_file = vocab_file
        # a plain bool and an unknown casing are guesses, which the vocabulary may refute
        self._chosen = isinstance(settings, TokenizerSettings) and settings.do_lower_case is not None
        self._trusted = trusted and self._chosen
        if not isinstance(settings, TokenizerSettings):
            settings = TokenizerSettings(bool(settings))
        self.do_lower_case = settings.lowers
        self.settings = settings = dataclasses.replace(settings, do_lower_case=settings.lowers)
        self.vocabulary = read_vocabulary_bytes(vocab_file)
        self.tokens = tokens = parse_vocabulary(self.vocabulary, vocab_file)
        self.vocab_size = len(tokens)
        self.digest = _digest(tokens, settings)
        self._ids = {token: position for position, token in enumerate(tokens)}  # as Google's: the last of equal tokens counts
        check_vocabulary(vocab_file, tokens)
        self.unknown_id, self.special_ids = self._ids[UNK], [self._ids[token] for token in (PAD, CLS, SEP)]
        self._strip = settings.strips
        self._clean = _CleanTable(settings.tokenize_chinese_chars)
        self._split = _PunctuationTable(self._strip)
        lacking = [token.content for token in settings.added_tokens if token.content not in self._ids]
        if lacking:
            raise UserError(
                f"{vocab_file}: has no {', '.join(lacking[:5])}, which the model has as added tokens; give its own --vocab_file"
            )
        self._added = _pattern([(token, token.content) for token in settings.added_tokens if not token.normalized])
        normal = [(token, self._canonical(token.content)) for token in settings.added_tokens if token.normalized]
        self._added_normal, self._spelling = _pattern(normal), {text: token.content for token, text in normal}
        words = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
        self._upper_case = [token for token in words if token != token.lower()]
        self._is_cased = len(self._upper_case) > _UPPER_CASE_SHARE * len(words) or any(map(re.compile("[A-Z]").search, self._upper_case))
        # pieces that no text has after lower-casing and stripping: vowel signs, accents, composed syllables
        self._lost = [token for token in words if not token.isascii() and _stripped(token) != token and token == token.lower()]
        self._is_accented = len(self._lost) > _UPPER_CASE_SHARE * len(words)
        self._has_capitals = 2 * sum(token != token.upper() for token in words) > len(words)
        self._library = _LibraryTokenizer(WordPiece(vocab=self._ids, unk_token=UNK, max_input_chars_per_word=settings.max_word_chars))
        self._library.pre_tokenizer = WhitespaceSplit()
        self._encode_batch = getattr(self._library, "encode_batch_fast", self._library.encode_batch)

    def check_casing(self) -> Optional[str]:
        """Compares the vocabulary and the casing.

        Returns:
            None, or one line to warn with: the casing was chosen (`--do_lower_case`), and the vocabulary looks as if it were the
            other one; or words are not lower-cased though the vocabulary has no upper-case word.

        Raises:
            UserError: nobody has chosen the casing, and the vocabulary has pieces that lower-casing makes unreachable.
        """
        if self._trusted:
            return None
        if self.do_lower_case and (self._is_cased or (self._is_accented and self._strip)):
            pieces, what = (self._upper_case, "upper-case letters") if self._is_cased else (self._lost, "accents or vowel signs")
            found = "{}: {} of its words have {} ({}, …)".format(self.vocab_file, len(pieces), what, ", ".join(pieces[:3]))
            if self._chosen:
                return f"{found}, which no text has after --do_lower_case true"
            raise UserError(f"{found}, so the model is cased: give --do_lower_case false (or true, if the model is uncased nevertheless)")
        if not self.do_lower_case and not self._upper_case and self._has_capitals:
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

    def _canonical(self, text: str) -> str:
        """A text without control characters, lower-cased and without accents as the settings say."""
        text = text.translate(self._clean)
        if self.do_lower_case:
            text = text.lower()
        return _without_accents(text) if self._strip else text

    def _normalize(self, text: str) -> str:
        if self.settings.added_tokens:
            return self._normalize_around_added(text)
        text = text.translate(self._clean)
        if self.do_lower_case:
            text = text.lower()
        if self._strip:
            text = unicodedata.normalize("NFD", text)  # the table removes the accents
        return text.translate(self._split)

    def _normalize_around_added(self, text: str) -> str:
        """`_normalize` that keeps added tokens whole."""
        words = []
        for part, is_token in _cut(self._added, text):
            if is_token:
                words.append(part)
                continue
            for piece, is_normal_token in _cut(self._added_normal, self._canonical(part)):
                words.append(self._spelling[piece] if is_normal_token else piece.translate(self._split))
        return " ".join(words)

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
        if text.isascii() and text.isprintable() and not self.settings.added_tokens:
            # cleaning removes no word, so the text is cut first
            return self._normalize_plain(" ".join(text.split(None, limit)[:limit]))
        return " ".join(self._normalize(text).split(None, limit)[:limit])

    def ids_and_spans(self, text: str) -> Tuple[List[int], np.ndarray]:
        if self.settings.added_tokens:  # which are searched in whole words
            found = [(word.start(), word.end(), self.whole_texts([word.group()])[0]) for word in re.finditer(r"\S+", text)]
            ids = [number for _, _, own in found for number in own]
            return ids, np.array([span[:2] for span in found for _ in span[2]], np.int32).reshape(-1, 2)
        # the steps of `_normalize` by character, with the place in the text from which each character comes
        chars, places = _by_character(text, range(len(text)), lambda char: char.translate(self._clean))
        if self.do_lower_case:
            lowered = chars.lower()  # as a whole, because of the final sigma
            chars, places = _by_character(chars, places, str.lower)
            chars = lowered if len(lowered) == len(chars) else chars
        if self._strip:
            chars, places = _by_character(chars, places, lambda char: unicodedata.normalize("NFD", char))
        chars, places = _by_character(chars, places, lambda char: char.translate(self._split))
        words = [(word.start(), word.group()) for word in re.finditer(r"\S+", chars)]
        origins = [place for start, word in words for place in [*places[start : start + len(word)], -1]]  # -1 at the blank after a word
        encoding = self._library.encode(" ".join(word for _, word in words), add_special_tokens=False)
        spans = [(origins[first], origins[last - 1] + 1) for first, last in encoding.offsets]
        return encoding.ids, np.array(spans, np.int32).reshape(-1, 2)

    def _token_ids(self, texts: List[str], limit: Optional[int]) -> List[List[int]]:
        prepared = [self._first_words(text, sys.maxsize if limit is None else limit) for text in texts]
        return [encoding.ids for encoding in self._encode_batch(prepared, add_special_tokens=False)]


def _by_character(text: str, places: Sequence[int], change: Callable[[str], str]) -> Tuple[str, List[int]]:
    """A text with each character changed to some text, and the place of each character of the result."""
    parts = [change(char) for char in text]
    return "".join(parts), [place for place, part in zip(places, parts) for _ in part]


def join_pieces(pieces: List[str]) -> str:
    """The text of WordPiece tokens: a piece that begins with ## continues the word before it, and words have a space between them, except
    next to CJK characters and their punctuation."""
    text = ""
    for piece in pieces:
        if piece.startswith("##") and len(piece) > 2:
            text += piece[2:]
        elif text and piece and not _is_wide(text[-1]) and not _is_wide(piece[0]):
            text += " " + piece
        else:
            text += piece
    return text


def _is_wide(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in (*_CJK_BLOCKS, *_WIDE_MARKS))


def _stripped(token: str) -> str:
    return _without_accents(token.lower())


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")


def _pattern(tokens: List[Tuple[AddedToken, str]]) -> Optional["re.Pattern[str]"]:
    """Pattern of added tokens (each with its spelling in the text), the longest first; None without tokens."""
    parts = []
    for token, text in sorted(tokens, key=lambda entry: -len(entry[1])):
        part = re.escape(text)
        parts.append(f"(?<!\\w){part}(?!\\w)" if token.single_word else part)
    return re.compile("(" + "|".join(parts) + ")") if parts else None


def _cut(pattern: Optional["re.Pattern[str]"], text: str) -> List[Tuple[str, bool]]:
    """A text as (part, whether it is a token of the pattern)."""
    if pattern is None:
        return [(text, False)]
    return [(part, position % 2 == 1) for position, part in enumerate(pattern.split(text)) if part]


def _digest(tokens: List[str], settings: TokenizerSettings) -> str:
    digest = hashlib.sha256("\n".join(tokens).encode("utf-8"))
    plain = TokenizerSettings(settings.do_lower_case)
    if settings.strips != plain.strips or dataclasses.replace(settings, strip_accents=None) != plain:
        # the casing is recorded apart from the digest, under its own name
        rest = dict(settings.to_dict(), do_lower_case=None, strip_accents=settings.strips)
        digest.update(b"\n\n" + json.dumps(rest, sort_keys=True).encode("ascii"))
    return digest.hexdigest()


def check_vocabulary(path: str, tokens: List[str]) -> None:
    """Raises a UserError if tokens are not the vocabulary of a BERT: special tokens are missing, or it is not a WordPiece vocabulary."""
    for has_mark, kind in _OTHER_VOCABULARIES:
        if sum(map(has_mark, tokens)) > _OTHER_SHARE * len(tokens):
            raise UserError(
                f"{path}: its pieces are those of a {kind} vocabulary, with which most words would be {UNK}; only WordPiece is supported: "
                "--vocab_file must be the vocabulary of a BERT model"
            )
    present = set(tokens)
    missing = [token for token in (PAD, UNK, CLS, SEP) if token not in present]
    if missing:
        raise UserError(f"{path}: {len(tokens)} tokens without {', '.join(missing)}; --vocab_file must be the vocabulary of a BERT model")


def read_vocabulary_bytes(path: str) -> bytes:
    """The content of a vocabulary file."""
    data = read_bytes(path, "check --vocab_file", VOCABULARY_LIMIT)
    count = data.count(b"\n")
    if count > _MOST_TOKENS:
        raise UserError(f"{path}: has {count:,} lines, at most {_MOST_TOKENS:,} are read; check --vocab_file")
    return data


def parse_vocabulary(content: bytes, path: str) -> List[str]:
    """Tokens of a vocabulary, in id order. Lines end at LF; a byte-order mark at the start, and spaces and CR around a token, do not belong
    to it. All readers of vocabularies use this function.

    Args:
        content: of the file.
        path: of the file, for messages.
    """
    tokens = []
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            tokens.append(six.ensure_text(line, "utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: line {number} is not UTF-8; check --vocab_file") from error
    while tokens and not tokens[-1]:
        tokens.pop()
    return tokens


def read_vocabulary(path: str) -> List[str]:
    """Tokens of a vocabulary file, see `parse_vocabulary`."""
    return parse_vocabulary(read_vocabulary_bytes(path), path)
