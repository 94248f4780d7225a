"""modeling/run/answer_measures.py: the rules of SQuAD's official script, by hand."""

import pytest

from modeling.run.answer_measures import best_of, exact_match, f1, normalized


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("The  Cat,", ["cat"]),
        ("an apple a day", ["apple", "day"]),
        ("theatre", ["theatre"]),  # an article is a whole word
        ("U.S.A.", ["usa"]),  # punctuation goes without a blank in its place
        ("mother-in-law", ["motherinlaw"]),
        ("the-end", ["theend"]),  # punctuation goes before the articles
        ("x\u00a0y\nz", ["x", "y", "z"]),
        ("“Straße”", ["“straße”"]),  # ASCII punctuation only
        ("A!", []),
        ("  ", []),
    ],
)
def test_normalisation(answer, words):
    assert normalized(answer) == words


@pytest.mark.parametrize(
    ("predicted", "true", "exact", "share"),
    [
        ("the Oslo", "Oslo!", 1, 1),
        ("Oslo", "Bergen", 0, 0),
        ("in Oslo", "Oslo", 0, 2 * 0.5 * 1 / 1.5),
        ("new york new york", "new york", 0, 2 * 0.5 * 1 / 1.5),  # a word counts as often as in both
        ("york new", "new york", 0, 1),  # the order does not count
        ("big red dog", "a red cat", 0, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("", "Oslo", 0, 0),
        ("the", "a", 1, 0),  # nothing is left of either: as the script says
    ],
)
def test_measures(predicted, true, exact, share):
    assert exact_match(predicted, true) == exact
    assert f1(predicted, true) == pytest.approx(share)
    assert f1(true, predicted) == pytest.approx(share)


def test_the_best_of_several_answers():
    assert best_of(f1, "in Oslo", ["Bergen", "Oslo", "in Oslo city"]) == pytest.approx(0.8)
    assert best_of(exact_match, "in Oslo", ["Oslo", "in oslo."]) == 1
    assert best_of(f1, "", []) == best_of(exact_match, "the", []) == 1
    assert best_of(f1, "Oslo", []) == best_of(exact_match, "Oslo", []) == 0
