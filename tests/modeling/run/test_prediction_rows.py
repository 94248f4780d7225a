"""modeling/run/prediction_rows.py: the shapes of a prediction's graphs."""

import dataclasses

import numpy as np
import pytest

from modeling.bert.config import BertConfig
from modeling.engine import parallel
from modeling.run.prediction_rows import can_pack, plan_rows, rows_at_once, token_bytes, tokens_at_once
from ofrecord_util.packing import fill

MINILM, BASE = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536), BertConfig()
LARGE = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


@pytest.mark.parametrize("config", [MINILM, BASE, LARGE])
@pytest.mark.parametrize("length", [64, 128, 512])
def test_a_graph_stays_small(config, length):
    tokens = tokens_at_once(config, length)
    assert 128 <= tokens <= 1024
    assert tokens * token_bytes(config, length) < min(max(4e8, 10 * config.dense_weights), 1.3e9)
    rows = rows_at_once(config, length, 2)
    assert rows % 2 == 0
    assert rows == 2 or abs(rows * length - tokens) <= length


@pytest.mark.parametrize("lengths", [[27] * 500, [3], [128] * 9, [128, 3, 3], list(range(3, 128)) * 4])
@pytest.mark.parametrize("longest", [None, 128, 512])
def test_every_text_has_room(lengths, longest):
    shapes = plan_rows(lengths, MINILM, 2, longest)
    assert 1 <= len(shapes) <= 2
    ends = [shape.length for shape in shapes]
    assert ends == sorted(ends)
    assert ends[-1] >= max(lengths)
    assert all(shape.number % 2 == 0 and shape.most >= 1 for shape in shapes)


def test_short_texts_fill_their_rows():
    lengths = np.random.RandomState(5).randint(5, 50, 3000)
    (shape,) = plan_rows(lengths, MINILM, 2, 128)
    rows = fill(lengths, shape.length, shape.most).max() + 1
    assert lengths.sum() > 0.97 * rows * shape.length


def test_a_few_long_texts_get_rows_of_their_own():
    lengths = [20] * 20_000 + [500] * 20
    short, long = plan_rows(lengths, MINILM, 2)
    assert short.length < 128
    assert long.length >= 500
    assert len(plan_rows([20] * 20 + [500] * 20, MINILM, 2)) == 1


def test_few_texts_need_few_rows():
    (shape,) = plan_rows([20] * 5, MINILM, 2)
    assert shape.number * shape.length < 5 * 64
    (shape,) = plan_rows([20] * 5, MINILM, 2, longest=128)  # more may follow
    assert shape.number == rows_at_once(MINILM, shape.length, 2)


def test_who_may_share_rows(monkeypatch):
    assert can_pack(MINILM, "cpu")
    assert not can_pack(MINILM, "cuda")
    assert not can_pack(dataclasses.replace(MINILM, pooling="max"), "cpu")
    monkeypatch.setattr(parallel, "size", lambda: 2)
    assert not can_pack(MINILM, "cpu")
