"""modeling/run/measures.py against scikit-learn's values (tests/golden/measures.json), loops and SciPy."""

import json
import math
import os

import numpy as np
import pytest
import tiny

from modeling.run import measures

with open(os.path.join(tiny.ROOT, "tests", "golden", "measures.json"), encoding="utf-8") as _file:
    CASES = json.load(_file)["cases"]


def arrays(case):
    return np.array(case["probabilities"]), np.array(case["label"])


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_values_of_scikit_learn(case):
    probabilities, label = arrays(case)
    expected, logs = case["values"], np.log(probabilities)
    found = measures.measures(logs, label)
    assert list(found) == list(measures.SCALARS)
    for name in measures.SCALARS:
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name
    assert measures.cross_entropies(logs, label).mean() == pytest.approx(expected["cross_entropy"], abs=1e-12)
    confusion = measures.confusion_matrix(label, probabilities.argmax(axis=1), probabilities.shape[1])
    assert measures.accuracy(confusion) == pytest.approx(expected["accuracy"], abs=1e-12)
    for name, values in measures.class_measures(confusion)._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-12, err_msg=name)
    names = [f"class {place}" for place in range(len(confusion))]
    table = measures.by_class(confusion, names)
    assert [table[name]["f1"] for name in names] == pytest.approx(expected["f1"], abs=1e-12)
    assert [table[name]["support"] for name in names] == expected["support"]
    json.dumps(table)  # Python's numbers, not NumPy's


def test_leading_axes_are_kept():
    drawn = np.random.RandomState(4).randint(0, 9, (7, 3, 3))
    drawn[2] = 0
    for of in (measures.accuracy, measures.macro_f1, measures.balanced_accuracy, measures.matthews):
        together = of(drawn)
        assert together.shape == (7,)
        assert together.tolist() == pytest.approx([float(of(one)) for one in drawn])
        assert together[2] == 0  # no row at all


def test_calibration_error_by_a_loop():
    draw = np.random.RandomState(9)
    confidence, hits = draw.rand(200), draw.rand(200) < 0.6
    confidence[:3] = (0.0, 1.0, 1 / measures.BINS)  # the edges: the first bin has both ends
    error = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        here = (confidence > low) & (confidence <= high) | ((confidence == 0) & (number == 0))
        if here.any():
            error += here.mean() * abs(hits[here].mean() - confidence[here].mean())
    bins = measures.reliability(confidence, hits)
    assert measures.calibration_error(bins) == pytest.approx(error, abs=1e-12)
    parts = measures.reliability(confidence[:77], hits[:77]) + measures.reliability(confidence[77:], hits[77:])
    np.testing.assert_allclose(parts.confidence, bins.confidence)
    assert parts.count.tolist() == bins.count.tolist()
    assert measures.calibration_error(measures.reliability([], np.zeros(0, bool))) == 0.0


def test_a_logit_that_is_not_finite():
    values = measures.measures(measures.log_softmax(np.array([[np.nan, 1.0], [0.0, 2.0]])), np.array([0, 1]))
    assert math.isnan(values["calibration_error"])


def test_bootstrap_against_drawn_rows():
    """The same quantiles as a bootstrap that draws single rows within each domain."""
    draw = np.random.RandomState(3)
    count, domain, label = 150, np.repeat([0, 1], (100, 50)), draw.randint(0, 3, 150)
    predicted = np.where(draw.rand(count) < np.where(domain == 0, 0.9, 0.5), label, draw.randint(0, 3, count))
    confusions = np.stack([measures.confusion_matrix(label[domain == d], predicted[domain == d], 3) for d in (0, 1)])
    found = measures.bootstrap_intervals(confusions, seed=7, resamples=4000)
    values = {name: [] for name in measures.INTERVALS}
    for _ in range(4000):
        rows = np.concatenate([draw.choice(np.flatnonzero(domain == d), (domain == d).sum()) for d in (0, 1)])
        confusion = measures.confusion_matrix(label[rows], predicted[rows], 3)
        for name in measures.INTERVALS:
            values[name].append(getattr(measures, name)(confusion))
    for name, interval in found.items():
        assert interval == pytest.approx(np.percentile(values[name], (2.5, 97.5)), abs=0.02), name
    assert found == measures.bootstrap_intervals(confusions, seed=7, resamples=4000)
    assert found != measures.bootstrap_intervals(confusions, seed=8, resamples=4000)


def test_bootstrap_of_perfect_predictions_and_an_empty_domain():
    confusions = np.array([[[5, 0], [0, 6]], [[0, 0], [0, 0]]])
    assert measures.bootstrap_intervals(confusions, seed=1) == {}  # an interval of 1.0 to 1.0 would look certain
    confusions[0, 0] = 4, 1
    assert set(measures.bootstrap_intervals(confusions, seed=1)) == set(measures.INTERVALS)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 7), (3, 12), (8, 8), (40, 61), (900, 1001)])
def test_mcnemar_against_the_binomial_test(first, second):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert measures.mcnemar_test(first, second) == pytest.approx(expected, rel=1e-9)
    assert measures.mcnemar_test(second, first) == measures.mcnemar_test(first, second)


@pytest.mark.parametrize("freedom", [1, 2, 8, 29, 30, 31, 47, 200])
def test_t_quantiles(freedom):
    """Those of SciPy, and of printed tables where it is not installed."""
    printed = {1: 12.706, 2: 4.303, 8: 2.306, 29: 2.045, 30: 2.042, 31: 2.040, 47: 2.012, 200: 1.972}
    assert measures.t_quantile(freedom) == pytest.approx(printed[freedom], abs=6e-4)
    stats = pytest.importorskip("scipy.stats")
    assert measures.t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-5)


def test_mean_interval_of_students_sleep_data():
    """The differences of the ten patients in Student's article (1908); the interval is that of R's t.test(…, paired = TRUE)."""
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert measures.mean_interval(differences) == pytest.approx((1.58, 0.7001142, 2.4598858), abs=1e-4)
    mean, *ends = measures.mean_interval([0.5])
    assert mean == 0.5
    assert all(map(math.isnan, ends))
