"""modeling/objectives/tokens.py: losses and their gradients against NumPy and transformers (tests/golden/make_token_heads.py), and logits
that do not depend on the padding."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tiny
from tiny_model import CONFIG, documented, golden_batch, gradients, log_softmax, run_graph

from modeling.bert.dropout import DropoutPlan
from modeling.bert.encoder import build_bert
from modeling.bert.heads import dense_logits
from modeling.bert.names import POOLER_PREFIX, SPAN_HEAD, TAG_HEAD, layer_of
from modeling.bert.variables import dense_head_shapes
from modeling.engine.kernels import select_kernels
from modeling.engine.runtime import flow
from modeling.objectives.smoothness import Smoothness, terms_of
from modeling.objectives.tokens import (
    SPAN_METRICS,
    TAGGING_METRICS,
    predict_spans,
    predict_tags,
    span_logits,
    span_loss,
    span_objective,
    tagging_loss,
    tagging_objective,
)

with open(os.path.join(tiny.ROOT, "tests", "golden", "token_heads.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)
ROWS, LENGTH, TAGS = 3, 5, 4
DRAW = np.random.RandomState(4)
LOGITS = DRAW.randn(ROWS * LENGTH, TAGS).astype(np.float32)
IDS = DRAW.randint(0, TAGS, (ROWS, LENGTH)).astype(np.int32)
COUNTED = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], np.float32)


def softmax(logits):
    return np.exp(log_softmax(logits))


def test_tagging_loss():
    weights = COUNTED * np.float32(ROWS / COUNTED.sum())

    def objective(variables, tag_ids, tag_weights):
        return tagging_loss(variables.get("x"), tag_ids, tag_weights)

    (loss, metrics), found = gradients(objective, {"x": LOGITS}, {"tag_ids": IDS, "tag_weights": weights})
    flat, counted = IDS.reshape(-1), COUNTED.reshape(-1)
    losses = -log_softmax(LOGITS)[np.arange(len(flat)), flat]
    assert loss == pytest.approx((losses * counted).sum() / counted.sum(), rel=1e-5)
    hits = LOGITS.argmax(axis=1) == flat
    assert metrics == pytest.approx([float(loss), (hits * counted).sum() / counted.sum()], rel=1e-5)
    expected = (softmax(LOGITS) - np.eye(TAGS)[flat]) * counted[:, None] / counted.sum()
    assert np.allclose(found["x"], expected, atol=1e-6)


def test_span_loss():
    start, end = DRAW.randn(2, ROWS, LENGTH).astype(np.float32)
    places = {"start": np.array([0, 2, 4], np.int32), "end": np.array([0, 3, 4], np.int32)}
    mask = np.array([1.5, 1.5, 0], np.float32)

    def objective(variables, start, end, loss_mask):
        return span_loss(variables.get("s"), variables.get("e"), start, end, loss_mask)

    (loss, metrics), found = gradients(objective, {"s": start, "e": end}, {**places, "loss_mask": mask})
    losses = [-log_softmax(logits)[np.arange(ROWS), place] for logits, place in zip((start, end), places.values())]
    assert loss == pytest.approx(np.mean([own[:2].mean() for own in losses]), rel=1e-5)
    assert metrics[1:] == pytest.approx(
        [(logits.argmax(axis=1) == place)[:2].mean() for logits, place in zip((start, end), places.values())], rel=1e-5
    )
    expected = (softmax(start) - np.eye(LENGTH)[places["start"]]) * np.array([[0.25], [0.25], [0]])
    assert np.allclose(found["s"], expected, atol=1e-6)


def model(head, outputs):
    draw = np.random.RandomState(8)
    values = {name: value for name, value in documented("weight").items() if not name.startswith((POOLER_PREFIX, "classification"))}
    shapes = dense_head_shapes(CONFIG, head, outputs)
    return {**values, **{name: draw.randn(*shape).astype(np.float32) * 0.5 for name, shape in shapes.items()}}


@pytest.mark.parametrize(("head", "outputs", "predict"), [(TAG_HEAD, TAGS, predict_tags), (SPAN_HEAD, 2, predict_spans)])
def test_predictions_do_not_depend_on_the_padding(head, outputs, predict):
    kernels, values, batch = select_kernels("cpu"), model(head, outputs), golden_batch()

    def function(variables, **text):
        return predict(variables, CONFIG, kernels, **text)

    found = run_graph(function, batch, values)
    rows, length = batch["word_rows"].shape
    assert found.shape == (rows, length, outputs)
    padded = {name: np.pad(array, ((0, 0), (0, 3))) for name, array in batch.items()}
    real = batch["input_mask"] > 0
    more = run_graph(function, padded, values)
    assert np.allclose(more[:, :length][real], found[real], atol=1e-4)
    if head == SPAN_HEAD:
        assert (more[:, length:] < -1000).all()
        assert np.allclose(softmax(more[:, :, 0])[:, :length], softmax(found[:, :, 0]), atol=1e-5)


def test_objectives_are_the_losses_of_the_predictions():
    kernels, batch = select_kernels("cpu"), golden_batch()
    rows, length = batch["word_rows"].shape
    tags = {
        "tag_ids": np.ones((rows, length), np.int32),
        "tag_weights": (batch["input_mask"] / batch["input_mask"].sum() * rows).astype(np.float32),
    }
    values = model(TAG_HEAD, TAGS)
    loss, _ = run_graph(lambda variables, **more: tagging_objective(variables, CONFIG, kernels, None, **more), {**batch, **tags}, values)
    logits = run_graph(lambda variables, **text: predict_tags(variables, CONFIG, kernels, **text), batch, values)
    assert loss == pytest.approx(-log_softmax(logits)[batch["input_mask"] > 0][:, 1].mean(), rel=1e-4)
    values, places = model(SPAN_HEAD, 2), {"start": np.ones(rows, np.int32), "end": np.full(rows, 2, np.int32)}
    more = {**places, "loss_mask": np.ones(rows, np.float32)}
    loss, _ = run_graph(lambda variables, **more: span_objective(variables, CONFIG, kernels, None, **more), {**batch, **more}, values)
    logits = log_softmax(
        run_graph(lambda variables, **text: predict_spans(variables, CONFIG, kernels, **text), batch, values).swapaxes(1, 2)
    )
    assert loss == pytest.approx(-(logits[:, 0, 1] + logits[:, 1, 2]).mean() / 2, rel=1e-4)


def reference_divergence(one, other):
    """(KL(p || q) + KL(q || p)) / C over the last axis, float64."""
    logs, others = log_softmax(one), log_softmax(other)
    return ((np.exp(logs) - np.exp(others)) * (logs - others)).sum(axis=-1) / one.shape[-1]


def slopes_of(term, logits, number):
    """Central differences of a term of two arrays of logits with respect to one of them."""
    slopes = np.zeros(logits[number].shape)
    for place in np.ndindex(slopes.shape):
        above, below = ([each.copy() for each in logits] for _ in range(2))
        above[number][place] += 1e-5
        below[number][place] -= 1e-5
        slopes[place] = (term(*above) - term(*below)) / 2e-5
    return slopes.astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("head", [TAG_HEAD, SPAN_HEAD])
def test_the_consistency_term_and_its_gradients(head):
    """The term is NumPy's, of the logits of two passes with their own dropout masks; its gradients are those of each pass for the central
    differences of NumPy's term. The first pass is that of a run without the term."""
    kernels, batch, weight, outputs = select_kernels("cpu"), golden_batch(), 1.5, 2 if head == SPAN_HEAD else TAGS
    config, values = dataclasses.replace(CONFIG, num_hidden_layers=1), model(head, outputs)
    values = {name: value for name, value in values.items() if layer_of(name) in (None, 0)}
    (rows, length), of_tokens = batch["word_rows"].shape, head == TAG_HEAD
    plan = DropoutPlan(config, 5, "cpu", passes=2, of_tokens=True, before_head=of_tokens)
    masks = plan.masks(3, rows, length)
    half = len(masks) // 2
    passes = [{f"dropout_{i}": masks[f"dropout_{start + i}"] for i in range(half)} for start in (0, half)]
    counted = batch["input_mask"].astype(np.float32)
    counted[2] = 0
    loss_mask = np.array([1.5, 0, 1.5], np.float32)
    if of_tokens:
        more = {"tag_ids": np.ones((rows, length), np.int32), "tag_weights": counted * np.float32(rows / counted.sum())}
    else:
        more = {"start": np.ones(rows, np.int32), "end": np.full(rows, 2, np.int32), "loss_mask": loss_mask}

    def logits_of(variables, **features):
        dropout = plan.take(features)
        if of_tokens:
            states = build_bert(variables, config, kernels, **features, dropout=dropout, pools=False).hidden_states[-1]
            states = states.reshape(-1, config.hidden_size)
            return dense_logits(variables, kernels, head, states, dropout.hidden()).reshape(rows, length, outputs)
        return flow.stack(span_logits(variables, config, kernels, dropout, **features), dim=2)

    def term(one, other):
        if of_tokens:
            return (reference_divergence(one, other) * counted).sum() / counted.sum()
        found = reference_divergence(one.swapaxes(1, 2), other.swapaxes(1, 2)).sum(axis=1) * length / 29  # places
        return (found * loss_mask).mean()

    def along(variables, slopes, **features):
        value = (logits_of(variables, **features) * slopes).sum()
        return value, value

    def objective(smoothness):
        def loss(variables, **features):
            dropout = plan.take(features)
            function, own = (tagging_objective, {}) if of_tokens else (span_objective, {"places": 29})
            return function(variables, config, kernels, dropout, **features, smoothness=smoothness, **own)

        return gradients(loss, values, {**batch, **more, **masks})

    logits = [run_graph(logits_of, {**batch, **own}, values).astype(np.float64) for own in passes]
    (whole, metrics), found = objective(Smoothness(weight))
    (alone, plain), others = objective(Smoothness())
    names = terms_of(TAGGING_METRICS if of_tokens else SPAN_METRICS, Smoothness(weight))
    values_of = dict(zip(names, metrics))
    assert values_of["consistency_loss"] == pytest.approx(term(*logits), rel=1e-4)
    assert term(*logits) > 1e-3
    assert values_of["label_loss"] == pytest.approx(alone, rel=1e-6)
    assert whole == pytest.approx(alone + weight * term(*logits), rel=1e-5)
    assert metrics[-1] == plain[-1]
    expected = {name: np.zeros(value.shape) for name, value in values.items()}
    for number, own in enumerate(passes):
        slopes = slopes_of(term, logits, number) * np.float32(weight)
        _, gradient = gradients(along, values, {**batch, "slopes": slopes, **own})
        expected = {name: value + gradient[name] for name, value in expected.items()}
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name] - others[name], gradient, rtol=0, atol=3e-5, err_msg=name)
    assert np.abs(expected[head[0]]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("head", [TAG_HEAD, SPAN_HEAD])
def test_the_adversarial_term(head):
    """Without dropout it is NumPy's divergence at E + n + d, where d goes up the central differences of the divergence at E + n."""
    kernels, batch, outputs = select_kernels("cpu"), golden_batch(), 2 if head == SPAN_HEAD else TAGS
    config, values = dataclasses.replace(CONFIG, num_hidden_layers=1), model(head, outputs)
    values = {name: value for name, value in values.items() if layer_of(name) in (None, 0)}
    rows, length = batch["word_rows"].shape
    settings = Smoothness(factor=0.3, sigma=0.1, bound=0.2)
    noise = np.random.RandomState(2).randn(rows * length, config.hidden_size).astype(np.float32) * np.float32(0.1)
    counted = batch["input_mask"].astype(np.float32)
    ones = np.ones(rows, np.float32)
    if head == TAG_HEAD:
        more = {"tag_ids": np.ones((rows, length), np.int32), "tag_weights": counted * np.float32(rows / counted.sum())}
    else:
        more = {"start": np.ones(rows, np.int32), "end": np.full(rows, 2, np.int32), "loss_mask": ones}

    def logits_of(variables, word_rows, input_mask, segment_ids, shift):
        bert = build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, shift=shift, pools=False)
        logits = dense_logits(variables, kernels, head, bert.hidden_states[-1].reshape(-1, config.hidden_size))
        logits = logits.reshape(rows, length, outputs)
        if head == TAG_HEAD:
            return logits
        return logits + (input_mask.to(flow.float32).reshape(rows, length, 1) - 1.0) * 10000.0

    def at(shift):
        return run_graph(logits_of, {**batch, "shift": shift.astype(np.float32)}, values).astype(np.float64)

    def divergences(one, other):
        if head == TAG_HEAD:
            return (reference_divergence(one, other) * counted).sum(axis=1)
        return reference_divergence(one.swapaxes(1, 2), other.swapaxes(1, 2)).sum(axis=1)

    def along(variables, slopes, **text):
        value = (logits_of(variables, **text, shift=variables.get("shift")) * slopes).sum()
        return value, value

    plain, near = at(noise * 0), at(noise)
    slopes = slopes_of(lambda one, other: divergences(one, other).sum(), [plain, near], 1)
    with_shift = {**values, "shift": noise}
    _, found = gradients(along, with_shift, {**batch, "slopes": slopes})
    step = np.zeros(noise.shape)
    for row in range(rows):
        own = found["shift"][row * length : (row + 1) * length] * counted[row][:, None]
        step[row * length : (row + 1) * length] = np.clip(0.3 * own / np.abs(own).max(), -0.2, 0.2)
    per_text = divergences(plain, at(noise + step))
    expected = per_text.sum() / counted.sum() if head == TAG_HEAD else per_text.mean()

    def objective(variables, **arrays):
        function = tagging_objective if head == TAG_HEAD else span_objective
        return function(variables, config, kernels, None, **arrays, smoothness=settings)

    (loss, metrics), _ = gradients(objective, values, {**batch, **more, "embedding_noise": noise})
    assert metrics[2] == pytest.approx(expected, rel=2e-3)
    assert loss == pytest.approx(metrics[1] + metrics[2], rel=1e-5)
    assert expected > 1e-4


def golden_head(head, outputs):
    """The weights of tests/golden/make_token_heads.py."""
    width = CONFIG.hidden_size
    weight = 0.4 * np.sin(0.7 * np.arange(outputs * width) + 0.3).reshape(outputs, width)
    return {head[0]: weight.astype(np.float32), head[1]: (0.2 * np.cos(np.arange(outputs) + 1.0)).astype(np.float32)}


def golden_encoder():
    return {name: value for name, value in documented("weight").items() if not name.startswith((POOLER_PREFIX, "classification"))}


def test_tags_of_transformers():
    golden, kernels, batch = GOLDEN["tags"], select_kernels("cpu"), golden_batch()
    tags = np.array(golden["tags"], np.int32)
    weights = (tags >= 0) * np.float32(len(tags) / (tags >= 0).sum())
    values = {**golden_encoder(), **golden_head(TAG_HEAD, 5)}
    more = {"tag_ids": np.maximum(tags, 0), "tag_weights": weights}

    def objective(variables, **arrays):
        return tagging_objective(variables, CONFIG, kernels, None, **arrays)

    (loss, _), found = gradients(objective, values, {**batch, **more})
    assert loss == pytest.approx(golden["loss"], rel=1e-5)
    assert np.allclose(found[TAG_HEAD[0]], golden["gradient"], atol=2e-5)
    assert np.allclose(found["bert-encoder-layer_0-attention-self-query-weight"].T, golden["query_gradient"], atol=2e-5)
    logits = run_graph(lambda variables, **text: predict_tags(variables, CONFIG, kernels, **text), batch, values)
    real = batch["input_mask"] > 0
    assert np.allclose(logits[real], np.array(golden["logits"])[real], atol=2e-5)


def test_spans_of_transformers():
    golden, kernels, batch = GOLDEN["spans"], select_kernels("cpu"), golden_batch()
    batch["input_mask"] = np.ones_like(batch["input_mask"])
    values = {**golden_encoder(), **golden_head(SPAN_HEAD, 2)}
    more = {name: np.array(golden[name], np.int32) for name in ("start", "end")}

    def objective(variables, **arrays):
        return span_objective(variables, CONFIG, kernels, None, **arrays)

    (loss, _), found = gradients(objective, values, {**batch, **more, "loss_mask": np.ones(len(batch["word_rows"]), np.float32)})
    assert loss == pytest.approx(golden["loss"], rel=1e-5)
    assert np.allclose(found[SPAN_HEAD[0]], golden["gradient"], atol=2e-5)
    logits = run_graph(lambda variables, **text: predict_spans(variables, CONFIG, kernels, **text), batch, values)
    for place, name in enumerate(("start_logits", "end_logits")):
        assert np.allclose(logits[:, :, place], golden[name], atol=2e-5)
