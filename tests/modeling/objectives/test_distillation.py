"""modeling/objectives/distillation.py and teacher.py against NumPy, written from the formulas."""

import dataclasses

import numpy as np
import pytest
from tiny_model import (
    CONFIG,
    KERNELS,
    NO_DROPOUT,
    NUM_DOMAINS,
    documented,
    domain_head,
    golden_batch,
    gradients,
    log_softmax,
    numpy_of,
    run_graph,
)

from modeling.bert.encoder import BertOutput
from modeling.bert.names import DOMAIN_HEAD, HIDDEN_PROJECTION, REPRESENTATION_PROJECTION
from modeling.bert.variables import Variables, encoder_shapes, load_values
from modeling.engine.global_function import global_function
from modeling.engine.runtime import flow
from modeling.objectives.distillation import (
    Distillation,
    LossWeights,
    attention_loss,
    distillation_loss,
    distillation_metrics,
    distillation_objective,
    expertise_weights,
    hidden_loss,
    knowledge_loss,
    projection_shapes,
    relation_loss,
    soft_cross_entropy,
)
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
MASK = np.array([[1] * 7, [1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]], np.int32)  # B 3, S 7
FULL = LossWeights(0.7, 1.3, 0.9, 1.1, 0.2, 0.4)


def normal(*shape, seed=1):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


# Terms


def softmax(logits):
    return np.exp(log_softmax(logits))


def weights_reference(score, logits, label):
    p = softmax(logits)[np.arange(len(label)), label]
    return (1 + score.astype(np.float64)) / (np.exp((p - 1) ** 2) + 1)


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


def hidden_reference(students, teachers, mask, projections=None):
    per_layer = []
    for m, (student, teacher) in enumerate(zip(students, teachers)):
        student = student if projections is None else student.astype(np.float64) @ projections[m]
        per_layer.append([((s[k == 1] - t[k == 1]) ** 2).mean() for s, t, k in zip(student, teacher.astype(np.float64), mask)])
    return np.mean(per_layer, axis=0)


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


def attention_reference(students, teachers, mask):
    per_layer = []
    for student, teacher in zip(students, teachers):
        if student.shape[1] != teacher.shape[1]:
            student, teacher = student.mean(axis=1, keepdims=True), teacher.mean(axis=1, keepdims=True)
        error = (student.astype(np.float64) - teacher) ** 2
        per_layer.append([e[:, k == 1][:, :, k == 1].mean() for e, k in zip(error, mask)])
    return np.mean(per_layer, axis=0)


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


def relation(x, y):
    """softmax(x y^T / sqrt(D)) of one head: x, y [S, D] -> [S, S]."""
    return softmax(x.astype(np.float64) @ y.T.astype(np.float64) / np.sqrt(x.shape[1]))


def divergence(p, q):
    """Sum of KL(p || q) over the rows."""
    return (p * (np.log(p) - np.log(q))).sum()


def relation_reference(student, teacher, mask):
    """L_AT + L_VR of each sample, from real tokens alone. student, teacher: (query, key, value), each [B, N, S, D]."""
    losses = []
    for sample, real in enumerate(mask == 1):
        total = 0.0
        for head in range(student[0].shape[1]):
            (sq, sk, sv), (tq, tk, tv) = ([part[sample, head][real] for part in side] for side in (student, teacher))
            total += divergence(relation(tq, tk), relation(sq, sk)) + divergence(relation(tv, tv), relation(sv, sv))
        losses.append(total / (student[0].shape[1] * real.sum()))
    return np.array(losses)


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


# The whole objective: a student of one layer, whose teacher is the tiny BERT of three layers

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
