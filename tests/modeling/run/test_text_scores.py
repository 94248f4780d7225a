"""BLEU and ROUGE-L against the values of SOFA's evaluation, and by hand."""

import math

import pytest

from modeling.run.text_scores import bleu, longest_common, rouge_l, text_scores

HYPOTHESES, REFERENCES = ["今天天气很好", "北京是首都"], ["今天天气不错", "北京是中国的首都"]


def test_golden_values():
    found = text_scores(HYPOTHESES, REFERENCES)
    wanted = {"bleu_1": 0.622882, "bleu_2": 0.562258, "bleu_3": 0.468975, "bleu_4": 0.354005, "rouge_l": 0.702583}
    assert found == pytest.approx(wanted, abs=6e-7)
    assert text_scores([" ".join(text) for text in HYPOTHESES], REFERENCES) == found


def test_words():
    found = text_scores(["a b c x"], ["a b c d e"], "words")
    penalty = math.exp(1 - 5 / 4)
    assert found["bleu_1"] == pytest.approx(penalty * 3 / 4)
    assert found["bleu_2"] == pytest.approx(penalty * math.sqrt(3 / 4 * 2 / 3))
    assert found["bleu_4"] == 0


def test_equal_and_empty_texts():
    assert text_scores(["abcd"], ["abcd"]) == pytest.approx(dict.fromkeys(text_scores(["x"], ["y"]), 1.0))
    assert set(text_scores([""], ["abcd"]).values()) == {0.0}


def test_matches_are_clipped():
    assert bleu(["aaaa"], ["ab"])[0] == pytest.approx(1 / 4)


def test_no_penalty_for_longer_texts():
    assert bleu(["abcx"], ["abc"])[0] == pytest.approx(3 / 4)


@pytest.mark.parametrize(("one", "other", "length"), [("abcde", "ace", 3), ("ab", "ba", 1), ("", "a", 0), ("xaybzc", "abc", 3)])
def test_longest_common_subsequence(one, other, length):
    assert longest_common(one, other) == longest_common(other, one) == length


def test_rouge_is_a_mean_over_rows():
    assert rouge_l(["ab", "x"], ["ab", "y"]) == pytest.approx(0.5)
