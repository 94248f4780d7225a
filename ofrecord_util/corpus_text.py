"""The text of a corpus: files with one text per line, or two, folders of such files, and the training split of a task.

Files are read line by line, so that a corpus may be larger than the memory. A text of the dev or test split that stands in the corpus is
found if its words are the same, whatever their case and the spaces between them; a text that is only a part of a line is not found.
"""

import hashlib
import itertools
import os
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ofrecord_util.corpus_kinds import BLANK_LINE, KEEP, LEAVE_OUT, REFUSE
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.names import is_header
from ofrecord_util.reading import CORPUS_LIMIT, lines_of, open_file
from ofrecord_util.sentences import split_sentences
from ofrecord_util.text import TextSplit
from ofrecord_util.text_kinds import CSV, JSONL, kind_of_stream

_REMEDY = "check --corpus_file"
_ENDING = ".txt"  # of the files that are taken from a folder
_FIRST_LINES = 100  # lines that tell whether a file is a table
_CHUNK = 1 << 20  # bytes that are hashed at once

Item = Tuple[str, Optional[str]]  # a text and None, or the two texts of a pair
_Found = Tuple[str, Item, Tuple[str, ...]]  # its place for messages, and what it must not have in common with a text of dev or test


def find_files(values: Sequence[str]) -> List[str]:
    """The files of --corpus_file: each file itself, and of a folder all files that end in .txt, by name.

    Raises:
        UserError: a path does not exist, a folder has no such file, or a file is listed twice.
    """
    found: List[str] = []
    for value in values:
        if os.path.isdir(value):
            names = sorted(name for name in os.listdir(value) if name.endswith(_ENDING))
            if not names:
                raise UserError(f"--corpus_file {value}: the folder has no file that ends in {_ENDING}")
            found += [os.path.join(value, name) for name in names]
        elif os.path.exists(value):
            found.append(value)
        else:
            raise UserError(f"--corpus_file {value}: no such file or folder")
    places = list(map(os.path.realpath, found))
    twice = next((path for path, place in zip(found, places) if places.count(place) > 1), None)
    if twice is not None:
        raise UserError(f"--corpus_file: {twice} is listed twice; its text would count twice")
    return found


def read_lines(path: str, blank: bool = False) -> Iterator[Tuple[str, str]]:
    """Yields (place for messages, text) of each line of a file, of blank ones only with `blank`.

    Raises:
        UserError: a line is no text, has a carriage return in it, or the first lines are those of a table: its other columns would be
            trained on, and a text of dev or test would not be found in it.
    """
    lines = (found for found in _text_lines(path) if blank or found[1])
    head = list(itertools.islice(lines, _FIRST_LINES))
    _check_no_table([text for _, text in head if text], path)
    yield from head
    yield from lines


def read_pairs(path: str) -> Iterator[Tuple[str, Tuple[str, str]]]:
    """Yields (place for messages, two texts) of each line of a file with --paired_lines, but blank ones.

    Raises:
        UserError: a line is no text, has a carriage return in it, has not exactly two texts with a tab between them, or has names of
            columns.
    """
    for place, text in _text_lines(path, ends="\r\n"):  # a tab at an end is one between two texts
        if not text.strip():
            continue
        texts = [part.strip() for part in text.split("\t")]
        if len(texts) != 2:
            raise UserError(
                f"{place} ({text!r:.60}): has {counted(len(texts), 'column')}, but with --paired_lines each line of --corpus_file has two "
                "texts with a tab between them"
            )
        if not all(texts):
            which = "first" if not texts[0] else "second"
            raise UserError(f"{place} ({text!r:.60}): the {which} text is empty, but --paired_lines needs two per line: remove the line")
        if is_header(texts):
            raise UserError(f"{place} ({text!r:.60}): is a header, which would be trained on: remove the line")
        yield place, (texts[0], texts[1])


def _text_lines(path: str, ends: Optional[str] = None) -> Iterator[Tuple[str, str]]:
    """Yields (place, line) for each line, without the characters `ends` at its ends (None: without white space)."""
    with open_file(path, _REMEDY, CORPUS_LIMIT) as file:
        for number, line in enumerate(lines_of(file, path, _REMEDY), 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(ends)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: line {number}: byte {error.start} of the line is not UTF-8; convert the file to UTF-8") from error
            if "\0" in text:
                raise UserError(f"{path}: line {number}: has a NUL, so it is not a text file; {_REMEDY}")
            if "\r" in text:
                raise UserError(
                    f"{path}: line {number}: has a carriage return at character {text.index(chr(13)) + 1}; lines must end with LF or CRLF: "
                    "convert them, for example with tr '\\r' '\\n'"
                )
            yield f"{path}: line {number}", text


def _check_no_table(lines: Sequence[str], path: str) -> None:
    """Raises a UserError if the first lines of a file are JSON, or have columns: a header between commas, or equal numbers of tabs."""
    if not lines:
        return
    kind, tabs = kind_of_stream(lines[0], path), {text.count("\t") for text in lines}
    if kind in (JSONL, CSV) or (len(tabs) == 1 and tabs != {0}):
        what = "JSON" if kind == JSONL else "a table"
        more = "; --paired_lines takes the two texts of each line as a pair" if kind not in (JSONL, CSV) and tabs == {1} else ""
        raise UserError(
            f"{path}: line 1 ({lines[0]!r:.60}) is {what}, but each line of --corpus_file is one text: give a file with the texts alone, "
            f"or the folder of the table as --data_dir with --use_task_text{more}"
        )


def comparable(text: str) -> str:
    """What two texts with the same words have in common."""
    return " ".join(text.lower().split())


def _key(item: Item) -> str:
    return comparable(item[0]) if item[1] is None else f"{comparable(item[0])}\t{comparable(item[1])}"


def _keys_of_line(item: Item) -> Tuple[str, ...]:
    """What a line of a file must not have in common with a text of dev or test. Of two texts it is also each of them, and both as one text,
    which was cut in two."""
    if item[1] is None:
        return (_key(item),)
    first, second = map(comparable, (item[0], item[1]))
    return _key(item), first, second, f"{first} {second}"


class HeldOutRows(NamedTuple):
    """The rows of the training split whose domains are held out (--held_out_domains)."""

    domains: List[str]  # their names, in the order of the task
    rows: FrozenSet[int]  # numbers of the rows, from 0


class CorpusText:
    """The texts of a corpus, in order: the training split, then the files.

    Args:
        files: paths of `find_files`.
        rows: the training `TextSplit`, or None.
        evaluation: dict of split -> `TextSplit` of dev and test, as far as they have text.
        use: of EVALUATION_TEXTS, what happens with their texts in the corpus.
        paired: whether each line of a file has two texts.
        left_out: rows of the training split that are no part of the corpus, or None.

    Attributes:
        held_out: names of the domains of these rows, or None.
        count: texts that the latest `sources` has yielded.
        counts: the same for each of `names`, list of int.
        found: texts of dev or test among them, or left out.
    """

    def __init__(
        self,
        files: Sequence[str],
        rows: Optional[TextSplit],
        evaluation: Dict[str, TextSplit],
        use: str = REFUSE,
        paired: bool = False,
        left_out: Optional[HeldOutRows] = None,
    ) -> None:
        self.held_out = left_out and left_out.domains
        self._left_out = left_out.rows if left_out else frozenset()
        self._files, self._rows, self._use, self._paired = list(files), rows, use, paired
        self._evaluation = evaluation
        self._known = {_key(item) for split in evaluation.values() for item in split.texts()}
        # a line of a file may be one of the two texts of a pair
        self._known.update(comparable(text) for split in evaluation.values() for item in split.texts() for text in item if text)
        self._restart()

    @property
    def names(self) -> List[str]:
        """The sources, for messages and the manifest."""
        return [*([] if self._rows is None else [self._rows.path]), *self._files]

    @property
    def size(self) -> int:
        """Bytes of text."""
        own = sum(len(text or "") for _, item, _ in self._task_items() for text in item)
        return own + sum(map(os.path.getsize, self._files))

    def digests(self) -> Dict[str, str]:
        """What the records of a corpus depend on: `text_digest`, SHA-256 (hex) of the digest of the training split and of the bytes of each
        file, and `evaluation_digest`, that of the rule and of the texts of dev and test."""
        digest = hashlib.sha256((self._rows.digest if self._rows else "").encode("ascii"))
        for path in self._files:
            digest.update(b"\n" + _digest_of_file(path).encode("ascii"))
        rule = hashlib.sha256(self._use.encode("ascii"))
        if self._use != KEEP:
            for split in self._evaluation.values():
                rule.update(b"\n" + split.digest.encode("ascii"))
        return {"text_digest": digest.hexdigest(), "evaluation_digest": rule.hexdigest()}

    def check(self) -> None:
        """Raises a UserError if the corpus has texts of dev or test and nobody has said what is to happen with them. Says how many."""
        if self._use != REFUSE or not self._known:
            return
        first, found = "", 0
        for place, _, keys in self._all():
            if not self._known.isdisjoint(keys):
                first, found = first or place, found + 1
        if found:
            raise UserError(
                f"{first}: is a text of {' or '.join(self._evaluation)}, and {found} texts of the corpus are: dev and test would then "
                f"measure texts that the model has seen; --evaluation_text {LEAVE_OUT} leaves them out, --evaluation_text {KEEP} keeps them"
            )

    def sources(self) -> Iterator[Iterator[Item]]:
        """Yields the texts of one source after the other. All items of a source are texts, or all are pairs."""
        self._restart()
        if self._rows is not None:
            yield self._used(0, self._task_items())
        for number, path in self._numbered_files():
            yield self._used(number, self._file_items(path))

    def sentences(self, document_end: str) -> Iterator[Tuple[int, str]]:
        """Yields (number of the document, sentence) of the whole corpus. Each text of a row of the training split is a document.

        Args:
            document_end: LINE_END: each line of a file is a document. BLANK_LINE: each line is a sentence, and a document ends at a blank
                line or at the end of the file.
        """
        self._restart()
        document = 0
        for item in self._used(0, self._task_items()):
            for text in filter(None, item):
                yield from ((document, sentence) for sentence in split_sentences(text))
                document += 1
        for number, path in self._numbered_files():
            whole = document_end != BLANK_LINE
            for text, _ in self._used(number, self._file_items(path, blank=not whole)):
                yield from ((document, sentence) for sentence in (split_sentences(text) if whole else filter(None, [text])))
                document += whole or not text
            document += 1  # a number may have no sentence

    def _task_items(self) -> Iterator[_Found]:
        if self._rows is not None:
            for row, item in enumerate(self._rows.texts()):
                if row not in self._left_out:
                    yield f"{self._rows.path}: sample {row + 1}", item, (_key(item),)

    def _file_items(self, path: str, blank: bool = False) -> Iterator[_Found]:
        items: Iterator[Tuple[str, Item]]
        items = read_pairs(path) if self._paired else ((place, (text, None)) for place, text in read_lines(path, blank))
        for place, item in items:
            yield place, item, _keys_of_line(item) if self._known else ()

    def _all(self) -> Iterator[_Found]:
        yield from self._task_items()
        for path in self._files:
            yield from self._file_items(path)

    def _restart(self) -> None:
        self.count = self.found = 0
        self.counts = [0] * len(self.names)

    def _numbered_files(self) -> Iterator[Tuple[int, str]]:
        """(place in `names`, path) of each file."""
        return enumerate(self._files, len(self.names) - len(self._files))

    def _used(self, number: int, items: Iterator[_Found]) -> Iterator[Item]:
        """The items of one of `names` that are used."""
        for _, item, keys in items:
            known = not self._known.isdisjoint(keys)
            self.found += known
            if not known or self._use != LEAVE_OUT:
                is_text = bool(item[0])  # a blank line is no text
                self.count += is_text
                self.counts[number] += is_text
                yield item


def _digest_of_file(path: str) -> str:
    digest = hashlib.sha256()
    with open_file(path, _REMEDY, CORPUS_LIMIT) as file:
        for data in iter(lambda: file.read(_CHUNK), b""):
            digest.update(data)
    return digest.hexdigest()
