"""The terms of modeling/objectives/distillation.py against NumPy."""

import numpy as np
import pytest
from distillation_reference import FULL, attention_reference, hidden_reference, relation, relation_reference, softmax, weights_reference
from tiny_model import KERNELS, gradients, log_softmax, run_graph

from modeling.bert.encoder import BertOutput
from modeling.bert.names import HIDDEN_PROJECTION, REPRESENTATION_PROJECTION
from modeling.objectives.distillation import (
    Distillation,
    LossWeights,
    attention_loss,
    distillation_loss,
    expertise_weights,
    hidden_loss,
    knowledge_loss,
    projection_shapes,
    relation_loss,
    soft_cross_entropy,
)
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS

MASK = np.array([[1] * 7, [1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]], np.int32)  # B 3, S 7


def normal(*shape, seed=1):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def test_expertise_weights():
    score = np.array([0.97, -0.4, 0.0, 1.0, -1.0], np.float32)
    label = np.array([2, 0, 1, 1, 0], np.int32)
    logits = normal(5, 3) * 3
    logits[3] = (-30, 30, -30)  # a certain teacher: (1 + 1) / (1 + 1)
    result = run_graph(lambda v, **x: expertise_weights(**x), {"scores": score, "teacher_logits": logits, "label": label})
    np.testing.assert_allclose(result, weights_reference(score, logits, label), rtol=1e-5, atol=1e-7)
    assert result[3] == pytest.approx(1.0)
    assert result[4] == 0
    wrong = run_graph(lambda v, **x: expertise_weights(**x), {"scores": score[3:4], "teacher_logits": -logits[3:4], "label": label[3:4]})
    assert wrong[0] == pytest.approx(2 / (np.e + 1), rel=1e-5)  # sure of the wrong label


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.7])
def test_soft_cross_entropy(temperature):
    student, teacher = normal(5, 3) * 2, normal(5, 3, seed=2) * 4
    result = run_graph(lambda v, a, b: soft_cross_entropy(a, b, temperature), {"a": student, "b": teacher})
    expected = -(temperature**2) * (softmax(teacher / temperature) * log_softmax(student / temperature)).sum(axis=1)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    least = run_graph(lambda v, a, b: soft_cross_entropy(a, b, temperature), {"a": teacher, "b": teacher})
    assert (least < result).all()


@pytest.mark.parametrize(("student_size", "teacher_size"), [(5, 5), (5, 8)])
@pytest.mark.parametrize("kernels", KERNELS)
def test_hidden_loss(student_size, teacher_size, kernels):
    students = [normal(3, 7, student_size, seed=s) for s in (1, 2)]
    teachers = [normal(3, 7, teacher_size, seed=s) for s in (3, 4)]
    wide = student_size != teacher_size
    projections = [normal(student_size, teacher_size, seed=s) for s in (5, 6)] if wide else None
    variables = {HIDDEN_PROJECTION.format(m): p for m, p in enumerate(projections or ())}
    expected = hidden_reference(students, teachers, MASK, projections)
    for hidden in students + teachers:  # values at padding must not matter
        hidden[MASK == 0] = 1e4

    def loss(variables, mask, a, b, c, d):
        return hidden_loss(variables, (a, b), (c, d), mask, KERNELS[kernels].device)

    arrays = dict(zip("mabcd", (MASK, *students, *teachers)))
    arrays["mask"] = arrays.pop("m")
    np.testing.assert_allclose(run_graph(loss, arrays, variables), expected, rtol=2e-5)


@pytest.mark.parametrize(("student_heads", "teacher_heads"), [(2, 2), (2, 3), (1, 3)])
def test_attention_loss(student_heads, teacher_heads):
    students = [normal(3, student_heads, 7, 7, seed=s) for s in (1, 2)]
    teachers = [normal(3, teacher_heads, 7, 7, seed=s) for s in (3, 4)]
    expected = attention_reference(students, teachers, MASK)
    for scores in students:  # the additive mask of padding keys, and anything in rows of padding queries
        scores -= 10000.0 * (1 - MASK)[:, None, None, :]
        scores += 77.0 * (1 - MASK)[:, None, :, None]

    def loss(variables, mask, a, b, c, d):
        return attention_loss((a, b), (c, d), mask)

    arrays = {"mask": MASK, "a": students[0], "b": students[1], "c": teachers[0], "d": teachers[1]}
    np.testing.assert_allclose(run_graph(loss, arrays), expected, rtol=2e-5)
    if student_heads != teacher_heads:  # files may hold the mean over heads already
        arrays.update({name: arrays[name].mean(axis=1, keepdims=True) for name in "cd"})
        np.testing.assert_allclose(run_graph(loss, arrays), expected, rtol=2e-5)


def test_padding_has_no_gradient():
    student, teacher = normal(3, 7, 5), normal(3, 7, 5, seed=2)
    scores, teacher_scores = normal(3, 2, 7, 7), normal(3, 2, 7, 7, seed=2)

    def loss(variables, mask, teacher, teacher_scores):
        hidden = hidden_loss(variables, (variables.get("hidden"),), (teacher,), mask, "cpu")
        return hidden.sum() + attention_loss((variables.get("scores"),), (teacher_scores,), mask).sum()

    arrays = {"mask": MASK, "teacher": teacher, "teacher_scores": teacher_scores}
    _, gradient = gradients(loss, {"hidden": student, "scores": scores}, arrays)
    count = MASK.sum(axis=1)[:, None, None]
    expected = 2 * (student - teacher) / (5 * count) * MASK[:, :, None]
    np.testing.assert_allclose(gradient["hidden"], expected, atol=1e-6)
    assert (gradient["hidden"][MASK == 0] == 0).all()
    real = (MASK[:, :, None] * MASK[:, None, :])[:, None]
    np.testing.assert_allclose(gradient["scores"], 2 * (scores - teacher_scores) / (2 * count[..., None] ** 2) * real, atol=1e-6)


def projections(size, seeds, heads=3):
    return [normal(3, heads, 7, size, seed=seed) for seed in seeds]


def relation_inputs(student, teacher):
    """Arguments of `relation_loss` with what does not matter at padding: masked scores, and large numbers in all projections."""
    query, key, value = student
    scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(query.shape[3])) - 10000.0 * (1 - MASK)[:, None, None, :]
    scores = np.where(MASK[:, None, :, None] == 1, scores, 1e6).astype(np.float32)
    padded = [np.where(MASK[:, None, :, None] == 1, array, 1e6).astype(np.float32) for array in (value, *teacher)]
    return dict(zip(("scores", "value", "tq", "tk", "tv"), (scores, *padded)), mask=MASK)


@pytest.mark.parametrize(("student_size", "teacher_size"), [(5, 5), (5, 8), (2, 1)])
def test_relation_loss(student_size, teacher_size):
    student, teacher = projections(student_size, (1, 2, 3)), projections(teacher_size, (4, 5, 6))
    inputs = relation_inputs(student, teacher)
    found = run_graph(lambda v, scores, value, tq, tk, tv, mask: relation_loss(scores, value, tq, tk, tv, mask), inputs)
    np.testing.assert_allclose(found, relation_reference(student, teacher, MASK), rtol=2e-5, atol=1e-6)
    assert found[0] > 0.1
    assert found[2] == 0  # one real token: all distributions are certain


def test_equal_relations_have_no_loss():
    same = projections(5, (1, 2, 3))
    inputs = relation_inputs(same, same)
    found = run_graph(lambda v, scores, value, tq, tk, tv, mask: relation_loss(scores, value, tq, tk, tv, mask), inputs)
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_gradient_of_the_relations():
    """With G = (R^S - R^T) / (N |x|) at real pairs: G for the attention scores, (G + G^T) V / sqrt(D) for the values."""
    student, teacher = projections(5, (1, 2, 3)), projections(8, (4, 5, 6))
    inputs = relation_inputs(student, teacher)
    values = {name: inputs.pop(name) for name in ("scores", "value")}

    def loss(variables, tq, tk, tv, mask):
        return relation_loss(variables.get("scores"), variables.get("value"), tq, tk, tv, mask).sum()

    _, found = gradients(loss, values, inputs)
    expected = {name: np.zeros(value.shape) for name, value in values.items()}
    for sample, real in enumerate(MASK == 1):
        rows, columns = np.ix_(real, real)
        for head in range(3):
            (sq, sk, sv), (tq, tk, tv) = ([part[sample, head][real] for part in side] for side in (student, teacher))
            factor = 1 / (3 * real.sum())
            expected["scores"][sample, head, rows, columns] = factor * (relation(sq, sk) - relation(tq, tk))
            gradient = factor * (relation(sv, sv) - relation(tv, tv))
            expected["value"][sample, head, real] = (gradient + gradient.T) @ sv / np.sqrt(5)
    # one step of SGD took the gradient off: float32 holds it where the values are not large
    for name, exact in expected.items():
        small = np.abs(values[name]) < 100
        np.testing.assert_allclose(found[name][small], exact[small], atol=2e-6, err_msg=name)
        assert np.abs(exact[small]).max() > 0.01
        assert (found[name][~small] == 0).all()


@pytest.mark.parametrize("teacher_size", [5, 8])
def test_knowledge_loss(teacher_size):
    student, teacher, projection = normal(3, 5), normal(3, teacher_size, seed=2), normal(5, teacher_size, seed=3)
    variables = {REPRESENTATION_PROJECTION: projection} if teacher_size != 5 else None
    result = run_graph(lambda v, a, b: knowledge_loss(v, a, b), {"a": student, "b": teacher}, variables)
    projected = student.astype(np.float64) @ projection if variables else student
    np.testing.assert_allclose(result, ((projected - teacher) ** 2).mean(axis=1), rtol=1e-5)


def test_projections_exist_where_widths_differ():
    assert projection_shapes(FULL, 2, 5, 5) == {}
    shapes = projection_shapes(FULL, 2, 5, 8)
    assert shapes == dict.fromkeys([HIDDEN_PROJECTION.format(0), HIDDEN_PROJECTION.format(1), REPRESENTATION_PROJECTION], (5, 8))
    assert projection_shapes(FULL._replace(hidden=0, knowledge=0), 2, 5, 8) == {}


# The loss as a function of the student's outputs


def test_frozen_layers_get_no_loss_term():
    """A student of two layers, the first of them frozen: the terms are those of the second layer."""
    states, scores = [normal(3, 7, 5, seed=s) for s in range(3)], [normal(3, 2, 7, 7, seed=s) for s in range(3, 5)]
    knowledge = {LOGITS: normal(3, 4), HIDDEN.format(3): normal(3, 7, 5, seed=7), ATTENTION.format(3): normal(3, 2, 7, 7, seed=8)}
    weights = LossWeights(0.7, 1.3, 0.0, 0.0, 0.0)
    arrays = {"mask": MASK, "loss_mask": np.array([1, 1, 0], np.float32) * 3 / 2, "label": np.array([1, 3, 0], np.int32), **knowledge}
    arrays.update({f"states_{m}": state for m, state in enumerate(states)}, logits=normal(3, 4, seed=9))
    arrays.update({f"scores_{m}": score for m, score in enumerate(scores)})

    def loss(variables, mask, loss_mask, label, logits, **tensors):
        bert = BertOutput([tensors[f"states_{m}"] for m in range(3)], tuple(tensors[f"scores_{m}"] for m in range(2)), (), None)
        plan = Distillation(weights, 1.0, (1, 3), False, num_frozen=1)
        taught = {name: tensors[name] for name in knowledge}
        return distillation_loss(variables, plan, "cpu", bert, logits, taught, mask, None, label, None, loss_mask)

    _, (total, hidden, attention, accuracy) = run_graph(loss, arrays)
    assert hidden == pytest.approx(hidden_reference(states[2:], [knowledge[HIDDEN.format(3)]], MASK)[:2].mean(), rel=1e-5)
    assert attention == pytest.approx(attention_reference(scores[1:], [knowledge[ATTENTION.format(3)]], MASK)[:2].mean(), rel=1e-5)
    assert total == pytest.approx(0.7 * hidden + 1.3 * attention, rel=1e-5)
    assert accuracy == (arrays["logits"].argmax(axis=1) == arrays["label"])[:2].mean()
