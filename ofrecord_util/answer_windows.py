"""From questions to the arrays of a batch: a context that is too long has several windows, each with the question before it (BERT,
Devlin et al. 2019, section 4.2, and Google's run_squad.py)."""

import hashlib
from dataclasses import dataclass, replace
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.question_text import Answer, QuestionSplit
from ofrecord_util.reader import REMEDY
from ofrecord_util.record_forms import RowForm, plain_records
from ofrecord_util.records import Records
from ofrecord_util.schema import ANSWERS
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit

NO_ANSWER = 0  # start and end of a window without an answer: the place of [CLS]


@dataclass(frozen=True)
class Windows:
    """The windows of the questions of a split (N windows of Q questions). `windows_of` makes them from records.

    Attributes:
        records: `Records` of the form `WindowForm`.
        text: `QuestionSplit` of the Q questions; None if it is not needed and not there.
        question: int32 [N], number of the question of each window, ascending.
        first: int32 [N], the place in the window of its first token of the context.
        skipped: int32 [N], tokens of the context before the window.
        count: int32 [N], tokens of the context in the window.
        start, end: int32 [N], places of the first and the last token of the first true answer, or NO_ANSWER.
        left, right: int32 [N, S], first and last + 1 character of each token of the context, 0 for other tokens.
    """

    records: Records
    text: Optional[QuestionSplit]
    question: np.ndarray
    first: np.ndarray
    skipped: np.ndarray
    count: np.ndarray
    start: np.ndarray
    end: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def questions(self) -> int:
        """Q."""
        return int(self.question[-1]) + 1

    @property
    def without_answer(self) -> np.ndarray:
        """int64, numbers of the questions that have no answer; without the text, of those without an answer in any window."""
        if self.text is not None:
            return np.flatnonzero([not answers for answers in self.text.answers])
        return np.setdiff1d(self.question, self.question[self.end != NO_ANSWER])

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what a run reads of the split."""
        digest = hashlib.sha256(self.records.text_digest.encode("ascii"))
        for array in (self.records.input_ids, self.records.domain, self.first, self.skipped, self.start, self.end):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def select(self, rows: np.ndarray) -> "Windows":
        """The windows of an ascending integer array, with all or none of the windows of a question. The questions are counted again, the
        windows keep their row numbers."""
        questions, question = np.unique(self.question[rows], return_inverse=True)
        chosen = self.records.select(rows)
        records = replace(chosen, targets={**chosen.targets, "question": question.astype(np.int32)})
        return windows_of(records, self.text and self.text.select(questions))

    def characters(self, window: int, start: int, end: int) -> Tuple[int, int]:
        """First and last + 1 character in the context of an answer from the place `start` to the place `end` of a window, without blanks
        at its ends."""
        context = ((self.text and self.text.text_b) or [])[int(self.question[window])]
        left, right = int(self.left[window, start]), int(self.right[window, end])
        piece = context[left:right]
        return left + len(piece) - len(piece.lstrip()), max(left, right - (len(piece) - len(piece.rstrip())))


def windows_of(records: Records, text: Optional[QuestionSplit] = None) -> Windows:
    """The `Windows` of records.

    Args:
        records, text: as of `Windows`.

    Raises:
        UserError: the windows of a question do not follow each other, or they are of other questions than the text.
    """
    found = Windows(records, text, **records.targets)
    steps = np.diff(found.question, prepend=-1)
    fits = steps[0] == 1 and set(steps.tolist()) <= {0, 1} and (text is None or len(text) == found.questions)
    if not fits:
        raise UserError(f"{records.path}: the windows of the records are not those of the questions; {REMEDY}")
    return found


class WindowForm(RowForm):
    """A record for each window of a question: `[CLS] question [SEP] tokens of the context [SEP]`, with the places of the answer.

    Args:
        doc_stride: tokens of the context between the starts of two windows.
        max_query_length: tokens of a question at most; the rest is cut.
    """

    name = ANSWERS
    in_log = False

    def __init__(self, doc_stride: int, max_query_length: int) -> None:
        super().__init__(doc_stride=doc_stride, max_query_length=max_query_length)

    def rows(self, records: Records) -> np.ndarray:
        return records.targets["question"]

    def written(self, records: Records, source: str, truncated: int) -> str:
        count = int(self.rows(records)[-1]) + 1
        return f"{count} questions of {source} written as OFRecord, in {len(records)} windows, {truncated} cut at --max_query_length"

    def check_stride(self, tokenizer: TextEncoder, seq_length: int) -> None:
        """Raises a UserError if no window can have as many tokens of a context as lie between the starts of two windows."""
        room, stride = seq_length - 3 - tokenizer.separators, self.settings["doc_stride"]
        if stride > room >= 1:
            raise UserError(
                f"--doc_stride {stride}: a window has room for {room} tokens of a context, beside a question of one token, so tokens of "
                f"longer contexts would be left out: give at most --doc_stride {room}, or a higher --seq_length than {seq_length}"
            )

    def encode(self, text: TextSplit, tokenizer: TextEncoder, seq_length: int, task: Optional[Task] = None) -> Tuple[Records, int]:  # noqa: ARG002
        """As of `RowForm`. `text` is a `QuestionSplit`; the number is that of questions that were cut.

        Raises:
            UserError: a window has no room for a token of the context, or the windows leave out tokens.
        """
        if not isinstance(text, QuestionSplit):
            raise TypeError("a QuestionSplit is needed")
        self.check_stride(tokenizer, seq_length)
        stride, most_query = self.settings["doc_stride"], self.settings["max_query_length"]
        pad, cls, sep = tokenizer.special_ids
        specials = 2 + tokenizer.separators
        queries = tokenizer.whole_texts(text.text_a)
        ids: List[List[int]] = []
        segments: List[List[int]] = []
        rows: List[List[int]] = []
        spans: List[np.ndarray] = []
        cut = 0
        known: dict = {}  # contexts whose questions follow each other
        for number, (query, context) in enumerate(zip(queries, text.text_b or [])):
            cut += len(query) > most_query
            query = query[:most_query]
            room = seq_length - specials - len(query)
            if room < 1:
                raise UserError(
                    f"--seq_length {seq_length} is too short for a question of {len(query)} tokens: give a lower --max_query_length"
                )
            if context not in known:
                known = {context: tokenizer.ids_and_spans(context)}
            tokens, places = known[context]
            if stride > room and len(tokens) > room:
                raise UserError(
                    f"--doc_stride {stride}: a window has room for {room} tokens of a context beside a question of {len(query)}, so tokens "
                    f"would be left out: give at most --doc_stride {room}, or a higher --seq_length"
                )
            answer = _tokens_of(text.answers[number][:1], places)
            before = [cls, *query, *[sep] * tokenizer.separators]
            for skipped in range(0, max(1, len(tokens)), stride):
                own = tokens[skipped : skipped + room]
                start, end = (place - skipped for place in answer)
                inside = start >= 0 and end < len(own)
                place = len(before)
                rows.append([number, place, skipped, len(own), *((place + start, place + end) if inside else (NO_ANSWER, NO_ANSWER))])
                ids.append([*before, *own, sep])
                segments.append([0] * len(before) + [tokenizer.second_segment] * (len(own) + 1))
                spans.append(places[skipped : skipped + room])
                if skipped + room >= len(tokens):
                    break
        targets = dict(zip(("question", "first", "skipped", "count", "start", "end"), np.array(rows, np.int32).T))
        padded, mask, kinds, left, right = (np.zeros((len(rows), seq_length), np.int32) for _ in range(5))
        padded += pad
        for row, (own, own_kinds, own_spans, first) in enumerate(zip(ids, segments, spans, targets["first"].tolist())):
            padded[row, : len(own)], kinds[row, : len(own)], mask[row, : len(own)] = own, own_kinds, 1
            left[row, first : first + len(own_spans)], right[row, first : first + len(own_spans)] = own_spans.T
        targets.update(left=left, right=right)
        return plain_records(text, padded, mask, kinds, targets["question"], targets), cut


def _tokens_of(answers: Sequence[Answer], spans: np.ndarray) -> Tuple[int, int]:
    """First and last token of an answer, (-1, -1) if there is none or it has no token."""
    for answer in answers:
        left = answer.start + len(answer.text) - len(answer.text.lstrip())
        inside = np.flatnonzero((spans[:, 0] < left + len(answer.text.strip())) & (spans[:, 1] > left))
        if len(inside):
            return int(inside[0]), int(inside[-1])
    return -1, -1


def with_answers(batches: Iterable[Batch], windows: Windows) -> Iterator[Batch]:
    """Adds start and end, int32 [B], to batches of windows."""
    for batch in batches:
        places = windows.records.places_of(batch["idxs"])
        yield dict(batch, start=windows.start[places], end=windows.end[places])
