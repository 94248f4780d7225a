"""modeling/run/meta_tasks.py: which rows of which domain a task has."""

import collections
from types import SimpleNamespace

import numpy as np
import pytest

from modeling.run.meta_tasks import TaskSampler, choose_domains
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task

TASK = Task("t", ("a", "b", "c"), ("x", "y"))
DRAW = np.random.RandomState(3)
SAMPLES = SimpleNamespace(domain=np.repeat([2, 0, 1], [13, 17, 9]), label=DRAW.randint(0, 2, 39))


def sampler(support=5, query=3, balanced=False, seed=7):
    return TaskSampler(SAMPLES, TASK, support, query, balanced, seed, "train.csv")


def test_a_task_has_rows_of_one_domain():
    """Support and query are disjoint, of one domain, and no row of another domain is in them."""
    counts = collections.Counter()
    for step in range(40):
        for number in range(3):
            task = sampler().training_task([0, 2], step, number)
            rows = np.concatenate([task.support, task.query])
            assert (len(task.support), len(task.query), len(set(rows.tolist()))) == (5, 3, 8)
            assert set(SAMPLES.domain[rows].tolist()) == {task.domain}
            counts[task.domain] += 1
    assert set(counts) == {0, 2}
    assert 40 < counts[0] < 80  # by domain, not by rows


def test_tasks_follow_from_seed_and_step():
    def drawn(seed, step, number):
        task = sampler(seed=seed).training_task([0, 1, 2], step, number)
        return (task.domain, task.support.tolist(), task.query.tolist(), task.order_seed)

    assert drawn(7, 3, 1) == drawn(7, 3, 1)
    assert len({str(drawn(*words)) for words in ((7, 3, 1), (7, 3, 2), (7, 4, 1), (8, 3, 1))}) == 4


def test_balanced_support():
    for step in range(9):
        task = sampler(6, 2, balanced=True).training_task([0], step, 0)
        assert np.bincount(SAMPLES.label[task.support]).tolist() == [3, 3]
        assert not set(task.support.tolist()) & set(task.query.tolist())


def test_the_task_of_an_evaluation():
    task = sampler().evaluation_task(1)
    assert set(SAMPLES.domain[task.support].tolist()) == {1}
    assert (len(task.support), len(task.query)) == (5, 0)
    assert task.support.tolist() == sampler().evaluation_task(1, 0).support.tolist()
    supports = [sampler().evaluation_task(1, number).support.tolist() for number in range(4)]
    assert len(set(map(tuple, supports))) == 4


def test_too_few_rows():
    sampler().check([0, 1, 2], 3)
    lacks_b = SimpleNamespace(domain=np.where(SAMPLES.domain == 1, 0, SAMPLES.domain), label=SAMPLES.label)
    few, held_out, none = "give smaller numbers", "name it in --held_out_domains", "leave the domain out of --domains"
    both = r"\(--support_num, --query_num\)"
    for samples, support, query, said in (
        (SAMPLES, 7, 3, f"has 9 rows, but a task needs 10 of it {both}: {few}, or {held_out}, or add rows$"),
        (SAMPLES, 10, 3, f"has 9 rows, but a task needs 13 of it {both}: {few}, or add rows$"),
        (SAMPLES, 10, 0, rf"has 9 rows, but a task needs 10 of it \(--support_num\): {few}, or add rows$"),
        (lacks_b, 7, 3, f"has 0 rows, but a task needs 10 of it {both}: add rows, or {none}$"),
    ):
        with pytest.raises(UserError, match=f"^train.csv: domain b {said}"):
            TaskSampler(samples, TASK, support, query, False, 7, "train.csv").check([0, 1, 2], query)
    sampler(7, 3).check([0, 1, 2], 0)
    with pytest.raises(UserError, match=r"--support_num 5: .* divisible by the 2 labels"):
        sampler(balanced=True)
    one_row = SimpleNamespace(domain=np.where(np.arange(len(SAMPLES.domain)) == 0, 0, 1), label=SAMPLES.label)
    for support, query in ((4, 0), (2, 1)):  # a balanced support has two rows at least
        said = rf"^train\.csv: domain a has 1 row, but a task needs {support + query} of it .*: add rows$"
        with pytest.raises(UserError, match=said):
            TaskSampler(one_row, TASK, support, query, True, 7, "train.csv").check([0, 1], query)
    one_sided = SimpleNamespace(domain=SAMPLES.domain, label=np.where(SAMPLES.domain == 1, 0, SAMPLES.label))
    with pytest.raises(UserError, match=r"^train\.csv: domain b has 0 rows of label y, but --class_balanced needs 2: add rows$"):
        TaskSampler(one_sided, TASK, 4, 0, True, 7, "train.csv").check([0, 1], 0)


def test_domains():
    def chosen(held_out=None, validation=None):
        return choose_domains(SimpleNamespace(held_out_domains=held_out, validation_domains=validation), TASK)

    assert chosen() == ([0, 1, 2], [0, 1, 2], [])
    assert chosen(["b"]) == ([0, 2], [0, 2], [1])
    assert chosen(["b"], ["c"]) == ([0], [2], [1])
    assert chosen(None, ["c"]) == ([0, 1], [2], [])
    refused = ((["d"], None, "'d' is none of"), (["a"], ["a"], "in both"), (["a", "b"], ["c"], "no domain is left"))
    for held_out, validation, said in refused:
        with pytest.raises(UserError, match=said):
            chosen(held_out, validation)
