"""modeling/objectives/mft.py against NumPy, written from the formulas, with the gradients of both parts of the loss."""

import numpy as np
import pytest
from tiny_model import (
    BATCH,
    CONFIG,
    GOLDEN,
    KERNELS,
    NO_DROPOUT,
    NUM_DOMAINS,
    NUM_LABELS,
    documented,
    domain_head,
    golden_batch,
    gradients,
    log_softmax,
    numpy_of,
    run_graph,
)

from modeling.bert.dropout import DropoutPlan
from modeling.bert.encoder import build_bert
from modeling.bert.heads import classification_logits
from modeling.bert.names import DOMAIN_HEAD
from modeling.bert.variables import Variables
from modeling.engine.global_function import global_function
from modeling.objectives.corruption import other_domains
from modeling.objectives.mft import (
    META_METRICS,
    classification_loss,
    domain_loss,
    finetuning_metrics,
    finetuning_objective,
    meta_loss,
    meta_metrics,
    meta_objective,
)
from modeling.objectives.smoothness import Smoothness
from modeling.run.optimizer import Schedule, create_optimizer

ROWS = 5  # samples of a batch; the last one only fills it up
RANDOM = np.random.RandomState(11)
LOGITS = (3 * RANDOM.randn(ROWS, NUM_LABELS)).astype(np.float32)
DOMAIN_LOGITS = (2 * RANDOM.randn(3, ROWS, NUM_DOMAINS)).astype(np.float32)  # of three layers
BATCH_OF_ROWS = {
    "label": np.array([2, 0, 1, 1, 0], np.int32),
    "sample_weights": np.array([0.75, 0.0, 1.5, 0.25, 40.0], np.float32),  # the last row's weight must not matter
    "corrupted_domain": np.array([[1], [3], [0], [2], [2]], np.int32),
    "loss_mask": np.array([1, 1, 1, 1, 0], np.float32) * 5 / 4,
}
ALL_OTHERS = other_domains(np.array([3, 0, 1, 2, 0]), NUM_DOMAINS)


def reference(logits, domain_logits, label, sample_weights, corrupted_domain, loss_mask, domain_loss_weight):
    """MFT's objective and its gradients, sample by sample."""
    count = sum(loss_mask > 0)
    parts = {"classification_loss": 0.0, "domain_loss": 0.0, "accuracy": 0.0, "domain_accuracy": 0.0}
    gradient, domain_gradients = np.zeros(logits.shape), [np.zeros(part.shape) for part in domain_logits]
    for i in range(len(label)):
        if not loss_mask[i]:
            continue
        log_probs = log_softmax(logits[i])
        parts["classification_loss"] -= sample_weights[i] * log_probs[label[i]] / count
        parts["accuracy"] += (logits[i].argmax() == label[i]) / count
        gradient[i] = sample_weights[i] * (np.exp(log_probs) - np.eye(logits.shape[1])[label[i]]) / count
        for of_layer, of_layer_gradient in zip(domain_logits, domain_gradients):
            part = 1.0 / (count * len(domain_logits))
            log_probs, sampled = log_softmax(of_layer[i]), corrupted_domain[i]
            for z in sampled:
                parts["domain_loss"] -= log_probs[z] * part / len(sampled)
                parts["domain_accuracy"] += (of_layer[i].argmax() == z) * part / len(sampled)
                step = np.exp(log_probs) - np.eye(of_layer.shape[1])[z]
                of_layer_gradient[i] += domain_loss_weight * step * part / len(sampled)
    loss = parts["classification_loss"] + domain_loss_weight * parts["domain_loss"]
    return dict(parts, loss=loss), gradient, domain_gradients


# The losses as functions of logits


def meta_gradients(layers=(0, 1, 2), domain_loss_weight=0.3, **changes):
    """The loss, the metrics by name, and the gradients of the logits [B, C] and of the domain logits [n, B, K] of some layers."""
    of_layers = DOMAIN_LOGITS[list(layers)]

    def loss(variables, label, sample_weights, corrupted_domain, loss_mask):
        classification = classification_loss(variables.get("logits"), label, loss_mask, sample_weights)
        of_domain = domain_loss(variables.get("domain_logits"), corrupted_domain, loss_mask)
        return meta_loss(classification, of_domain, domain_loss_weight)

    values = {"logits": LOGITS, "domain_logits": of_layers.reshape(-1, NUM_DOMAINS)}
    (loss, metrics), found = gradients(loss, values, dict(BATCH_OF_ROWS, **changes))
    return loss, dict(zip(META_METRICS, metrics)), found["logits"], found["domain_logits"].reshape(of_layers.shape)


@pytest.mark.parametrize(
    ("layers", "domain_loss_weight", "changes"),
    [((0, 1, 2), 0.3, {}), ((1,), 2.0, {}), ((0, 2), 0.7, {"corrupted_domain": ALL_OTHERS})],
)
def test_meta_loss_and_its_gradients(layers, domain_loss_weight, changes):
    loss, metrics, of_logits, of_domain_logits = meta_gradients(layers, domain_loss_weight, **changes)
    expected, gradient, domain_gradients = reference(
        LOGITS, DOMAIN_LOGITS[list(layers)], domain_loss_weight=domain_loss_weight, **dict(BATCH_OF_ROWS, **changes)
    )
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=0, atol=5e-6, err_msg=name)
    np.testing.assert_allclose(loss, expected["loss"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(of_logits, gradient, rtol=0, atol=3e-6)
    np.testing.assert_allclose(of_domain_logits, domain_gradients, rtol=0, atol=3e-6)


def test_a_sample_weight_of_zero_removes_the_sample_from_the_classification_loss_only():
    _, _, of_logits, of_domain_logits = meta_gradients()
    rows = np.abs(of_logits).max(axis=1)
    assert rows[1] == 0  # weight 0
    assert rows[4] == 0  # fills the batch up
    assert rows[[0, 2, 3]].min() > 1e-3
    rows = np.abs(of_domain_logits).max(axis=2)
    assert rows[:, 1].min() > 1e-3
    assert (rows[:, 4] == 0).all()


def test_sample_weights_do_not_change_the_domain_loss():
    _, before, _, gradient_before = meta_gradients()
    _, after, _, gradient_after = meta_gradients(sample_weights=np.array([3.0, 1.0, 0.0, 2.0, 1.0], np.float32))
    assert abs(before["classification_loss"] - after["classification_loss"]) > 0.1
    assert before["domain_loss"] == after["domain_loss"]
    np.testing.assert_array_equal(gradient_before, gradient_after)


def test_rows_that_fill_the_batch_up_contribute_nothing():
    changes = {name: array.copy() for name, array in BATCH_OF_ROWS.items()}
    changes["label"][4], changes["corrupted_domain"][4], changes["sample_weights"][4] = 2, 0, -7.0
    first, second = meta_gradients(), meta_gradients(**changes)
    assert first[:2] == second[:2]
    np.testing.assert_array_equal(first[2], second[2])
    np.testing.assert_array_equal(first[3], second[3])


def test_all_other_domains_are_the_mean_of_every_sample():
    """`--corruption all` is the expectation of `sampled`: the same loss and gradients without the noise of sampling."""
    sampled = [meta_gradients(corrupted_domain=ALL_OTHERS[:, [n]]) for n in range(NUM_DOMAINS - 1)]
    _, metrics, _, gradient = meta_gradients(corrupted_domain=ALL_OTHERS)
    for name in ("domain_loss", "domain_accuracy"):
        np.testing.assert_allclose(metrics[name], np.mean([one[1][name] for one in sampled]), rtol=0, atol=2e-6)
    np.testing.assert_allclose(gradient, np.mean([one[3] for one in sampled], axis=0), rtol=0, atol=2e-6)


# The objectives with the encoder


def meta_batch():
    return dict(
        golden_batch(),
        domain=np.array([2, 0, 3], np.int32),
        label=GOLDEN["train/labels"],
        sample_weights=GOLDEN["train/weights"],
        corrupted_domain=np.array([[0], [3], [1]], np.int32),
        loss_mask=np.array([1, 0, 1], np.float32) * 3 / 2,
    )


def test_meta_objective_on_the_golden_encoder():
    batch, head, layers = meta_batch(), domain_head(), (0, 2)

    def objective(variables, **features):
        return meta_objective(variables, CONFIG, KERNELS["cpu"], None, layers, 0.1, **features)

    loss, metrics = run_graph(objective, batch, dict(documented("weight"), **head))
    projection, weights, bias = (head[name].astype(np.float64) for name in DOMAIN_HEAD)
    domain_logits = []
    for layer in layers:
        hidden = GOLDEN[f"output/hidden_{layer}"].astype(np.float64)
        means = np.stack([hidden[row, batch["input_mask"][row] == 1].mean(axis=0) for row in range(BATCH)])
        domain_logits.append((means + projection[batch["domain"]]) @ weights.T + bias)
    targets = {name: batch[name] for name in BATCH_OF_ROWS}
    expected, _, _ = reference(GOLDEN["output/logits"], domain_logits, domain_loss_weight=0.1, **targets)
    np.testing.assert_allclose(loss, expected["loss"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(metrics, [expected[name] for name in META_METRICS], rtol=0, atol=1e-5)


def test_without_the_domain_loss_the_domain_head_does_not_change():
    """With lambda 0 the graph has no domain head: it gets neither a gradient nor weight decay."""
    batch, values = meta_batch(), dict(documented("weight"), **domain_head())
    variables = Variables(values)
    optimizer, rates = create_optimizer(variables, Schedule(1e-2, 10, 0), weight_decay=0.5)

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
    def job(variables, **features):
        return meta_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, (0, 2), 0.0, **features)

    loss, metrics = numpy_of(job(batch))
    found = dict(zip(META_METRICS, metrics))
    expected = np.sum(GOLDEN["train/weights"] * GOLDEN["output/cross_entropy"] * (batch["loss_mask"] > 0)) / 2
    np.testing.assert_allclose([loss, found["loss"], found["classification_loss"]], [expected] * 3, rtol=0, atol=1e-5)
    assert found["domain_loss"] == found["domain_accuracy"] == 0
    for name in DOMAIN_HEAD:
        np.testing.assert_array_equal(variables.get(name).numpy(), values[name])
    changed = np.abs(variables.get("classification-output_weights").numpy() - values["classification-output_weights"])
    assert changed.min() > 1e-3


def test_finetuning_objective_on_the_golden_encoder():
    batch = dict(golden_batch(), label=GOLDEN["train/labels"], loss_mask=np.array([1, 0, 1], np.float32) * 3 / 2)

    def objective(variables, **features):
        return finetuning_objective(variables, CONFIG, KERNELS["cpu"], None, **features)

    loss, metrics = run_graph(objective, batch, documented("weight"))
    expected = GOLDEN["output/cross_entropy"][[0, 2]].mean()
    hits = np.mean((GOLDEN["output/logits"].argmax(axis=1) == batch["label"])[[0, 2]])
    np.testing.assert_allclose(loss, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(metrics, [expected, hits], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_gradients_of_the_consistency_term():
    """They are those of each pass, with its own masks, for the derivatives of the divergence: central differences of NumPy in float64."""
    plan, weight, values = DropoutPlan(CONFIG, 5, "cpu", passes=2), 1.5, documented("weight")
    batch = dict(golden_batch(), label=GOLDEN["train/labels"], loss_mask=np.array([1, 0, 1], np.float32) * 3 / 2)
    masks = plan.masks(3, *batch["word_rows"].shape)
    half = len(masks) // 2
    passes = [{f"dropout_{i}": masks[f"dropout_{start + i}"] for i in range(half)} for start in (0, half)]

    def logits_of(variables, **features):
        dropout = plan.take(features)
        bert = build_bert(variables, CONFIG, KERNELS["cpu"], **features, dropout=dropout)
        return classification_logits(variables, KERNELS["cpu"], bert.pooled, dropout)

    def along(variables, slopes, **features):
        value = (logits_of(variables, **features) * slopes).sum()
        return value, value

    def divergence(logits, others):
        first, second = (each - np.log(np.exp(each).sum(axis=1, keepdims=True)) for each in (logits, others))
        return (((np.exp(first) - np.exp(second)) * (first - second)).sum(axis=1) / NUM_LABELS * batch["loss_mask"]).mean()

    texts = golden_batch()
    logits = [run_graph(logits_of, {**texts, **own}, values).astype(np.float64) for own in passes]
    expected = {name: np.zeros(value.shape) for name, value in values.items()}
    for number, own in enumerate(passes):
        slopes = np.zeros(logits[0].shape)
        for place in np.ndindex(slopes.shape):
            above, below = ([each.copy() for each in logits] for _ in range(2))
            above[number][place] += 1e-6
            below[number][place] -= 1e-6
            slopes[place] = weight * (divergence(*above) - divergence(*below)) / 2e-6
        _, found = gradients(along, values, {**texts, "slopes": slopes.astype(np.float32), **own})
        expected = {name: expected[name] + found[name] for name in expected}

    def objective(consistency_weight):
        def loss(variables, **features):
            dropout = plan.take(features)
            return finetuning_objective(variables, CONFIG, KERNELS["cpu"], dropout, **features, smoothness=Smoothness(consistency_weight))

        return gradients(loss, values, {**batch, **masks})[1]

    with_term, without = objective(weight), objective(0.0)
    for name, gradient in expected.items():
        np.testing.assert_allclose(with_term[name] - without[name], gradient, rtol=0, atol=3e-5, err_msg=name)
    assert np.abs(expected["bert-encoder-layer_1-attention-self-query-weight"]).max() > 1e-3


@pytest.mark.parametrize("kind", ["finetuning", "meta"])
def test_the_consistency_term_compares_two_dropout_passes(kind):
    """The first pass has the masks of a run without the term. Without dropout the term is 0."""
    batch, plan, weight = meta_batch(), DropoutPlan(CONFIG, 5, "cpu", passes=2), 1.5
    values = dict(documented("weight"), **domain_head())
    masks = plan.masks(3, *batch["word_rows"].shape)
    half = len(masks) // 2
    of_one_pass = DropoutPlan(CONFIG, 5, "cpu").masks(3, *batch["word_rows"].shape)
    assert all(np.array_equal(masks[name], mask) for name, mask in of_one_pass.items())
    texts = {name: batch[name] for name in ("word_rows", "input_mask", "segment_ids")}

    def logits_of(some):
        def logits(variables, **features):
            dropout = plan.take(features)
            bert = build_bert(variables, CONFIG, KERNELS["cpu"], **features, dropout=dropout)
            return classification_logits(variables, KERNELS["cpu"], bert.pooled, dropout)

        return run_graph(logits, {**texts, **some}, values)

    first, second = (logits_of({f"dropout_{i}": masks[f"dropout_{start + i}"] for i in range(half)}) for start in (0, half))
    logs, others = log_softmax(first), log_softmax(second)
    divergence = ((np.exp(logs) - np.exp(others)) * (logs - others)).sum(axis=1) / NUM_LABELS
    expected = (divergence * batch["loss_mask"]).mean()
    assert expected > 1e-3

    def objective(with_masks, consistency_weight):
        smoothness = Smoothness(consistency_weight)

        def terms(variables, **features):
            dropout = plan.take(features) if with_masks else None
            if kind == "finetuning":
                own = {name: value for name, value in features.items() if name not in ("domain", "sample_weights", "corrupted_domain")}
                return finetuning_objective(variables, CONFIG, KERNELS["cpu"], dropout, **own, smoothness=smoothness)
            return meta_objective(variables, CONFIG, KERNELS["cpu"], dropout, (0, 2), 0.1, **features, smoothness=smoothness)

        loss, metrics = run_graph(terms, {**batch, **(masks if with_masks else {})}, values)
        names = {"finetuning": finetuning_metrics, "meta": meta_metrics}[kind](smoothness)
        return float(loss), dict(zip(names, metrics.tolist()))

    loss, metrics = objective(True, weight)
    alone, plain = objective(True, 0.0)
    assert metrics["consistency_loss"] == pytest.approx(expected, rel=1e-4)
    assert loss == pytest.approx(alone + weight * expected, rel=1e-5)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-6)
    assert metrics["accuracy"] == plain["accuracy"]
    loss, metrics = objective(False, weight)
    assert abs(metrics["consistency_loss"]) < 1e-12  # the second pass computes fewer tokens of the last layer
    assert loss == pytest.approx(objective(False, 0.0)[0], rel=1e-7)
