"""modeling/objectives/losses.py against NumPy, written from the formulas."""

import numpy as np
import pytest
from tiny_model import NUM_LABELS, gradients, log_softmax, run_graph

from modeling.bert.variables import Variables
from modeling.engine.global_function import GlobalFunction
from modeling.objectives.losses import (
    LabelLoss,
    accuracy,
    batch_mean,
    cross_entropy,
    label_losses,
    measure_name,
    stack_metrics,
    sum_terms,
    symmetric_divergence,
)
from modeling.objectives.mft import classification_loss
from ofrecord_util.label_kinds import MULTI_LABEL, REGRESSION

ROWS = 5  # samples of a batch; the last one only fills it up
LOGITS = (3 * np.random.RandomState(11).randn(ROWS, NUM_LABELS)).astype(np.float32)
LABEL = np.array([2, 0, 1, 1, 0], np.int32)
LOSS_MASK = np.array([1, 1, 1, 1, 0], np.float32) * 5 / 4


def test_cross_entropy_mean_and_accuracy():
    def terms(variables, logits, label, loss_mask):
        losses = cross_entropy(logits, label)
        return losses, batch_mean(losses, loss_mask), accuracy(logits, label, loss_mask)

    losses, mean, hits = run_graph(terms, {"logits": LOGITS, "label": LABEL, "loss_mask": LOSS_MASK})
    expected = -log_softmax(LOGITS)[np.arange(ROWS), LABEL]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=5e-6)
    np.testing.assert_allclose(mean, expected[:4].mean(), rtol=0, atol=5e-6)
    np.testing.assert_allclose(hits, np.mean(LOGITS.argmax(axis=1)[:4] == LABEL[:4]), rtol=0, atol=1e-7)


def test_large_logits_and_a_batch_without_real_samples():
    logits = np.array([[1000.0, 0.0, -1000.0], [-1000.0, 0.0, 1000.0]], np.float32)

    def terms(variables, logits, label, loss_mask):
        losses = cross_entropy(logits, label)
        return losses, batch_mean(losses, loss_mask)

    losses, mean = run_graph(terms, {"logits": logits, "label": np.array([0, 1], np.int32), "loss_mask": np.zeros(2, np.float32)})
    np.testing.assert_allclose(losses, [0.0, 1000.0], rtol=1e-6, atol=5e-6)  # exp(1000) overflows float32
    assert mean == 0.0  # not 0 / 0


WEIGHTS = (0.5, 2.25, 1.25)


@pytest.mark.parametrize("settings", [LabelLoss(WEIGHTS, 0.0), LabelLoss(None, 0.15), LabelLoss(WEIGHTS, 0.15), LabelLoss()])
@pytest.mark.parametrize("sampled", [True, False])
def test_label_losses_and_their_gradient(settings, sampled):
    """loss_i = s_i w_y sum_c q_c (-log p_c); d loss_i / d logit_c = s_i w_y (p_c - q_c)."""
    scores = np.array([0.3, 1.7, 0.9, 1.0, 2.0], np.float32) if sampled else None
    arrays = {"label": LABEL, "loss_mask": LOSS_MASK, **({"scores": scores} if sampled else {})}

    def terms(variables, label, loss_mask, scores=None):
        logits = variables.get("logits")
        return classification_loss(logits, label, loss_mask, scores, settings).loss, label_losses(logits, label, settings)

    (loss, losses), found = gradients(terms, {"logits": LOGITS}, arrays)
    target = (1 - settings.smoothing) * np.eye(NUM_LABELS)[LABEL] + settings.smoothing / NUM_LABELS
    weight = np.ones(ROWS) if settings.class_weights is None else np.array(settings.class_weights)[LABEL]
    expected = weight * -(target * log_softmax(LOGITS)).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    factor = (weight if scores is None else weight * scores) * LOSS_MASK / ROWS
    np.testing.assert_allclose(loss, (factor / weight * expected).sum(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["logits"], factor[:, None] * (np.exp(log_softmax(LOGITS)) - target), rtol=0, atol=1e-5)


def operations(loss):
    """Kinds of the operations of a graph that returns `loss(logits, label)`, in order."""
    variables = Variables({"logits": LOGITS})
    job = GlobalFunction(lambda variables, label: loss(variables.get("logits"), label), "predict", variables)
    job({"label": LABEL})
    (graph,) = job._graphs.values()
    return [operation.user_conf.op_type_name for operation in graph._full_graph_proto.net.op]


def test_the_defaults_add_no_operation():
    plain = operations(cross_entropy)
    assert operations(label_losses) == plain
    assert len(operations(lambda logits, label: label_losses(logits, label, LabelLoss(None, 0.1)))) > len(plain)


def test_sums_and_stacks():
    total, stacked = run_graph(lambda variables, x: (sum_terms([x.sum(), x.mean()]), stack_metrics(x.sum(), x.mean())), {"x": LOGITS})
    assert abs(total - LOGITS.sum() - LOGITS.mean()) < 1e-5
    np.testing.assert_allclose(stacked, [LOGITS.sum(), LOGITS.mean()], rtol=0, atol=1e-5)


def test_symmetric_divergence_and_its_gradients():
    """(sum_c (p - q)_c (log p - log q)_c) / C; with d = log p - log q, the gradient for the logits of p is (p - q + p (d - p d)) / C."""
    others = (2 * np.random.RandomState(12).randn(ROWS, NUM_LABELS)).astype(np.float32)

    def terms(variables, loss_mask):
        divergences = symmetric_divergence(variables.get("logits"), variables.get("others"))
        return batch_mean(divergences, loss_mask), divergences

    (loss, divergences), found = gradients(terms, {"logits": LOGITS, "others": others}, {"loss_mask": LOSS_MASK})
    logs, other_logs = log_softmax(LOGITS), log_softmax(others)
    p, q = np.exp(logs), np.exp(other_logs)
    kl = (p * (logs - other_logs)).sum(axis=1), (q * (other_logs - logs)).sum(axis=1)
    np.testing.assert_allclose(divergences, sum(kl) / NUM_LABELS, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, (sum(kl) / NUM_LABELS * LOSS_MASK).mean(), rtol=1e-5)
    for name, own, other, difference in (("logits", p, q, logs - other_logs), ("others", q, p, other_logs - logs)):
        expected = own - other + own * (difference - (own * difference).sum(axis=1, keepdims=True))
        expected *= LOSS_MASK[:, None] / ROWS / NUM_LABELS
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=2e-6, err_msg=name)
        assert np.abs(expected).max() > 0.01


def test_a_prediction_agrees_with_itself():
    (loss, _), found = gradients(
        lambda variables, loss_mask: (batch_mean(symmetric_divergence(variables.get("x"), variables.get("x")), loss_mask), loss_mask),
        {"x": LOGITS},
        {"loss_mask": LOSS_MASK},
    )
    assert loss == 0
    assert np.array_equal(found["x"], np.zeros_like(LOGITS))


def types_of_labels():
    """(settings, logits, label, losses, gradient of the sum of the losses, measure) of a regression and of sets of labels."""
    number = np.array([1.5, -2.0, 0.25, 3.0, 9.0], np.float32)
    error = LOGITS[:, :1] - number[:, None]
    there = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]], np.int32)
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    losses = -np.where(there, np.log(p), np.log1p(-p)).mean(axis=1)
    hits = ((LOGITS > 0) == there).all(axis=1).astype(float)
    return {
        REGRESSION: (LOGITS[:, :1], number, error[:, 0] ** 2, 2 * error, np.abs(error[:, 0])),
        MULTI_LABEL: (LOGITS, there, losses, (p - there) / NUM_LABELS, hits),
    }


@pytest.mark.parametrize("task_type", [REGRESSION, MULTI_LABEL])
def test_losses_of_other_types_and_their_gradients(task_type):
    """Squared error, 2 (x - y); mean binary cross-entropy over C labels, (p - y) / C."""
    logits, label, losses, gradient, measured = types_of_labels()[task_type]
    settings = LabelLoss(task_type=task_type)

    def terms(variables, label, loss_mask):
        logits = variables.get("logits")
        return (*classification_loss(logits, label, loss_mask, label_loss=settings), label_losses(logits, label, settings))

    (loss, measure, found), gradients_found = gradients(terms, {"logits": logits}, {"label": label, "loss_mask": LOSS_MASK})
    np.testing.assert_allclose(found, losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, losses[:4].mean(), rtol=1e-5)
    np.testing.assert_allclose(measure, measured[:4].mean(), rtol=1e-5)
    expected = gradient * LOSS_MASK[:, None] / ROWS
    np.testing.assert_allclose(gradients_found["logits"], expected, rtol=1e-4, atol=1e-6)
    assert measure_name(settings) == {REGRESSION: "absolute_error", MULTI_LABEL: "subset_accuracy"}[task_type]


def test_binary_cross_entropy_of_large_logits():
    """exp(1000) overflows float32."""
    logits, label = np.array([[1000.0, -1000.0], [1000.0, -1000.0]], np.float32), np.array([[1, 0], [0, 0]], np.int32)
    settings = LabelLoss(task_type=MULTI_LABEL)
    (losses,) = run_graph(lambda variables, logits, label: (label_losses(logits, label, settings),), {"logits": logits, "label": label})
    np.testing.assert_allclose(losses, [0.0, 500.0], rtol=1e-6, atol=5e-6)
