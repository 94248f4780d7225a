"""Records of sources and targets, for models that generate text: rows of text to token arrays, through OFRecord files.

A record has the layout of the other splits (schema.py), with S + Y tokens: the source `[CLS] source [SEP]`, cut and padded to S, then the
target `[CLS] target [SEP]`, cut and padded to Y; its segment ids are 1 in the target's part. Where a source has the characters `[SEP]`, the
token [SEP] separates its parts, as an answer and its context.

Text without targets is cut in two: about the first 80 % of its tokens are the source, the rest is the target.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ofrecord_util.corpus_batches import batch_weights
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.reader import REMEDY, read_split
from ofrecord_util.records import Samples, count_tokens
from ofrecord_util.summary import with_unknown
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import find_text, read_rows, text_path
from ofrecord_util.tokenization import SEP
from ofrecord_util.writer import MANIFEST, part_paths, split_folder, write_split

PAIRS, TEXTS = "pairs", "texts"  # rows of source and target, or of one text
_FRONT = 0.8  # of the tokens of a text, which are its source
_CHUNK = 2048  # rows that are tokenized at once


class Lengths(NamedTuple):
    """Tokens of a record, with [CLS] and [SEP]."""

    source: int  # S
    target: int  # Y


@dataclass(frozen=True)
class TargetSplit:
    """Sources and targets of a split.

    Attributes:
        samples: `Samples` of the N sources. Its domains and labels are 0.
        targets: int32 [N, Y].
        target_lengths: int64 [N], tokens of each.
        texts: list of N (source, target), or (text,) of TEXTS; None if the text is not there.
        digest: SHA-256 (hex) of the arrays.
        facts: dict for flags.json.
    """

    samples: Samples
    targets: np.ndarray
    target_lengths: np.ndarray
    texts: Optional[List[Tuple[str, ...]]]
    digest: str
    facts: Dict[str, Any]

    def __len__(self) -> int:
        return len(self.samples)

    def first(self, count: Optional[int]) -> "TargetSplit":
        """The split with its first `count` rows; all for None, or if there are fewer."""
        if count is None or count >= len(self):
            return self
        texts = None if self.texts is None else self.texts[:count]
        rows = self.samples.select(slice(0, count)), self.targets[:count], self.target_lengths[:count]
        return TargetSplit(*rows, texts, digest_of(*rows[:2]), dict(self.facts, rows=count))

    @property
    def longest_target(self) -> int:
        """Tokens of the longest target."""
        return int(self.target_lengths.max())

    def target_arrays(self, rows: np.ndarray, length: int, counts: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
        """What a decoder needs of some rows.

        Args:
            rows: int [B].
            length: tokens of the decoder's input, at least `longest_target` - 1.
            counts: [B], 0 for rows that only fill up a batch; None if each row is to be measured for itself.

        Returns:
            dict: decoder_rows, int32 [B, length], the targets without their last token; target_ids, int32 [B, length], the tokens that
            follow; target_weights, float32 [B, length], 1 for real tokens to predict, else 0. With `counts` they are those of
            `batch_weights`.
        """
        padding = max(0, length + 1 - self.targets.shape[1])
        targets = np.pad(self.targets[rows], ((0, 0), (0, padding)))
        weights = (np.arange(1, length + 1) < self.target_lengths[rows, None]).astype(np.float32)
        if counts is not None:
            weights = batch_weights(weights * (counts > 0)[:, None])
        return {
            "decoder_rows": np.ascontiguousarray(targets[:, :length]),
            "target_ids": np.ascontiguousarray(targets[:, 1 : length + 1]),
            "target_weights": weights,
        }


def digest_of(samples: Samples, targets: np.ndarray) -> str:
    """SHA-256 (hex) of sources and targets."""
    digest = hashlib.sha256()
    for value in (samples.word_rows, samples.input_mask, targets):
        digest.update(f"{value.dtype} {value.shape}\n".encode("ascii"))
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------------- text


def read_target_rows(
    path: str, options: TextOptions, form: str = PAIRS, log: Callable[[str], Any] = lambda _line: None
) -> List[Tuple[str, ...]]:
    """The rows of a text file: (source, target) or (text,).

    Args:
        path: the file; source TAB target, or columns that a header or flags name.
        options: `TextOptions`.
        form: PAIRS or TEXTS.
        log: called with one line if columns are chosen by name or by flags.

    Raises:
        UserError: as `read_rows`; or a row has another number of columns, or an empty text.
    """
    pair = form == PAIRS
    table = read_rows(path, replace(options, targets=pair), ("text", "pair") if pair else ("text",))
    if pair and table.columns is not None and not table.columns.pair:
        raise UserError(f"{path}: no column is known as that of the targets ({table.columns.describe()}); --pair_column names it")
    rows = []
    for place, cells in table.rows:
        if len(cells) != 1 + pair:
            wanted = "2: source, target; --text_column and --pair_column choose" if pair else "1: text; --text_column chooses"
            raise UserError(f"{path}: {place}: has {counted(len(cells), 'column')}, expected {wanted} others")
        for name, cell in zip(("source", "target") if pair else ("text",), cells):
            if not cell.strip():
                raise UserError(f"{path}: {place}: the {name} is empty")
        rows.append(tuple(cells))
    if table.columns is not None:
        log(table.describe())
    return rows


def digest_of_rows(rows: List[Tuple[str, ...]]) -> str:
    """SHA-256 (hex) of the texts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(("\t".join(row) + "\n").encode("utf-8"))
    return digest.hexdigest()


def source_ids(tokenizer: TextEncoder, sources: List[str]) -> List[List[int]]:
    """Ids of the tokens of each source, without the first and the last special token."""
    sep = tokenizer.special_ids[2]
    parts = [source.split(SEP) for source in sources]
    found = iter(tokenizer.whole_texts([part for texts in parts for part in texts]))
    return [[number for _ in texts for number in (*next(found), sep)][:-1] for texts in parts]


def padded_rows(tokenizer: TextEncoder, rows: List[List[int]], length: int) -> Tuple[np.ndarray, np.ndarray, int]:
    """Rows `[CLS] ids [SEP]` of `length` tokens: (ids int32 [N, length], mask int32 [N, length], number of rows that were cut)."""
    pad, cls, sep = tokenizer.special_ids
    ids, mask = np.full((len(rows), length), pad, np.int32), np.zeros((len(rows), length), np.int32)
    for place, row in enumerate(rows):
        whole = [cls, *row[: length - 2], sep]
        ids[place, : len(whole)], mask[place, : len(whole)] = whole, 1
    return ids, mask, sum(len(row) > length - 2 for row in rows)


def _halves(tokenizer: TextEncoder, texts: List[str], lengths: Lengths, path: str) -> Tuple[List[List[int]], List[List[int]]]:
    """Front and rest of each text."""
    fronts, rests = [], []
    room = lengths.source - 2, lengths.target - 2
    for number, ids in enumerate(tokenizer.whole_texts(texts), 1):
        if len(ids) < 2:
            raise UserError(f"{path}: sample {number}: has {len(ids)} token, a text is cut in two and needs 2; remove it")
        ids = ids[: sum(room)]
        front = min(max(round(_FRONT * len(ids)), len(ids) - room[1], 1), room[0], len(ids) - 1)
        fronts.append(ids[:front])
        rests.append(ids[front:])
    return fronts, rests


def _encode(tokenizer: TextEncoder, rows: List[Tuple[str, ...]], lengths: Lengths, path: str) -> Tuple[Dict[str, np.ndarray], int]:
    """The arrays of the records of some rows, and how many rows were cut."""
    columns: Tuple[List[List[int]], List[List[int]]] = ([], [])
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        first = [row[0] for row in chunk]
        if len(chunk[0]) == 2:
            found = source_ids(tokenizer, first), tokenizer.whole_texts([row[1] for row in chunk])
        else:
            found = _halves(tokenizer, first, lengths, path)
        for column, part in zip(columns, found):
            column.extend(part)
    (ids, mask, cut), (target_ids, target_mask, target_cut) = (
        padded_rows(tokenizer, column, length) for column, length in zip(columns, lengths)
    )
    count = len(rows)
    arrays = {
        "input_ids": np.concatenate([ids, target_ids], axis=1),
        "input_mask": np.concatenate([mask, target_mask], axis=1),
        "segment_ids": np.repeat(np.array([[0, 1]], np.int32), count, axis=0).repeat(lengths, axis=1),
        **{name: np.zeros(count, np.int32) for name in ("domain", "label")},
        "idxs": np.arange(count, dtype=np.int32),
        "sample_weights": np.ones(count, np.float32),
    }
    return arrays, cut + target_cut


# -------------------------------------------------------------------------------------------------------------------- splits


class TargetData:
    """The splits of a data folder.

    Args:
        data_dir: folder of the data.
        tokenizer: `TextEncoder`.
        lengths: `Lengths`.
        form: PAIRS or TEXTS.
        options: `TextOptions`.
        resave: write the records from the text.
        log: function of one line of text.

    Raises:
        UserError: a length has no room for a token.
    """

    def __init__(
        self,
        data_dir: str,
        tokenizer: TextEncoder,
        lengths: Lengths,
        form: str,
        options: TextOptions,
        resave: bool,
        log: Callable[[str], Any],
    ) -> None:
        for flag, length in zip(("--seq_length", "--target_length"), lengths):
            if length < 3:
                raise UserError(f"{flag} {length} is too short: [CLS], [SEP] and a token need 3")
        self._data_dir, self._tokenizer, self._lengths, self._form = data_dir, tokenizer, lengths, form
        self._options, self._resave, self._log = options, resave, log

    def exists(self, split: str) -> bool:
        """Whether a split has text or records."""
        return self._are_there(split) or text_path(self._data_dir, split) is not None

    def _are_there(self, split: str) -> bool:
        return os.path.isfile(os.path.join(split_folder(self._data_dir, split), MANIFEST))

    def split(self, split: str, prefix: Optional[str] = None, part_num: int = 1, writes: bool = True) -> TargetSplit:
        """The `TargetSplit` of a split. Its records are written first if there are none, or with `resave`.

        Args:
            split: "train", "dev" or "test".
            prefix, part_num: as in `part_paths`.
            writes: whether this process writes records.

        Raises:
            UserError: text or records are missing, invalid or stale.
        """
        part_paths(self._data_dir, split, prefix, part_num)  # checks the flags
        if writes and (self._resave or not self._are_there(split)):
            found = self._write(split, prefix, part_num)
        else:
            found = self._read(split, prefix, part_num)
        lengths, targets = found.samples.lengths, found.target_lengths
        about = (
            f"{split}: {len(found)} rows; sources of {lengths.min()} to {lengths.max()} tokens, targets of {targets.min()} to "
            f"{targets.max()}, with [CLS] and [SEP]; {found.facts['truncated']} cut at --seq_length {self._lengths.source} or "
            f"--target_length {self._lengths.target}"
        )
        self._log(with_unknown([about], *found.facts["unknown"]))
        return found

    def _rows(self, split: str) -> Tuple[str, List[Tuple[str, ...]]]:
        path = find_text(self._data_dir, split)
        return path, read_target_rows(path, self._options, self._form, self._log)

    def _write(self, split: str, prefix: Optional[str], part_num: int) -> TargetSplit:
        path, rows = self._rows(split)
        arrays, cut = _encode(self._tokenizer, rows, self._lengths, path)
        manifest = {
            "text_file": os.path.relpath(path, self._data_dir),
            "text_digest": digest_of_rows(rows),
            "truncated": cut,
            **self._origin(),
        }
        written = write_split(self._data_dir, split, prefix, part_num, arrays, manifest)
        self._log(f"{split}: {len(rows)} rows of {path} written as OFRecord")
        return self._of_arrays(split, arrays, rows, written)

    def _origin(self) -> Dict[str, Any]:
        """What the records depend on, besides the text."""
        return {
            "form": self._form,
            "source_length": self._lengths.source,
            "target_length": self._lengths.target,
            "vocab_digest": self._tokenizer.digest,
            "do_lower_case": self._tokenizer.do_lower_case,
        }

    def _read(self, split: str, prefix: Optional[str], part_num: int) -> TargetSplit:
        records = read_split(self._data_dir, split, prefix, part_num)
        manifest, rows = records.manifest or {}, None
        flags = {"form": "--objective", "source_length": "--seq_length", "vocab_digest": "the vocabulary"}
        differences = [
            flags.get(name, "--" + name) + " was another one" for name, value in self._origin().items() if manifest.get(name) != value
        ]
        if text_path(self._data_dir, split) is not None:
            path, rows = self._rows(split)
            if digest_of_rows(rows) != manifest.get("text_digest"):
                differences.append(f"{path} has changed since")
        if differences:
            raise UserError(f"{records.path}: the records are stale: {'; '.join(differences)}; {REMEDY}")
        arrays = {name: getattr(records, name) for name in ("input_ids", "input_mask", "idxs", "domain", "label", "sample_weights")}
        if arrays["input_ids"].shape[1] != sum(self._lengths) or arrays["input_ids"].max() >= self._tokenizer.vocab_size:
            raise UserError(f"{records.path}: these are not the records of sources and targets; {REMEDY}")
        return self._of_arrays(split, arrays, rows, manifest)

    def _of_arrays(self, split: str, arrays: Dict[str, np.ndarray], rows: Optional[List[Tuple[str, ...]]], manifest: dict) -> TargetSplit:
        ids, mask, cut = arrays["input_ids"], arrays["input_mask"], self._lengths.source
        samples = Samples(
            word_rows=np.ascontiguousarray(ids[:, :cut]),
            input_mask=np.ascontiguousarray(mask[:, :cut]),
            segment_ids=np.zeros((len(ids), cut), np.int32),
            lengths=count_tokens(mask[:, :cut]),
            path=split_folder(self._data_dir, split),
            text_digest=manifest["text_digest"],
            **{name: arrays[name] for name in ("domain", "label", "idxs", "sample_weights")},
        )
        targets = np.ascontiguousarray(ids[:, cut:])
        facts = {
            **{name: manifest.get(name) for name in ("text_file", "text_digest", "truncated")},
            "rows": len(ids),
            "unknown": self._tokenizer.count_unknown(ids, mask),
        }
        return TargetSplit(samples, targets, count_tokens(mask[:, cut:]), rows, digest_of(samples, targets), facts)
