"""The search against all texts of a tiny vocabulary, and its rules by hand."""

import itertools

import numpy as np
import pytest

from modeling.palm.beam_search import Search, beam_search
from ofrecord_util.errors import UserError

V, START, END = 4, 1, 3


class Model:
    """Log-probabilities that depend on the source and on all tokens before. Rows that are not used get NaN."""

    def __init__(self, seeds, beam):
        self._seeds, self._beam = seeds, beam
        self.texts = None

    def log_probs(self, source, text):
        scores = np.random.default_rng([self._seeds[source], *text, 99]).normal(size=V) * 2
        return scores - np.log(np.exp(scores).sum())

    def __call__(self, tokens, parents, number):
        before = [()] * len(tokens) if number == 0 else [self.texts[parent] for parent in parents]
        self.texts = [(*text, token) for text, token in zip(before, tokens.tolist())]
        assert all(len(text) == number + 1 and text[0] == START for text in self.texts)
        assert (parents // self._beam == np.arange(len(tokens)) // self._beam).all()
        return np.stack([self.log_probs(row // self._beam, text) for row, text in enumerate(self.texts)])


def exhaustive(model, source, search):
    """(tokens, score) of the best of all texts."""
    found = []
    for length in range(1, search.max_length + 1):
        for text in itertools.product(range(V), repeat=length):
            if END in text[:-1] or (text[-1] != END and length < search.max_length):
                continue
            if text[-1] == END and length <= search.min_length:
                continue
            total = sum(model.log_probs(source, (START, *text[:place]))[token] for place, token in enumerate(text))
            own = list(text[:-1]) if text[-1] == END else list(text)
            found.append((search.score(total, length), own))
    return max(found)[::-1]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize(("min_length", "max_length"), [(0, 4), (2, 4), (0, 1), (3, 4)])
def test_a_wide_beam_finds_the_best_of_all_texts(alpha, min_length, max_length):
    search = Search(V**max_length, alpha, min_length, max_length)
    model = Model([5, 6, 7], search.beam)
    found = beam_search(model, 3, START, END, search)
    for source, hypothesis in enumerate(found):
        tokens, score = exhaustive(model, source, search)
        assert hypothesis.tokens == tokens
        assert hypothesis.score == pytest.approx(score)


@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_is_greedy(seed):
    model, text = Model([seed], 1), [START]
    (found,) = beam_search(model, 1, START, END, Search(1, 0.6, 0, 6))
    while len(text) < 7 and text[-1] != END:
        text.append(int(model.log_probs(0, tuple(text)).argmax()))
    assert found.ended == (text[-1] == END)
    assert found.tokens == text[1:-1] if found.ended else text[1:]


def test_other_sources_change_nothing():
    """Some of them end earlier than others."""
    search = Search(3, 0.6, 0, 7)
    together = beam_search(Model(list(range(8)), 3), 8, START, END, search)
    alone = [beam_search(Model([seed], 3), 1, START, END, search)[0] for seed in range(8)]
    assert together == alone
    assert len({len(hypothesis.tokens) for hypothesis in alone}) > 1


def test_values_of_unused_rows_are_not_read():
    """At first each source has one hypothesis."""
    model = Model([3, 4], 3)

    def step(tokens, parents, number):
        found = model(tokens, parents, number)
        if number == 0:
            found[[1, 2, 4, 5]] = np.nan
        return found

    search = Search(3, 0.6, 0, 5)
    assert beam_search(step, 2, START, END, search) == beam_search(Model([3, 4], 3), 2, START, END, search)


def test_a_text_without_an_end():
    def step(tokens, parents, number):
        return np.log(np.array([[0.6, 0.3, 0.1 - 1e-9, 1e-9]] * len(tokens)))

    (found,) = beam_search(step, 1, START, END, Search(2, 0.0, 0, 3))
    assert found.tokens == [0, 0, 0]
    assert not found.ended
    assert found.score == pytest.approx(3 * np.log(0.6))


def test_lengths_that_contradict_each_other():
    with pytest.raises(UserError, match="--min_length 3: must be below --max_length 3"):
        beam_search(None, 1, START, END, Search(2, 0.0, 3, 3))
