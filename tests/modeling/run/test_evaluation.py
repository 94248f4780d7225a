"""modeling/run/evaluation.py and the rule of the best snapshot."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, documented, random_samples

from modeling.bert.variables import Variables
from modeling.engine.global_function import global_function
from modeling.engine.runtime import flow
from modeling.objectives.mft import predict_logits
from modeling.run import measures
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.bucketing import EvaluationBatches
from modeling.run.evaluation import Evaluation, measure, predict
from ofrecord_util.packing import Rows
from ofrecord_util.records import Records
from ofrecord_util.tasks import Task


def test_measure_against_a_loop():
    draw = np.random.RandomState(7)
    logits, label, domain = draw.randn(23, 3).astype(np.float32) * 4, draw.randint(0, 3, 23), draw.randint(0, 2, 23) * 2
    correct, losses, by_domain = 0, [], {"a": [], "c": []}
    for row, truth, place in zip(logits.astype(np.float64), label, domain):
        hit = int(np.argmax(row) == truth)
        loss = -np.log(np.exp(row[truth]) / np.exp(row).sum())
        correct += hit
        losses.append(loss)
        by_domain["a" if place == 0 else "c"].append((hit, loss))
    evaluation = measure(logits, label, domain, Task("t", ("a", "b", "c"), ("x", "y", "z")), 42)
    assert (evaluation.correct, evaluation.total, evaluation.accuracy) == (correct, 23, correct / 23)
    assert evaluation.cross_entropy == pytest.approx(np.mean(losses), abs=1e-9)
    assert set(evaluation.by_domain) == {"a", "c"}  # b has no sample
    for name, pairs in by_domain.items():
        values = evaluation.by_domain[name]
        assert (values["correct"], values["total"]) == (sum(hit for hit, _ in pairs), len(pairs))
        assert values["accuracy"] == pytest.approx(values["correct"] / values["total"])
        assert values["cross_entropy"] == pytest.approx(np.mean([loss for _, loss in pairs]), abs=1e-9)
        here = domain == (0 if name == "a" else 2)
        own = measures.measures(measures.log_softmax(logits[here]), label[here])
        assert {key: values[key] for key in own} == own
    whole = measures.measures(measures.log_softmax(logits), label)
    values = evaluation.to_dict()
    assert {key: values[key] for key in whole} == whole
    assert sum(row["support"] for row in values["by_class"].values()) == 23
    low, high = values["intervals"]["macro_f1"]
    assert low < values["macro_f1"] < high
    assert Evaluation.from_dict(json.loads(json.dumps(values))).to_dict() == json.loads(json.dumps(values))
    assert evaluation.value("matthews") == whole["matthews"]
    assert evaluation.value("cross_entropy") == evaluation.cross_entropy
    assert "macro F1 {:.4f} (95 % interval {:.3f} to {:.3f}), balanced".format(values["macro_f1"], low, high) in evaluation.more_text()


def test_rows_that_are_measured_after_several_tasks_count_once():
    """Accuracy, cross-entropy and further measures are those of all predictions, counts and widths of intervals those of distinct rows."""
    draw = np.random.RandomState(8)
    label, domain, task = draw.randint(0, 2, 19), draw.randint(0, 2, 19), Task("t", ("a", "b"), ("x", "y"))
    logits = draw.randn(3, 19, 2)
    label3, domain3 = np.tile(label, 3), np.tile(domain, 3)
    found, pooled = (measure(logits.reshape(57, 2), label3, domain3, task, 42, tasks) for tasks in (3, 1))
    assert (found.total, found.more["tasks"], "tasks" in pooled.more) == (19, 3, False)
    assert found.correct == pytest.approx(pooled.correct / 3)
    assert found.accuracy == pytest.approx(pooled.accuracy)
    assert found.cross_entropy == pooled.cross_entropy
    singles = [measure(part, label, domain, task, 42) for part in logits]
    assert found.accuracy == pytest.approx(np.mean([single.accuracy for single in singles]))
    for name, values in found.by_domain.items():
        assert values["total"] == singles[0].by_domain[name]["total"]
        assert values["correct"] == pytest.approx(np.mean([single.by_domain[name]["correct"] for single in singles]))
        assert values["accuracy"] == pooled.by_domain[name]["accuracy"]
    supports = [[values["support"] for values in one.more["by_class"].values()] for one in (found, singles[0])]
    assert supports[0] == supports[1] == np.bincount(label).tolist()
    low, high = found.more["intervals"]["accuracy"]
    narrow = pooled.more["intervals"]["accuracy"]
    assert high - low > 1.3 * (narrow[1] - narrow[0])  # sqrt(3) for many rows
    assert f"accuracy {found.accuracy:.4f} (19 rows, mean of 3 tasks per domain), cross-entropy" in str(found)
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == json.loads(json.dumps(found.to_dict()))


def test_measure_of_huge_logits_is_finite():
    evaluation = measure(
        np.array([[1e4, -1e4], [0.0, 5e3]], np.float32), np.array([1, 1]), np.zeros(2, int), Task("t", ("a",), ("x", "y")), 42
    )
    assert evaluation.cross_entropy == pytest.approx(1e4)
    assert evaluation.correct == 1


@pytest.mark.parametrize(("batch_size", "lengths"), [(1, (13,)), (4, (8, 13)), (5, (3, 7, 13)), (30, (13,))])
def test_every_sample_once_and_in_order(batch_size, lengths):
    draw = np.random.RandomState(3)
    real = draw.randint(1, 14, 11)
    mask = (np.arange(13)[None] < real[:, None]).astype(np.int32)
    column = np.zeros(11, np.int32)
    ids = draw.randint(1, CONFIG.vocab_size, (11, 13)).astype(np.int32) * mask
    records = Records(ids, mask, 0 * mask, column, column, np.arange(11, dtype=np.int32), column.astype(np.float32)).samples()
    seen = []

    @global_function(type="predict", variables=Variables({"unused": np.zeros(1, np.float32)}))
    def job(variables, word_rows, input_mask, segment_ids):
        seen.append(tuple(word_rows.shape))
        return word_rows.to(flow.float32).sum(dim=1, keepdim=True)

    result = predict(job, records, EvaluationBatches(batch_size, lengths))
    np.testing.assert_array_equal(result[:, 0], ids.sum(axis=1))
    assert {shape[0] for shape in seen} == {batch_size}
    assert {shape[1] for shape in seen} <= set(lengths)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("shapes", [(Rows(2, 32, 4),), (Rows(3, 8, 2), Rows(1, 16, 1))])
def test_texts_that_share_rows_have_their_own_logits(pooling, shapes):
    """Against the stock kernels with one text per row; a batch that is not full has rows and places without a text."""
    config = dataclasses.replace(NO_DROPOUT, pooling=pooling)
    samples = random_samples([3, 13, 7, 2, 5, 11, 8, 8, 1])

    def logits(kernels, batches):
        @global_function(type="predict", variables=Variables(documented("weight")))
        def job(variables, **text):
            return predict_logits(variables, config, kernels, **text)

        return predict(job, samples, batches)

    alone = logits(KERNELS["stock"], EvaluationBatches(9, (13,)))
    shared = logits(KERNELS["cpu"], EvaluationBatches(0, (), shapes))
    np.testing.assert_allclose(shared, alone, rtol=0, atol=2e-6)
    assert np.ptp(alone, axis=0).max() > 0.01


class _Context:
    """Writes an empty folder for a snapshot and notes the decay."""

    def __init__(self, folder, keep_all_best=False, metric_for_best="accuracy"):
        self.path, self.folder, self.task = str(folder), self, SimpleNamespace(name="g1")
        self.flags, self.decays = SimpleNamespace(keep_all_best=keep_all_best, metric_for_best=metric_for_best), []

    def write_snapshot(self, name, variables, config=None, decay=1.0):
        os.makedirs(os.path.join(self.path, name), exist_ok=True)
        self.decays.append(decay)
        return os.path.join(self.path, name)


def test_best_snapshot(tmp_path):
    context = _Context(tmp_path)
    best = BestSnapshot(context, "mft", variables=None)
    offers = [  # correct of 32, cross-entropy, saved
        (20, 0.9, True),
        (19, 0.1, False),
        (20, 0.9, False),
        (20, 0.95, False),
        (20, 0.8, True),
        (25, 2.0, True),
        (24, 0.1, False),
    ]
    for step, (correct, loss, saved) in enumerate(offers):
        assert best.offer(Evaluation(correct, 32, loss, {}), 1 - step / 100) is saved, step
        assert len(os.listdir(str(tmp_path))) == 1  # only the best is kept
    assert os.listdir(str(tmp_path)) == ["snapshot_best_mft_model_g1_dev_0.78125"]
    assert best.path.endswith("_0.78125")
    assert best.evaluation.correct == 25
    assert context.decays == [1.0, 0.96, 0.95]


@pytest.mark.parametrize(
    ("metric", "saved"),
    [
        ("accuracy", [True, True, False, False, False]),
        ("macro_f1", [True, False, True, True, False]),
        ("matthews", [True, False, False, True, False]),
        ("cross_entropy", [True, False, False, True, True]),
    ],
)
def test_the_metric_selects(tmp_path, metric, saved):
    """The name has the accuracy whatever selects; equal values are ranked by cross-entropy, equal cross-entropies by accuracy."""
    best = BestSnapshot(_Context(tmp_path, metric_for_best=metric), "ft", variables=None)
    offers = [(16, 0.9, 0.5, 0.5), (20, 0.95, 0.4, 0.3), (16, 0.95, 0.6, 0.4), (16, 0.8, 0.6, 0.5), (17, 0.8, 0.2, 0.1)]
    found, stale = [], 0
    for correct, loss, macro_f1, matthews in offers:
        found.append(best.offer(Evaluation(correct, 32, loss, {}, {"macro_f1": macro_f1, "matthews": matthews}), 1.0))
        stale = 0 if found[-1] else stale + 1
        assert best.stale == stale
    assert found == saved
    correct = offers[max(place for place, was in enumerate(saved) if was)][0]
    assert os.listdir(str(tmp_path)) == [f"snapshot_best_ft_model_g1_dev_{correct / 32!r}"]


def test_keep_all_best(tmp_path):
    best = BestSnapshot(_Context(tmp_path, keep_all_best=True), "ft", variables=None)
    for correct in (17, 2, 24):
        best.offer(Evaluation(correct, 24, 1.0, {}), 1.0)
    assert sorted(os.listdir(str(tmp_path))) == ["snapshot_best_ft_model_g1_dev_0.7083333333333334", "snapshot_best_ft_model_g1_dev_1.0"]
