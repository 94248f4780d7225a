"""Graphs on a GPU against those on the CPU. Without a GPU that OneFlow can use, these tests are skipped."""

import os

import numpy as np
import pytest
import tiny
from tiny_model import CONFIG, NO_DROPOUT, documented, golden_batch

from modeling.bert.dropout import DropoutPlan
from modeling.bert.variables import Variables
from modeling.engine.engine import Engine
from modeling.engine.global_function import GlobalFunction
from modeling.engine.kernels import select_kernels
from modeling.engine.runtime import select_device
from modeling.objectives.mft import finetuning_objective, predict_logits
from modeling.run.optimizer import Schedule, create_optimizer

HAS_CARD = select_device("auto", warn=lambda _line: None) == "cuda"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_CARD, reason="OneFlow finds no GPU that it can use")]

LABELS = {"label": np.array([2, 0, 1], np.int32), "loss_mask": np.ones(3, np.float32)}
NAMES = ("bert-embeddings-word_embeddings", "bert-encoder-layer_1-intermediate-dense-weight", "classification-output_bias")


class Training:
    """Plain fine-tuning of the tiny BERT on a device.

    Args:
        device: "cpu" or "cuda".
        config: `BertConfig`.
        values: dict of name -> array from which the training starts; None for the golden ones.
        state: of `GlobalFunction.optimizer_state`, from which the training continues.
        mixed_precision: of `GlobalFunction`.
    """

    def __init__(self, device, config=NO_DROPOUT, values=None, state=None, mixed_precision=False):
        self.variables = Variables(values or documented("weight"), device)
        optimizer, rates = create_optimizer(self.variables, Schedule(1e-3, 20, 2))
        self._plan, kernels = DropoutPlan(config, 7, device), select_kernels(device)

        def step(variables, **batch):
            return finetuning_objective(variables, config, kernels, self._plan.take(batch), **batch)

        engine = Engine(device)
        self.job = GlobalFunction(step, "train", self.variables, optimizer, rates, engine, mixed_precision)
        if state is not None:
            self.job.restore(state)

    def steps(self, first, last, lengths=(13,)):
        """Losses of some steps; the lengths take turns."""
        losses = []
        for step in range(first, last):
            length = lengths[step % len(lengths)]
            batch = {name: np.zeros((3, length), np.int32) for name in golden_batch()}
            for name, array in golden_batch().items():
                batch[name][:, :13] = array
            losses.append(float(self.job(dict(batch, **LABELS, **self._plan.masks(step, 3, length)))[0].numpy()))
        return losses

    def values(self):
        """dict of name -> copy of a variable."""
        return {name: value.copy() for name, value in self.variables.arrays().items()}


def test_logits_are_those_of_the_cpu():
    logits = []
    for device in ("cpu", "cuda"):
        kernels = select_kernels(device).for_prediction

        def predict(variables, kernels=kernels, **text):
            return predict_logits(variables, NO_DROPOUT, kernels, **text)

        job = GlobalFunction(predict, "predict", Variables(documented("weight"), device), engine=Engine(device))
        logits.append(job(golden_batch()).numpy())
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=1e-4)


def test_a_training_step_is_that_of_the_cpu():
    cpu, card = Training("cpu"), Training("cuda")
    np.testing.assert_allclose(card.steps(0, 5), cpu.steps(0, 5), rtol=0, atol=2e-4)
    values = card.values()
    for name, value in cpu.values().items():
        np.testing.assert_allclose(values[name], value, rtol=0, atol=5e-4, err_msg=name)
    assert all(np.abs(values[name] - documented("weight")[name]).max() > 1e-3 for name in NAMES)


def test_mixed_precision_follows_float32():
    single, mixed = Training("cuda").steps(0, 6), Training("cuda", mixed_precision=True).steps(0, 6)
    np.testing.assert_allclose(mixed, single, rtol=0, atol=0.02)
    assert mixed[0] - mixed[-1] > 0.05


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_two_lengths_are_one_run(mixed_precision):
    one, two = Training("cuda", mixed_precision=mixed_precision), Training("cuda", mixed_precision=mixed_precision)
    atol = 0.02 if mixed_precision else 1e-4
    np.testing.assert_allclose(two.steps(0, 6, (17, 13)), one.steps(0, 6), rtol=0, atol=atol)


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_a_run_continues(mixed_precision):
    """With the same dropout masks. The order of sums on a GPU may vary, so the last digits are not compared."""
    whole = Training("cuda", CONFIG, mixed_precision=mixed_precision)
    whole.steps(0, 2)
    state = {name: np.array(value) for name, value in whole.job.optimizer_state().items()}
    continued = Training("cuda", CONFIG, whole.values(), state, mixed_precision)
    np.testing.assert_allclose(continued.steps(2, 5), whole.steps(2, 5), rtol=0, atol=0.02 if mixed_precision else 1e-4)


def test_masks_depend_on_seed_and_step():
    plan = DropoutPlan(CONFIG, 7, "cuda")
    first, again, other = (plan.masks(step, 3, 13) for step in (0, 0, 1))
    assert all(np.array_equal(first[name].numpy(), again[name].numpy()) for name in first)
    assert any(not np.array_equal(first[name].numpy(), other[name].numpy()) for name in first)
    for name, (rate, shape) in zip(first, plan.layers(3, 13)):
        mask = first[name].numpy()
        assert mask.shape == shape
        assert set(np.unique(mask)) <= {np.float32(0), np.float32(1.0 / (1.0 - rate))}


def test_a_script_trains_and_continues_on_a_card(tmp_path):
    project = tiny.Project(tmp_path / "project")
    data = "data/k-shot-cross/g1/16-42"
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path(data))
    flags = f"--task_name g1 --data_dir {data} --model_load_dir encoder --seq_length=24 --device cuda"
    project.run(f"preprocess.py {flags} --resave_ofrecord")
    line = f"meta_finetuning.py {flags} --num_epochs 2 --batch_size_per_device 4 --learning_rate 5e-3 --model_save_dir output/run"
    project.run(f"{line} --max_steps 5")
    assert os.path.isdir(project.path("output/run/state_step_5"))
    output = project.run(f"{line} --resume output/run")
    assert "after step 5 of" in output
    assert " on cuda" in output
    assert tiny.Run(project.path("output/run")).rows("dev")
