"""Questions about texts, in the form of SQuAD's JSON files.

    {"data": [{"domain": "en", "paragraphs": [{"context": "Ann lives in Oslo.", "qas": [
        {"id": "q1", "question": "Where does Ann live?", "answers": [{"text": "Oslo", "answer_start": 13}]}]}]}]}

`domain` is an addition of this project, for files of several domains or languages; other keys, such as `title` and `version`, are not read.
A question without answers, or with `is_impossible`, has none in its context (SQuAD 2.0).
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.reading import TEXT_LIMIT
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder, TextSplit
from ofrecord_util.text_columns import TextOptions
from ofrecord_util.text_files import TextRows, find_text
from ofrecord_util.text_kinds import TSV

QUESTION_FILES = (".json",)  # end of the name of a split's file
# The outputs of the head, in this order. As labels of the task they are sorted, and records have that order
PLACES = ("start", "end")
_REMEDY = "the form is that of SQuAD"


class Answer(NamedTuple):
    """A true answer."""

    text: str
    start: int  # its first character in the context


class Question(NamedTuple):
    """A question of a file."""

    id: str
    question: str
    context: str
    answers: Tuple[Answer, ...]  # empty if the context has none, or if they were not read
    domain: Optional[str]  # None without such a key


@dataclass(frozen=True)
class QuestionSplit(TextSplit):
    """The questions of one split. `text_a` are the questions, `text_b` their contexts, `label` is 0.

    Attributes:
        ids: N str.
        answers: N tuples of `Answer`.
    """

    ids: List[str] = field(default_factory=list)
    answers: List[Tuple[Answer, ...]] = field(default_factory=list)

    def first(self, count: Optional[int]) -> "QuestionSplit":
        """The first `count` questions, or all of them if there are fewer or `count` is None."""
        return self.select(np.arange(len(self))[:count])

    def select(self, rows: np.ndarray) -> "QuestionSplit":
        """The questions of an integer array, in its order."""
        chosen = rows.tolist()
        first, second = ([values[row] for row in chosen] for values in (self.text_a, self.text_b or []))
        ids, answers = [self.ids[row] for row in chosen], [self.answers[row] for row in chosen]
        return replace(self, text_a=first, text_b=second, domain=self.domain[rows], label=self.label[rows], ids=ids, answers=answers)


def read_questions(path: str, answered: bool = True) -> List[Question]:
    """The questions of a file.

    Args:
        path: the file.
        answered: whether answers are read. Otherwise they are ignored.

    Raises:
        UserError: the file has another form, no question, an id twice, an empty text, or an answer that is not in its context. The message
            names the question.
    """
    value = read_json(path, _REMEDY, TEXT_LIMIT)
    found, ids = [], set()  # type: List[Question], Set[str]
    for where, domain, context, entry in _entries(value, path):
        own = _text(entry, "id", where) if isinstance(entry.get("id"), str) else None
        if own is None:
            raise UserError(f"{where}: a question has no id; {_REMEDY}")
        where = f"{path}: question {own!r:.60}"
        if own in ids:
            raise UserError(f"{where}: there are two questions with this id")
        ids.add(own)
        answers = _answers(entry, context, where) if answered else ()
        found.append(Question(own, _text(entry, "question", where), context, answers, domain))
    if not found:
        raise UserError(f"{path}: has no question; {_REMEDY}")
    return found


def _list(value: Any, key: str, where: str) -> Iterator[Tuple[str, dict]]:
    """Yields (place for messages, object) for each object of a list."""
    if not isinstance(value.get(key), list):
        raise UserError(f"{where}: {key!r} is not a list; {_REMEDY}")
    for number, entry in enumerate(value[key], 1):
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {key!r} {number} is not an object; {_REMEDY}")
        yield f"{where}: {key!r} {number}", entry


def _entries(value: dict, path: str) -> Iterator[Tuple[str, Optional[str], str, dict]]:
    """Yields (place for messages, domain, context, question) of each question of a file."""
    for at_article, article in _list(value, "data", path):
        domain = article.get("domain")
        if domain is not None and (not isinstance(domain, str) or not domain.strip()):
            raise UserError(f"{at_article}: the domain is {domain!r:.60}, not a name")
        for at_paragraph, paragraph in _list(article, "paragraphs", at_article):
            context = _text(paragraph, "context", at_paragraph)
            for at_question, question in _list(paragraph, "qas", at_paragraph):
                yield at_question, domain, context, question


def _text(value: dict, key: str, where: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: {key!r} is {text!r:.40}, not a text; {_REMEDY}")
    return text


def _answers(entry: dict, context: str, where: str) -> Tuple[Answer, ...]:
    impossible = entry.get("is_impossible", False)
    if type(impossible) is not bool:
        raise UserError(f"{where}: 'is_impossible' is {impossible!r:.40}, not true or false; {_REMEDY}")
    if impossible:
        return ()
    found = []
    for _, answer in _list(entry, "answers", where):
        text, start = _text(answer, "text", where), answer.get("answer_start")
        if type(start) is not int or start < 0 or context[start : start + len(text)] != text:
            raise UserError(
                f"{where}: the answer {text!r:.60} is not at character {start!r:.20} of its context, which is "
                f"{context[start : start + len(text)]!r:.60}"
                if type(start) is int and start >= 0
                else f"{where}: 'answer_start' is {start!r:.40}, not a character of the context"
            )
        found.append(Answer(text, start))
    return tuple(found)


class QuestionFolder(TextFolder):
    """The questions of a data folder: DATA_DIR/SPLIT.json. Each file is read at most once. The labels are PLACES."""

    training_file = "train.json"
    ends = QUESTION_FILES

    def __init__(self, data_dir: str, options: Optional[TextOptions] = None) -> None:
        super().__init__(data_dir, options)
        self._questions: Dict[str, List[Question]] = {}

    def questions(self, split: str) -> Optional[List[Question]]:
        """The questions of a split; None where there is no file."""
        path = self.path(split)
        if path is not None and split not in self._questions:
            self._questions[split] = read_questions(path)
        return self._questions.get(split)

    def table(self, split: str) -> Optional[TextRows]:
        """The questions as rows of question, context, domain and an empty label."""
        found, path = self.questions(split), self.path(split)
        if found is None or path is None:
            return None
        rows = [(f"question {each.id!r:.60}", [each.question, each.context, each.domain or "", ""]) for each in found]
        return TextRows(path, TSV, None, False, rows)

    def names(self, split: str) -> Optional[Tuple[Set[str], Set[str], bool]]:
        found = self.questions(split)
        return None if found is None else ({self._domain(each) for each in found}, set(PLACES), True)

    def pair(self, split: str) -> Optional[bool]:
        return None if self.questions(split) is None else True

    def _domain(self, question: Question) -> str:
        if question.domain is not None:
            return question.domain
        if self.options.only_domain is None:
            raise UserError(
                f"{self.data_dir}: question {question.id!r:.60} has no domain, and the task has several: add the key 'domain' to its "
                "article; --domains with a single name is the domain of all others"
            )
        return self.options.only_domain

    def read(self, split: str, task: Task) -> TextSplit:
        """The `QuestionSplit` of a split. UserError where there is none, or where it is invalid, as `TextFolder.read`."""
        if split not in self._splits:
            path = find_text(self.data_dir, split, ends=self.ends)
            found = self.questions(split) or []
            self._splits[split] = _numbered(path, found, [self._domain(each) for each in found], task)
        return self._splits[split]


def _numbered(path: str, questions: List[Question], domains: List[str], task: Task) -> QuestionSplit:
    """The questions of a file with the task's numbers of domains."""
    digest, numbers = hashlib.sha256(), []
    for question, domain in zip(questions, domains):
        try:
            numbers.append(task.domain_id(domain))
        except UserError as error:
            raise UserError(f"{path}: question {question.id!r:.60}: {error}") from error
        digest.update(json.dumps([*question[:4], numbers[-1]]).encode("ascii") + b"\n")
    return QuestionSplit(
        path=path,
        text_a=[each.question for each in questions],
        text_b=[each.context for each in questions],
        domain=np.array(numbers, np.int32),
        label=np.zeros(len(questions), np.int32),
        digest=digest.hexdigest(),
        source=f"{path}: questions",
        ids=[each.id for each in questions],
        answers=[each.answers for each in questions],
    )
