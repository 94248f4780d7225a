"""modeling/run/metric_draws.py: which texts are compared."""

import collections
import itertools

import numpy as np
import pytest

from modeling.run import metric_draws
from modeling.run.metric_draws import EpisodeSampler, PairSampler
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task

TASK = Task("t", ("a", "b", "c"), ("x", "y", "z"))
DRAW = np.random.RandomState(3)
DOMAIN = np.repeat([2, 0, 1], [13, 17, 9])
LABEL = DRAW.randint(0, 3, 39)


def all_pairs(within):
    """(pairs of equal labels, pairs of others), sets of frozensets of two rows."""
    found = set(), set()
    for one, other in itertools.combinations(range(len(LABEL)), 2):
        if not within or DOMAIN[one] == DOMAIN[other]:
            found[int(LABEL[one] != LABEL[other])].add(frozenset((one, other)))
    return found


@pytest.mark.parametrize("within", [False, True])
def test_each_pair_once_in_a_pass(within):
    """As many of equal labels as of others, no row with itself, and no pair twice before all have come."""
    sampler = PairSampler(DOMAIN, LABEL, TASK, within, 7, "f")
    equal, other = all_pairs(within)
    assert list(sampler.count.values()) == [len(equal), len(other)]
    for kind, wanted in ((1, equal), (0, other)):
        seen, step = [], 0
        while len(seen) < len(wanted):
            rows, target = sampler.draw(step, 6)
            assert target.tolist() == [1, 0, 1, 0, 1, 0]
            seen += [frozenset(pair) for pair in rows[target == kind].tolist()]
            step += 1
        assert set(seen[: len(wanted)]) == wanted
    rows, target = sampler.draw(400, 10)  # in a later pass
    assert (rows[:, 0] != rows[:, 1]).all()
    assert ((LABEL[rows[:, 0]] == LABEL[rows[:, 1]]) == (target == 1)).all()


def test_a_later_pass_has_another_order():
    sampler = PairSampler(DOMAIN, LABEL, TASK, False, 7, "f")
    count = sampler.count[1]
    first, second = ([sampler._pair(1, turn * count + place) for place in range(9)] for turn in (0, 1))
    assert first != second


def test_pairs_of_many_rows_are_drawn_by_themselves(monkeypatch):
    monkeypatch.setattr(metric_draws, "_MOST_LISTED", 10)
    sampler = PairSampler(DOMAIN, LABEL, TASK, False, 7, "f")
    equal, other = all_pairs(False)
    seen = collections.Counter()
    for step in range(200):
        rows, target = sampler.draw(step, 4)
        for pair, kind in zip(rows.tolist(), target):
            assert frozenset(pair) in (equal if kind else other)
            seen[frozenset(pair)] += 1
    assert len(seen) > 300


@pytest.mark.parametrize("make", [lambda seed: PairSampler(DOMAIN, LABEL, TASK, False, seed, "f"), lambda seed: episodes(seed=seed)])
def test_draws_follow_from_seed_and_step(make):
    def drawn(seed, step):
        return make(seed).draw(step, 4)[0].tolist()

    assert drawn(7, 3) == drawn(7, 3)
    assert len({str(drawn(*words)) for words in ((7, 3), (7, 4), (8, 3))}) == 3
    sampler = make(7)
    sampler.draw(9, 4)
    assert sampler.draw(3, 4)[0].tolist() == drawn(7, 3)  # whatever was drawn before


def episodes(labels=2, support=1, query=2, within=True, seed=7):
    return EpisodeSampler(DOMAIN, LABEL, TASK, labels, support, query, within, seed, "f")


@pytest.mark.parametrize("within", [False, True])
def test_episodes(within):
    """Support and query rows are disjoint; in their order each label has K support and Q query rows; the domain is one, or any."""
    sampler = episodes(within=within)
    domains, labels = collections.Counter(), collections.Counter()
    for step in range(40):
        rows, target = sampler.draw(step, 3)
        assert rows.shape == (3, sampler.texts) == (3, 6)
        assert target.tolist() == [[0, 0, 1, 1]] * 3
        for episode in rows:
            assert len(set(episode.tolist())) == 6
            support, query = LABEL[episode[:2]], LABEL[episode[2:]].reshape(2, 2)
            assert support[0] != support[1]
            assert (query == support[:, None]).all()
            domains[frozenset(DOMAIN[episode].tolist())] += 1
            labels.update(support.tolist())
    assert (max(map(len, domains)) == 1) == within
    assert set(labels) == {0, 1, 2}
    if within:
        assert min(domains.values()) > 20  # domains are equally likely


def test_what_is_refused():
    """The file is named, and numbers are given as the remedy only where smaller ones exist."""
    three, twenty = np.array([0, 0, 1]), (np.repeat([0, 1], [20, 9]), np.arange(29) % 2, TASK)
    few, less = "give smaller numbers, at most {} together, or add rows", "give a smaller --episode_labels, at most {}"

    def of(*counts):
        """Rows of one domain, as many of each label."""
        return np.zeros(sum(counts), int), np.repeat([0, 1, 2], counts), TASK

    for sampler, values, said in (
        (PairSampler, (np.arange(3), three, TASK, True, 1), "no two rows of a domain have the same label"),
        (PairSampler, (np.arange(3), np.arange(3), TASK, False, 1), "no two rows have the same label"),
        (
            PairSampler,
            (np.zeros(3, int), np.ones(3, int), TASK, False, 1),
            "all 3 rows have the label y, .* add rows with others of x, y, z",
        ),
        (PairSampler, (np.repeat([0, 1], 2), np.repeat([0, 1], 2), TASK, True, 1), "the rows of each domain have one label"),
        (EpisodeSampler, (*twenty, 2, 4, 5, True, 1), f"domain b: an episode needs 9 rows of each of 2 labels .*y has 4: {few.format(4)}$"),
        (EpisodeSampler, (*twenty, 3, 1, 1, False, 1), f"an episode needs 2 rows .*z has 0: {less.format(2)}, or add rows$"),
        (EpisodeSampler, (*of(10, 1, 1), None, 5, 5, False, 1), "an episode needs 10 rows of each of 3 labels .*z has 1: add rows$"),
        (EpisodeSampler, (*of(10, 6, 1), 2, 5, 5, False, 1), f"an episode needs 10 rows of each of 2 .*y has 6: {few.format(6)}$"),
        (EpisodeSampler, (*of(2, 9, 10), 3, 4, 5, False, 1), rf".*x has 2: give .* together, or {less.format(2)}, or add rows$"),
        (
            EpisodeSampler,
            (*twenty[:2], Task("t", ("a", "b"), ("x", "y")), 2, 9, 9, False, 1),
            "an episode needs 18 rows of each of 2 .*y has 14: give smaller numbers, at most 14 together, or add rows$",
        ),
    ):
        with pytest.raises(UserError, match=f"^train.csv: {said}"):
            sampler(*values, "train.csv")
    with pytest.raises(UserError, match="--episode_labels 4: an episode has 2 to 3 labels"):
        episodes(labels=4)
