"""The rows of a corpus from its texts: one text per row, or packed, or sentences."""

from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from ofrecord_util.corpus_kinds import PACKED, PAIRS, SENTENCES
from ofrecord_util.corpus_text import CorpusText, Item
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.sentences import sentence_rows

_CHUNK = 2048  # texts that are tokenized at once


class Rows(NamedTuple):
    """Some rows of a corpus."""

    input_ids: np.ndarray  # int32 [N, S]
    segment_ids: np.ndarray  # int32 [N, S]
    lengths: np.ndarray  # int64 [N], tokens of each

    def select(self, index: np.ndarray) -> "Rows":
        """The rows of an integer array, in its order."""
        return Rows(*(array[index] for array in self))


def line_rows(tokenizer: TextEncoder, items: Iterator[Item], seq_length: int, needs_both: bool = False) -> Iterator[Tuple[Rows, int]]:
    """(rows with one text or pair each, as the samples of a task have them; number of texts that are longer and were cut). Texts without
    tokens have no row, with `needs_both` also pairs of which one text has none: with one separator the other would be cut in two."""
    separator = tokenizer.special_ids[2]
    for chunk in _chunks(items):
        second = None if chunk[0][1] is None else [item[1] or "" for item in chunk]
        encoded = tokenizer.encode([item[0] for item in chunk], second, seq_length)
        lengths = encoded.input_mask.sum(axis=1, dtype=np.int64)
        rows = Rows(encoded.input_ids, encoded.segment_ids, lengths)
        used = lengths > 2  # [CLS], [SEP] alone
        if needs_both and second is not None:
            used &= ((rows.input_ids == separator).sum(axis=1) > 1) & (rows.input_ids[:, 1] != separator)
        yield rows.select(np.flatnonzero(used)), encoded.truncated


def packed_rows(tokenizer: TextEncoder, items: Iterator[Item], seq_length: int) -> Iterator[Rows]:
    """Rows that are full: [CLS], then the texts, each followed by [SEP], one after the other; a text may go on in the next row. The last
    row is shorter."""
    pad, cls, sep = tokenizer.special_ids
    room, rest = seq_length - 1, np.empty(0, np.int32)

    def rows(tokens: np.ndarray) -> Rows:
        count = -(-len(tokens) // room)
        ids = np.full((count, seq_length), pad, np.int32)
        ids[:, 0] = cls
        flat = np.full(count * room, pad, np.int32)
        flat[: len(tokens)] = tokens
        ids[:, 1:] = flat.reshape(count, room)
        lengths = np.full(count, seq_length, np.int64)
        lengths[-1:] -= len(flat) - len(tokens)
        return Rows(ids, np.zeros_like(ids), lengths)

    for chunk in _chunks(items):
        texts = tokenizer.whole_texts([text for item in chunk for text in item if text is not None])
        tokens = np.concatenate([rest, *(np.array([*text, sep], np.int32) for text in texts if text)])
        full = len(tokens) // room * room
        rest = tokens[full:]
        yield rows(tokens[:full])
    if len(rest):
        yield rows(rest)


def all_rows(
    text: CorpusText, tokenizer: TextEncoder, seq_length: int, packing: str
) -> Iterator[Tuple[Rows, Optional[np.ndarray], Optional[int]]]:
    """(rows; number of the document of each, None for rows that are no sentences; number of texts that were cut, None where none is) of a
    corpus, see `write_corpus`."""
    ends = [end for end, name in SENTENCES.items() if name == packing]
    if ends:
        for *arrays, documents in sentence_rows(tokenizer, text.sentences(ends[0]), seq_length):
            yield Rows(*arrays), documents, None
        return
    for source in text.sources():
        if packing == PACKED:
            for rows in packed_rows(tokenizer, source, seq_length):
                yield rows, None, None
        else:
            for rows, cut in line_rows(tokenizer, source, seq_length, packing == PAIRS):
                yield rows, None, cut


def _chunks(items: Iterator[Item]) -> Iterator[List[Item]]:
    chunk: List[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
