"""The sentences of a text, and the records of a corpus that consist of them.

A sentence ends after . ! ? or … (or several) with the quotes and brackets that close after them, if a space follows; after the marks of
Chinese and Japanese without a space. So an abbreviation ends a sentence too. A sentence of more than half of the tokens of a record is cut
into pieces, each of which counts as a sentence.

A record has consecutive sentences of one document, as many as fit: [CLS] s1 s2 … [SEP]. Its segment ids are 0 and 1 in turn, so that they
show where a sentence begins.
"""

import re
from typing import Iterator, List, Sequence, Tuple

import numpy as np

from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError

_CHUNK = 2048  # sentences that are tokenized at once
_END = re.compile(r"[.!?…](?:\s*[.!?…])*[\"'”’»)\]]*(?=\s)|[。！？](?:\s*[。！？])*[”’」』）]*")
_PAIR_SPECIALS = 3  # [CLS] a [SEP] b [SEP]


def split_sentences(text: str) -> List[str]:
    """The sentences of a text, without the spaces around them."""
    ends = [match.end() for match in _END.finditer(text)]
    parts = [text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)])]
    return [part for part in parts if part]


def sentence_starts(segment_ids: np.ndarray) -> np.ndarray:
    """Where the sentences of a record begin, except the first one: int64 [sentences - 1].

    Args:
        segment_ids: int [n], those of the record's tokens without [CLS] and [SEP].
    """
    return np.flatnonzero(np.diff(segment_ids)) + 1


def sentence_rows(
    tokenizer: TextEncoder, sentences: Iterator[Tuple[int, str]], seq_length: int
) -> Iterator[Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The records of a corpus.

    Args:
        tokenizer: `TextEncoder`.
        sentences: (number of the document, ascending; sentence).
        seq_length: S. A record has at most S - 1 tokens, because a pair of two parts of it has another [SEP].

    Yields:
        (input_ids int32 [N, S], segment_ids int32 [N, S], lengths int64 [N], number of each record's document int64 [N]).

    Raises:
        UserError: S has no room for a pair.
    """
    room = seq_length - _PAIR_SPECIALS
    if room < 2:
        raise UserError(f"--seq_length {seq_length} is too short: {_PAIR_SPECIALS} special tokens and a token of each sentence need 5")
    records: List[Tuple[int, List[int], List[int]]] = []  # document, tokens, parity of the sentence
    document, tokens, parity = -1, [], []  # type: int, List[int], List[int]
    for chunk in _chunks(sentences):
        for (number, _), ids in zip(chunk, tokenizer.whole_texts([sentence for _, sentence in chunk])):
            for start in range(0, len(ids), room // 2):
                piece = ids[start : start + room // 2]
                if tokens and (number != document or len(tokens) + len(piece) > room):
                    records.append((document, tokens, parity))
                    tokens, parity = [], []
                parity = parity + [1 - parity[-1] if parity else 0] * len(piece)
                document, tokens = number, tokens + piece
        yield _rows(tokenizer, records, seq_length)
        records = []
    if tokens:
        yield _rows(tokenizer, [(document, tokens, parity)], seq_length)


class Documents:
    """The documents of a corpus while it is written."""

    def __init__(self) -> None:
        self._starts: List[np.ndarray] = []
        self._last, self._pairs = -1, False  # number of the last document, whether a record has two sentences

    def __len__(self) -> int:
        return sum(map(len, self._starts))

    def add(self, segment_ids: np.ndarray, numbers: np.ndarray, start: int) -> None:
        """Adds records with these segment ids and numbers of documents; `start` is the number of the first record."""
        self._starts.append(start + np.flatnonzero(np.diff(numbers, prepend=self._last)))
        self._last = int(numbers[-1]) if len(numbers) else self._last
        self._pairs = self._pairs or bool(segment_ids.any())

    def starts(self, count: int) -> np.ndarray:
        """int64 [D + 1]: the first of the `count` records of each document, and `count`."""
        return np.concatenate([*self._starts, [count]]).astype(np.int64)

    def check(self, names: Sequence[str]) -> None:
        """Raises a UserError if the text allows no pairs of sentences. `names` are its files."""
        if not self._pairs:
            raise UserError(
                f"{', '.join(names)}: --structural needs documents of several sentences, and no document of the corpus has two: give other "
                "text, or --document_end blank_line for files with one sentence per line"
            )
        if len(self) < 2:
            raise UserError(
                f"{', '.join(names)}: --structural compares sentences of several documents, and the corpus is one document: separate "
                "documents by blank lines, or give --document_end line for files with one document per line"
            )


def _chunks(sentences: Iterator[Tuple[int, str]]) -> Iterator[List[Tuple[int, str]]]:
    chunk: List[Tuple[int, str]] = []
    for sentence in sentences:
        chunk.append(sentence)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _rows(
    tokenizer: TextEncoder, records: List[Tuple[int, List[int], List[int]]], seq_length: int
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    pad, cls, sep = tokenizer.special_ids
    input_ids = np.full((len(records), seq_length), pad, np.int32)
    segment_ids = np.zeros_like(input_ids)
    for row, (_, tokens, parity) in enumerate(records):
        input_ids[row, : len(tokens) + 2] = [cls, *tokens, sep]
        segment_ids[row, 1 : len(tokens) + 1] = parity
    lengths = np.array([len(tokens) + 2 for _, tokens, _ in records], np.int64)
    return input_ids, segment_ids, lengths, np.array([document for document, _, _ in records], np.int64)
