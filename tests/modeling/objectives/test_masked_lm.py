"""modeling/objectives/masked_lm.py against transformers' BertForMaskedLM (tests/golden/pretraining.json) and NumPy."""

import math

import numpy as np
import pytest
from golden_pretraining import CONFIG, GOLDEN, IDS, check_gradients, golden_text, golden_values, masked_arrays, skip_without_gradients
from tiny_model import KERNELS, NO_DROPOUT, documented, gradients, log_softmax, random_samples, run_graph

from modeling.bert.names import TOKEN_BIAS, TOKEN_HEAD, WORD_EMBEDDINGS
from modeling.bert.variables import Variables, encoder_shapes, initial_value, token_head_shapes
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.lanes.plan import Lanes
from modeling.objectives.masked_lm import masked_lm_objective, predict_masked, sums_of_states
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.corpus_batches import batch_weights

SHAPES = {**encoder_shapes(CONFIG), **token_head_shapes(CONFIG)}
both = pytest.mark.parametrize("kernels", sorted(KERNELS))


def golden_batch():
    batch = {**golden_text(), **masked_arrays(IDS, GOLDEN["targets"], 3)}
    return dict(batch, masked_weights=batch_weights(batch["masked_weights"]), loss_mask=np.ones(len(IDS), np.float32))


@both
def test_golden_loss_and_gradients(kernels):
    skip_without_gradients(kernels)
    values, names = golden_values(SHAPES)

    def objective(variables, **batch):
        return masked_lm_objective(variables, CONFIG, KERNELS[kernels], None, **batch)

    (loss, metrics), found = gradients(objective, values, golden_batch())
    assert loss == pytest.approx(GOLDEN["loss"], abs=2e-6)
    assert metrics[0] == loss
    check_gradients(found, names, GOLDEN)


@both
def test_golden_logits(kernels):
    """The loss for each possible token is that of the golden logits."""
    values, _ = golden_values(SHAPES)
    batch = golden_batch()
    del batch["loss_mask"]
    job = GlobalFunction(
        lambda variables, **batch: predict_masked(variables, CONFIG, KERNELS[kernels], **batch), "predict", Variables(values)
    )
    for number, (row, place, _) in enumerate(GOLDEN["targets"]):
        for token in (0, 9, 49):
            found = job(dict(batch, **masked_arrays(IDS, [(row, place, token)], 3))).numpy()
            logits = np.array(GOLDEN["logits"][number])
            assert found[row, 0] == pytest.approx(-log_softmax(logits[None])[0, token], abs=5e-6)
            assert found[row, 1] == (logits.argmax() == token)
            assert found[row, 2] == 1
            assert not found[1 - row].any()


# ------------------------------------------------------------------------------------------- the tiny BERT of the other tests


def tiny_values(zero_head=False):
    values = {name: value for name, value in documented("weight").items() if not name.startswith(("bert-pooler", "classification"))}
    for name, shape in token_head_shapes(NO_DROPOUT).items():
        values[name] = initial_value(name, shape, 3, 0.3)
    if zero_head:
        values[TOKEN_HEAD[2]] = np.zeros_like(values[TOKEN_HEAD[2]])  # gamma
    else:
        values[TOKEN_BIAS] = np.random.RandomState(2).randn(*values[TOKEN_BIAS].shape).astype(np.float32)
    return values


def tiny_batch(rows=6, most=3, seed=4):
    samples, draw = random_samples(lengths=[13, 7, 9, 4, 12, 5][:rows]), np.random.RandomState(seed)
    targets = [
        (row, int(place), int(draw.randint(NO_DROPOUT.vocab_size)))
        for row in range(rows)
        for place in draw.permutation(np.arange(1, samples.lengths[row]))[: 1 + row % most]
    ]
    batch = {name: getattr(samples, name) for name in ("word_rows", "input_mask", "segment_ids")}
    batch.update(masked_arrays(samples.word_rows, targets, most))
    return dict(batch, masked_weights=batch_weights(batch["masked_weights"]), loss_mask=np.ones(rows, np.float32)), targets


def objective(variables, **batch):
    return masked_lm_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, **batch)


def sums_of_rows(variables, **batch):
    return predict_masked(variables, NO_DROPOUT, KERNELS["cpu"], **batch)


def test_a_zero_head_has_the_loss_of_chance():
    batch, _ = tiny_batch()
    loss, _ = run_graph(objective, batch, tiny_values(zero_head=True))
    assert loss == pytest.approx(math.log(NO_DROPOUT.vocab_size), abs=1e-5)


def test_the_mean_is_over_masked_tokens():
    """Rows with one, two and three masked tokens: not a mean of means."""
    batch, targets = tiny_batch()
    values = tiny_values()
    job, text = GlobalFunction(sums_of_rows, "predict", Variables(values)), ("word_rows", "input_mask", "segment_ids")
    one_each = [dict({name: batch[name] for name in text}, **masked_arrays(batch["word_rows"], [target], 3)) for target in targets]
    alone = [job(arrays).numpy()[row] for arrays, (row, _, _) in zip(one_each, targets)]
    loss, metrics = run_graph(objective, batch, values)
    assert loss == pytest.approx(np.mean(alone, axis=0)[0], rel=1e-5)
    assert metrics[1] == pytest.approx(np.mean(alone, axis=0)[1], abs=1e-6)


def test_states_without_a_mask_have_no_gradient():
    batch, _ = tiny_batch()
    hidden = np.random.RandomState(6).randn(*batch["word_rows"].shape, NO_DROPOUT.hidden_size).astype(np.float32)
    values = {name: value for name, value in tiny_values().items() if name in (*TOKEN_HEAD, WORD_EMBEDDINGS)}

    def loss(variables, **masked):
        losses, hits = sums_of_states(variables, NO_DROPOUT, KERNELS["cpu"], variables.get("hidden"), **masked)
        return losses.mean(), hits

    masked = {name: value for name, value in batch.items() if name.startswith("masked_")}
    _, found = gradients(loss, dict(values, hidden=hidden), masked)
    where = batch["masked_places"].sum(axis=1) > 0
    assert np.array_equal(np.abs(found["hidden"]).max(axis=2) > 0, where)
    assert where.sum() == batch["masked_places"].sum()


def trained(values, batch, lanes=1, parts=1):
    """Loss of one step, and the variables after it."""
    variables = Variables(values)
    optimizer, rates = create_optimizer(variables, Schedule(1e-2, 10, 0), 0.0, clip_norm=None, kind="sgd")
    job = GlobalFunction(objective, "train", variables, optimizer, rates, Engine("cpu", Lanes(lanes)), parts=parts)
    loss = job(batch)[0].numpy().mean()
    return loss, {name: variables.get(name).numpy() for name in values}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"lanes": 2}, {"parts": 3}, {"lanes": 3, "parts": 2}])
def test_parts_and_lanes_do_not_change_the_step(more):
    values, (batch, _) = tiny_values(), tiny_batch()
    loss, after = trained(values, batch)
    other, found = trained(values, batch, **more)
    assert other == pytest.approx(loss, rel=1e-5)
    for name, value in after.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-6, err_msg=name)
    assert np.abs(after[WORD_EMBEDDINGS] - values[WORD_EMBEDDINGS]).max() > 1e-4


def test_the_sums_of_a_row_are_its_own():
    batch, _ = tiny_batch()
    batch.pop("loss_mask")
    values = tiny_values()
    whole = run_graph(sums_of_rows, batch, values)
    first = run_graph(sums_of_rows, {name: value[:2] for name, value in batch.items()}, values)
    np.testing.assert_allclose(first, whole[:2], rtol=1e-5, atol=1e-6)
