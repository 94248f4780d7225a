"""ofrecord_util/question_text.py: questions of a file, their domains, and what is refused."""

import copy
import json

import pytest

from ofrecord_util.errors import UserError
from ofrecord_util.question_text import Answer, QuestionFolder, read_questions
from ofrecord_util.tasks import Task, resolve_task
from ofrecord_util.text_columns import TextOptions

CONTEXT = "Ann lives in Oslo."
FILE = {
    "version": "x",
    "data": [
        {
            "title": "t",
            "domain": "en",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": "q1", "question": "Where?", "answers": [{"text": "Oslo", "answer_start": 13}]},
                        {
                            "id": "q2",
                            "question": "Who?",
                            "answers": [{"text": "Ann", "answer_start": 0}, {"text": "Ann ", "answer_start": 0}],
                        },
                    ],
                }
            ],
        },
        {
            "domain": "de",
            "paragraphs": [{"context": "Ann.", "qas": [{"id": "q3", "question": "Wo?", "answers": [], "is_impossible": True}]}],
        },
    ],
}
TASK = Task("places", ("de", "en"), ("end", "start"), True)


def folder(tmp_path, value=FILE, only=None, name="train"):
    (tmp_path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return QuestionFolder(str(tmp_path), TextOptions(only_domain=only))


def changed(change):
    """The file after a change of its first question, paragraph and article."""
    value = copy.deepcopy(FILE)
    article = value["data"][0]
    change(article["paragraphs"][0]["qas"][0], article["paragraphs"][0], article)
    return value


def test_questions(tmp_path):
    text = folder(tmp_path)
    task = resolve_task("places", str(tmp_path), folder=text)
    assert task == TASK
    split = text.read("train", task)
    assert split.ids == ["q1", "q2", "q3"]
    assert split.text_a == ["Where?", "Who?", "Wo?"]
    assert split.text_b == [CONTEXT, CONTEXT, "Ann."]
    assert split.domain.tolist() == [1, 1, 0]
    assert split.answers == [(Answer("Oslo", 13),), (Answer("Ann", 0), Answer("Ann ", 0)), ()]
    assert split.first(1).ids == ["q1"]
    assert len(split.first(1)) == 1
    unanswered = read_questions(str(tmp_path / "train.json"), answered=False)
    assert [each.answers for each in unanswered] == [(), (), ()]


def test_a_file_without_domains_has_the_one_of_the_task(tmp_path):
    value = copy.deepcopy(FILE)
    del value["data"][0]["domain"]
    text = folder(tmp_path, value, "en")
    assert text.read("train", TASK).domain.tolist() == [1, 1, 0]
    with pytest.raises(UserError, match="question 'q1' has no domain, and the task has several"):
        folder(tmp_path, value).names("train")


def test_the_digest_names_everything_that_is_read(tmp_path):
    values = [FILE, dict(FILE, version="y")]
    values += [changed(lambda question, _p, _a: question.update(question="Where is she?"))]
    values += [changed(lambda question, _p, _a: question.update(id="q0"))]
    values += [changed(lambda question, _p, _a: question.update(answers=[{"text": "Osl", "answer_start": 13}]))]
    values += [changed(lambda _q, paragraph, _a: paragraph.update(context=CONTEXT + "."))]
    values += [changed(lambda _q, _p, article: article.update(domain="de"))]
    digests = [folder(tmp_path, value).read("train", TASK).digest for value in values]
    assert digests[0] == digests[1]
    assert len(set(digests)) == len(values) - 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[]", "holds list"),
        ("{", "is not JSON"),
        ({"data": []}, "has no question"),
        ({"data": 3}, "'data' is not a list"),
        ({"data": [3]}, "'data' 1 is not an object"),
        (changed(lambda q, p, a: a.pop("paragraphs")), "'data' 1: 'paragraphs' is not a list"),
        (changed(lambda q, p, a: p.update(context=" ")), "'paragraphs' 1: 'context' is ' '"),
        (changed(lambda q, p, a: q.pop("id")), "'qas' 1: a question has no id"),
        (changed(lambda q, p, a: q.update(id="q2")), "question 'q2': there are two questions with this id"),
        (changed(lambda q, p, a: q.update(question=None)), "question 'q1': 'question' is None"),
        (
            changed(lambda q, p, a: q["answers"][0].update(answer_start=12)),
            "the answer 'Oslo' is not at character 12 of its context, which is",
        ),
        (changed(lambda q, p, a: q["answers"][0].update(answer_start=-1)), "'answer_start' is -1"),
        (changed(lambda q, p, a: q["answers"][0].update(answer_start=True)), "'answer_start' is True"),
        (changed(lambda q, p, a: q["answers"][0].update(text="")), "'text' is ''"),
        (changed(lambda q, p, a: a.update(domain=7)), "the domain is 7"),
        *(
            (changed(lambda q, p, a, value=value: q.update(is_impossible=value)), f"question 'q1': 'is_impossible' is {value!r}, not true")
            for value in ("yes", 1, 0, None, [])
        ),
        (changed(lambda q, p, a: a.update(domain="fr")), "question 'q1': domain 'fr' is not one of task"),
    ],
)
def test_bad_files(tmp_path, value, said):
    with pytest.raises(UserError) as error:
        folder(tmp_path, value).read("train", TASK)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "train.json" in str(error.value)
