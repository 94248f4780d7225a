"""modeling/run/label_loss.py: weights of scikit-learn, and values that do not fit the task."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling.objectives.losses import PLAIN, LabelLoss
from modeling.run.label_loss import balanced_weights, choose_label_loss
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task

with open(os.path.join(tiny.ROOT, "tests", "golden", "measures.json"), encoding="utf-8") as _file:
    CASES = json.load(_file)["cases"]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_balanced_weights_of_scikit_learn(case):
    label, classes = np.array(case["label"]), len(case["probabilities"][0])
    weights = balanced_weights(label, classes)
    present = np.unique(label)
    assert [weights[place] for place in present] == pytest.approx(case["values"]["balanced_weights"], abs=1e-12)
    assert [weights[place] for place in range(classes) if place not in present] == [1.0] * (classes - len(present))
    assert np.mean([weights[place] for place in label]) == pytest.approx(1)


def choose(weights=None, smoothing=0.0, label=(0, 0, 2, 1, 0, 0)):
    lines = []
    flags = SimpleNamespace(class_weights=weights, label_smoothing=smoothing)
    context = SimpleNamespace(flags=flags, task=Task("t", ("a",), ("x", "y", "z")), log=lines.append)
    return choose_label_loss(context, np.array(label)), lines


def test_what_is_chosen_is_said():
    assert choose() == (PLAIN, [])
    assert choose([1.0, 2, 0]) == (LabelLoss((1.0, 2.0, 0.0), 0.0), ["class weights: x 1, y 2, z 0"])
    chosen, lines = choose("balanced", 0.3)
    assert chosen == LabelLoss((0.5, 2.0, 2.0), 0.3)
    assert lines == ["class weights: x 0.5, y 2, z 2", "label smoothing 0.3: 0.1 for each label that is not true"]


@pytest.mark.parametrize(
    ("weights", "smoothing", "message"),
    [
        ([1.0, 0.5], 0.0, "--class_weights 1,0.5: 2 weights for 3 labels, in this order: x, y, z"),
        ([0.0, 1.0, 0.0], 0.0, "--class_weights: each label of the training rows has the weight 0"),
        (None, 1.0, "--label_smoothing 1: the target does not depend on the label"),
    ],
)
def test_values_that_do_not_fit(weights, smoothing, message):
    with pytest.raises(UserError, match=message):
        choose(weights, smoothing, label=(0, 0, 2))
