"""ofrecord_util/answer_windows.py: windows with a stride, places of answers, and the way back to characters; spans of tokens in a text."""

import random

import numpy as np
import pytest
import tiny

from ofrecord_util.answer_windows import NO_ANSWER, WindowForm, windows_of, with_answers
from ofrecord_util.errors import UserError
from ofrecord_util.question_text import Answer, QuestionSplit
from ofrecord_util.tokenization import Tokenizer
from ofrecord_util.tokenizer_settings import AddedToken, TokenizerSettings

CONTEXT = "The good actors run, and the bad film sleeps: boredom!"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return tiny.write_vocabulary(str(tmp_path_factory.mktemp("windows") / "vocab.txt"))


@pytest.fixture(scope="module")
def tokenizer(vocabulary):
    return Tokenizer(vocabulary)


def split(*questions):
    """A `QuestionSplit` of (question, context, answers)."""
    count = len(questions)
    return QuestionSplit(
        "f", [each[0] for each in questions], [each[1] for each in questions], np.zeros(count, np.int32), np.zeros(count, np.int32), "0f",
        ids=[f"q{number}" for number in range(count)], answers=[tuple(Answer(*answer) for answer in each[2]) for each in questions],
    )  # fmt: skip


def at(text, context=CONTEXT):
    return text, context.index(text)


def answer_windows(text, tokenizer, length, stride, most_query):
    """The `Windows` of a text."""
    return windows_of(WindowForm(stride, most_query).encode(text, tokenizer, length)[0], text)


TEXTS = [
    CONTEXT,
    "",
    "  ",
    "ΣΑΣ is a Café,naïve  e\u0301 ﬁlm\u200b\tX\u00a0y",
    "电影good 한국 İstanbul",
    "a\x00b\ufffdc [SEP] don't a_b $5.00",
    "".join(chr(random.Random(3).choice([*range(32, 127), *range(160, 1000), *range(0x4E00, 0x4E20), 0x301, 10])) for _ in range(9)),
    "".join(
        random.Random(5).choices([chr(code) for code in [*range(32, 127), *range(0xC0, 0x250), 0x301, 0x4E00, 0xAC00, 9, 0x3C3]], k=200)
    ),
]


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_tokens_have_their_place_in_the_text(vocabulary, text, lower):
    tokenizer = Tokenizer(vocabulary, TokenizerSettings(lower))
    ids, spans = tokenizer.ids_and_spans(text)
    assert ids == tokenizer.whole_texts([text])[0]
    assert spans.shape == (len(ids), 2)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[:-1, 0] <= spans[1:, 0]).all()
    for number, (start, end) in zip(ids, spans.tolist()):
        token = tokenizer.tokens[number]
        if token != "[UNK]" and text.isascii():
            assert text[start:end].lower() == token[2:].lower() or text[start:end].lower() == token.lower()


def test_added_tokens_have_a_place(vocabulary):
    tokenizer = Tokenizer(vocabulary, TokenizerSettings(True, added_tokens=(AddedToken("yes"),)))
    ids, spans = tokenizer.ids_and_spans("the yes film")
    assert ids == tokenizer.whole_texts(["the yes film"])[0]
    assert spans.tolist() == [[0, 3], [4, 7], [8, 12]]


def test_a_short_context_has_one_window(tokenizer):
    found = answer_windows(split(("the film", CONTEXT, [at("bad film")])), tokenizer, 40, 5, 8)
    (names,) = [[tokenizer.tokens[number] for number in row] for row in found.records.input_ids.tolist()]
    length = int(found.records.lengths[0])
    assert names[:5] == ["[CLS]", "the", "film", "[SEP]", "the"]
    assert names[length - 1] == "[SEP]"
    assert set(names[length:]) <= {"[PAD]"}
    assert found.records.segment_ids[0].tolist() == [0] * 4 + [1] * (length - 4) + [0] * (40 - length)
    assert (found.first[0], found.skipped[0], found.count[0]) == (4, 0, length - 5)
    assert names[found.start[0] : found.end[0] + 1] == ["bad", "film"]
    first, last = found.characters(0, found.start[0], found.end[0])
    assert CONTEXT[first:last] == "bad film"


@pytest.mark.parametrize("stride", [1, 3, 6])
def test_windows(tokenizer, stride):
    """Each token is in a window; each window has the question; the answer is learnt where it is complete."""
    text = split(("the film", CONTEXT, [at("actors")]), ("a", CONTEXT, []), ("it", "good", [("good", 0)]))
    found = answer_windows(text, tokenizer, 13, stride, 8)
    ids, spans = tokenizer.ids_and_spans(CONTEXT)
    assert found.question.tolist() == sorted(found.question)
    for question in (0, 1):
        own = np.flatnonzero(found.question == question)
        assert found.skipped[own].tolist() == [number * stride for number in range(len(own))]
        covered = set()
        for window in own:
            first, skipped, count = (int(array[window]) for array in (found.first, found.skipped, found.count))
            assert found.records.input_ids[window, first : first + count].tolist() == ids[skipped : skipped + count]
            covered |= set(range(skipped, skipped + count))
            place = found.characters(window, first, first + count - 1)
            assert place == (spans[skipped, 0], spans[skipped + count - 1, 1])
        assert covered == set(range(len(ids)))
        assert found.skipped[own[-1]] + found.count[own[-1]] == len(ids)  # no further window after the end
    answer = [place for place, span in enumerate(spans.tolist()) if CONTEXT[slice(*span)] and span[0] >= 9 and span[1] <= 15]
    for window in np.flatnonzero(found.question == 0):
        first, skipped, count = (int(array[window]) for array in (found.first, found.skipped, found.count))
        inside = skipped <= answer[0] and answer[-1] < skipped + count
        expected = (first + answer[0] - skipped, first + answer[-1] - skipped) if inside else (NO_ANSWER, NO_ANSWER)
        assert (found.start[window], found.end[window]) == expected
    assert set(found.start[found.question == 1]) == {NO_ANSWER}


def test_long_questions_are_cut(tokenizer):
    records, cut = WindowForm(2, 3).encode(split(("the " * 9, CONTEXT, [])), tokenizer, 24)
    assert cut == 1
    assert set(records.targets["first"].tolist()) == {5}


def test_blanks_are_not_part_of_an_answer(tokenizer):
    context = "the  film "
    found = answer_windows(split(("a", context, [(" film ", 4)])), tokenizer, 20, 4, 8)
    assert context[slice(*found.characters(0, found.start[0], found.end[0]))] == "film"


@pytest.mark.parametrize(
    ("length", "stride", "said"),
    [
        (8, 9, "--doc_stride 9: a window has room for 4 tokens of a context, beside a question of one token"),
        (8, 4, "--doc_stride 4: a window has room for 3 tokens of a context beside a question of 2"),
        (5, 1, "--seq_length 5 is too short for a question of 2 tokens"),
    ],
)
def test_windows_that_are_refused(tokenizer, length, stride, said):
    with pytest.raises(UserError, match=said):
        answer_windows(split(("the film", CONTEXT, [])), tokenizer, length, stride, 8)


def test_a_stride_that_no_window_has_room_for_is_refused_whatever_the_contexts(tokenizer):
    short = split(("the", "film", []))
    with pytest.raises(UserError, match=r"--doc_stride 5: .* give at most --doc_stride 4, or a higher --seq_length than 8"):
        WindowForm(5, 8).encode(short, tokenizer, 8)
    assert len(answer_windows(short, tokenizer, 8, 4, 8).records) == 1


def test_a_context_is_split_once_for_all_its_questions(tokenizer, monkeypatch):
    calls, spans = [], Tokenizer.ids_and_spans
    monkeypatch.setattr(Tokenizer, "ids_and_spans", lambda self, text: calls.append(text) or spans(self, text))
    answer_windows(split(("the", CONTEXT, []), ("film", CONTEXT, []), ("a", "good", [])), tokenizer, 13, 3, 8)
    assert calls == [CONTEXT, "good"]


def test_records_that_are_not_those_of_the_questions(tokenizer):
    text = split(("the film", CONTEXT, [at("actors")]), ("a", CONTEXT, []))
    records = answer_windows(text, tokenizer, 13, 3, 8).records
    assert windows_of(records).questions == 2
    assert windows_of(records).without_answer.tolist() == windows_of(records, text).without_answer.tolist() == [1]
    for wrong, words in (
        (records.select(slice(1, 3)), text),
        (records.select(np.array([0, len(records) - 1, 1])), None),
        (records, text.first(1)),
    ):
        with pytest.raises(UserError, match="not those of the questions; write the records again with --resave_ofrecord"):
            windows_of(wrong, words)


def test_batches_get_the_places(tokenizer):
    found = answer_windows(split(("the film", CONTEXT, [at("actors")])), tokenizer, 13, 3, 8)
    (batch,) = with_answers([{"idxs": np.array([1, 0, 1])}], found)
    assert batch["start"].tolist() == found.start[[1, 0, 1]].tolist()
    assert batch["end"].tolist() == found.end[[1, 0, 1]].tolist()


def test_a_part_of_the_windows_keeps_its_row_numbers(tokenizer):
    """A message about a step then names the windows of the file."""
    text = split(("the film", CONTEXT, [at("actors")]), ("it", CONTEXT, [at("bad")]), ("the film", CONTEXT, [at("film")]))
    whole = answer_windows(text, tokenizer, 13, 3, 8)
    rows = np.flatnonzero(whole.question != 1)
    part = whole.select(rows)
    assert (part.questions, part.records.idxs.tolist()) == (2, rows.tolist())
    assert part.text.ids == [text.ids[0], text.ids[2]]
    chosen = rows[[-1, 0]]
    (batch,) = with_answers([{"idxs": chosen}], part)
    assert batch["start"].tolist() == whole.start[chosen].tolist()
    assert batch["end"].tolist() == whole.end[chosen].tolist()
