"""Tagged text: sentences of words with a tag each, as CoNLL's files have them.

    Ann<TAB>B-PER             or, with domains:      Ann<TAB>news<TAB>B-PER
    sleeps<TAB>O                                     sleeps<TAB>news<TAB>O

A row is a word and its tag; a blank line ends a sentence. A column between the two is the domain or language, the same in all rows of a
sentence. UTF-8, LF or CRLF, columns separated by tabs, no header. A tag is O, or B, I, E or S with a dash and a type.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.reading import TEXT_LIMIT, read_bytes
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder, TextSplit
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import TextRows, decode_text, find_text
from ofrecord_util.text_kinds import TSV, lines_of_text
from ofrecord_util.text_warnings import unread_columns

TAG_FILES = (".tsv", ".txt", ".conll", ".csv")  # ends of the names of a split's file
OUTSIDE = "O"  # the tag of a word outside of entities
_TAG = re.compile(r"O\Z|[BIES](-.+)?\Z")
_FORM = "a tag is O, or B, I, E or S with a dash and a type, such as B-PER"


class Sentence(NamedTuple):
    """A sentence of a file."""

    row: int  # its first row, from 1
    words: List[str]
    tags: List[str]  # as many as words; empty if they were not read
    domain: Optional[str]  # None without a column of domains


@dataclass(frozen=True)
class TaggedSplit(TextSplit):
    """The sentences of one split. `text_a` are the words with blanks between them, `label` is 0.

    Attributes:
        words: N lists of str.
        tags: N lists of int, positions in the task's labels.
    """

    words: List[List[str]] = field(default_factory=list)
    tags: List[List[int]] = field(default_factory=list)

    def first(self, count: Optional[int]) -> "TaggedSplit":
        """The first `count` sentences, or all of them if there are fewer or `count` is None."""
        return self.select(np.arange(len(self))[:count])

    def select(self, rows: np.ndarray) -> "TaggedSplit":
        """The sentences of an integer array, in its order."""
        text, words, tags = ([values[row] for row in rows.tolist()] for values in (self.text_a, self.words, self.tags))
        return replace(self, text_a=text, domain=self.domain[rows], label=self.label[rows], words=words, tags=tags)


def read_sentences(
    lines: Iterable[str], path: str, tagged: bool = True, warn: Optional[Callable[[str], object]] = None
) -> Iterator[Sentence]:
    """Yields the sentences of a file. The lines are read as they are needed.

    Args:
        lines: of the file, with or without their ends.
        path: its name, for messages.
        tagged: whether rows have tags. Otherwise a row is a word, and further columns are not read.
        warn: called with one line at the first row without a tag that has columns that are not read, or several words.

    Raises:
        UserError: a row does not have the columns of the first one, or a word, domain or tag is empty or impossible. The message names it.
    """
    width: Optional[int] = None
    start, words, tags, domain = 1, [], [], None  # type: int, List[str], List[str], Optional[str]
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip():
            if words:
                yield Sentence(start, words, tags, domain)
            words, tags = [], []
            continue
        cells = line.split("\t")
        if tagged:
            width = len(cells) if width is None else width
            _check_row(cells, width, path, number)
        elif not cells[0].strip():
            raise UserError(f"{path}: row {number}: the word is empty")
        elif len(cells) > 1 and warn is not None:
            warn(unread_columns(f"{path}: row {number}", len(cells), "the first one is the word"))
            warn = None
        elif len(cells[0].split()) > 1 and warn is not None:
            warn(
                f"warning: {path}: row {number} is read as one word ({cells[0].strip()!r:.60}): a row has one word, and blanks do not "
                "separate columns"
            )
            warn = None
        here = cells[1].strip() if tagged and width == 3 else None
        if not words:
            start, domain = number, here
        elif here != domain:
            raise UserError(
                f"{path}: row {number}: the domain is {here!r:.60}, but {domain!r:.60} in row {start}, where the sentence begins: a blank "
                "line ends a sentence"
            )
        words.append(cells[0].strip())
        tags += [cells[-1].strip()] if tagged else []
    if words:
        yield Sentence(start, words, tags, domain)


def _check_row(cells: List[str], width: int, path: str, number: int) -> None:
    if width not in (2, 3) or len(cells) != width:
        expected = f"{width} as in the first row" if width in (2, 3) else "2 or 3"
        raise UserError(
            f"{path}: row {number}: {counted(len(cells), 'column')} (tab-separated) where {expected} are expected: word TAB tag, or "
            "word TAB domain TAB tag; a blank line ends a sentence"
        )
    for name, cell in zip(("word", "domain") if width == 3 else ("word",), cells):
        if not cell.strip():
            raise UserError(f"{path}: row {number}: the {name} is empty")
    if not _TAG.match(cells[-1].strip()):
        raise UserError(f"{path}: row {number}: the tag {cells[-1].strip()!r:.60} is none: {_FORM}, and the file has no header")


class TaggedFolder(TextFolder):
    """The tagged text of a data folder: DATA_DIR/SPLIT.tsv, .txt, .conll or .csv. Each file is read at most once."""

    training_file = "train.tsv"
    ends = TAG_FILES

    def __init__(self, data_dir: str, options: Optional[TextOptions] = None) -> None:
        super().__init__(data_dir, options)
        self._sentences: Dict[str, List[Sentence]] = {}

    def sentences(self, split: str) -> Optional[List[Sentence]]:
        """The sentences of a split; None where there is no file. A file without sentences is a UserError."""
        path = self.path(split)
        if path is not None and split not in self._sentences:
            content = decode_text(read_bytes(path, "check --data_dir", TEXT_LIMIT), path)
            self._sentences[split] = list(read_sentences(lines_of_text(content), path))
            if not self._sentences[split]:
                raise UserError(f"{path}: has no sentence; a row is word TAB tag")
        return self._sentences.get(split)

    def table(self, split: str) -> Optional[TextRows]:
        """The sentences as rows of text, domain and an empty label."""
        found, path = self.sentences(split), self.path(split)
        if found is None or path is None:
            return None
        return TextRows(path, TSV, None, False, [(f"row {each.row}", [" ".join(each.words), each.domain or "", ""]) for each in found])

    def names(self, split: str) -> Optional[Tuple[Set[str], Set[str], bool]]:
        found = self.sentences(split)
        if found is None:
            return None
        return {self._domain(each) for each in found}, {tag for each in found for tag in each.tags}, False

    def pair(self, split: str) -> Optional[bool]:
        return None if self.sentences(split) is None else False

    def _domain(self, sentence: Sentence) -> str:
        if sentence.domain is not None:
            return sentence.domain
        if self.options.only_domain is None:
            raise UserError(
                f"{self.data_dir}: the text has no column of domains, and the task has several: a row is word TAB domain TAB tag; "
                "--domains with a single name is the domain of all rows"
            )
        return self.options.only_domain

    def read(self, split: str, task: Task) -> TextSplit:
        """The `TaggedSplit` of a split. UserError where there is none, or where it is invalid, as `TextFolder.read`."""
        if split not in self._splits:
            path = find_text(self.data_dir, split, ends=self.ends)
            found = self.sentences(split) or []
            self._splits[split] = _numbered(path, found, [self._domain(each) for each in found], task)
        return self._splits[split]


def check_tags(task: Task) -> None:
    """Raises a UserError if a label of a task is no tag."""
    wrong = next((label for label in task.labels if not _TAG.match(label)), None)
    if wrong is not None:
        source = task.origins.get("label", "--label_list")
        raise UserError(
            f"{source}: the label {wrong!r:.60} of task {task.name!r:.60} is no tag: {_FORM}; without the flag, a task of your own "
            "(--task_name) has the tags of the training text"
        )


def _numbered(path: str, sentences: List[Sentence], domains: List[str], task: Task) -> TaggedSplit:
    """The sentences of a file with the task's numbers of domains and tags."""
    digest = hashlib.sha256()
    known: Dict[str, int] = {}
    tags, numbers = [], []
    for sentence, domain in zip(sentences, domains):
        own = []
        for place, tag in enumerate(sentence.tags):
            if tag not in known:
                known[tag] = _in_row(path, sentence.row + place, task.label_id, tag)
            own.append(known[tag])
        tags.append(own)
        numbers.append(_in_row(path, sentence.row, task.domain_id, domain))
        for word, number in zip(sentence.words, own):
            digest.update(f"{word}\t{numbers[-1]}\t{number}\n".encode())
        digest.update(b"\n")
    return TaggedSplit(
        path=path,
        text_a=[" ".join(each.words) for each in sentences],
        text_b=None,
        domain=np.array(numbers, np.int32),
        label=np.zeros(len(sentences), np.int32),
        digest=digest.hexdigest(),
        source=f"{path}: words and tags",
        words=[each.words for each in sentences],
        tags=tags,
    )


def _in_row(path: str, row: int, number_of: Callable[[str], int], name: str) -> int:
    """The number of a name. UserError with the row where the task does not have it."""
    try:
        return number_of(name)
    except UserError as error:
        raise UserError(f"{path}: row {row}: {error}") from error
