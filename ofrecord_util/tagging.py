"""From tagged sentences to the arrays of a batch: which piece of a word has which tag, and back from pieces to words."""

import hashlib
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch
from ofrecord_util.corpus_batches import batch_weights
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.reader import REMEDY
from ofrecord_util.record_forms import RowForm, plain_records
from ofrecord_util.records import Records
from ofrecord_util.schema import TAGS
from ofrecord_util.tagged_text import TaggedSplit
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit

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


class TagForm(RowForm):
    """A record for each sentence, with the number of the word that begins with a piece, and the tag that a piece is to learn.

    Args:
        label_all_tokens: whether the later pieces of a word learn a tag too, that of `inner_tags`.
    """

    name = TAGS
    in_log = False

    def __init__(self, label_all_tokens: bool = True) -> None:
        super().__init__(label_all_tokens=label_all_tokens)

    def encode(self, text: TextSplit, tokenizer: TextEncoder, seq_length: int, task: Task) -> Tuple[Records, int]:
        """As of `RowForm`. `text` is a `TaggedSplit`; the number is that of words of which no piece has a place."""
        if not isinstance(text, TaggedSplit):
            raise TypeError("a TaggedSplit is needed")
        pieces, inner = split_words(tokenizer, text.words, seq_length), inner_tags(task.labels)
        tags = np.full(pieces.words.shape, NO_TAG, np.int32)
        for row, own in enumerate(text.tags):
            tags[row] = _spread(np.array(own, np.int32), pieces.words[row])
            if self.settings["label_all_tokens"]:
                tags[row] = np.where(pieces.inside[row] >= 0, _spread(inner[own], pieces.inside[row]), tags[row])
        targets = {"words": pieces.words - NO_TAG, "tags": tags - NO_TAG}
        return plain_records(text, pieces.input_ids, pieces.input_mask, np.zeros_like(pieces.input_ids), targets=targets), pieces.cut

    def written(self, records: Records, source: str, truncated: int) -> str:
        return f"{len(records)} sentences of {source} written as OFRecord, {truncated} words without a token"


@dataclass(frozen=True)
class TaggedRecords:
    """The records of a tagged split.

    Attributes:
        records: `Records` of the form `TagForm`, of N sentences.
        text: `TaggedSplit`, of the same sentences; None if it is not needed and not there.

    Raises:
        UserError: the records have words that the text does not have.
    """

    records: Records
    text: Optional[TaggedSplit] = None

    def __post_init__(self) -> None:
        if self.text is None:
            return
        numbers, sizes = self.records.targets["words"], [len(words) for words in self.text.words]
        if len(numbers) != len(sizes) or (numbers.max(axis=1) > sizes).any():
            raise UserError(f"{self.records.path}: the words of the records are not those of {self.text.path}; {REMEDY}")

    def select(self, rows: np.ndarray) -> "TaggedRecords":
        """The sentences of an ascending integer array. They keep their row numbers."""
        return TaggedRecords(self.records.select(rows), self.text and self.text.select(rows))

    @property
    def words(self) -> np.ndarray:
        """int32 [N, S], see `Pieces`."""
        return self.records.targets["words"] + NO_TAG

    @property
    def tags(self) -> np.ndarray:
        """int32 [N, S], the tag that a piece is to learn, or NO_TAG."""
        return self.records.targets["tags"] + NO_TAG

    @property
    def tags_of_words(self) -> List[List[int]]:
        """The tags of the words of each sentence; without the text, of the words that have a token."""
        if self.text is not None:
            return self.text.tags
        return [tags[words >= 0].tolist() for words, tags in zip(self.words, self.tags)]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what a run reads of the split."""
        digest = hashlib.sha256()
        for array in (self.records.input_ids, self.records.domain, self.words, self.tags):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _spread(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """values [W] at places [S] of words; NO_TAG where a place is NO_TAG."""
    return np.where(places >= 0, values[np.maximum(places, 0)], NO_TAG)


def with_tags(batches: Iterable[Batch], tagged: TaggedRecords) -> Iterator[Batch]:
    """Adds the tags of the pieces to batches with one sentence per row.

    Args:
        batches: of `batches.iterate_training` or `iterate_evaluation`, [B, L].
        tagged: their sentences.

    Yields:
        the batch with tag_ids int32 [B, L], 0 where there is no tag, and tag_weights float32 [B, L] as of `batch_weights`, so that the mean
        over the rows of sum(tag_weights * x) is the mean of x over the pieces of the batch that have a tag.
    """
    tags = tagged.tags  # [N, S]
    for batch in batches:
        own = tags[tagged.records.places_of(batch["idxs"]), : batch["word_rows"].shape[1]]
        counted = (own != NO_TAG) & (batch["loss_mask"] > 0)[:, None]
        yield dict(batch, tag_ids=np.where(counted, own, 0).astype(np.int32), tag_weights=batch_weights(counted.astype(np.float32)))


def words_of(words: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(rows, places) of the pieces that begin a word, of `Pieces.words` [B, S]: int64 [W] twice, row by row in the order of the words."""
    return tuple(np.nonzero(words >= 0))  # type: ignore[return-value]
