"""modeling/run/metric_heads.py: logistic regression in a graph against scikit-learn (tests/golden/make_logistic.py)."""

import json
import os

import numpy as np
import pytest
from tiny_model import ROOT

from modeling.objectives.losses import PLAIN, LabelLoss
from modeling.run.metric_heads import LogisticRegression

with open(os.path.join(ROOT, "tests", "golden", "logistic.json"), encoding="utf-8") as _file:
    CASES = json.load(_file)["cases"]


def fit(case, **changed):
    case = dict(case, **changed)
    loss = PLAIN if case["class_weights"] is None else LabelLoss(tuple(case["class_weights"]))
    vectors, label = np.array(case["vectors"], np.float32), np.array(case["label"])
    return LogisticRegression(case["labels"], case["C"], label_loss=loss).fit(vectors, label)


@pytest.mark.parametrize("case", CASES, ids=["two labels", "three labels", "class weights"])
def test_logistic_regression_is_that_of_scikit_learn(case):
    weights, bias, largest, _ = fit(case)
    assert largest <= 1e-6
    coefficients, intercept = np.array(case["coef"]), np.array(case["intercept"])
    if case["labels"] == 2:  # scikit-learn has one row, the difference of ours
        weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
    np.testing.assert_allclose(weights, coefficients, rtol=0, atol=2e-4)
    np.testing.assert_allclose(
        bias - bias.mean() if len(bias) > 2 else bias, intercept - (intercept.mean() if len(bias) > 2 else 0), atol=2e-4
    )
    other = fit(case, C=case["C"] * 1.1)[0]  # the tolerance can tell another penalty
    other = other[1:] - other[:1] if case["labels"] == 2 else other
    assert np.abs(other - coefficients).max() > 2e-3


def test_probabilities():
    case = CASES[1]
    weights, bias, _, _ = fit(case)
    logits = np.array(case["vectors"]) @ weights.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, case["probabilities"], rtol=0, atol=1e-4)


def test_the_same_every_time():
    """A fit does not depend on the one before, and one graph serves all."""
    case = CASES[0]
    vectors, label = np.array(case["vectors"], np.float32), np.array(case["label"])
    logistic = LogisticRegression(2)
    first = logistic.fit(vectors, label)
    logistic.fit(-vectors, label)
    again = logistic.fit(vectors, label)
    assert all(np.array_equal(one, other) for one, other in zip(first, again))
