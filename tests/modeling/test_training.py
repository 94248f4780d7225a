"""modeling/training.py with real graphs, dropout on and batches of two lengths: what a run writes down, when it
evaluates and saves, and that the seed decides all of it, bit for bit."""

import dataclasses
import itertools
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import CONFIG, KERNELS, NUM_DOMAINS, NUM_LABELS, random_records

from modeling.errors import UserError
from modeling.evaluation import evaluate
from modeling.global_function import global_function
from modeling.kernels import DropoutPlan
from modeling.metrics import Log, Metrics
from modeling.objectives import META_METRICS, meta_objective, predict_logits, with_corrupted_domains
from modeling.optimizer import create_optimizer, plan_schedule
from modeling.phase import BestSnapshot
from modeling.snapshot import Snapshot, write_variables
from modeling.training import train
from modeling.variables import (
    Variables,
    classifier_shapes,
    domain_head_shapes,
    encoder_shapes,
    load_values,
)
from ofrecord_util.batches import iterate_training
from ofrecord_util.tasks import Task

ONE_LAYER = dataclasses.replace(CONFIG, num_hidden_layers=1, initializer_range=0.2)
TASK = Task("t", ("a", "b", "c", "d"), ("x", "y", "z"))
RECORDS = random_records([3, 13, 7, 2, 5, 11, 6])  # 7 samples, 3 epochs, batches of 4: 6 steps, the last one half full
DEV = random_records([4, 9, 13, 2, 6], seed=8)
LENGTHS = (7, 13)
FLAGS = SimpleNamespace(
    script="meta_finetuning", num_epochs=3, batch_size_per_device=4, learning_rate=0.01, warmup_proportion=0.2,
    weight_decay_rate=0.1, loss_print_every_n_iter=2, model_save_every_n_iter=4, save_last_snapshot=True,
    keep_all_best=False,
)


class _Phase:
    """What the loop needs of a `Phase`."""

    def __init__(self, folder):
        self.folder, self.flags, self.device, self.task = str(folder), FLAGS, "cpu", TASK
        os.makedirs(self.folder)
        self.decays = {}  # name of a snapshot -> what its rows out of use were multiplied by
        self.log, self.metrics = Log(os.path.join(self.folder, "run.log")), Metrics(self.folder)

    def write_snapshot(self, name, variables, config=None, decay=1.0):
        self.decays[name] = decay
        write_variables(os.path.join(self.folder, name), variables.arrays(decay))
        return os.path.join(self.folder, name)


def run(folder, seed, config=ONE_LAYER, change_batches=lambda batches: batches):
    """Trains; returns the folder's `_Phase`, the losses of all steps and the `BestSnapshot`."""
    phase, kernels = _Phase(folder), KERNELS["cpu"]
    shapes = {
        **encoder_shapes(config),
        **classifier_shapes(config, NUM_LABELS),
        **domain_head_shapes(config, NUM_DOMAINS),
    }
    variables = Variables(load_values(shapes, None, seed, config.initializer_range))
    schedule = plan_schedule(FLAGS, len(RECORDS))
    optimizer, rates = create_optimizer(variables, schedule, FLAGS.weight_decay_rate)
    dropout, losses = DropoutPlan(config, seed, "cpu"), []

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=rates)
    def train_job(variables, **features):
        return meta_objective(variables, config, kernels, dropout, (0,), 0.1, **features)

    @global_function(type="predict", variables=variables)
    def predict_job(variables, **features):
        return predict_logits(variables, config, kernels, **features)

    def job(**features):
        outputs = train_job(**features)
        losses.append(outputs[0])
        return outputs

    batches = iterate_training(RECORDS, FLAGS.batch_size_per_device, LENGTHS, FLAGS.num_epochs, seed)
    batches = change_batches(with_corrupted_domains(batches, NUM_DOMAINS, seed))
    best = BestSnapshot(phase, "mft", variables)

    def evaluate_dev():
        return evaluate(predict_job, DEV, 2, (13,), TASK, "cpu")

    train(phase, job, batches, META_METRICS, schedule, len(RECORDS), evaluate_dev, 4, best)
    return phase, [float(loss.numpy()) for loss in losses], best


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [run(folder / name, seed) for name, seed in (("first", 42), ("second", 42), ("other", 43))]


def rows(phase, kind):
    with open(os.path.join(phase.folder, "metrics.jsonl"), encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["kind"] == kind]


def snapshot_bytes(path):
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(os.path.join(folder, name), path)] = file.read()
    return found


def test_what_a_run_writes_down(runs):
    phase, losses, best = runs[0]
    assert len(losses) == 6
    schedule = plan_schedule(FLAGS, len(RECORDS))
    written = rows(phase, "train")
    assert [row["step"] for row in written] == [2, 4, 6]
    assert [row["epoch"] for row in written] == pytest.approx([8 / 7, 16 / 7, 3], abs=1e-4)
    assert [row["learning_rate"] for row in written] == [schedule.rate(step) for step in (1, 3, 5)]
    for position, row in enumerate(written):  # means over the steps since the row before
        assert row["loss"] == pytest.approx(np.mean(losses[2 * position : 2 * position + 2]), abs=1e-6)
        assert row["loss"] == pytest.approx(row["classification_loss"] + 0.1 * row["domain_loss"], abs=1e-5)
        assert row["samples_per_second"] > 0
    evaluations = rows(phase, "dev")
    assert [row["step"] for row in evaluations] == [4, 6]  # at the period and at the end
    assert all(row["total"] == len(DEV) for row in evaluations) and evaluations[0]["best"] is True
    assert sum(value["total"] for value in evaluations[0]["by_domain"].values()) == len(DEV)
    assert best.evaluation.accuracy == max(row["accuracy"] for row in evaluations)
    with open(os.path.join(phase.folder, "run.log"), encoding="utf-8") as file:
        assert "step 6/6: loss" in file.read()
    with open(os.path.join(phase.folder, "curves.png"), "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_snapshots_of_a_run(runs):
    phase, _, best = runs[0]
    kept = sorted(name for name in os.listdir(phase.folder) if name.startswith("snapshot"))
    assert kept == sorted([os.path.basename(best.path), "snapshot_last", "snapshot_step_4"])
    assert os.path.basename(best.path) == f"snapshot_best_mft_model_t_dev_{best.evaluation.accuracy!r}"
    schedule = plan_schedule(FLAGS, len(RECORDS))
    for name, step in (("snapshot_step_4", 4), ("snapshot_last", 6)):
        assert phase.decays[name] == schedule.decay_factor(step, FLAGS.weight_decay_rate) < 1
    (saved,) = [row for row in rows(phase, "dev") if row["accuracy"] == best.evaluation.accuracy and row["best"]][-1:]
    assert phase.decays[os.path.basename(best.path)] == schedule.decay_factor(saved["step"], FLAGS.weight_decay_rate)
    last = Snapshot(os.path.join(phase.folder, "snapshot_last"))
    for name in best.variables.names:
        value = best.variables.get(name).numpy()
        np.testing.assert_array_equal(last.read(name, value.shape), value)
    assert last.digest() != Snapshot(os.path.join(phase.folder, "snapshot_step_4")).digest()


def test_same_seed_same_run(runs):
    (first, losses, best), (second, again, best_again), _ = runs
    assert losses == again  # bit for bit
    assert os.path.basename(best.path) == os.path.basename(best_again.path)
    for name in (os.path.basename(best.path), "snapshot_step_4", "snapshot_last"):
        one, other = (snapshot_bytes(os.path.join(phase.folder, name)) for phase in (first, second))
        assert len(one) > 50 and one == other


def test_other_seed_other_run(runs):
    assert min(abs(one - other) for one, other in zip(runs[0][1], runs[2][1])) > 1e-4


def test_dropout_is_part_of_the_run(tmp_path, runs):
    """The same seed without dropout begins otherwise: the equality above covers the masks."""
    without = dataclasses.replace(ONE_LAYER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    _, losses, _ = run(tmp_path / "without", 42, without, lambda batches: itertools.islice(batches, 2))
    assert len(losses) == 2 and abs(losses[0] - runs[0][1][0]) > 1e-3


def test_training_that_diverges_ends_in_one_line(tmp_path):
    def spoil(batches):
        for batch in batches:
            yield dict(batch, weights=np.full_like(batch["weights"], np.nan))

    with pytest.raises(UserError, match="step 4: .*diverged.*--learning_rate"):
        run(tmp_path / "spoilt", 1, change_batches=spoil)
