"""The records of a corpus for language modelling, in files that need not fit into the memory.

DATA_DIR/ofrecord/corpus/ has parts as the other splits: record i lies in part i mod P, so that the parts are written together and have the
same size. An index, `corpus.of_record-P.index.npy`, holds the first byte of each record of a part. With it any rows are read without
those before them. Records of sentences also have `corpus.documents.npy`, the first record of each document. docs/formats.md describes the
files.
"""

import contextlib
import dataclasses
import hashlib
import os
from typing import Any, BinaryIO, Callable, Dict, List, Optional

import numpy as np

from ofrecord_util import files
from ofrecord_util.array_reading import PartFile, parse_npy
from ofrecord_util.corpus_kinds import LINE, PACKED, PAIRS, SENTENCES
from ofrecord_util.corpus_rows import Rows, all_rows
from ofrecord_util.corpus_text import CorpusText
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.reader import REMEDY, read_manifest
from ofrecord_util.reading import ARRAY_LIMIT, RECORDS_LIMIT, read_bytes
from ofrecord_util.schema import FEATURES, LENGTH_BYTES
from ofrecord_util.sentences import Documents
from ofrecord_util.summary import TokenFacts, token_facts
from ofrecord_util.tasks import HELD_OUT_KEY, held_out_phrase
from ofrecord_util.wire_format import PADDING, decode, encode_with_sizes
from ofrecord_util.writer import MANIFEST, MANIFEST_FORMAT, check_files, part_paths, previous_files, split_folder

CORPUS = "corpus"  # its name among the splits
_INDEX = ".index.npy"
DOCUMENTS = CORPUS + ".documents.npy"
_PART_TEXT, _MOST_PARTS = 100e6, 256  # bytes of text per part, unless --corpus_data_part_num says otherwise; files that are open together
_HASHED = 1 << 20  # bytes


# What records hold, and the script with all flags that choose it, which others lack
_CONTENTS = {
    LINE: "one text per record (recipes/pretrain_mlm.py --packing line)",
    PACKED: "as many texts as a record has room for (recipes/pretrain_mlm.py --packing packed)",
    PAIRS: "the two texts of a line (recipes/pretrain_pairs.py --paired_lines)",
    **{name: f"the sentences of a text (recipes/pretrain_mlm.py --structural --document_end {end})" for end, name in SENTENCES.items()},
}


# Keys of a manifest, and what `TokenFacts` calls them. Manifests of older versions have `longest` alone
_FACTS = {
    **{"shortest": "shortest", "longest": "longest", "median": "median", "percentile_95": "most_have"},
    **{"truncated": "cut", "unknown": "unknown", "text_tokens": "total"},
}


def write_corpus(
    data_dir: str,
    part_num: Optional[int],
    text: CorpusText,
    tokenizer: TextEncoder,
    seq_length: int,
    packing: str,
    between: Callable[[], Any] = lambda: None,
) -> dict:
    """Writes the records of a corpus, their indices, then the manifest. A reader never sees a part of them.

    Args:
        data_dir: folder of the data.
        part_num: number of parts; None for one per 100 MB of text.
        text: `CorpusText`.
        tokenizer, seq_length: S tokens per record.
        packing: one of `corpus_kinds.PACKINGS`, PAIRS, or of the values of SENTENCES.
        between: called after each few thousand texts; what it raises ends the writing, and nothing is left of it.

    Returns:
        the manifest.

    Raises:
        UserError: the corpus has no token, fewer records than parts, or too many for a part; records of sentences have no two documents,
            or no two sentences of one; a text is damaged; the disk cannot be written.
    """
    part_num = min(_MOST_PARTS, 1 + int(text.size // _PART_TEXT)) if part_num is None else part_num
    paths, folder = part_paths(data_dir, CORPUS, None, part_num), split_folder(data_dir, CORPUS)
    indices = [path + _INDEX for path in paths]
    starts = [os.path.join(folder, DOCUMENTS)] if packing in SENTENCES.values() else []  # of the documents
    check_files(folder, [*paths, *indices, *starts])
    digests = text.digests()
    previous, documents, counts = previous_files(folder), Documents(), _Counts(tokenizer, seq_length)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(files.filling(folder))
            parts = [_Part(stack.enter_context(files.replacing(path)), path) for path in paths]
            count = 0
            for rows, numbers, cut in all_rows(text, tokenizer, seq_length, packing):
                _write_rows(parts, rows, count)
                if numbers is not None:
                    documents.add(rows.segment_ids, numbers, count)
                count += len(rows.lengths)
                counts.add(rows, cut)
                between()
            _check_count(count, part_num, text)
            arrays = [part.offsets() for part in parts]
            if starts:
                documents.check(text.names)
                arrays.append(documents.starts(count))
            for path, array in zip([*indices, *starts], arrays):
                with files.replacing(path) as file:
                    np.save(file, array)
        listed = [part.describe() for part in parts]
        manifest = {
            **digests,
            **{"format": MANIFEST_FORMAT, "split": CORPUS, "num_records": count, "seq_length": seq_length, "parts": listed},
            **{"vocab_digest": tokenizer.digest, "do_lower_case": tokenizer.do_lower_case, "packing": packing},
            **{"text_files": list(map(os.path.basename, text.names)), "texts_by_file": text.counts},
            **{"texts": text.count, "evaluation_texts": text.found, **counts.describe(text.count)},
            **({HELD_OUT_KEY: text.held_out} if text.held_out else {}),
            **({"documents": len(documents), "documents_sha256": _digest_of_array(documents.starts(count))} if starts else {}),
        }
        files.write_json(os.path.join(folder, MANIFEST), manifest)
        kept = set(map(os.path.basename, (*paths, *indices, *starts)))
        for name in {DOCUMENTS, *(name + end for name in previous for end in ("", _INDEX))} - kept:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); check --data_dir") from error
    return manifest


def _check_count(count: int, part_num: int, text: CorpusText) -> None:
    if not count:
        raise UserError(f"{', '.join(text.names)}: the corpus has no text with a token; check --corpus_file and --use_task_text")
    if count < part_num:
        raise UserError(f"--corpus_data_part_num {part_num}: more parts than the {count} records of the corpus")


class _Counts:
    """Counts the tokens of a corpus while it is written."""

    def __init__(self, tokenizer: TextEncoder, seq_length: int) -> None:
        self._tokenizer, self._lengths = tokenizer, np.zeros(seq_length + 1, np.int64)
        self._unknown = self._total = 0
        self._cut: Optional[int] = None

    def add(self, rows: Rows, cut: Optional[int]) -> None:
        """Adds rows, for which `cut` texts were cut; None if their form cuts none."""
        self._lengths += np.bincount(rows.lengths, minlength=len(self._lengths))
        if cut is not None:
            self._cut = (self._cut or 0) + cut
        mask = np.arange(rows.input_ids.shape[1]) < rows.lengths[:, None]
        unknown, total = self._tokenizer.count_unknown(rows.input_ids, mask)
        self._unknown, self._total = self._unknown + unknown, self._total + total

    def describe(self, texts: int) -> dict:
        """The keys of the manifest."""
        facts = token_facts(self._lengths, texts, self._cut, self._unknown, self._total)
        tokens = int(self._lengths @ np.arange(len(self._lengths)))
        return {"tokens": tokens, **{key: getattr(facts, name) for key, name in _FACTS.items()}}


class _Part:
    """A part while it is written."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.path, self._file = path, file
        self._digest, self._sizes = hashlib.sha256(), [np.zeros(1, np.int64)]
        self._bytes = 0

    def add(self, columns: List[np.ndarray]) -> None:
        data, sizes = encode_with_sizes(columns)
        self._bytes += len(data)
        if self._bytes > RECORDS_LIMIT:
            raise UserError(f"{self.path}: a part has at most {RECORDS_LIMIT} bytes; give a higher --corpus_data_part_num")
        self._file.write(data.data)
        self._digest.update(data.data)
        self._sizes.append(sizes)

    def offsets(self) -> np.ndarray:
        """int64 [N + 1]: the first byte of each record, and the size of the part."""
        return np.cumsum(np.concatenate(self._sizes))

    def describe(self) -> dict:
        """The part's entry in the manifest."""
        index = _digest_of_array(self.offsets())
        own = {"name": os.path.basename(self.path), "records": len(self.offsets()) - 1, "bytes": self._bytes}
        return dict(own, sha256=self._digest.hexdigest(), index_sha256=index)


def _write_rows(parts: List[_Part], rows: Rows, start: int) -> None:
    """Adds rows to the parts; `start` is the number of the first."""
    numbers = np.arange(start, start + len(rows.lengths), dtype=np.int32)
    arrays = {
        "input_ids": rows.input_ids,
        "input_mask": (np.arange(rows.input_ids.shape[1]) < rows.lengths[:, None]).astype(np.int32),
        "segment_ids": rows.segment_ids,
        "idxs": numbers,
        "sample_weights": np.ones(len(numbers), np.float32),
    }
    columns = [arrays.get(feature.name, np.zeros(len(numbers), np.int32)) for feature in FEATURES]
    for place, part in enumerate(parts):
        here = numbers % len(parts) == place
        if here.any():
            part.add([column[here] for column in columns])


# ------------------------------------------------------------------------------------------------------------------- reading


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A part that is read."""

    file: PartFile
    offsets: np.ndarray  # int64 [N + 1]


class Corpus:
    """The records of a corpus on disk. Their digests are checked when it is opened, and each row again when it is read.

    Attributes:
        path: the folder.
        manifest: dict.
        seq_length: S.
        facts: `TokenFacts`; None if the records were written by a version that did not count them.
        documents: int64 [D + 1], the first row of each document of a corpus of sentences, and the number of rows; else None.

    Raises:
        UserError: the records are missing or damaged.
    """

    def __init__(self, data_dir: str) -> None:
        self.path = split_folder(data_dir, CORPUS)
        path = os.path.join(self.path, MANIFEST)
        self.manifest = manifest = read_manifest(path)
        numbers = [manifest.get(name) for name in ("num_records", "seq_length", "longest", "tokens")]
        numbers += [manifest["documents"]] if "documents" in manifest else []
        whole = all(type(number) is int and number > 0 for number in numbers) and _has_counts(manifest) and _has_names(manifest)
        if not whole or not all(isinstance(part.get("index_sha256"), str) for part in manifest["parts"]):
            raise UserError(f"{path}: is not the manifest of a corpus; {REMEDY}")
        self.seq_length: int = manifest["seq_length"]
        found = {name: manifest[key] for key, name in _FACTS.items() if key in manifest}
        self.facts = TokenFacts(texts=manifest["texts"], **found) if "texts_by_file" in manifest else None
        self._parts = [self._open(part) for part in manifest["parts"]]
        count, digest = manifest.get("documents"), manifest.get("documents_sha256")
        self.documents = None if count is None else _read_index(os.path.join(self.path, DOCUMENTS), count + 1, digest)
        if sum(len(part.offsets) - 1 for part in self._parts) != len(self):
            raise UserError(f"{path}: num_records is not the number of the records in its parts; {REMEDY}")

    def __len__(self) -> int:
        return self.manifest["num_records"]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) that names the records."""
        digests = [part["sha256"] for part in self.manifest["parts"]]
        digests += [] if self.documents is None else [_digest_of_array(self.documents)]
        return hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()

    def _open(self, listed: dict) -> _Stored:
        if os.path.basename(listed["name"]) != listed["name"]:
            raise UserError(f"{self.path}: the manifest lists {listed['name']!r}, which is not a file of this folder; {REMEDY}")
        path = os.path.join(self.path, listed["name"])
        file = PartFile(path, REMEDY, RECORDS_LIMIT)
        if file.size != listed["bytes"] or _digest_of(file) != listed["sha256"]:
            raise UserError(f"{path}: its bytes have changed since it was written (size or SHA-256 differ from the manifest); {REMEDY}")
        return _Stored(file, _read_index(path + _INDEX, listed["records"] + 1, listed["index_sha256"]))

    def read(self, start: int, stop: int) -> Rows:
        """The rows `start` to `stop` - 1.

        Raises:
            UserError: a part has been changed meanwhile.
        """
        count, parts = stop - start, len(self._parts)
        shape = count, self.seq_length
        rows = Rows(np.empty(shape, np.int32), np.empty(shape, np.int32), np.empty(count, np.int64))
        for place, part in enumerate(self._parts):
            first, last = (max(0, -((place - row) // parts)) for row in (start, stop))
            if first < last:
                numbers = np.arange(first, last) * parts + place
                arrays = self._decode(part, first, last, numbers)
                here = numbers - start
                rows.input_ids[here], rows.segment_ids[here] = arrays["input_ids"], arrays["segment_ids"]
                rows.lengths[here] = arrays["input_mask"].sum(axis=1)
        return rows

    def _decode(self, part: _Stored, first: int, last: int, numbers: np.ndarray) -> Dict[str, np.ndarray]:
        """The arrays of the records `first` to `last` - 1 of a part, whose row numbers are known."""
        offsets = part.offsets[first : last + 1]
        data = np.zeros(offsets[-1] - offsets[0] + PADDING, np.uint8)
        part.file.read(data[:-PADDING], int(offsets[0]))
        places = offsets - offsets[0]
        arrays = decode(data, places[:-1] + LENGTH_BYTES, places[1:], self.seq_length)
        if arrays is None or not np.array_equal(arrays["idxs"], numbers):
            raise UserError(f"{part.file.path}: records {first + 1} to {last} are not those of the corpus; {REMEDY}")
        return arrays

    def differences(self, wanted: Dict[str, Any]) -> List[str]:
        """What differs between these records and those that a run needs, for a message.

        Args:
            wanted: dict of keys of the manifest -> value.
        """
        what = {
            "text_digest": "the text has changed since, or --corpus_file or --use_task_text names other text",
            "evaluation_digest": "the text of dev or test has changed since, or --evaluation_text",
            "vocab_digest": "their vocabulary was another one, or the settings of its tokenizer differ",
        }
        changed = [name for name, value in wanted.items() if self.manifest.get(name) != value]
        if "packing" in changed:
            held, needed = (_CONTENTS.get(values.get("packing", ""), "something else") for values in (self.manifest, wanted))
            what["packing"] = f"they hold {held}, and this run needs {needed}"
        if HELD_OUT_KEY in changed:
            made, own = (held_out_phrase(values.get(HELD_OUT_KEY) or ()) for values in (self.manifest, wanted))
            what[HELD_OUT_KEY] = f"--held_out_domains: they were made {made}, this run is {own}"
        return [what.get(name, f"--{name} was {self.manifest.get(name)} and is {wanted[name]}") for name in changed]


def _has_names(manifest: dict) -> bool:
    """Whether the held-out domains of a manifest, if it has any, are a list of names."""
    names = manifest.get(HELD_OUT_KEY, [])
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _has_counts(manifest: dict) -> bool:
    """Whether what a manifest says of its texts and tokens is whole; what was counted in no older version may be missing altogether."""
    counted = [manifest.get("texts"), manifest.get("evaluation_texts")]
    if "texts_by_file" in manifest:
        by_file, names = manifest["texts_by_file"], manifest.get("text_files")
        if not isinstance(by_file, list) or not isinstance(names, list) or len(by_file) != len(names):
            return False
        cut = manifest.get("truncated", -1)  # null is allowed, and no key is not
        counted += [*by_file, *(manifest.get(key) for key in _FACTS if key != "truncated"), *([] if cut is None else [cut])]
    return all(type(number) is int and number >= 0 for number in counted)


def _digest_of_array(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, "<i8").data).hexdigest()


def _read_index(path: str, count: int, digest: Any) -> np.ndarray:
    """An index of a corpus, int64 [count].

    Raises:
        UserError: it is missing, or is not the one with this digest.
    """
    try:
        index = parse_npy(read_bytes(path, REMEDY, ARRAY_LIMIT))
    except ValueError as error:
        raise UserError(f"{path}: is not an array of numbers ({error}); {REMEDY}") from error
    fits = index.dtype == np.dtype("<i8") and index.shape == (count,)
    if not fits or _digest_of_array(index) != digest:
        raise UserError(f"{path}: is not the index of the records; {REMEDY}")
    return index


def _digest_of(file: PartFile) -> str:
    digest, chunk = hashlib.sha256(), np.empty(_HASHED, np.uint8)
    for start in range(0, file.size, _HASHED):
        digest.update(file.read(chunk[: min(_HASHED, file.size - start)], start).data)
    return digest.hexdigest()


def is_written(data_dir: str) -> bool:
    """Whether there are records of a corpus."""
    return os.path.exists(os.path.join(split_folder(data_dir, CORPUS), MANIFEST))
