"""modeling/bert/dropout.py: the masks' statistics, that they follow from seed and step alone, and where they stand in the graph."""

import dataclasses
import math

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, gradients

from modeling.bert.dropout import DropoutPlan, with_dropout

RATE, OTHER_RATE, STEPS = 0.3, 0.1, 3
BATCH, LENGTH = 7, 13
WITH_RATE = dataclasses.replace(CONFIG, hidden_dropout_prob=RATE, attention_probs_dropout_prob=OTHER_RATE)


def drawn(seed):
    """For each of STEPS steps the masks by name."""
    plan = DropoutPlan(WITH_RATE, seed, "cpu")
    return [plan.masks(step, BATCH, LENGTH) for step in range(STEPS)]


@pytest.fixture(scope="module")
def masks():
    return drawn(seed=42)


def test_layers_of_the_graph(masks):
    heads, width = CONFIG.num_attention_heads, CONFIG.hidden_size
    hidden, attention = (BATCH * LENGTH, width), (BATCH, heads, LENGTH, LENGTH)
    expected = [hidden] + [attention, hidden, hidden] * CONFIG.num_hidden_layers + [(BATCH, width)]
    assert [mask.shape for mask in masks[0].values()] == expected
    assert all(mask.dtype == np.float32 for mask in masks[0].values())


@pytest.mark.parametrize("parts", [1, 7])
def test_layers_of_a_generator_come_first(parts):
    """Its embeddings are those of the model, and it has no pooled representation."""
    small = dataclasses.replace(WITH_RATE, hidden_size=6, num_attention_heads=2, num_hidden_layers=1)
    plan = DropoutPlan(WITH_RATE, 42, "cpu", parts, generator=small)
    found = [mask.shape for mask in plan.masks(0, BATCH, LENGTH).values()]
    width = CONFIG.hidden_size
    assert found[:4] == [(BATCH * LENGTH, width), (BATCH, 2, LENGTH, LENGTH), (BATCH * LENGTH, 6), (BATCH * LENGTH, 6)]
    alone = DropoutPlan(WITH_RATE, 42, "cpu", parts).masks(0, BATCH, LENGTH)
    assert found[4:] == [mask.shape for mask in alone.values()]


def test_share_kept_and_mean(masks):
    for rate, count in ((RATE, 2 * CONFIG.num_hidden_layers + 2), (OTHER_RATE, CONFIG.num_hidden_layers)):
        layers = [mask for step in masks for mask in step.values() if (mask.ndim == 4) == (rate == OTHER_RATE)]
        assert len(layers) == STEPS * count
        for mask in layers:
            kept = mask > 0
            np.testing.assert_allclose(mask[kept], 1 / (1 - rate), rtol=1e-6)
            assert (mask[~kept] == 0).all()
            assert abs(kept.mean() - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / kept.size)
        flat = np.concatenate([mask.reshape(-1) > 0 for mask in layers])
        lanes = flat[: len(flat) // 4 * 4].reshape(-1, 4)  # the four numbers of a raw word
        assert np.abs(lanes.mean(axis=0) - (1 - rate)).max() < 5 * math.sqrt(rate * (1 - rate) / len(lanes))
        together = (lanes[:, :1] == lanes[:, 1:]).mean(axis=0)  # independent of each other: p^2 + (1 - p)^2
        assert np.abs(together - rate**2 - (1 - rate) ** 2).max() < 5 * 0.5 / math.sqrt(len(lanes))


def test_masks_differ_between_layers_and_steps(masks):
    """Two independent masks of rate p agree at a loss_mask of p^2 + (1 - p)^2."""
    layers = [mask > 0 for step in masks for mask in step.values() if mask.shape == (BATCH * LENGTH, CONFIG.hidden_size)]
    expected = RATE**2 + (1 - RATE) ** 2
    for i, one in enumerate(layers):
        for other in layers[:i]:
            assert abs((one == other).mean() - expected) < 5 * 0.5 / math.sqrt(one.size)


def test_masks_follow_from_seed_and_step(masks):
    again, plan = drawn(seed=42), DropoutPlan(WITH_RATE, 42, "cpu")
    batches = [{"word_rows": np.zeros((BATCH, LENGTH), np.int32), "loss_mask": np.ones(BATCH, np.float32)}] * 2
    continued = list(with_dropout(batches, plan, start_step=1))
    for name, mask in masks[2].items():
        np.testing.assert_array_equal(again[2][name], mask)
        np.testing.assert_array_equal(continued[1][name], mask)
        assert (continued[0][name] != mask).any()
        assert (drawn(seed=43)[2][name] != mask).any()


def test_gradient_has_the_mask_of_the_forward_pass():
    draw = np.random.RandomState(5)
    x, weight = (draw.randn(BATCH * LENGTH, CONFIG.hidden_size).astype(np.float32) for _ in range(2))
    plan = DropoutPlan(WITH_RATE, 7, "cpu")

    def loss(variables, weight, **masks):
        dropped = KERNELS["cpu"].dropout(variables.get("x"), plan.take(masks).hidden())
        return (dropped * weight).sum(), dropped

    (_, dropped), found = gradients(loss, {"x": x}, {"weight": weight, **plan.masks(0, BATCH, LENGTH)})
    kept = dropped != 0
    assert 0.6 < kept.mean() < 0.8
    np.testing.assert_allclose(found["x"], np.where(kept, weight / (1 - RATE), 0), rtol=0, atol=2e-6)


def test_rate_zero_is_no_layer():
    none = DropoutPlan(NO_DROPOUT, 1, "cpu")
    assert none.masks(0, BATCH, LENGTH) == {}
    assert none.take({}).hidden() is None
    assert none.take({}).attention() is None
    plan = DropoutPlan(dataclasses.replace(WITH_RATE, attention_probs_dropout_prob=0.0), 1, "cpu")
    masks = plan.masks(0, BATCH, LENGTH)
    assert len(masks) == 2 * CONFIG.num_hidden_layers + 2
    dropout = plan.take(masks)
    assert dropout.attention() is None
    assert dropout.hidden().shape == (BATCH * LENGTH, CONFIG.hidden_size)
    assert masks == {}


def test_arrays_are_used_again_at_the_fourth_step():
    """Until then a step's masks hold: a graph may still read them."""
    plan = DropoutPlan(WITH_RATE, 42, "cpu")
    first = plan.masks(0, BATCH, LENGTH)
    copies = {name: mask.copy() for name, mask in first.items()}
    kept = sum(mask.size for step in range(1, 4) for mask in plan.masks(step, BATCH, LENGTH).values())
    assert all(np.array_equal(first[name], copies[name]) for name in copies)
    assert kept + sum(mask.size for mask in first.values()) == plan.kept_numbers(BATCH, LENGTH)
    again = plan.masks(4, BATCH, LENGTH)
    assert all(again[name] is first[name] and not np.array_equal(first[name], copies[name]) for name in copies)


@pytest.mark.parametrize(("rows", "length", "texts"), [(6, 13, None), (12, 5, 24), (6, 150, None)])
@pytest.mark.parametrize("parts", [2, 3])
def test_masks_in_parts_are_the_masks_of_the_whole_batch(rows, length, texts, parts):
    """The number of values before a part is often no multiple of the four in a raw word, and some masks are sampled in several pieces."""
    whole = DropoutPlan(WITH_RATE, 42, "cpu").masks(5, rows, length, texts)
    in_parts = DropoutPlan(WITH_RATE, 42, "cpu", parts).masks(5, rows, length, texts)
    assert list(in_parts) == list(whole)
    for name, mask in whole.items():
        size = len(mask) // parts
        found = [in_parts[name][start : start + size].copy() for start in range(0, len(mask), size)]
        assert in_parts[name].shape == mask.shape
        assert {part.dtype for part in found} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(np.concatenate(found), mask)


def test_masks_in_parts_take_the_memory_of_a_few_parts():
    plan = DropoutPlan(WITH_RATE, 42, "cpu", 6)
    arrays = {}
    for step in range(3):
        for mask in plan.masks(step, 6, LENGTH).values():
            for row in range(0, len(mask), len(mask) // 6):
                part = mask[row : row + len(mask) // 6]
                arrays[id(part)] = part
    assert sum(part.size for part in arrays.values()) == plan.kept_numbers(6, LENGTH)
    assert plan.kept_numbers(6, LENGTH) == DropoutPlan(WITH_RATE, 42, "cpu").kept_numbers(1, LENGTH)
