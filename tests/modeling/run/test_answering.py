"""modeling/run/answering.py: the best spans against a search over all of them, and the best answers of a question."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.run import answering
from modeling.run.answering import best_spans, find_answers, load_questions
from modeling.run.measures import log_softmax
from ofrecord_util.answer_windows import WindowForm, windows_of
from ofrecord_util.errors import UserError
from ofrecord_util.question_text import Answer, QuestionSplit
from ofrecord_util.tasks import Task
from ofrecord_util.tokenization import Tokenizer

CONTEXT = "the good film and the bad film"


@pytest.mark.parametrize(("count", "most", "longest"), [(7, 4, 3), (7, 100, 100), (1, 3, 2), (0, 3, 2)])
def test_best_spans(count, most, longest):
    start, end = np.random.RandomState(count).randn(2, count).astype(np.float32)
    every = [(float(start[i]) + float(end[j]), i, j) for i in range(count) for j in range(i, min(count, i + longest))]
    assert best_spans(start, end, most, longest) == sorted(every, key=lambda span: (-span[0], span[1:]))[:most]


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    tokenizer = Tokenizer(tiny.write_vocabulary(str(tmp_path_factory.mktemp("answers") / "vocab.txt")))
    text = QuestionSplit(
        "f", ["it", "a"], [CONTEXT, "run"], np.zeros(2, np.int32), np.zeros(2, np.int32), "0f", ids=["x", "y"],
        answers=[(Answer("bad film", 22),), ()],
    )  # fmt: skip
    return windows_of(WindowForm(2, 4).encode(text, tokenizer, 8)[0], text)


def logits_of(windows, best, seed=1):
    """Logits of all windows, in which some spans of the first question have these scores.

    Args:
        best: dict of (first token, last token) -> score.
    """
    logits = np.random.RandomState(seed).randn(*windows.records.input_ids.shape, 2).astype(np.float32) * 0.01
    for window in range(len(windows.question)):
        for (first, last), score in best.items():
            place = windows.first[window] - windows.skipped[window]
            inside = windows.skipped[window] <= first and last < windows.skipped[window] + windows.count[window]
            if inside and windows.question[window] == 0:
                logits[window, first + place, 0] += score / 2
                logits[window, last + place, 1] += score / 2
    return logits


def test_the_answers_of_several_windows(windows):
    assert np.bincount(windows.question).tolist() == [3, 1]
    logits = logits_of(windows, {(1, 2): 6.0, (5, 6): 8.0})
    order = np.array([2, 0, 3, 1])
    outputs = [(order[:3], logits[order[:3]]), (order[3:], logits[order[3:]])]
    found = find_answers(outputs, windows, 5, 3, no_answer=False)
    assert found.answers() == ["bad film", "run"]
    assert found.nbest[0][0]["text"] == "bad film"
    assert "good film" in [each["text"] for each in found.nbest[0]]
    assert len(found.nbest[0]) == 5
    assert len({(each["start"], each["end"]) for each in found.nbest[0]}) == 5  # a span of several windows counts once
    scores = np.array([each["score"] for each in found.nbest[0]])
    assert (np.diff(scores) <= 0).all()
    shares = np.exp(scores) / np.exp(scores).sum()
    assert [each["probability"] for each in found.nbest[0]] == pytest.approx(shares.tolist())
    for each in found.nbest[0]:
        assert CONTEXT[each["start"] : each["end"]] == each["text"]
    for window in range(4):
        logs = log_softmax(logits[window, : windows.records.lengths[window]].T)
        assert found.losses[window] == pytest.approx(-(logs[0, windows.start[window]] + logs[1, windows.end[window]]) / 2)


def test_questions_without_an_answer(windows):
    logits = logits_of(windows, {(5, 6): 8.0})
    logits[:, 0] = 9.0
    logits[0, 0] = 2.0  # the lowest of the question's windows counts: 4 for the first question, 18 for the second
    found = find_answers([(np.arange(4), logits)], windows, 20, 3, no_answer=True)
    assert found.answers() == ["bad film", ""]
    assert "" in [each["text"] for each in found.nbest[0]]
    assert find_answers([(np.arange(4), logits)], windows, 3, 3, no_answer=False).answers() == ["bad film", "run"]


def test_long_answers_are_not_found(windows):
    logits = logits_of(windows, {(1, 3): 9.0, (5, 6): 1.0})
    found = find_answers([(np.arange(4), logits)], windows, 9, 2, no_answer=False)
    assert all(len(each["text"].split()) <= 2 for each in found.nbest[0])


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (1, "question 'q0' has no answer: give --no_answer, with which the model learns to leave questions open, or remove it"),
        (
            2,
            "question 'q0' and 1 other have no answer: give --no_answer, with which the model learns to leave questions open, or remove t",
        ),
        (4, "question 'q0' and 3 others have no answer"),
    ],
)
def test_questions_without_an_answer_are_refused(tmp_path, monkeypatch, without, said):
    tokenizer, task = Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt"))), Task("t", ("d",), ("end", "start"), True)
    count = 5
    zeros = np.zeros(count, np.int32)
    answers = [() if number < without else (Answer("good", 4),) for number in range(count)]
    names = [f"q{number}" for number in range(count)]
    text = QuestionSplit("f.json", ["good"] * count, [CONTEXT] * count, zeros, zeros, "digest", ids=names, answers=answers)
    records, _ = WindowForm(5, 5).encode(text, tokenizer, 19)
    monkeypatch.setattr(answering, "read_split", lambda *_: (records, text))
    splits = SimpleNamespace(held_out=[])
    context = SimpleNamespace(task=task, tokenizer=tokenizer, flags=SimpleNamespace(no_answer=False), splits=splits)
    with pytest.raises(UserError) as error:
        load_questions(context, "train")
    assert str(error.value).startswith(f"f.json: {said}")


def test_a_question_of_records_has_its_number_in_the_split(tmp_path, monkeypatch):
    """Also if questions before it are of held-out domains."""
    tokenizer, task = Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt"))), Task("t", ("d", "e"), ("end", "start"), True)
    domain, answers = np.array([1, 0, 1, 0], np.int32), [(Answer("good", 4),)] * 3 + [()]
    text = QuestionSplit("f.json", ["it"] * 4, [CONTEXT] * 4, domain, domain * 0, "digest", ids=list("abcd"), answers=answers)
    records, _ = WindowForm(2, 5).encode(text, tokenizer, 9)
    monkeypatch.setattr(answering, "read_split", lambda *_: (dataclasses.replace(records, path="folder"), None))
    splits = SimpleNamespace(held_out=[1], trained_rows=lambda domains: np.flatnonzero(domains == 0))
    context = SimpleNamespace(task=task, tokenizer=tokenizer, flags=SimpleNamespace(no_answer=False), splits=splits)
    with pytest.raises(UserError, match=r"^folder: question 4 has no answer: "):
        load_questions(context, "train")
