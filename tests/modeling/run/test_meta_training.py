"""modeling/run/meta_training.py: the inner loop and the outer step on real graphs, against closed forms and an independent implementation.

One compiled train function serves all tasks, so each comparison over several tasks also checks that weights, moments and step counter are
put back in place.
"""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import KERNELS, ROOT

from modeling.bert.config import BertConfig
from modeling.bert.variables import Variables
from modeling.cli.flags import META_REPTILE, parse_flags
from modeling.engine.global_function import GlobalFunction
from modeling.engine.runtime import flow
from modeling.objectives.losses import cross_entropy, stack_metrics
from modeling.objectives.mft import predict_logits
from modeling.objectives.outer_rule import OuterRule, OuterSchedule
from modeling.run.meta_training import Adaptation, MetaJob, inner_loop, passes_of_step
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.errors import UserError
from tools.checkpoint_names import CLASSIFIER, POOLER, encoder_pairs

with open(os.path.join(ROOT, "tests", "golden", "meta_learning.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)

SCALES = np.array([1.0, 2.0])
MINIMA = np.array([[1.0, -1.0], [0.0, 2.0], [3.0, 1.0]])
START = np.array([0.2, 0.4])
STEPS = 5


def quadratic(variables, minimum):
    """L = 1/2 sum_j a_j (w_j - c_j)^2."""
    difference = variables.get("w").reshape(1, 2) - minimum
    scale = flow.cat([flow.ones_like(minimum[:, :1]), 2.0 * flow.ones_like(minimum[:, :1])], dim=1)
    loss = (difference * difference * scale).sum() * 0.5
    return loss, stack_metrics(loss, loss)


class Tasks:
    """What `Adaptation` and `MetaJob` need of a `MetaTraining`. A task is (arrays of its support, arrays of its query)."""

    def __init__(self, steps, rate=1.0, kept=False):
        self.inner, self.schedule = SimpleNamespace(steps=steps, keeps_state=kept), OuterSchedule(rate, 1, "constant")

    def support_batches(self, task, steps, first):
        return [task[0]] * steps

    def query_batch(self, task, number):
        return task[1]

    def first_step(self, step, number):
        return (step, number)

    def query_samples(self, task):
        return task[2] if len(task) > 2 else ()


class Run:
    """Meta-learning on the quadratics.

    Args:
        rate: outer learning rate.
        method: "reptile" or "fomaml".
        inner: keyword arguments of `create_optimizer`, without those of the schedule.
        outer: arguments of `OuterRule`.
    """

    def __init__(self, rate, method="reptile", inner_rate=0.1, inner=None, outer=("sgd",), steps=STEPS, kept=False, query=0.5):
        self.variables = Variables({"w": START.astype(np.float32)})
        optimizer, rates = create_optimizer(
            self.variables, Schedule(inner_rate, steps, 0, decays=False), clip_norm=None, **(inner or {"kind": "sgd"})
        )
        job = GlobalFunction(quadratic, "train", self.variables, optimizer, rates)
        gradient = GlobalFunction(quadratic, "gradient", self.variables, engine=job.engine) if method == "fomaml" else None
        training = Tasks(steps, rate, kept)
        self.rule = OuterRule(*outer)
        self.adaptation = Adaptation(training, self.variables, job)
        self.job = MetaJob(training, self.adaptation, None, gradient, self.rule)
        self.query = query

    def step(self, minima=MINIMA):
        """One outer step. Returns the weights."""
        tasks = [tuple({"minimum": np.array([c + shift], np.float32)} for shift in (0.0, self.query)) for c in minima]
        self.loss, self.metrics = self.job({"tasks": tasks, "step": 0})
        return self.weights()

    def weights(self):
        return self.variables.get("w").numpy().copy()


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_reptile_in_closed_form(rate):
    run = Run(rate)
    np.testing.assert_allclose(run.step(), GOLDEN["quadratic"][f"reptile_eps{rate}"], rtol=0, atol=1e-6)
    expected = np.linalg.norm(np.array(GOLDEN["quadratic"][f"reptile_eps{rate}"]) - START)
    assert run.metrics[-1] == pytest.approx(expected, abs=1e-6)


def test_each_task_starts_from_the_same_weights():
    run, expected = Run(1.0), GOLDEN["quadratic"]["phi"]
    for minimum, phi in zip(MINIMA, expected):
        run.adaptation.put({"w": START.astype(np.float32)})
        np.testing.assert_allclose(run.step([minimum]), phi, rtol=0, atol=1e-6)


def test_fomaml_in_closed_form():
    run = Run(0.1, "fomaml")
    np.testing.assert_allclose(run.step(), GOLDEN["quadratic"]["fomaml_sgd_lr0.1"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "outer", "weight_decay"),
    [("reptile_outer_adam", ("adam",), 0.0), ("reptile_outer_adamw_wd0.01", ("adam", 0.01), 0.01)],
)
def test_outer_and_inner_adam(name, outer, weight_decay):
    """Two outer steps. The first moves each weight by the learning rate, whatever the tasks found."""
    run = Run(0.05, outer=outer, inner={"kind": "adamw", "weight_decay": weight_decay})
    for expected in GOLDEN["quadratic"][name]:
        np.testing.assert_allclose(run.step(), expected, rtol=0, atol=3e-6)  # the product's epsilon is 1e-6, PyTorch's 1e-8
    decayed = START * (1 - 0.05 * (*outer, 0.0)[1])
    first = np.array(GOLDEN["quadratic"][name][0])
    np.testing.assert_allclose(np.abs(first - decayed), 0.05, rtol=0, atol=1e-7)


def test_inner_adam_of_reptiles_authors():
    """beta1 = 0: the step follows the last gradient alone."""
    run = Run(0.5, inner={"kind": "adamw", "weight_decay": 0.0, "beta1": 0.0})
    for expected in GOLDEN["quadratic"]["reptile_outer_sgd_eps0.5_inner_adam_beta1_0"]:
        np.testing.assert_allclose(run.step(), expected, rtol=0, atol=3e-6)  # the product's epsilon is 1e-6, PyTorch's 1e-8
    other = Run(0.5, inner={"kind": "adamw", "weight_decay": 0.0})
    assert np.abs(other.step() - GOLDEN["quadratic"]["reptile_outer_sgd_eps0.5_inner_adam_beta1_0"][0]).max() > 1e-3


def test_one_inner_step_is_the_joint_step():
    """Reptile with one step of SGD and the whole way is one step on the mean loss of the tasks."""
    joint = START - 0.1 * (SCALES * (START - MINIMA)).mean(axis=0)
    np.testing.assert_allclose(Run(1.0, steps=1).step(), joint, rtol=0, atol=1e-6)


def test_fomaml_takes_the_gradient_at_the_adapted_weights():
    """With the support as query it is that at phi, not at theta."""
    run = Run(0.1, "fomaml", steps=1, query=0.0)
    phi = START - 0.1 * SCALES * (START - MINIMA)
    np.testing.assert_allclose(run.step(), START - 0.1 * (SCALES * (phi - MINIMA)).mean(axis=0), rtol=0, atol=1e-6)
    wrong = START - 0.1 * (SCALES * (START - MINIMA)).mean(axis=0)
    assert np.abs(run.weights() - wrong).max() > 1e-3


def test_a_rate_of_zero_leaves_the_weights():
    run = Run(0.0)
    assert np.array_equal(run.step(), START.astype(np.float32))
    assert run.metrics[-1] == 0


class Queries(SimpleNamespace):
    """Query rows: x [N, 2] of a linear classifier with the weights of two labels +-w, and their labels."""

    def __len__(self):
        return len(self.label)


def test_reptile_measures_the_query_and_does_not_train_on_it():
    """Garbage there changes the numbers of the query and no bit of the weights. Tasks without query rows have no share in the numbers."""
    weights, metrics, seen = [], [], []
    for garbage in (0.0, 1e9):
        run = Run(1.0)

        def logits_of(samples, run=run):
            seen.append(run.weights())
            value = samples.x @ run.weights()
            return np.stack([value, -value], axis=1)

        run.job = MetaJob(Tasks(STEPS), run.adaptation, logits_of, None, run.rule)
        tasks = []
        for number, minimum in enumerate(MINIMA):
            arrays = {"minimum": np.array([minimum], np.float32)}
            x = np.array([[1.0, 0.5 * number], [-0.3, 0.2], [0.7, -0.1]]) + garbage
            tasks.append((arrays, arrays, Queries(x=x, label=np.array([0, 1, number % 2]))) if number else (arrays, arrays))
        metrics.append(run.job({"tasks": tasks, "step": 0})[1])
        weights.append(run.weights())
    assert np.array_equal(*weights)
    assert metrics[0][2] != metrics[1][2]
    assert len(seen) == 8  # before and after adapting to the two tasks that have query rows
    losses = []
    for number, phi in enumerate(GOLDEN["quadratic"]["phi"][1:], 1):
        margin = np.array([[1.0, 0.5 * number], [-0.3, 0.2], [0.7, -0.1]]) @ np.array(phi)
        losses.append(np.log1p(np.exp(-2 * margin * np.array([1, -1, 1 - 2 * (number % 2)]))).mean())
    assert metrics[0][2] == pytest.approx(np.mean(losses), abs=1e-5)


def test_two_equal_tasks_are_one():
    """The state of the inner optimizer starts anew: the second task gives the same weights, bit for bit."""
    adamw = {"kind": "adamw", "weight_decay": 0.01}
    run, start = Run(1.0, inner=adamw), START.astype(np.float32)
    once = run.step(MINIMA[:1])
    run.adaptation.put({"w": start})
    assert np.array_equal(run.step(MINIMA[:1]), once)
    run.adaptation.put({"w": start})
    assert np.array_equal(run.step(MINIMA[[0, 0]]), once)
    kept = Run(1.0, inner=adamw, kept=True)
    assert np.array_equal(kept.step(MINIMA[:1]), once)
    kept.adaptation.put({"w": start})
    assert not np.array_equal(kept.step(MINIMA[:1]), once)


def test_the_order_of_the_tasks_does_not_matter():
    one, other = Run(1.0).step(), Run(1.0).step(MINIMA[::-1])
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-7)


def test_a_state_continues_bit_for_bit():
    settings = {"rate": 0.05, "outer": ("adam", 0.01), "inner": {"kind": "adamw"}, "kept": True}
    whole = Run(**settings)
    whole.step()
    state, weights = {name: np.array(value) for name, value in whole.job.optimizer_state().items()}, whole.weights()
    continued = Run(**settings)
    continued.adaptation.put({"w": weights})
    continued.job.restore(state)
    assert np.array_equal(continued.step(), whole.step())
    assert {name for name, value in state.items() if value.dtype != np.float32} == {"outer-steps", "inner-System-Train-TrainStep"}


def test_an_interrupted_step_is_none():
    run, start = Run(1.0, inner={"kind": "adamw"}, kept=True), START.astype(np.float32)
    whole = Run(1.0, inner={"kind": "adamw"}, kept=True)
    for other in (run, whole):
        other.step()
    task = ({"minimum": np.array([[1.0, 1.0]], np.float32)}, None)
    before = run.weights()
    with pytest.raises(TypeError):
        run.job({"tasks": [task, None], "step": 0})
    assert np.array_equal(run.weights(), before)
    assert np.array_equal(run.step(), whole.step())
    assert not np.array_equal(run.weights(), start)


# ------------------------------------------------------------------------------------------------- a BERT, by Hugging Face

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=12,
    type_vocab_size=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def bert_values():
    """The golden weights by documented name: of the k-th name in Hugging Face's sorted order, element i is 0.05 sin(0.37 i + 1.3 k)."""
    pairs = {("bert." + pair.hugging_face): pair for pair in (*encoder_pairs(2), *POOLER)}
    pairs.update({pair.hugging_face: pair for pair in CLASSIFIER})
    from modeling.bert.variables import classifier_shapes, encoder_shapes

    shapes, values = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, 2)}, {}
    for k, name in enumerate(sorted(pairs)):
        pair = pairs[name]
        shape = shapes[pair.snapshot][::-1] if pair.transposed else shapes[pair.snapshot]
        value = (0.05 * np.sin(0.37 * np.arange(np.prod(shape)) + 1.3 * k) + ("LayerNorm.weight" in name)).reshape(shape)
        values[pair.snapshot] = np.ascontiguousarray(value.T if pair.transposed else value, np.float32)
    return {name: values[name] for name in shapes}


def rows(task, count, first):
    """The arrays of some rows of a golden task."""
    ids = [[2] + [5 + (7 * task + 11 * (first + r) + 3 * j) % 45 for j in range(4)] + [3, 0, 0] for r in range(count)]
    ids = np.array(ids, np.int32)
    labels = np.array([(first + r) % 2 for r in range(count)], np.int32)
    return {"word_rows": ids, "input_mask": (ids != 0).astype(np.int32), "segment_ids": np.zeros_like(ids), "label": labels}


def bert_loss(variables, label, **text):
    loss = cross_entropy(predict_logits(variables, CONFIG, _Exact, **text), label).mean()
    return loss, stack_metrics(loss, loss)


class _Exact:
    """The kernels of training in a function that is for predictions."""

    for_prediction = KERNELS["cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rate", "name"), [("reptile", 0.5, "reptile_eps0.5"), ("fomaml", 0.1, "fomaml_sgd0.1")])
def test_a_bert(method, rate, name):
    golden, values = GOLDEN["bert"], bert_values()
    variables = Variables(values)
    optimizer, rates = create_optimizer(variables, Schedule(0.1, 3, 0, decays=False), clip_norm=None, kind="sgd")
    job = GlobalFunction(bert_loss, "train", variables, optimizer, rates)
    gradient = GlobalFunction(bert_loss, "gradient", variables, engine=job.engine)
    training = Tasks(3, rate)
    adaptation = Adaptation(training, variables, job)
    tasks = [(rows(task, 4, 0), rows(task, 2, 4)) for task in (0, 1)]
    start = adaptation.weights()
    for task, expected in zip(tasks, golden["tasks"]):
        adaptation.put(start)
        assert float(gradient.gradients(task[1])[0][0].numpy()) == pytest.approx(expected["query_loss_before"], abs=2e-6)
        np.testing.assert_allclose(adaptation.run(task, 3, 0), expected["support_loss_at_each_step"], rtol=0, atol=2e-6)
        assert float(gradient.gradients(task[1])[0][0].numpy()) == pytest.approx(expected["query_loss_after"], abs=2e-6)
    adaptation.put(start)
    MetaJob(training, adaptation, None, gradient if method == "fomaml" else None, OuterRule("sgd"))({"tasks": tasks, "step": 0})
    expected = golden[name]
    weights = {variable: variables.get(variable).numpy() for variable in values}
    np.testing.assert_allclose(weights["classification-output_bias"], expected["classifier.bias"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(weights["classification-output_weights"][0, :3], expected["classifier.weight[0,:3]"], rtol=0, atol=1e-6)
    query = weights["bert-encoder-layer_0-attention-self-query-weight"]
    np.testing.assert_allclose(query.T[1, :3], expected["query0[1,:3]"], rtol=0, atol=1e-6)
    changed = np.sqrt(sum(((weights[variable] - values[variable]).astype(np.float64) ** 2).sum() for variable in values))
    assert changed / rate == pytest.approx(golden[f"{method}_g_norm"], rel=1e-3)
    assert float(gradient.gradients(tasks[0][1])[0][0].numpy()) == pytest.approx(expected["query_loss_task0"], abs=2e-6)


@pytest.mark.parametrize(
    ("line", "passes", "beyond"),
    [
        (
            "--tasks_per_step 3 --inner_steps 4 --inner_batch_size 5",
            60,
            "--tasks_per_step 3, --inner_steps 65536, --inner_batch_size 65: .* 12,779,520",
        ),
        ("--tasks_per_step 3 --inner_epochs 4 --support_num 7", 84, None),
        ("--tasks_per_step 3 --inner_steps 4 --inner_batch_size 5 --meta_method fomaml --query_num 2", 66, None),
        (
            "--tasks_per_step 3 --inner_epochs 60000 --support_num 60",
            None,
            "--tasks_per_step 3, --inner_epochs 60000, --support_num 60: .* 10,800,000",
        ),
        (
            "--inner_batch_size 65536 --inner_steps 40",
            None,
            "--tasks_per_step 5, --inner_steps 40, --inner_batch_size 65536: .* 13,107,200",
        ),
        (
            "--tasks_per_step 200 --meta_method fomaml --query_num 65536",
            None,
            "--tasks_per_step 200, --query_num 65536: .* 13,131,200",
        ),
        (
            "--tasks_per_step 200 --meta_method fomaml --query_num 65536 --inner_epochs 1 --support_num 65535",
            None,
            "--tasks_per_step 200, --inner_epochs 1, --support_num 65535, --query_num 65536: .* 26,214,200",
        ),
    ],
)
def test_samples_of_an_outer_step(line, passes, beyond):
    """A step has a number for each; more than ten million are refused."""

    def found(more=()):
        flags = parse_flags(META_REPTILE, argv=["--task_name", "t", "--data_dir", "d", *line.split(), *more])
        return passes_of_step(flags, inner_loop(flags))

    if passes:
        assert found() == passes
    if beyond:
        with pytest.raises(UserError, match=f"^{beyond} samples, more than 10,000,000: give smaller numbers$"):
            found(("--inner_steps", "65536", "--inner_batch_size", "65") if passes else ())
