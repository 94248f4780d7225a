"""The samples of a split as arrays: `Records` as the files hold them, `Samples` as the graphs see them."""

from dataclasses import dataclass, field, replace
from typing import Dict, Optional, Union

import numpy as np

from ofrecord_util.schema import FEATURES

TOKEN_ARRAYS = ("word_rows", "input_mask", "segment_ids")  # of `Samples`, [N, S]
SAMPLE_ARRAYS = (*TOKEN_ARRAYS, "domain", "label", "idxs", "sample_weights")  # of `Samples`, and so of a batch


def count_tokens(input_mask: np.ndarray) -> np.ndarray:
    """Tokens of each row of an input_mask [N, S], up to the last real one, at least 1: int64 [N]."""
    mask = input_mask != 0
    return np.where(mask.any(axis=1), mask.shape[1] - np.argmax(mask[:, ::-1], axis=1), 1).astype(np.int64)


Index = Union[slice, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """What the graphs see of a split (N samples of S tokens).

    Attributes:
        word_rows: int32 [N, S], rows of the word embeddings that the graphs hold. They equal the vocabulary ids only where the
            graphs hold the embeddings of the whole vocabulary.
        input_mask, segment_ids: int32 [N, S].
        domain, idxs: int32 [N]; idxs is the row number in the split, from 0.
        label: as of `TextSplit`.
        sample_weights: float32 [N].
        lengths: int64 [N], tokens of each sample.
        path: the folder of the records.
        text_digest: as of `Records`.
    """

    word_rows: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    domain: np.ndarray
    label: np.ndarray
    idxs: np.ndarray
    sample_weights: np.ndarray
    lengths: np.ndarray
    path: str = ""
    text_digest: str = ""

    def __len__(self) -> int:
        return len(self.idxs)

    @property
    def seq_length(self) -> int:
        return self.word_rows.shape[1]

    def select(self, index: Index) -> "Samples":
        """The samples of a slice or an integer array, in its order."""
        return replace(self, **{name: getattr(self, name)[index] for name in (*SAMPLE_ARRAYS, "lengths")})


@dataclass(frozen=True)
class Records:
    """The records of a split (N records of S tokens).

    Attributes:
        input_ids, input_mask, segment_ids: int32 [N, S].
        domain, idxs: int32 [N]; idxs is the row number in the split, from 0.
        label: as of `TextSplit`.
        sample_weights: float32 [N].
        manifest: dict of the manifest, or None for records of the earlier implementation.
        path: the folder of the files.
        text_digest: names the samples of the whole split: the manifest's, or without one "records:" and a digest of the
            arrays.
        places: (file, int64 byte offsets of its records) for each part, while these are the records of the whole split; else
            empty.
        scored: True where `sample_weights` are the prototypical scores of weight.npy.
        lengths: int64 [N], tokens of each record; counted when the records are made.
        targets: dict of name -> int32 [N, S] or [N], the features of the records' form (`schema.TARGETS`).
    """

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    domain: np.ndarray
    label: np.ndarray
    idxs: np.ndarray
    sample_weights: np.ndarray
    manifest: Optional[dict] = None
    path: str = ""
    text_digest: str = ""
    places: tuple = ()
    scored: bool = False
    lengths: np.ndarray = field(default=None, repr=False)  # type: ignore[arg-type]
    targets: Dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.lengths is None:
            object.__setattr__(self, "lengths", count_tokens(self.input_mask))

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def seq_length(self) -> int:
        return self.input_ids.shape[1]

    def select(self, index: Index) -> "Records":
        """The records of a slice or an integer array, in its order."""
        names = (*(feature.name for feature in FEATURES), "lengths")
        targets = {name: values[index] for name, values in self.targets.items()}
        return replace(self, places=(), targets=targets, **{name: getattr(self, name)[index] for name in names})

    def places_of(self, idxs: np.ndarray) -> np.ndarray:
        """The places of row numbers among these records, whose numbers ascend: int64. Some rows of the split may have been left out."""
        return np.searchsorted(self.idxs, idxs)

    def samples(self, word_rows: Optional[np.ndarray] = None) -> Samples:
        """The `Samples` of these records.

        Args:
            word_rows: int32 [N, S]; None where the graphs hold the embeddings of the whole vocabulary.
        """
        same = {name: getattr(self, name) for name in (*SAMPLE_ARRAYS[1:], "lengths", "path", "text_digest")}
        return Samples(word_rows=self.input_ids if word_rows is None else word_rows, **same)

    def where(self, row: int) -> str:
        """File, record (from 1) and byte offset of a row, for messages."""
        for path, offsets in self.places:
            if row < len(offsets):
                return f"{path}: record {row + 1} at byte {offsets[row]}"
            row -= len(offsets)
        return f"{self.path}: record {row + 1}"
