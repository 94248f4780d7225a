"""modeling/objectives/smoothness.py: the adversarial term against PyTorch, its step against NumPy, and that no division of a batch
changes it."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, ROOT, documented, golden_batch, gradients, random_samples, run_graph

from modeling.bert.dropout import DropoutPlan
from modeling.bert.names import layer_of
from modeling.bert.variables import Variables
from modeling.engine.engine import Engine
from modeling.engine.global_function import global_function
from modeling.engine.lanes.plan import Lanes
from modeling.objectives.mft import finetuning_metrics, finetuning_objective
from modeling.objectives.smoothness import NOISE, NOT_SMOOTH, Smoothness, bounded_step, smoothness_of, with_noise
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.batches import iterate_training
from ofrecord_util.errors import UserError
from tools.checkpoint_names import CLASSIFIER, encoder_pairs

pytestmark = pytest.mark.slow

with open(os.path.join(ROOT, "tests", "golden", "adversarial.json"), encoding="ascii") as _file:
    GOLDEN = json.load(_file)
SETTINGS = Smoothness(factor=GOLDEN["factor"], sigma=GOLDEN["sigma"], bound=GOLDEN["bound"])


def objective(config=NO_DROPOUT, settings=SETTINGS, plan=None):
    def loss(variables, **batch):
        dropout = plan.take(batch) if plan else None
        return finetuning_objective(variables, config, KERNELS["cpu"], dropout, **batch, smoothness=settings)

    return loss


def golden_inputs():
    labels, loss_mask = np.array([2, 0, 1], np.int32), np.array([1, 0, 1], np.float32) * 3 / 2
    noise = np.array(GOLDEN["noise"], np.float32).reshape(-1, CONFIG.hidden_size)
    return dict(golden_batch(), label=labels, loss_mask=loss_mask, embedding_noise=noise)


def test_the_term_and_its_gradients_are_those_of_pytorch():
    (loss, metrics), found = gradients(objective(), documented("weight"), golden_inputs())
    values = dict(zip(finetuning_metrics(SETTINGS), metrics))
    assert values["label_loss"] == pytest.approx(GOLDEN["label_loss"], abs=2e-6)
    assert values["adversarial_loss"] == pytest.approx(GOLDEN["term"], rel=2e-4)
    assert loss == pytest.approx(GOLDEN["label_loss"] + GOLDEN["term"], abs=5e-6)
    assert GOLDEN["term"] > 1e-2
    names = {"word_embeddings": "bert-embeddings-word_embeddings", "classifier": CLASSIFIER[0].snapshot}
    (names["query"],) = (
        pair.snapshot for pair in encoder_pairs(CONFIG.num_hidden_layers) if "layer_1-attention-self-query-w" in pair.snapshot
    )
    for name, expected in GOLDEN["gradients"].items():
        expected = np.array(expected).T if name == "query" else np.array(expected)
        np.testing.assert_allclose(found[names[name]], expected, rtol=0, atol=2e-5, err_msg=name)
    _, plain = gradients(objective(settings=NOT_SMOOTH), documented("weight"), golden_inputs())
    assert np.abs(plain[names["query"]] - found[names["query"]]).max() > 1e-3


def step_of(gradient, mask, factor=0.3, bound=0.2):
    step, finite = run_graph(
        lambda variables, gradient, mask: bounded_step(gradient, mask, factor, bound, "cpu"), {"gradient": gradient, "mask": mask}
    )
    assert finite.tolist() == [float(np.isfinite(gradient[rows]).all()) for rows in rows_of_texts(mask)]
    return step


def rows_of_texts(mask):
    """The rows of [T, H] of each text, by its mask [B, S] or [R, C, S]."""
    rows, length = mask.shape[0], mask.shape[-1]
    return [row * length + np.flatnonzero(text) for row, texts in enumerate(mask.reshape(rows, -1, length)) for text in texts]


def test_the_step_of_each_text():
    """The largest coordinate of a text alone decides how long its step is. A text without a gradient has none."""
    draw, width = np.random.RandomState(3), 5
    gradient = draw.randn(3, 7, width).astype(np.float32) * np.array([1e-9, 1.0, 0.0], np.float32).reshape(3, 1, 1)
    mask = (np.arange(7) < np.array([[7], [3], [5]])).astype(np.int32)
    expected = np.zeros(gradient.shape)
    for row in range(2):
        own = gradient[row, : mask[row].sum()].astype(np.float64)
        expected[row, : len(own)] = np.clip(0.3 * own / np.abs(own).max(), -0.2, 0.2)
    found = step_of(gradient.reshape(-1, width), mask)
    np.testing.assert_allclose(found, expected.reshape(-1, width), rtol=2e-5, atol=1e-8)
    assert (np.abs(found) == np.float32(0.2)).sum() > 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_text_without_a_finite_gradient_has_no_step(value):
    """The others keep theirs, also in the same row; padding does not count."""
    draw, width = np.random.RandomState(3), 4
    gradient = draw.randn(2, 6, width).astype(np.float32)
    mask = np.zeros((2, 2, 6), np.float32)
    for row, text, start, stop in ((0, 0, 0, 2), (0, 1, 2, 6), (1, 0, 0, 3), (1, 1, 3, 5)):
        mask[row, text, start:stop] = 1
    whole = step_of(gradient.reshape(-1, width), mask).reshape(gradient.shape)
    broken = gradient.copy()
    broken[0, 4, 1] = broken[1, 5, 0] = value
    expected = whole.copy()
    expected[0, 2:6] = 0
    np.testing.assert_array_equal(step_of(broken.reshape(-1, width), mask).reshape(gradient.shape), expected)


def test_a_term_without_a_finite_gradient_is_dropped(monkeypatch):
    """The gradient of a text is NaN: the term is that of the other one, and no gradient of a weight is NaN."""
    from modeling.objectives import smoothness

    inputs, of_gradient = golden_inputs(), smoothness.gradient_of
    (_, whole), _ = gradients(objective(), documented("weight"), inputs)
    length = inputs["word_rows"].shape[1]
    broken = np.zeros((3 * length, 1), np.float32)
    broken[2 * length] = np.nan
    inputs["broken"] = broken
    holder = {}
    monkeypatch.setattr(smoothness, "gradient_of", lambda value, place: of_gradient(value, place) + holder["broken"])

    def with_broken(variables, broken, **batch):
        holder["broken"] = broken
        return objective()(variables, **batch)

    (loss, metrics), found = gradients(with_broken, documented("weight"), inputs)
    values, terms = (dict(zip(finetuning_metrics(SETTINGS), each)) for each in (metrics, whole))
    assert 0 < values["adversarial_loss"] < terms["adversarial_loss"]
    assert loss == pytest.approx(values["label_loss"] + values["adversarial_loss"], rel=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in found.values())


def test_the_step_of_texts_that_share_a_row():
    draw, width = np.random.RandomState(4), 4
    gradient = draw.randn(2, 6, width).astype(np.float32)
    mask = np.zeros((2, 2, 6), np.float32)
    spans = [(0, 0, 0, 3), (0, 1, 3, 5), (1, 0, 0, 1), (1, 1, 1, 6)]  # row, text, first token, end
    expected = np.zeros(gradient.shape)
    for row, text, start, stop in spans:
        mask[row, text, start:stop] = 1
        own = gradient[row, start:stop].astype(np.float64)
        expected[row, start:stop] = np.clip(0.3 * own / np.abs(own).max(), -0.2, 0.2)
    np.testing.assert_allclose(step_of(gradient.reshape(-1, width), mask), expected.reshape(-1, width), rtol=2e-5, atol=1e-8)


# One layer, so that the graphs are compiled fast
ONE_LAYER = dataclasses.replace(CONFIG, num_hidden_layers=1)
DRY = dataclasses.replace(NO_DROPOUT, num_hidden_layers=1)
VALUES = {name: value for name, value in documented("weight").items() if layer_of(name) in (None, 0)}
LENGTHS = [3, 13, 7, 2, 5, 11]
RECORDS = random_samples(LENGTHS)


def batch_of(per_row):
    """A batch of the records with a noise that belongs to texts and tokens, not to places."""
    length = 13 if per_row == 1 else 13 * per_row
    batch = next(iterate_training(RECORDS, len(LENGTHS), (length,), 3, 5, per_row=per_row))
    noise = np.zeros((len(LENGTHS) // per_row, length, CONFIG.hidden_size), np.float32)
    masks = batch["input_mask"].reshape(len(LENGTHS), length)
    for place, number in enumerate(batch["idxs"]):
        own = np.random.RandomState(number).randn(LENGTHS[number], CONFIG.hidden_size) * SETTINGS.sigma
        noise[place // per_row][masks[place] == 1] = own
    left_out = ("idxs", "domain", "sample_weights")
    return {**{name: value for name, value in batch.items() if name not in left_out}, NOISE: noise.reshape(-1, CONFIG.hidden_size)}


def test_texts_that_share_a_row():
    (_, metrics), expected = gradients(objective(DRY), VALUES, batch_of(1))
    (_, others), found = gradients(objective(DRY), VALUES, batch_of(3))
    np.testing.assert_allclose(others, metrics, rtol=0, atol=5e-6)
    assert metrics[2] > 1e-2
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=3e-5, err_msg=name)


def test_lanes_and_parts():
    """With dropout and both terms, some steps of training: the losses and the weights are those of one lane and one part."""

    def trained(lanes, parts):
        settings, variables = SETTINGS._replace(consistency_weight=0.4), Variables(VALUES)
        optimizer, rates = create_optimizer(variables, Schedule(1e-3, 20, 2))
        plan, engine = DropoutPlan(ONE_LAYER, 7, "cpu", passes=settings.passes), Engine("cpu", Lanes(lanes))
        options = {"variables": variables, "optimizer": optimizer, "schedule": rates, "engine": engine, "parts": parts}
        job = global_function(type="train", **options)(objective(ONE_LAYER, settings, plan))
        batch, losses = batch_of(1), []
        for step in range(3):
            masks = plan.masks(step, *batch["word_rows"].shape)
            losses.append(job({**batch, **masks})[1].numpy().reshape(-1, 5).mean(axis=0))
        return np.array(losses), {name: variables.get(name).numpy() for name in VALUES}

    expected, weights = trained(1, 1)
    assert expected[:, 2:4].min() > 1e-3
    for lanes, parts in ((2, 1), (2, 3)):
        found, others = trained(lanes, parts)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
        for name, value in weights.items():
            np.testing.assert_allclose(others[name], value, rtol=0, atol=3e-4, err_msg=name)


def test_the_noise_follows_from_seed_and_step():
    batches = [{"word_rows": np.zeros((3, 500), np.int32), "other": number} for number in range(3)]

    def noise(seed, first=0, factor=1e-3):
        return list(with_noise(batches[first:], Smoothness(factor=factor, sigma=0.02), 7, seed, first))

    whole = noise(5)
    assert [batch["other"] for batch in whole] == [0, 1, 2]
    assert list(whole[0]) == ["word_rows", "other", NOISE]  # the first array decides how a batch is divided
    values = np.stack([batch[NOISE] for batch in whole])
    assert values.shape == (3, 1500, 7)
    assert values.dtype == np.float32
    assert values.std() == pytest.approx(0.02, rel=0.03)
    assert abs(values.mean()) < 5e-4
    assert abs(np.corrcoef(values[0].reshape(-1), values[1].reshape(-1))[0, 1]) < 0.05
    assert all(np.array_equal(one[NOISE], other[NOISE]) for one, other in zip(whole[1:], noise(5, 1)))
    assert not np.array_equal(whole[0][NOISE], noise(6)[0][NOISE])
    assert noise(5, factor=0.0) == batches


def test_settings():
    flags = {"use_fp16": False, "consistency_weight": 0.5, "adversarial_factor": 5e-5, "adversarial_sigma": 5e-6, "adversarial_bound": None}
    found = smoothness_of(SimpleNamespace(**flags))
    assert found == Smoothness(0.5, 5e-5, 5e-6, 1e-5)
    assert found.names == ("consistency_loss", "adversarial_loss")
    assert found.passes == 4
    assert smoothness_of(SimpleNamespace(**{**flags, "adversarial_bound": 3e-4})).bound == 3e-4
    assert smoothness_of(SimpleNamespace(use_fp16=True)) == NOT_SMOOTH  # a script without the flags
    assert NOT_SMOOTH.names == ()
    assert NOT_SMOOTH.passes == 1
    with pytest.raises(UserError, match="--adversarial_factor: the noise is below the precision of --use_fp16"):
        smoothness_of(SimpleNamespace(**{**flags, "use_fp16": True}))
