"""From questions to the arrays of a batch: a context that is too long has several windows, each with the question before it (BERT,
Devlin et al. 2019, section 4.2, and Google's run_squad.py)."""

import hashlib
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Sequence, Tuple

import numpy as np

from ofrecord_util.batches import Batch
from ofrecord_util.encoding import TextEncoder
from ofrecord_util.errors import UserError
from ofrecord_util.question_text import Answer, QuestionSplit
from ofrecord_util.records import Records

NO_ANSWER = 0  # start and end of a window without an answer: the place of [CLS]


@dataclass(frozen=True)
class Windows:
    """The windows of the questions of a split (N windows of Q questions).

    Attributes:
        text: `QuestionSplit` of the Q questions.
        records: `Records`.
        question: int32 [N], number of the question of each window, ascending.
        first: int32 [N], the place in the window of its first token of the context.
        skipped: int32 [N], tokens of the context before the window.
        count: int32 [N], tokens of the context in the window.
        start, end: int32 [N], places of the first and the last token of the first true answer, or NO_ANSWER.
        spans: Q arrays int32 [n, 2], first and last + 1 character of each token of the context.
        cut: number of questions that were cut.
    """

    text: QuestionSplit
    records: Records
    question: np.ndarray
    first: np.ndarray
    skipped: np.ndarray
    count: np.ndarray
    start: np.ndarray
    end: np.ndarray
    spans: List[np.ndarray]
    cut: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what a run reads of the split."""
        digest = hashlib.sha256(self.text.digest.encode("ascii"))
        for array in (self.records.input_ids, self.records.domain, self.first, self.skipped, self.start, self.end):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def characters(self, window: int, start: int, end: int) -> Tuple[int, int]:
        """First and last + 1 character in the context of an answer from the place `start` to the place `end` of a window, without blanks
        at its ends."""
        question = int(self.question[window])
        move = int(self.skipped[window]) - int(self.first[window])
        spans, context = self.spans[question], (self.text.text_b or [])[question]
        left, right = int(spans[start + move, 0]), int(spans[end + move, 1])
        piece = context[left:right]
        return left + len(piece) - len(piece.lstrip()), max(left, right - (len(piece) - len(piece.rstrip())))


def answer_windows(text: QuestionSplit, tokenizer: TextEncoder, seq_length: int, stride: int, most_query: int) -> Windows:
    """The `Windows` of a split.

    Args:
        text: `QuestionSplit`.
        tokenizer: `TextEncoder`.
        seq_length: S, tokens of a window.
        stride: tokens of the context between the starts of two windows.
        most_query: tokens of a question at most; the rest is cut.

    Raises:
        UserError: a window has no room for a token of the context, or the windows leave out tokens.
    """
    pad, cls, sep = tokenizer.special_ids
    specials = 2 + tokenizer.separators
    queries = tokenizer.whole_texts(text.text_a)
    ids, segments, rows, spans, cut = [], [], [], [], 0  # type: List[List[int]], List[List[int]], List[List[int]], List[np.ndarray], int
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
        spans.append(places)
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
            if skipped + room >= len(tokens):
                break
    question, first, before_window, count, starts, ends = np.array(rows, np.int32).T
    mask, records_ids, records_segments = (np.zeros((len(rows), seq_length), np.int32) for _ in range(3))
    records_ids += pad
    for row, (own, kinds) in enumerate(zip(ids, segments)):
        records_ids[row, : len(own)], records_segments[row, : len(own)], mask[row, : len(own)] = own, kinds, 1
    records = Records(
        input_ids=records_ids,
        input_mask=mask,
        segment_ids=records_segments,
        domain=text.domain[question],
        label=np.zeros(len(rows), np.int32),
        idxs=np.arange(len(rows), dtype=np.int32),
        sample_weights=np.ones(len(rows), np.float32),
        path=text.path,
        text_digest=text.digest,
    )
    return Windows(text, records, question, first, before_window, count, starts, ends, spans, cut)


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
        yield dict(batch, start=windows.start[batch["idxs"]], end=windows.end[batch["idxs"]])
