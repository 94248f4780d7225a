"""modeling/run/task_measures.py and the two evaluations against scikit-learn, SciPy and PyTorch (tests/golden/make_task_types.py)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from modeling.run import task_measures
from modeling.run.evaluation import measure, read_evaluation
from modeling.run.measures import NUMBERS, SET_SCALARS, TITLES
from modeling.run.task_outputs import outputs_of
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import MULTI_LABEL, REGRESSION
from ofrecord_util.tasks import Task

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "task_types.json").read_text(encoding="utf-8"))
SCORE = Task("t", ("a", "b"), ("score",), task_type=REGRESSION)


def task_of(case):
    return Task("t", ("a", "b"), tuple(f"l{place}" for place in range(len(case["label"][0]))), task_type=MULTI_LABEL)


@pytest.mark.parametrize("case", GOLDEN["regression"])
def test_numbers(case):
    found = task_measures.number_measures(case["predicted"], case["label"])
    assert list(found) == list(NUMBERS)
    for name in NUMBERS:
        assert found[name] == pytest.approx(case[name], rel=1e-9, abs=1e-12), name
    label, logits = np.array(case["label"], np.float32), np.array(case["predicted"], np.float32)[:, None]
    domain = np.arange(len(label)) % 2
    evaluation = measure(logits, label, domain, SCORE, 0)
    assert evaluation.loss == evaluation.score == pytest.approx(case["loss"], rel=1e-5)
    for place, name in enumerate(SCORE.domains):
        part = task_measures.number_measures(logits[domain == place, 0], label[domain == place])
        assert evaluation.by_domain[name] == {"total": int((domain == place).sum()), **part}
    again = read_evaluation(json.loads(json.dumps(evaluation.to_dict())))
    assert again == evaluation
    assert all(TITLES[name] in str(evaluation) for name in NUMBERS)


def test_which_regression_is_better():
    def of(**values):
        return read_evaluation({"total": 3, **dict.fromkeys(NUMBERS, 0.5), "by_domain": {}, **values})

    assert of(mse=0.4).rank("mse") > of().rank("mse")
    assert of(pearson=0.6).rank("pearson") > of(mse=0.1).rank("pearson") > of().rank("pearson")
    assert of(spearman=0.6).rank("spearman") > of(mse=0.1).rank("spearman")


def test_constant_numbers_have_no_correlation():
    found = task_measures.number_measures([2.0, 2.0, 2.0], [1.0, 2.0, 4.0])
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)
    assert task_measures.number_measures([1.0, math.inf], [1.0, 2.0])["mse"] == math.inf


@pytest.mark.parametrize("case", GOLDEN["multi_label"])
def test_sets(case):
    label, logits = np.array(case["label"], np.int32), np.array(case["logits"])
    found = task_measures.set_measures(logits > 0, label)
    assert list(found) == list(SET_SCALARS)
    for name in SET_SCALARS:
        assert found[name] == pytest.approx(case[name], rel=1e-9, abs=1e-12), name
    task, domain = task_of(case), np.arange(len(label)) % 2
    evaluation = measure(logits, label, domain, task, 0)
    assert evaluation.score == evaluation.accuracy == pytest.approx(case["accuracy"])
    assert evaluation.loss == pytest.approx(case["loss"], rel=1e-9)
    for name, column in case["by_label"].items():
        assert [evaluation.more["by_class"][label][name] for label in task.labels] == pytest.approx(column)
    half = measure(logits[::2], label[::2], domain[::2], task, 0)
    expected = {name: half.to_dict()[name] for name in ("accuracy", "correct", "total", "cross_entropy", *SET_SCALARS)}
    assert evaluation.by_domain["a"] == expected
    assert read_evaluation(json.loads(json.dumps(evaluation.to_dict()))) == evaluation
    assert evaluation.rank("micro_f1") == (found["micro_f1"], -evaluation.loss)
    assert "subset accuracy" in str(evaluation)


def test_outputs():
    case = GOLDEN["multi_label"][0]
    logits, rules = np.array(case["logits"], np.float32), outputs_of(task_of(case))
    probabilities = rules.outputs(logits)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-12)
    assert np.array_equal(rules.predicted(probabilities), (logits > 0).astype(int))
    np.testing.assert_allclose(rules.logits(probabilities), logits, rtol=1e-6)
    assert rules.label(np.array([0.6, 0.5, 0.9]), ("x", "y", "z")) == ("x", "z")
    extreme = rules.outputs(np.array([[1000.0, -1000.0]], np.float32))
    assert extreme.tolist() == [[1.0, 0.0]]
    assert np.isfinite(rules.logits(extreme)).all()
    number = outputs_of(SCORE)
    assert number.predicted(number.outputs(np.array([[2.5], [-1.0]], np.float32))).tolist() == [2.5, -1.0]
    assert number.label(np.array([2.5]), ("score",)) == 2.5
    for each in (rules, number):
        with pytest.raises(UserError, match="the logits of 1 of 1 texts are not finite"):
            each.outputs(np.array([[np.nan]], np.float32))
