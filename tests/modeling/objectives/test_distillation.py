"""The objective of modeling/objectives/distillation.py, and teacher.py: a student of one layer, whose teacher is the tiny BERT of three."""

import dataclasses

import numpy as np
import pytest
from distillation_reference import FULL, attention_reference, hidden_reference, relation_reference, softmax, weights_reference
from tiny_model import CONFIG, KERNELS, NO_DROPOUT, NUM_DOMAINS, documented, domain_head, golden_batch, log_softmax, numpy_of, run_graph

from modeling.bert.names import DOMAIN_HEAD, HIDDEN_PROJECTION, REPRESENTATION_PROJECTION
from modeling.bert.variables import Variables, encoder_shapes, load_values
from modeling.engine.global_function import global_function
from modeling.engine.runtime import flow
from modeling.objectives.distillation import Distillation, LossWeights, distillation_metrics, distillation_objective, projection_shapes
from modeling.objectives.mft import predict_logits
from modeling.objectives.teacher import (
    ATTENTION,
    HIDDEN,
    LOGITS,
    PROJECTIONS,
    REPRESENTATION,
    Knowledge,
    knowledge_names,
    teacher_knowledge,
)
from modeling.run.student import layer_mapping

KERNEL = KERNELS["cpu"]

ONE_LAYER = dataclasses.replace(NO_DROPOUT, num_hidden_layers=1)
MAPPING = layer_mapping(1, CONFIG.num_hidden_layers)
NEEDS = Knowledge(MAPPING, True, True, True, True)
TEXT = golden_batch()
SAMPLES = {
    **TEXT,
    "domain": np.array([3, 0, 2], np.int32),
    "label": np.array([1, 2, 0], np.int32),
    "sample_weights": np.array([0.9, -0.2, 0.6], np.float32),
    "loss_mask": np.array([1, 1, 0], np.float32) * 3 / 2,
}


def teacher_values():
    return {**documented("weight"), **domain_head()}


def student_values():
    """The teacher's last layer, and a domain head of its own."""
    names = {name: name.replace("layer_0", "layer_2") for name in encoder_shapes(ONE_LAYER)}
    heads = {name: value * 0.5 for name, value in teacher_values().items() if name.startswith("classification")}
    return {**{name: documented("weight")[own] for name, own in names.items()}, **heads, **domain_head(6)}


def knowledge_of(values, config, needs):
    """(names and arrays of the knowledge, in a graph without dropout)"""

    def job(variables, word_rows, input_mask, segment_ids, domain):
        return tuple(teacher_knowledge(variables, config, KERNEL, needs, word_rows, input_mask, segment_ids, domain).values())

    arrays = run_graph(job, {name: SAMPLES[name] for name in (*TEXT, "domain")}, values)
    return dict(zip(knowledge_names(needs), arrays))


@pytest.fixture(scope="module")
def knowledge():
    return knowledge_of(teacher_values(), NO_DROPOUT, NEEDS)


def objective(plan, config=ONE_LAYER):
    def job(variables, **batch):
        sample = {name: batch.pop(name) for name in SAMPLES}
        return distillation_objective(variables, config, KERNEL, None, plan, batch, **sample)

    return job


def metrics_of(plan, values, knowledge, config=ONE_LAYER):
    loss, metrics = run_graph(objective(plan, config), {**SAMPLES, **knowledge}, values)
    named = dict(zip(distillation_metrics(plan), metrics.tolist()))
    assert loss == np.float32(named["loss"])
    assert len(metrics) == len(distillation_metrics(plan))
    return named


def plan(weights=FULL, sample_weights=True, mapping=MAPPING):
    return Distillation(weights, 2.0, mapping, sample_weights)


def test_what_the_teacher_says(knowledge):
    """The objective's inputs are what the encoder gives: shapes, names, r^T = masked mean + E_dom(d)."""
    assert list(knowledge) == [LOGITS, REPRESENTATION, HIDDEN.format(2), ATTENTION.format(2), *PROJECTIONS]
    logits = run_graph(lambda v, **x: predict_logits(v, NO_DROPOUT, KERNEL, **x), TEXT, teacher_values())
    np.testing.assert_allclose(knowledge[LOGITS], logits, atol=1e-6)
    mask = TEXT["input_mask"][..., None]
    mean = (knowledge[HIDDEN.format(2)] * mask).sum(axis=1) / mask.sum(axis=1)
    expected = mean + domain_head()[DOMAIN_HEAD[0]][SAMPLES["domain"]]
    np.testing.assert_allclose(knowledge[REPRESENTATION], expected, atol=1e-5)


@pytest.mark.parametrize("sample_weights", [True, False])
def test_objective(knowledge, sample_weights):
    own = knowledge_of(student_values(), ONE_LAYER, Knowledge((0,), True, True, True, True))
    mask, label, real = TEXT["input_mask"], SAMPLES["label"], SAMPLES["loss_mask"] > 0
    w = weights_reference(SAMPLES["sample_weights"], knowledge[LOGITS], label) if sample_weights else np.ones(3)
    soft = -4 * (softmax(knowledge[LOGITS] / 2) * log_softmax(own[LOGITS] / 2)).sum(axis=1)
    values = {
        "hidden": w * hidden_reference([own[HIDDEN.format(0)]], [knowledge[HIDDEN.format(2)]], mask),
        "attention": w * attention_reference([own[ATTENTION.format(0)]], [knowledge[ATTENTION.format(2)]], mask),
        "prediction": w * soft,
        "label": -log_softmax(own[LOGITS])[np.arange(3), label],
        "knowledge": ((own[REPRESENTATION] - knowledge[REPRESENTATION]) ** 2).mean(axis=1),
        "relation": w * relation_reference(*([side[name] for name in PROJECTIONS] for side in (own, knowledge)), mask),
    }
    terms = {name: value[real].mean() for name, value in values.items()}
    found = metrics_of(plan(sample_weights=sample_weights), student_values(), knowledge)
    for name, value in terms.items():
        assert found[name + "_loss"] == pytest.approx(value, rel=1e-4), name
    assert found["loss"] == pytest.approx(sum(getattr(FULL, name) * value for name, value in terms.items()), rel=1e-4)
    assert found["accuracy"] == (own[LOGITS].argmax(axis=1) == label)[real].mean()
    if sample_weights:
        assert found["sample_weight"] == pytest.approx(w[real].mean(), rel=1e-5)


@pytest.mark.parametrize("name", LossWeights._fields)
def test_a_weight_of_zero_is_a_run_without_the_term(knowledge, name):
    """The other terms are the same, the loss lacks the term, and the graph does without the term's inputs."""
    whole = metrics_of(plan(), student_values(), knowledge)
    needed = {"hidden": ("teacher_hidden",), "attention": ("teacher_attention",), "knowledge": (REPRESENTATION,), "relation": PROJECTIONS}
    inputs = {key: value for key, value in knowledge.items() if not key.startswith(needed.get(name, "-"))}
    less = metrics_of(plan(FULL._replace(**{name: 0.0})), student_values(), inputs)
    assert set(whole) - set(less) == {name + "_loss"}
    for key in less:
        if key != "loss":
            assert less[key] == whole[key], key
    assert less["loss"] == pytest.approx(whole["loss"] - getattr(FULL, name) * whole[name + "_loss"], rel=1e-5)


def test_a_student_like_its_teacher_has_nothing_to_learn():
    layers = tuple(range(CONFIG.num_hidden_layers))
    same = knowledge_of(teacher_values(), NO_DROPOUT, Knowledge(layers, True, True, True, True))
    found = metrics_of(plan(mapping=layers), teacher_values(), same, NO_DROPOUT)
    assert found["hidden_loss"] < 1e-10
    assert found["attention_loss"] < 1e-10
    assert found["knowledge_loss"] < 1e-10
    assert abs(found["relation_loss"]) < 1e-6
    assert found["label_loss"] > 0


def test_samples_without_labels(knowledge):
    """The terms are those of labelled samples; the agreement with the teacher takes the place of the accuracy."""
    weights = FULL._replace(label=0.0)
    unlabelled = Distillation(weights, 2.0, MAPPING, False, labelled=False)
    own = knowledge_of(student_values(), ONE_LAYER, Knowledge((0,), False, False, False))
    found = metrics_of(unlabelled, student_values(), knowledge)
    agrees = own[LOGITS].argmax(axis=1) == knowledge[LOGITS].argmax(axis=1)
    assert found.pop("agreement") == agrees[SAMPLES["loss_mask"] > 0].mean()
    labelled = metrics_of(plan(weights, sample_weights=False), student_values(), knowledge)
    assert labelled.pop("accuracy") in (0, 0.5, 1)
    assert found == labelled


def test_online_teacher_is_frozen_and_teaches_the_same(knowledge):
    """Two steps of SGD, in graphs of two shapes: same losses and same student as with the teacher's outputs as inputs; the
    teacher stays as it is."""
    results, some = [], np.array([2, 0])
    values = {name: value[some] for name, value in SAMPLES.items()}
    shorter = (values, {name: value[some] for name, value in knowledge.items()})
    for online in (False, True):
        student = Variables(student_values())
        optimizer = flow.optim.SGD(student.parameters(), lr=0.1)
        if online:
            teacher = Variables(teacher_values(), frozen=teacher_values())

            @global_function("train", variables=student, optimizer=optimizer, frozen=(teacher,))
            def job(variables, teacher, **batch):
                text = (batch[name] for name in (*TEXT, "domain"))
                found = teacher_knowledge(teacher, NO_DROPOUT, KERNEL, NEEDS, *text)
                return distillation_objective(variables, ONE_LAYER, KERNEL, None, plan(), found, **batch)

            outputs = [job(SAMPLES), job(values)]
            assert not any(parameter.requires_grad for parameter in teacher.parameters())
            for name, value in teacher_values().items():
                assert np.array_equal(teacher.get(name).numpy(), value), name
            assert all(parameter.grad is None for parameter in teacher.parameters())
        else:
            job = global_function("train", variables=student, optimizer=optimizer)(objective(plan()))
            outputs = [job({**first, **second}) for first, second in ((SAMPLES, knowledge), shorter)]
        metrics = np.concatenate([metrics for _, metrics in numpy_of(outputs)])
        results.append((metrics, {name: student.get(name).numpy() for name in student.names}))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    moved = 0
    for name, value in results[0][1].items():
        np.testing.assert_allclose(value, results[1][1][name], atol=2e-6)
        moved += not np.array_equal(value, student_values()[name])
    assert moved > 10


def test_projections_serve_training_only(knowledge):
    """A narrower student: the projections learn, and no snapshot holds them."""
    config = dataclasses.replace(ONE_LAYER, hidden_size=12, num_attention_heads=3, intermediate_size=13)
    weights = FULL._replace(relation=0.0)  # which need equal numbers of heads
    shapes = {**encoder_shapes(config), "classification-output_weights": (3, 12), "classification-output_bias": (3,)}
    shapes.update({DOMAIN_HEAD[0]: (NUM_DOMAINS, 12), **projection_shapes(weights, 1, 12, CONFIG.hidden_size)})
    values = load_values(shapes, None, seed=3, initializer_range=0.2)
    student = Variables(values)
    kept = {name: shape for name, shape in shapes.items() if not name.startswith("distillation-")}
    assert len(kept) == len(shapes) - 2
    assert student.count() == sum(np.prod(shape) for shape in kept.values())
    assert set(student.arrays()) == set(kept)
    optimizer = flow.optim.SGD(student.parameters(), lr=0.1)
    inputs = {name: value for name, value in knowledge.items() if name not in PROJECTIONS}
    job = global_function("train", variables=student, optimizer=optimizer)(objective(plan(weights), config))
    losses = [float(job({**SAMPLES, **inputs})[0].numpy()) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    for name in (HIDDEN_PROJECTION.format(0), REPRESENTATION_PROJECTION):
        assert not np.array_equal(student.get(name).numpy(), values[name])
