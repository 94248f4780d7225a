"""modeling/objectives/losses.py against NumPy, written from the formulas."""

import numpy as np
from tiny_model import NUM_LABELS, log_softmax, run_graph

from modeling.objectives.losses import accuracy, batch_mean, cross_entropy, stack_metrics, sum_terms

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


def test_sums_and_stacks():
    total, stacked = run_graph(lambda variables, x: (sum_terms([x.sum(), x.mean()]), stack_metrics(x.sum(), x.mean())), {"x": LOGITS})
    assert abs(total - LOGITS.sum() - LOGITS.mean()) < 1e-5
    np.testing.assert_allclose(stacked, [LOGITS.sum(), LOGITS.mean()], rtol=0, atol=1e-5)
