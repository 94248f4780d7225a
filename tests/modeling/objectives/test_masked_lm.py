"""modeling/objectives/masked_lm.py against transformers' BertForMaskedLM (tests/golden/pretraining.json) and NumPy."""

import json
import math
import os

import numpy as np
import pytest
from tiny_model import KERNELS, NO_DROPOUT, ROOT, documented, gradients, log_softmax, random_samples, run_graph

from modeling.bert.config import BertConfig
from modeling.bert.names import TOKEN_BIAS, TOKEN_HEAD, WORD_EMBEDDINGS
from modeling.bert.variables import Variables, encoder_shapes, initial_value, token_head_shapes
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.lanes.plan import Lanes
from modeling.objectives.masked_lm import masked_lm_objective, predict_masked, sums_of_states
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.corpus_batches import batch_weights
from tools.checkpoint_names import TOKEN_HEAD as TOKEN_HEAD_PAIRS
from tools.checkpoint_names import encoder_pairs

both = pytest.mark.parametrize("kernels", sorted(KERNELS))

with open(os.path.join(ROOT, "tests", "golden", "pretraining.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)
CONFIG = BertConfig(**GOLDEN["sizes"])
IDS, TYPES = (np.array(GOLDEN[name], np.int32) for name in ("ids", "types"))


def golden_values():
    """The weights of the golden model under their documented names."""
    pairs = {"bert." + pair.hugging_face: pair for pair in encoder_pairs(CONFIG.num_hidden_layers)}
    pairs.update({pair.hugging_face: pair for pair in TOKEN_HEAD_PAIRS})
    assert sorted(pairs) == GOLDEN["names"]
    shapes, values = {**encoder_shapes(CONFIG), **token_head_shapes(CONFIG)}, {}
    for number, name in enumerate(GOLDEN["names"]):
        shape = shapes[pairs[name].snapshot]
        stored = shape[::-1] if pairs[name].transposed else shape
        value = 0.05 * np.sin(0.37 * np.arange(math.prod(shape)) + 1.3 * number) + ("LayerNorm.weight" in name)
        value = value.reshape(stored).T if pairs[name].transposed else value.reshape(stored)
        values[pairs[name].snapshot] = np.ascontiguousarray(value, np.float32)
    return values, {pair.snapshot: name for name, pair in pairs.items()}


def masked_arrays(ids, targets, most, length=None):
    """masked_places, masked_ids, masked_weights of (row, place, token) triples."""
    rows, length = len(ids), length or ids.shape[1]
    arrays = {
        "masked_places": np.zeros((rows, most, length), np.float32),
        "masked_ids": np.zeros((rows, most), np.int32),
        "masked_weights": np.zeros((rows, most), np.float32),
    }
    used = [0] * rows
    for row, place, token in targets:
        arrays["masked_places"][row, used[row], place] = arrays["masked_weights"][row, used[row]] = 1.0
        arrays["masked_ids"][row, used[row]] = token
        used[row] += 1
    return arrays


def golden_batch():
    batch = {"word_rows": IDS, "input_mask": (IDS != 0).astype(np.int32), "segment_ids": TYPES}
    batch.update(masked_arrays(IDS, GOLDEN["targets"], 3))
    return dict(batch, masked_weights=batch_weights(batch["masked_weights"]), loss_mask=np.ones(len(IDS), np.float32))


@both
def test_golden_loss_and_gradients(kernels):
    values, names = golden_values()

    def objective(variables, **batch):
        return masked_lm_objective(variables, CONFIG, KERNELS[kernels], None, **batch)

    (loss, metrics), found = gradients(objective, values, golden_batch())
    assert loss == pytest.approx(GOLDEN["loss"], abs=2e-6)
    assert metrics[0] == loss
    for name, gradient in found.items():
        expected = GOLDEN["norms"][names[name]]
        assert np.linalg.norm(gradient.astype(np.float64)) == pytest.approx(expected, rel=2e-4, abs=2e-6), name
    total = math.sqrt(sum(float(np.square(gradient, dtype=np.float64).sum()) for gradient in found.values()))
    assert total == pytest.approx(GOLDEN["norm"], rel=1e-4)


@both
def test_golden_logits(kernels):
    """The loss for each possible token is that of the golden logits."""
    values, _ = golden_values()
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
