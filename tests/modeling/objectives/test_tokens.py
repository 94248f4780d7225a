"""modeling/objectives/tokens.py: losses and their gradients against NumPy and transformers (tests/golden/make_token_heads.py), and logits
that do not depend on the padding."""

import json
import os

import numpy as np
import pytest
import tiny
from tiny_model import CONFIG, documented, golden_batch, gradients, log_softmax, run_graph

from modeling.bert.names import POOLER_PREFIX, SPAN_HEAD, TAG_HEAD
from modeling.bert.variables import dense_head_shapes
from modeling.engine.kernels import select_kernels
from modeling.objectives.tokens import predict_spans, predict_tags, span_loss, span_objective, tagging_loss, tagging_objective

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
