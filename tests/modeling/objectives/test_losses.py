"""modeling/objectives/losses.py and modeling/objectives/mft.py against NumPy written from the formulas, with the gradients of both
parts of the loss."""

import types

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
    tensors,
)

from modeling.bert.names import DOMAIN_HEAD
from modeling.bert.variables import Variables
from modeling.engine.global_function import global_function
from modeling.engine.runtime import flow
from modeling.objectives import mft as objectives
from modeling.objectives.losses import (
    accuracy,
    batch_mean,
    corrupted_domain_loss,
    corruption_targets,
    cross_entropy,
)
from modeling.objectives.mft import META_METRICS, finetuning_objective, meta_objective, with_corrupted_domains
from modeling.objectives.prototypes import corrupted_domains, other_domains
from modeling.run.optimizer import Schedule, create_optimizer

ROWS = 5  # samples of a batch here, the last one a filler
DRAW = np.random.RandomState(11)
LOGITS = (3 * DRAW.randn(ROWS, NUM_LABELS)).astype(np.float32)
DOMAIN_LOGITS = tuple((2 * DRAW.randn(ROWS, NUM_DOMAINS)).astype(np.float32) for _ in range(3))
BATCH_OF_ROWS = {
    "label": np.array([2, 0, 1, 1, 0], np.int32),
    "sample_weights": np.array([0.75, 0.0, 1.5, 0.25, 40.0], np.float32),  # a filler's weight must not matter
    "corrupted_domain": np.array([[1], [3], [0], [2], [2]], np.int32),
    "loss_mask": np.array([1, 1, 1, 1, 0], np.float32) * 5 / 4,
}


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
            log_probs, drawn = log_softmax(of_layer[i]), corrupted_domain[i]
            for z in drawn:
                parts["domain_loss"] -= log_probs[z] * part / len(drawn)
                parts["domain_accuracy"] += (of_layer[i].argmax() == z) * part / len(drawn)
                step = np.exp(log_probs) - np.eye(of_layer.shape[1])[z]
                of_layer_gradient[i] += domain_loss_weight * step * part / len(drawn)
    loss = parts["classification_loss"] + domain_loss_weight * parts["domain_loss"]
    return dict(parts, loss=loss), gradient, domain_gradients


# ------------------------------------------------------------------------------------------------------------- losses


def test_losses():
    def terms(variables, logits, label, loss_mask, first, second, z):
        losses = cross_entropy(logits, label)
        domain = corrupted_domain_loss(flow.cat([first, second], dim=0), corruption_targets(z, NUM_DOMAINS))
        return losses, batch_mean(losses, loss_mask), domain, accuracy(logits, label, loss_mask)

    label, loss_mask, z = (BATCH_OF_ROWS[name] for name in ("label", "loss_mask", "corrupted_domain"))
    arrays = {"logits": LOGITS, "label": label, "loss_mask": loss_mask, "first": DOMAIN_LOGITS[0], "second": DOMAIN_LOGITS[1], "z": z}
    losses, mean, domain, hits = run_graph(terms, arrays)
    rows = np.arange(ROWS)
    expected = -log_softmax(LOGITS)[rows, label]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=5e-6)
    np.testing.assert_allclose(mean, expected[:4].mean(), rtol=0, atol=5e-6)
    of_layers = [-log_softmax(part)[rows, z[:, 0]] for part in DOMAIN_LOGITS[:2]]
    assert domain.shape == (ROWS,)
    np.testing.assert_allclose(domain, (of_layers[0] + of_layers[1]) / 2, rtol=0, atol=5e-6)
    np.testing.assert_allclose(hits, np.mean(LOGITS.argmax(axis=1)[:4] == label[:4]), rtol=0, atol=1e-7)


def test_large_logits_and_a_batch_of_fillers():
    logits = np.array([[1000.0, 0.0, -1000.0], [-1000.0, 0.0, 1000.0]], np.float32)

    def terms(variables, logits, label, loss_mask):
        losses = cross_entropy(logits, label)
        return losses, batch_mean(losses, loss_mask)

    losses, mean = run_graph(terms, {"logits": logits, "label": np.array([0, 1], np.int32), "loss_mask": np.zeros(2, np.float32)})
    np.testing.assert_allclose(losses, [0.0, 1000.0], rtol=1e-6, atol=5e-6)  # exp(1000) is beyond float32
    assert mean == 0.0  # not 0 / 0


# --------------------------------------------------------------------------------- the objective as a function of logits


@pytest.fixture
def logits_as_variables(monkeypatch):
    """Cuts the encoder off: the objective then takes both parts' logits from variables, so that its gradients with
    respect to them show."""
    monkeypatch.setattr(objectives, "build_bert", lambda *_, **__: types.SimpleNamespace(pooled=None, hidden_states=range(4)))
    monkeypatch.setattr(objectives, "classification_logits", lambda variables, *_: variables.get("logits"))
    monkeypatch.setattr(objectives, "domain_representation", lambda variables, layers, *_: layers)

    def domain_logits(variables, layers):
        return flow.cat([variables.get(f"domain_logits_{layer}") for layer in layers], dim=0)

    monkeypatch.setattr(objectives, "domain_logits", domain_logits)


VALUES = dict({f"domain_logits_{layer + 1}": part for layer, part in enumerate(DOMAIN_LOGITS)}, logits=LOGITS)


def meta_gradients(domain_layers=(0, 1, 2), domain_loss_weight=0.3, **changes):
    def objective(variables, label, sample_weights, corrupted_domain, loss_mask):
        return meta_objective(
            variables,
            CONFIG,
            KERNELS["cpu"],
            None,
            domain_layers,
            domain_loss_weight,
            None,
            None,
            None,
            None,
            label,
            sample_weights,
            corrupted_domain,
            loss_mask,
        )

    values = {name: VALUES[name] for name in ["logits"] + [f"domain_logits_{layer + 1}" for layer in domain_layers]}
    (loss, metrics), found = gradients(objective, values, dict(BATCH_OF_ROWS, **changes))
    return loss, dict(zip(META_METRICS, metrics)), found


ALL_OTHERS = other_domains(np.array([3, 0, 1, 2, 0]), NUM_DOMAINS)


@pytest.mark.parametrize(
    ("domain_layers", "domain_loss_weight", "changes"),
    [((0, 1, 2), 0.3, {}), ((1,), 2.0, {}), ((0, 2), 0.7, {"corrupted_domain": ALL_OTHERS})],
)
def test_meta_objective_and_its_gradients(logits_as_variables, domain_layers, domain_loss_weight, changes):
    loss, metrics, found = meta_gradients(domain_layers, domain_loss_weight, **changes)
    of_layers = [DOMAIN_LOGITS[layer] for layer in domain_layers]
    expected, gradient, domain_gradients = reference(
        LOGITS, of_layers, domain_loss_weight=domain_loss_weight, **dict(BATCH_OF_ROWS, **changes)
    )
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=0, atol=5e-6, err_msg=name)
    np.testing.assert_allclose(loss, expected["loss"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(found["logits"], gradient, rtol=0, atol=3e-6)
    for layer, of_layer in zip(domain_layers, domain_gradients):
        np.testing.assert_allclose(found[f"domain_logits_{layer + 1}"], of_layer, rtol=0, atol=3e-6)


def test_a_weight_of_zero_removes_the_sample_from_the_classification_loss_only(logits_as_variables):
    _, _, found = meta_gradients()
    rows = np.abs(found["logits"]).max(axis=1)
    assert rows[1] == 0  # weight 0
    assert rows[4] == 0  # filler
    assert rows[[0, 2, 3]].min() > 1e-3
    for layer in (1, 2, 3):
        rows = np.abs(found[f"domain_logits_{layer}"]).max(axis=1)
        assert rows[1] > 1e-3
        assert rows[4] == 0


def test_weights_leave_the_domain_loss_alone(logits_as_variables):
    other = np.array([3.0, 1.0, 0.0, 2.0, 1.0], np.float32)
    _, before, gradients_before = meta_gradients()
    _, after, gradients_after = meta_gradients(sample_weights=other)
    assert abs(before["classification_loss"] - after["classification_loss"]) > 0.1
    assert before["domain_loss"] == after["domain_loss"]
    for layer in (1, 2, 3):
        name = f"domain_logits_{layer}"
        np.testing.assert_array_equal(gradients_before[name], gradients_after[name])


def test_fillers_contribute_nothing(logits_as_variables):
    changes = {name: array.copy() for name, array in BATCH_OF_ROWS.items()}
    changes["label"][4], changes["corrupted_domain"][4], changes["sample_weights"][4] = 2, 0, -7.0
    first, second = meta_gradients(), meta_gradients(**changes)
    assert first[0] == second[0]
    assert first[1] == second[1]
    for name in first[2]:
        np.testing.assert_array_equal(first[2][name], second[2][name])


# ------------------------------------------------------------------------------------- the objective with the encoder


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


def test_without_domain_loss_the_head_rests():
    """lambda 0 leaves the domain head out of the graph: the optimizer touches neither its gradient nor its decay."""
    batch, values = meta_batch(), dict(documented("weight"), **domain_head())
    variables = Variables(values)
    optimizer, rates = create_optimizer(variables, Schedule(1e-2, 10, 0), weight_decay=0.5)

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
    def job(variables, **features):
        return meta_objective(variables, NO_DROPOUT, KERNELS["cpu"], None, (0, 2), 0.0, **features)

    loss, metrics = numpy_of(job(**tensors(batch)))
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


def test_corrupted_domains_are_drawn_for_each_step():
    batches = [{"domain": np.array([0, 1, 2, 3] * 4, np.int32), "label": np.full(16, step)} for step in range(3)]
    whole = list(with_corrupted_domains(batches, NUM_DOMAINS, seed=8))
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["corrupted_domain"], corrupted_domains(batch["domain"], NUM_DOMAINS, 8, step)[:, None])
        assert (batch["label"] == step).all()
    assert "corrupted_domain" not in batches[0]
    continued = list(with_corrupted_domains(batches[1:], NUM_DOMAINS, seed=8, start_step=1))
    for one, other in zip(whole[1:], continued):
        np.testing.assert_array_equal(one["corrupted_domain"], other["corrupted_domain"])


def test_all_other_domains_are_the_mean_of_every_draw(logits_as_variables):
    """`--corruption all` is the expectation of `sampled`: the same loss and gradients without the draw's noise."""
    draws = [meta_gradients(corrupted_domain=ALL_OTHERS[:, [n]]) for n in range(NUM_DOMAINS - 1)]
    _, metrics, found = meta_gradients(corrupted_domain=ALL_OTHERS)
    for name in ("domain_loss", "domain_accuracy"):
        np.testing.assert_allclose(metrics[name], np.mean([draw[1][name] for draw in draws]), rtol=0, atol=2e-6)
    for layer in (1, 2, 3):
        name = f"domain_logits_{layer}"
        np.testing.assert_allclose(found[name], np.mean([draw[2][name] for draw in draws], axis=0), rtol=0, atol=2e-6)
    batches = [{"domain": np.array([3, 0, 1], np.int32)}]
    (batch,) = with_corrupted_domains(batches, NUM_DOMAINS, seed=8, corruption="all")
    np.testing.assert_array_equal(batch["corrupted_domain"], ALL_OTHERS[:3])
