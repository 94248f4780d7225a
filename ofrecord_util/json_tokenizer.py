"""Tokenizers that the `tokenizer.json` of a Hugging Face folder describes as a whole, with the `tokenizers` library: SentencePiece's
Unigram, as XLM-R has it, and byte-level BPE, as RoBERTa has it.

Normalisation, splitting and vocabulary are those of the file. A text begins with `<s>` and ends with `</s>`; two separators stand between
the texts of a pair, and all tokens have segment 0. The name of a special token inside a text, such as `</s>`, is text for BPE; Unigram
has these names among its pieces, so it finds the special token, as transformers does.
"""

import hashlib
from typing import List, Optional, Tuple, Union

import numpy as np
import six
from tokenizers import Tokenizer as _LibraryTokenizer

from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.reading import VOCABULARY_LIMIT, read_bytes
from ofrecord_util.tokenization import Tokenizer, read_vocabulary
from ofrecord_util.tokenizer_settings import TokenizerSettings

JSON_FILE = "tokenizer.json"
BEGIN, PADDING, END, UNKNOWN, MASKED = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
_MODELS = ("Unigram", "BPE")
_WORD_MARK = "\u2581"  # of SentencePiece
_NEVER_KNOWN = "\U0010fffd"  # a character for private use; a Unigram without unk_id fails at it


class JsonTokenizer(TextEncoder):
    """The tokenizer of a `tokenizer.json`.

    Args:
        vocab_file: the file.
        settings: `TokenizerSettings`; its casing is False or None, because the file itself says what is lower-cased.

    Raises:
        UserError: the file is missing, damaged, of another model than Unigram or BPE, or lacks `<s>`, `<pad>`, `</s>` or `<unk>`; or
            lower-casing was asked for.
    """

    file_name = JSON_FILE
    separators = 2
    second_segment = 0

    def __init__(self, vocab_file: str, settings: Optional[TokenizerSettings] = None) -> None:
        if settings is not None and settings.do_lower_case:
            raise UserError(f"--do_lower_case true: {vocab_file} says by itself how text is normalised: leave the flag out")
        self.vocab_file = vocab_file
        self.settings, self.do_lower_case = TokenizerSettings(False), False
        self.vocabulary = read_bytes(vocab_file, "check --vocab_file", VOCABULARY_LIMIT)
        self._library = parse_tokenizer(self.vocabulary, vocab_file)
        self.digest = hashlib.sha256(self.vocabulary).hexdigest()
        ids = self._library.get_vocab(with_added_tokens=True)
        self.tokens = [""] * (max(ids.values()) + 1)  # an id that no token has is an empty string
        for token, number in ids.items():
            self.tokens[number] = token
        self.unknown_id, self.special_ids = ids[UNKNOWN], [ids[token] for token in (PADDING, BEGIN, END)]
        self.vocab_size = len(self.tokens)
        self._encode_batch = getattr(self._library, "encode_batch_fast", self._library.encode_batch)

    def word_ids(self, words: List[str]) -> List[List[int]]:
        # byte-level BPE marks the beginning of a word by the blank before it, and Unigram puts it there by itself
        before = " " if type(self._library.model).__name__ == "BPE" else ""
        return self.whole_texts([before + word for word in words])

    def ids_and_spans(self, text: str) -> Tuple[List[int], np.ndarray]:
        encoding = self._library.encode(text, add_special_tokens=False)
        # a mark of a word's beginning that is a token by itself has the place of the first letter, which another token has too
        spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
        marks = [self.tokens[number] == _WORD_MARK for number in encoding.ids]
        spans[marks, 1] = spans[marks, 0]
        return encoding.ids, spans

    def _token_ids(self, texts: List[str], limit: Optional[int]) -> List[List[int]]:
        return [encoding.ids[:limit] for encoding in self._encode_batch(texts, add_special_tokens=False)]


def parse_tokenizer(content: bytes, path: str) -> _LibraryTokenizer:
    """The library's tokenizer of a `tokenizer.json`, without truncation and padding. It does not search texts for special tokens.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        UserError: as `JsonTokenizer`.
    """
    try:
        library = _LibraryTokenizer.from_str(six.ensure_text(content, "utf-8"))
    except Exception as error:  # the library raises plain exceptions
        raise UserError(f"{path}: is not a tokenizer.json that the tokenizers library can read ({error})"[:300]) from error
    kind = type(library.model).__name__
    if kind not in _MODELS:
        raise UserError(
            f"{path}: its model is {kind}, only {' and '.join(_MODELS)} are read from a tokenizer.json; "
            "--vocab_file must be the vocab.txt of a WordPiece model"
        )
    missing = [token for token in (BEGIN, PADDING, END, UNKNOWN) if library.token_to_id(token) is None]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; --vocab_file must be the tokenizer of an XLM-R or RoBERTa model")
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    try:
        library.encode(_NEVER_KNOWN)
    except Exception as error:
        raise UserError(f"{path}: cannot split every text ({error})"[:300]) from error
    return library


def load_tokenizer(path: str, settings: Union[bool, TokenizerSettings] = True, trusted: bool = False) -> TextEncoder:
    """The tokenizer of a vocabulary file: `JsonTokenizer` of a file that ends in .json, else `Tokenizer`, whose arguments it has."""
    if path.endswith(".json"):
        return JsonTokenizer(path, settings if isinstance(settings, TokenizerSettings) else None)
    return Tokenizer(path, settings, trusted)


def vocabulary_tokens(path: str) -> List[str]:
    """Tokens of a vocabulary file of either kind, in the order of their ids."""
    return JsonTokenizer(path).tokens if path.endswith(".json") else read_vocabulary(path)
