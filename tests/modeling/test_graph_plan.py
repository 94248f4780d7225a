"""modeling/graph_plan.py: the sizes and lengths of batches."""

from types import SimpleNamespace

import numpy as np
import pytest

from modeling import graph_plan, lanes, parallel
from modeling.config import BertConfig
from modeling.graph_plan import EvaluationBatches, GraphPlan, evaluation_batch_size
from ofrecord_util.reader import Records

MINILM = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
FLAGS = dict(batch_size_per_device=4, gradient_accumulation_steps=1, num_epochs=63, seed=1, dev_every_step_num=100)


def records(lengths, seq_length=128):
    mask = (np.arange(seq_length)[None] < np.asarray(lengths)[:, None]).astype(np.int32)
    column = np.zeros(len(lengths), np.int32)
    return Records(mask, mask, 0 * mask, column, column, np.arange(len(lengths), dtype=np.int32), column.astype(np.float32))


def plan(device="cpu", **flags):
    return GraphPlan(SimpleNamespace(**dict(FLAGS, **flags)), MINILM, device)


@pytest.mark.parametrize(
    ("wanted", "length", "device", "ranks", "size"),
    [
        (2, 128, "cpu", 1, 4),
        (1, 40, "cpu", 1, 12),
        (48, 128, "cpu", 1, 48),
        (2, 512, "cpu", 1, 2),
        (2, 128, "cuda", 1, 2),
        (2, 128, "cpu", 2, 2),
    ],
)
def test_a_cpu_takes_short_texts_together(monkeypatch, wanted, length, device, ranks, size):
    monkeypatch.setattr(parallel, "size", lambda: ranks)
    assert evaluation_batch_size(wanted, length, device) == size


SPLIT = records([9] * 40 + [64] * 16)


def test_a_split_that_is_evaluated_often_is_worth_another_graph():
    assert plan().evaluation(SPLIT, 2) == EvaluationBatches(8, (64,))
    often = plan()
    assert often.evaluation(SPLIT, 2, records([9] * 960)) == EvaluationBatches(8, (16, 64))
    assert often.graphs == [(False, 8, 16), (False, 8, 64)]
    assert plan(dev_every_step_num=10**6).evaluation(SPLIT, 2, records([9] * 960)).lengths == (64,)


def test_more_lanes_make_graphs_dearer(monkeypatch):
    often = [plan().evaluation(SPLIT, 2, records([9] * number)).lengths for number in (4, 960)]
    monkeypatch.setattr(lanes, "count", lambda: 400)
    assert often == [(64,), (16, 64)] and plan().evaluation(SPLIT, 2, records([9] * 960)).lengths == (64,)


def test_no_batch_is_larger_than_its_split():
    assert plan().evaluation(records([9, 9, 9]), 2).size == 3
    assert plan().evaluation(records([9]), 2).size == 2


def test_one_length_where_it_is_asked_for():
    asked = plan(pad_to_max_length=True)
    assert asked.evaluation(SPLIT, 2) == EvaluationBatches(4, (128,)) and asked.training_lengths(SPLIT, 4) == (128,)
    assert graph_plan.train_batch_size(SimpleNamespace(batch_size_per_device=3, gradient_accumulation_steps=5)) == 15
