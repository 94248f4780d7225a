"""modeling/engine/accumulation.py: a step in parts is the step of the whole batch, dropout masks included."""

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NUM_LABELS, documented

from modeling.bert.dropout import DropoutPlan
from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import Variables
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.lanes.plan import Lanes
from modeling.objectives.losses import PLAIN, LabelLoss
from modeling.objectives.mft import finetuning_objective
from modeling.run.optimizer import Schedule, create_optimizer
from ofrecord_util.label_kinds import MULTI_LABEL, REGRESSION

pytestmark = pytest.mark.slow

ROWS, LENGTHS = 12, (13, 7, 13)  # the second step has another length, so another graph adds to the same sums
PEAK = 1e-3


def batch(step):
    """The arrays of a step; the last three rows only fill up the batch."""
    draw = np.random.RandomState(step)
    shape = ROWS, LENGTHS[step % len(LENGTHS)]
    mask = np.arange(shape[1])[None] < draw.randint(2, shape[1] + 1, (ROWS, 1))
    return {
        "word_rows": draw.randint(0, CONFIG.vocab_size, shape).astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "label": draw.randint(0, NUM_LABELS, ROWS).astype(np.int32),
        "loss_mask": np.where(np.arange(ROWS) < 9, ROWS / 9, 0).astype(np.float32),
    }


def with_labels(arrays, step, task_type):
    """The arrays with labels of a type of task."""
    draw = np.random.RandomState(100 + step)
    other = {REGRESSION: draw.randn(ROWS).astype(np.float32), MULTI_LABEL: draw.randint(0, 2, (ROWS, NUM_LABELS)).astype(np.int32)}
    return {**arrays, "label": other.get(task_type, arrays["label"])}


class Run:
    """A tiny BERT in training.

    Args:
        parts, lanes: numbers of parts and lanes.
        values: dict of name -> array, initial values of the variables.
        state: of `GlobalFunction.optimizer_state`, from which the run continues.
        label_loss: `LabelLoss`.
    """

    def __init__(self, parts, lanes=1, values=None, state=None, frozen=(), label_loss=PLAIN):
        self.variables, self.dropout = Variables(values or documented("weight"), frozen=frozen), DropoutPlan(CONFIG, 7, "cpu", parts)
        optimizer, rates = create_optimizer(self.variables, Schedule(PEAK, 20, 2))

        def step(variables, **features):
            return finetuning_objective(variables, CONFIG, KERNELS["cpu"], self.dropout.take(features), **features, label_loss=label_loss)

        settings = {"optimizer": optimizer, "schedule": rates, "engine": Engine("cpu", Lanes(lanes, short=True)), "parts": parts}
        self.job = GlobalFunction(step, "train", self.variables, **settings)
        if state:
            self.job.restore(state)
        self.metrics, self._task_type = [], label_loss.task_type

    def steps(self, start, stop):
        """Runs the steps from `start` to before `stop`."""
        for step in range(start, stop):
            arrays = with_labels(batch(step), step, self._task_type)
            masks = self.dropout.masks(step, *arrays["word_rows"].shape)
            self.metrics.append(self.job({**arrays, **masks})[1].numpy().reshape(-1, 2).mean(axis=0))
        return self

    def values(self):
        """dict of name -> array of all variables."""
        return {name: array.copy() for name, array in self.variables.arrays().items()}


@pytest.fixture(scope="module")
def whole():
    return Run(parts=1).steps(0, 5)


def assert_equal_runs(run, whole):
    np.testing.assert_allclose(run.metrics, whole.metrics, rtol=2e-5)
    start = documented("weight")
    moved = 0.0
    for name, value in whole.values().items():
        np.testing.assert_allclose(run.values()[name], value, rtol=0, atol=2e-5, err_msg=name)
        moved = max(moved, np.abs(value - start[name]).max())
    assert moved > PEAK  # 100 times more than the tolerance


@pytest.mark.parametrize(("parts", "lanes"), [(2, 1), (3, 1), (12, 1), (2, 3), (6, 2)])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(whole, parts, lanes):
    assert_equal_runs(Run(parts, lanes).steps(0, 5), whole)


@pytest.mark.parametrize("task_type", [REGRESSION, MULTI_LABEL])
def test_parts_and_lanes_of_other_types_of_tasks(task_type):
    """The loss is the mean over samples, of sets of labels over samples and labels; the padding of a batch does not count."""
    values = documented("weight")
    if task_type == REGRESSION:
        values = {name: value[:1] if name in CLASSIFIER else value for name, value in values.items()}
    whole, run = (Run(*counts, values=values, label_loss=LabelLoss(task_type=task_type)).steps(0, 2) for counts in ((1,), (2, 3)))
    np.testing.assert_allclose(run.metrics, whole.metrics, rtol=2e-5)
    for name, value in whole.values().items():
        np.testing.assert_allclose(run.values()[name], value, rtol=0, atol=2e-5, err_msg=name)
    assert np.abs(whole.values()[CLASSIFIER[0]] - values[CLASSIFIER[0]]).max() > 1e-4


def test_frozen_variables_stay(whole):
    frozen = [name for name in documented("weight") if "embeddings" in name or "layer_0" in name]
    run, start = Run(3, 2, frozen=frozen).steps(0, 3), documented("weight")
    values = run.values()
    assert all(np.array_equal(values[name], start[name]) == (name in frozen) for name in values)
    np.testing.assert_allclose(run.metrics[0], whole.metrics[0], rtol=2e-5)


def test_the_state_is_that_of_a_whole_batch(whole):
    """Moments and step counter have the same names, so a run may continue in another number of parts."""
    run = Run(3, 2).steps(0, 2)
    state, reference = run.job.optimizer_state(), Run(1).steps(0, 2).job.optimizer_state()
    assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in reference.items()}
    assert state["System-Train-TrainStep"] == 2
    for name, value in reference.items():
        np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-6 * max(1e-6, np.abs(value).max()) + 1e-7, err_msg=name)
    for parts in (1, 3):
        continued = Run(parts, 1, run.values(), state).steps(2, 5)
        np.testing.assert_allclose(continued.metrics, whole.metrics[2:], rtol=2e-5)


def test_a_run_in_parts_continues_bit_for_bit():
    run = Run(3, 2).steps(0, 2)
    values, state = run.values(), {name: value.copy() for name, value in run.job.optimizer_state().items()}
    run.steps(2, 5)
    continued = Run(3, 2, values, state).steps(2, 5)
    assert np.array_equal(continued.metrics, run.metrics[2:])
    assert all(np.array_equal(continued.values()[name], value) for name, value in run.values().items())


def test_the_update_has_no_gradients_of_its_own():
    """Its graph computes neither a forward nor a backward pass."""
    run = Run(2).steps(0, 1)
    (graph,) = run.job._sums.graphs()
    kinds = [operation.user_conf.op_type_name for operation in graph._full_graph_proto.net.op]
    assert kinds.count("adam_update") == len(run.variables.trained())
    assert kinds.count("multi_reduce_sum_pow_abs") == 1
    names = [operation.name for operation in graph._full_graph_proto.net.op if operation.WhichOneof("op_type") != "variable_conf"]
    assert not [name for name in names if "_grad" in name.lower()]
    assert not {"broadcast_like", "softmax", "erf"}.intersection(kinds)
    (accumulating,) = run.job._graphs.values()
    kinds = [operation.user_conf.op_type_name for operation in accumulating._full_graph_proto.net.op]
    assert kinds.count("sgd_update") == len(run.variables.trained())
    assert not {"adam_update", "momentum_update"}.intersection(kinds)
    assert "multi_reduce_sum_pow_abs" not in kinds
