"""A training of a one-layer model with dropout and batches of two lengths, and what it leaves in its folder."""

import dataclasses
import hashlib
import json
import os
from types import SimpleNamespace
from unittest import mock

from tiny_model import CONFIG, KERNELS, NUM_DOMAINS, NUM_LABELS, random_samples

from modeling.bert.variables import Variables, classifier_shapes, domain_head_shapes, encoder_shapes, load_values
from modeling.checkpoints.snapshot import write_variables
from modeling.engine.engine import Engine
from modeling.engine.global_function import global_function
from modeling.objectives.corruption import with_corrupted_domains
from modeling.objectives.mft import META_METRICS, meta_objective, predict_logits
from modeling.run import training_run as training_module
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.bucketing import EvaluationBatches, TrainingBatches
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate
from modeling.run.log import Log
from modeling.run.metrics import Metrics
from modeling.run.resume import newest_state
from modeling.run.training import Training
from ofrecord_util.tasks import Task

ONE_LAYER = dataclasses.replace(CONFIG, num_hidden_layers=1, initializer_range=0.2)
TASK = Task("t", ("a", "b", "c", "d"), ("x", "y", "z"))
RECORDS = random_samples([3, 13, 7, 2, 5, 11, 6])  # 7 samples, 3 epochs, batches of 4: 6 steps, the last one half full
DEV = random_samples([4, 9, 13, 2, 6], seed=8)
LENGTHS = (7, 13)
FLAGS = SimpleNamespace(
    script="meta_finetuning",
    num_epochs=3,
    batch_size_per_device=4,
    gradient_accumulation_steps=1,
    learning_rate=0.01,
    warmup_proportion=0.2,
    weight_decay_rate=0.1,
    adam_bias_correction=True,
    use_fp16=False,
    seed=42,
    dev_every_step_num=4,
    loss_print_every_n_iter=2,
    model_save_every_n_iter=4,
    state_save_every_n_iter=500,
    save_last_snapshot=True,
    keep_all_best=False,
    max_steps=None,
    early_stop_patience=None,
    metric_for_best="accuracy",
    resume=None,
    seq_length=13,
    memory_limit=None,
    auto_settings=False,
    child_tuning="none",
    consistency_weight=0.0,
    reserve_p=0.2,
)


class _Bucketing:
    """Two lengths; one part per accumulated batch."""

    def __init__(self, parts):
        self.graphs, self._parts = [], parts

    def training(self, records, batch_size, may_share, planned, memory):
        return planned or TrainingBatches(1, LENGTHS, self._parts)


class _Context:
    """What a training needs of a `RunContext` and its `RunFolder`."""

    def __init__(self, folder, flags, config, records):
        self.path, self.flags, self.engine, self.task, self.config = str(folder), flags, Engine(), TASK, config
        os.makedirs(self.path, exist_ok=True)
        digest = hashlib.sha256(records.label.tobytes()).hexdigest()
        self.freezing, self.snapshot, self.splits = (
            SimpleNamespace(layers=0),
            None,
            SimpleNamespace(digests={"training data's digest": digest}),
        )
        self.bucketing = _Bucketing(flags.gradient_accumulation_steps)
        self.decays = {}  # name of a snapshot -> what its rows out of use were multiplied by
        self.lines = []
        self.log, self.metrics = Log(os.path.join(self.path, "run.log"), exclusive=True), Metrics(self.path)
        self.state = newest_state(self.path, self.lines.append) if flags.resume else None
        self.folder = self

    def write_snapshot(self, name, variables, config=None, decay=1.0):
        self.decays[name] = decay
        write_variables(os.path.join(self.path, name), variables.arrays(decay))
        return os.path.join(self.path, name)

    def close(self):
        """Lets the folder go, as the end of the process does."""
        self.log.close()


def run(
    folder,
    config=ONE_LAYER,
    change_batches=lambda batches: batches,
    records=RECORDS,
    on_evaluation=None,
    on_closing=lambda: None,
    frozen=(),
    **changes,
):
    """Trains; returns the folder's `_Context`, the losses of all steps and the `BestSnapshot`."""
    flags = SimpleNamespace(**dict(vars(FLAGS), **changes))
    context, kernels = _Context(folder, flags, config, records), KERNELS["cpu"]
    shapes = {
        **encoder_shapes(config),
        **classifier_shapes(config, NUM_LABELS),
        **domain_head_shapes(config, NUM_DOMAINS),
    }
    values, losses = load_values(shapes, None, flags.seed, config.initializer_range), []
    variables = Variables(values, frozen=[name for name in shapes if name.startswith(frozen)])

    @global_function(type="predict", variables=variables)
    def predict_job(variables, **features):
        return predict_logits(variables, config, kernels, **features)

    def evaluate_dev():
        if on_evaluation:
            on_evaluation()
        return evaluate(predict_job, DEV, EvaluationBatches(2, (13,)), TASK, flags.seed)

    try:
        training = Training(context, variables, records)

        @global_function(**training.settings)
        def train_job(variables, **features):
            dropout = training.dropout.take(features)
            return meta_objective(variables, config, kernels, dropout, (0,), 0.1, **features)

        def job(batch):
            outputs = train_job(batch)
            losses.append(outputs[0])
            return outputs

        job.restore, job.optimizer_state = train_job.restore, train_job.optimizer_state
        batches = change_batches(with_corrupted_domains(training.batches(), NUM_DOMAINS, flags.seed, training.start_step))
        best = BestSnapshot(context, "mft", variables)
        with mock.patch.object(training_module, "start_run"):
            training.run(job, batches, META_METRICS, evaluate_dev, best)
            on_closing()
            end_run(context, best)
    finally:
        context.close()
    return context, [float(loss.numpy().mean()) for loss in losses], best


def rows(context, kind):
    with open(os.path.join(context.path, "metrics.jsonl"), encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["kind"] == kind]


def snapshot_bytes(path):
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(os.path.join(folder, name), path)] = file.read()
    return found
