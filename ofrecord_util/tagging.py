"""From tagged sentences to the arrays of a batch: which piece of a word has which tag, and back from pieces to words."""

import hashlib
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch
from ofrecord_util.corpus_batches import batch_weights
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.records import Records
from ofrecord_util.tagged_text import TaggedSplit

NO_TAG = -1  # of a piece whose tag is not learnt or predicted
_INSIDE = {"B": "I", "S": "E"}


def inner_tags(labels: Sequence[str]) -> np.ndarray:
    """The tag of the later pieces of a word, for each tag of its first piece: int32 [C]. B- becomes I- and S- becomes E-, if there is such
    a tag; others stay.

    Args:
        labels: names of the C tags.
    """
    places = {label.upper(): place for place, label in enumerate(labels)}
    inner = [places.get(_INSIDE.get(label[:1].upper(), "") + label[1:].upper(), place) for place, label in enumerate(labels)]
    return np.array(inner, np.int32)


@dataclass(frozen=True)
class Pieces:
    """The pieces of N sentences.

    Attributes:
        input_ids, input_mask: int32 [N, S].
        words: int32 [N, S], the number of the word that begins with a piece; NO_TAG for other pieces and special tokens.
        inside: int32 [N, S], the number of the word to which a later piece belongs; NO_TAG for others.
        cut: number of words of which no piece has a place.
    """

    input_ids: np.ndarray
    input_mask: np.ndarray
    words: np.ndarray
    inside: np.ndarray
    cut: int


def split_words(tokenizer: TextEncoder, sentences: Sequence[List[str]], seq_length: int) -> Pieces:
    """The pieces of sentences whose words are given. Longer sentences are cut.

    Args:
        tokenizer: `TextEncoder`.
        sentences: N lists of words.
        seq_length: S, with the first and the last special token.

    Raises:
        UserError: S has no room for a piece.
    """
    if seq_length < 3:
        raise UserError(f"--seq_length {seq_length} is too short: two special tokens and a piece need 3")
    pad, cls, sep = tokenizer.special_ids
    shape = len(sentences), seq_length
    ids, mask = np.full(shape, pad, np.int32), np.zeros(shape, np.int32)
    words, inside = np.full(shape, NO_TAG, np.int32), np.full(shape, NO_TAG, np.int32)
    cut = 0
    for row, sentence in enumerate(sentences):
        pieces: List[int] = [cls]
        for number, own in enumerate(tokenizer.word_ids(sentence)):
            own = own[: seq_length - 1 - len(pieces)]
            cut += not own
            if own:
                words[row, len(pieces)] = number
                inside[row, len(pieces) + 1 : len(pieces) + len(own)] = number
            pieces += own
        pieces.append(sep)
        ids[row, : len(pieces)], mask[row, : len(pieces)] = pieces, 1
    return Pieces(ids, mask, words, inside, cut)


@dataclass(frozen=True)
class TaggedRecords:
    """The records of a tagged split.

    Attributes:
        text: `TaggedSplit`, of these N sentences.
        records: `Records`.
        words: int32 [N, S], see `Pieces`.
        tags: int32 [N, S], the tag that a piece is to learn, or NO_TAG.
        cut: see `Pieces`.
    """

    text: TaggedSplit
    records: Records
    words: np.ndarray
    tags: np.ndarray
    cut: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what a run reads of the split."""
        digest = hashlib.sha256()
        for array in (self.records.input_ids, self.records.domain, self.words, self.tags):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def tagged_records(
    text: TaggedSplit, tokenizer: TextEncoder, seq_length: int, labels: Sequence[str], label_all_tokens: bool = True
) -> TaggedRecords:
    """The `TaggedRecords` of a split.

    Args:
        text: `TaggedSplit`.
        tokenizer, seq_length: as in `split_words`.
        labels: names of the tags.
        label_all_tokens: whether the later pieces of a word learn a tag too, that of `inner_tags`.
    """
    pieces, inner = split_words(tokenizer, text.words, seq_length), inner_tags(labels)
    tags = np.full(pieces.words.shape, NO_TAG, np.int32)
    for row, own in enumerate(text.tags):
        tags[row] = _spread(np.array(own, np.int32), pieces.words[row])
        if label_all_tokens:
            tags[row] = np.where(pieces.inside[row] >= 0, _spread(inner[own], pieces.inside[row]), tags[row])
    count = len(text)
    records = Records(
        input_ids=pieces.input_ids,
        input_mask=pieces.input_mask,
        segment_ids=np.zeros_like(pieces.input_ids),
        domain=text.domain,
        label=text.label,
        idxs=np.arange(count, dtype=np.int32),
        sample_weights=np.ones(count, np.float32),
        path=text.path,
        text_digest=text.digest,
    )
    return TaggedRecords(text, records, pieces.words, tags, pieces.cut)


def _spread(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """values [W] at places [S] of words; NO_TAG where a place is NO_TAG."""
    return np.where(places >= 0, values[np.maximum(places, 0)], NO_TAG)


def with_tags(batches: Iterable[Batch], tags: np.ndarray) -> Iterator[Batch]:
    """Adds the tags of the pieces to batches with one sentence per row.

    Args:
        batches: of `batches.iterate_training` or `iterate_evaluation`, [B, L].
        tags: int32 [N, S], by row number of the split; NO_TAG where there is none.

    Yields:
        the batch with tag_ids int32 [B, L], 0 where there is no tag, and tag_weights float32 [B, L] as of `batch_weights`, so that the mean
        over the rows of sum(tag_weights * x) is the mean of x over the pieces of the batch that have a tag.
    """
    for batch in batches:
        own = tags[batch["idxs"], : batch["word_rows"].shape[1]]
        counted = (own != NO_TAG) & (batch["loss_mask"] > 0)[:, None]
        yield dict(batch, tag_ids=np.where(counted, own, 0).astype(np.int32), tag_weights=batch_weights(counted.astype(np.float32)))


def words_of(words: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(rows, places) of the pieces that begin a word, of `Pieces.words` [B, S]: int64 [W] twice, row by row in the order of the words."""
    return tuple(np.nonzero(words >= 0))  # type: ignore[return-value]
