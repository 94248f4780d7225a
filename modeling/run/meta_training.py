"""A training on tasks: the inner loop that adapts the weights to a task, and the outer step (modeling/objectives/outer_rule.py).

One train function serves all tasks. Before a task, the weights and the optimizer's state are put back in place; its graphs are compiled
once. Several processes divide the tasks of an outer step among themselves (modeling/engine/peers.py).
"""

from typing import NamedTuple

import numpy as np

from modeling.bert.dropout import DropoutPlan, with_dropout
from modeling.cli.choices import FOMAML, KEPT, LINEAR, OUTER_SGD, REPTILE, SGD
from modeling.engine import parallel, peers
from modeling.objectives.mft import FINETUNING_METRICS
from modeling.objectives.outer_rule import Direction, OuterRule, OuterSchedule
from modeling.run import measures
from modeling.run.child_tuning import ChildTuning, fisher_layout, fisher_size
from modeling.run.meta_tasks import TaskSampler, choose_domains
from modeling.run.optimizer import Schedule, create_optimizer
from modeling.run.resources import Graph
from modeling.run.training_run import TrainingRun
from ofrecord_util.batches import count_steps, iterate_evaluation, iterate_training
from ofrecord_util.errors import UserError

META_LEARNING_METRICS = (
    "loss",  # of the support rows in the last inner step
    "support_loss_first",
    "query_loss",
    "query_accuracy",
    "query_accuracy_before",
    "update_norm",
)
_FURTHER = 8  # numbers per trained parameter: the weights before a step and after it, their sum over tasks in float64, outer moments
_MOST_STEP_SAMPLES = 10**7  # with forward and backward pass in an outer step: the samples of days
_INNER = "inner-"  # prefix of the inner optimizer's state in a state


class InnerLoop(NamedTuple):
    """The settings of the inner loop."""

    batch_size: int
    steps: int  # in training
    evaluation_steps: int
    keeps_state: bool


def inner_loop(flags):
    """The `InnerLoop` of the flags.

    Raises:
        UserError: the flags contradict each other.
    """
    if flags.inner_steps is not None and flags.inner_epochs is not None:
        raise UserError("--inner_steps, --inner_epochs: give one of the two")
    steps = flags.inner_steps or 10
    if flags.inner_epochs is not None:
        steps = count_steps(flags.support_num, flags.inner_epochs, flags.inner_batch_size)
    evaluation = flags.eval_inner_steps or steps
    varies = flags.inner_schedule == LINEAR or flags.inner_warmup_proportion > 0
    if flags.inner_state == KEPT and varies:
        raise UserError("--inner_state kept: the step counter goes on, so it needs --inner_schedule constant without a warm-up")
    if flags.inner_state == KEPT and parallel.processes() > 1:
        raise UserError("--inner_state kept: a task continues where the one before it ended, so the tasks need one process")
    if evaluation > steps and flags.inner_schedule == LINEAR:
        raise UserError(f"--eval_inner_steps {evaluation}: --inner_schedule linear ends after {steps} steps")
    if flags.meta_method == FOMAML and not flags.query_num:
        raise UserError("--query_num 0: fomaml takes the gradient of query rows, give at least 1")
    if flags.inner_optimizer == SGD and "inner_beta1" in flags.given:
        raise UserError("--inner_beta1: --inner_optimizer sgd has no moments, leave one of the two out")
    if flags.use_fp16:
        raise UserError("--use_fp16: meta-learning does not use mixed precision, leave the flag out")
    return InnerLoop(flags.inner_batch_size, steps, evaluation, flags.inner_state == KEPT)


def passes_of_step(flags, inner):
    """Samples with forward and backward pass in an outer step.

    Args:
        flags: flags of the script.
        inner: the `InnerLoop`.
    Raises:
        UserError: they are too many.
    """
    parts = {f"--inner_steps {inner.steps}, --inner_batch_size {inner.batch_size}": inner.steps * inner.batch_size}  # flags -> samples
    if flags.inner_epochs is not None:
        parts = {f"--inner_epochs {flags.inner_epochs}, --support_num {flags.support_num}": flags.inner_epochs * flags.support_num}
    if flags.meta_method == FOMAML:
        parts[f"--query_num {flags.query_num}"] = flags.query_num
    tasks, largest = flags.tasks_per_step, max(parts.values())
    total = tasks * sum(parts.values())
    if total > _MOST_STEP_SAMPLES:
        # a part that is neither the largest nor too large by itself is not what must be smaller
        named = [names for names, number in parts.items() if number == largest or tasks * number > _MOST_STEP_SAMPLES]
        raise UserError(
            f"--tasks_per_step {tasks}, {', '.join(named)}: an outer step would pass {total:,} samples, more than {_MOST_STEP_SAMPLES:,}: "
            "give smaller numbers"
        )
    return total


class MetaTraining(TrainingRun):
    """One run of meta-learning.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        samples: `Samples` of the training split.
    Attributes:
        settings: keyword arguments of `global_function` for the train function of the inner loop.
        gradient_settings: the same for the function that gives the query gradient of FOMAML.
        dropout: `DropoutPlan`.
        layout: `TrainingBatches` of the inner loop.
    Raises:
        UserError: the flags contradict each other or the data, the run that --resume continues had other ones, or the run does not fit
            into memory.
    """

    def __init__(self, context, variables, samples):
        flags = context.flags
        if parallel.size() > 1:
            raise UserError("meta-learning divides tasks, not batches, among processes: start them with --gpu_num_per_node")
        self.inner, self._samples = inner_loop(flags), samples
        self.passes = passes_of_step(flags, self.inner)
        self.domains, self.measured, self.held_out = choose_domains(flags, context.task)
        drawn = flags.support_num, flags.query_num, flags.class_balanced, flags.seed
        self._sampler = TaskSampler(samples, context.task, *drawn, context.splits.source("train"))
        # FOMAML trains on the query rows; Reptile only measures them, as many as there are
        self._sampler.check(self.domains, flags.query_num if flags.meta_method == FOMAML else 0)
        self._sampler.check((*self.measured, *self.held_out), 0)
        peak = flags.outer_learning_rate
        if peak is None:
            peak = 1.0 if (flags.outer_optimizer, flags.meta_method) == (OUTER_SGD, REPTILE) else 5e-5
        decay = flags.outer_weight_decay if flags.outer_optimizer != OUTER_SGD else 0.0
        schedule = OuterSchedule(peak, flags.meta_steps, flags.outer_schedule, decay)
        super().__init__(context, variables, schedule, len(samples), flags.tasks_per_step * flags.support_num, {})
        warmup = int(self.inner.steps * flags.inner_warmup_proportion)
        rates = Schedule(flags.inner_learning_rate, self.inner.steps, warmup, flags.inner_schedule == LINEAR)
        options = flags.weight_decay_rate, flags.adam_bias_correction
        kind = {"kind": flags.inner_optimizer, "beta1": flags.inner_beta1}
        optimizer, rates = create_optimizer(variables, rates, *options, clip_norm=None, **kind)
        self.child_tuning = ChildTuning(context, variables, max_norm=None)
        longest = min(max(8, -(-int(samples.lengths.max()) // 8) * 8), samples.seq_length)
        fisher = fisher_size(flags, self.inner.batch_size)
        if fisher != self.inner.batch_size:
            context.bucketing.graphs.append(Graph(True, fisher, longest))
        if flags.meta_method == FOMAML:
            context.bucketing.graphs.append(Graph(True, flags.query_num, longest))
        self.layout = self._choose_layout(samples, self.inner.batch_size, further=_FURTHER)
        self.gradient_settings = {"type": "gradient", "variables": variables, "engine": context.engine}
        inner = {"type": "train", "optimizer": optimizer, "schedule": rates, "parts": self.layout.parts, "masks": self.child_tuning.masks}
        self.settings = {**self.gradient_settings, **inner}
        parts = self.layout.parts if context.engine.sums_gradients else 1
        self.dropout = DropoutPlan(context.config, flags.seed, context.engine.device, parts, self.smoothness.passes)
        self._query_dropout = DropoutPlan(context.config, flags.seed, context.engine.device)
        context.log(
            "{} on {} domains ({}): {} tasks of {} rows per outer step, {} inner steps each, {:,} sample passes in the whole run".format(
                flags.meta_method,
                len(self.domains),
                ", ".join(context.task.domains[domain] for domain in self.domains),
                flags.tasks_per_step,
                flags.support_num,
                self.inner.steps,
                self.passes * flags.meta_steps,
            )
        )

    def batches(self):
        """The outer steps after `start_step`: dicts with `step`, `tasks`, `idxs` of all support rows, and `loss_mask` of all passes."""
        for step in range(self.start_step, self.schedule.total_steps):
            tasks = [self._sampler.training_task(self.domains, step, number) for number in range(self._context.flags.tasks_per_step)]
            rows = np.concatenate([task.support for task in tasks])
            yield {"step": step, "tasks": tasks, "idxs": self._samples.idxs[rows], "loss_mask": np.ones(self.passes, np.float32)}

    def support_batches(self, task, steps, first):
        """The batches of an inner loop.

        Args:
            task: `MetaTask`.
            steps: number of inner steps.
            first: number of the first inner step among all of the run, for the masks of dropout and Child-Tuning-F.
        """
        samples, size = self._samples.select(task.support), self.inner.batch_size
        epochs = -(-steps * size // len(samples))
        if self._context.flags.inner_epochs is not None and steps == self.inner.steps:
            epochs = self._context.flags.inner_epochs
        batches = iterate_training(samples, size, self.layout.lengths, epochs, task.order_seed)
        batches = self._with_random_numbers(batches, self.dropout, first)
        for number, batch in zip(range(first, first + steps), batches):
            self.child_tuning.before_step(number)
            yield {name: array for name, array in batch.items() if name != "idxs"}

    @property
    def fisher_step(self):
        """The first inner step (from 0) whose random numbers neither a task nor an evaluation uses."""
        tasks = self._context.task.num_domains * self._context.flags.eval_tasks
        return self.first_step(self.schedule.total_steps, 0) + tasks * self.inner.evaluation_steps

    def fisher_batches(self):
        """One epoch of the training domains in batches of the inner loop, see `TrainingRun`."""
        samples = self._samples.select(np.flatnonzero(np.isin(self._samples.domain, self.domains)))
        size = fisher_size(self._context.flags, self.inner.batch_size)
        rows, counted = fisher_layout(size, self.inner.batch_size, self.layout.parts)
        batches = iterate_training(samples, rows, self.layout.lengths, 1, self._context.flags.seed, **counted)
        return self._with_random_numbers(batches, self.dropout, self.fisher_step)

    def before_step(self, step):
        """Nothing: the masks of Child-Tuning are those of inner steps."""

    def query_batch(self, task, number):
        """The query rows of a task in one batch; `number` is that of its dropout masks."""
        samples = self._samples.select(task.query)
        (batch,) = iterate_evaluation(samples, len(samples), self.layout.lengths)
        if self._context.flags.query_dropout:
            (batch,) = with_dropout([batch], self._query_dropout, number)
        return {name: array for name, array in batch.items() if name != "idxs"}

    def first_step(self, step, number):
        """Number of the first inner step of a task among all of the run."""
        return (step * self._context.flags.tasks_per_step + number) * self.inner.steps

    def query_samples(self, task):
        """`Samples` of the query rows of a task."""
        return self._samples.select(task.query)

    def evaluation_tasks(self, domain):
        """The tasks for the evaluation of a domain: list of (`MetaTask`, number of its first inner step)."""
        last, count = self.first_step(self.schedule.total_steps, 0), self._context.flags.eval_tasks
        firsts = [last + (domain * count + number) * self.inner.evaluation_steps for number in range(count)]
        return [(self._sampler.evaluation_task(domain, number), first) for number, first in enumerate(firsts)]


class Adaptation:
    """The inner loop on the variables of a run.

    Args:
        training: `MetaTraining`.
        variables: its `Variables`.
        job: the train `GlobalFunction` of the inner loop; returns (loss, metrics).
        metrics: names of the metrics, the loss first.
    Attributes:
        gradients: `GlobalFunction.gradients` of the job, for Child-Tuning-D.
        kept: state of the inner optimizer with which a step starts, dict of name -> array; None before the first step, and if each task
            starts from zero moments.
    """

    def __init__(self, training, variables, job, metrics=FINETUNING_METRICS):
        self._training, self._variables, self._job, self._metrics = training, variables, job, metrics
        self.gradients, self.kept = job.gradients, None

    def weights(self):
        """A copy of the trained parameters, dict of name -> float32 array."""
        return {name: np.array(parallel.to_numpy(value)) for name, value in self._variables.trained().items()}

    def put(self, weights):
        """Sets the trained parameters."""
        for name, value in weights.items():
            self._variables.assign(name, value)

    def reset(self):
        """Sets the state of the inner optimizer to `kept`."""
        self._job.reset(self.kept)

    def keep(self):
        """Keeps the state of the inner optimizer for the next step."""
        self.kept = {name: np.array(value) for name, value in self._job.optimizer_state().items()}

    def run(self, task, steps, first):
        """Adapts the variables to the support rows of a task. Returns the losses of the inner steps."""
        losses, waiting = [], None
        for batch in self._training.support_batches(task, steps, first):
            outputs = self._job(batch)[1]
            if waiting is not None:  # stay at most one step ahead of the engine
                losses.append(self._loss(waiting))
            waiting = outputs
        return [*losses, self._loss(waiting)]

    def _loss(self, metrics):
        """The loss of a step from its metrics, the mean of its parts."""
        return float(parallel.to_numpy(metrics).reshape(-1, len(self._metrics))[:, 0].mean())


class MetaJob:
    """An outer step as a function of a batch of `MetaTraining.batches`, in place of a train `GlobalFunction`.

    Args:
        training: `MetaTraining`.
        adaptation: `Adaptation`.
        logits_of: function of `Samples` -> label logits, float32 [N, C].
        gradient_job: `GlobalFunction` of type "gradient" for FOMAML, else None.
        rule: `OuterRule`.
    """

    def __init__(self, training, adaptation, logits_of, gradient_job, rule):
        self._training, self._adaptation, self._logits_of = training, adaptation, logits_of
        self._gradient_job, self._rule, self.gradients = gradient_job, rule, adaptation.gradients

    @np.errstate(over="ignore", invalid="ignore")  # the training loop stops at metrics that are not finite, and says so
    def __call__(self, batch):
        """One outer step. Returns (loss, metrics [M]) in the order of META_LEARNING_METRICS."""
        adaptation, rule = self._adaptation, self._rule
        start = adaptation.weights()
        direction, rows = Direction(), np.zeros((len(batch["tasks"]), len(META_LEARNING_METRICS) - 1))
        adaptation.reset()
        try:
            for number, task in peers.own(batch["tasks"]):
                rows[number], found = self._task(batch["step"], number, task, start)
                # one process adds up in the order of the tasks, so that the sum does not depend on the number of processes
                present = min(peers.count(), len(batch["tasks"]) - number + peers.rank())
                direction.add(found, lambda value, present=present: peers.collect(value, present))
        except BaseException:  # an interrupted step is none
            adaptation.put(start)
            raise
        if self._training.inner.keeps_state:
            adaptation.keep()
        rows = peers.add_up(rows)
        if peers.count() > 1:
            direction.share(peers.spread, start, len(batch["tasks"]))
        rate = self._training.schedule.rate(batch["step"])
        gradient = direction.mean if self._gradient_job else lambda name: start[name] - direction.mean(name)
        changed = rule.step(start, gradient, rate)
        adaptation.put(changed)
        norm = np.sqrt(sum(float(np.square(changed[name] - start[name], dtype=np.float64).sum()) for name in start))
        metrics = np.array([*self._means(rows, batch["tasks"]), norm], np.float32)
        return metrics[0], metrics

    def _means(self, rows, tasks):
        """Means of the metrics over tasks: those of query rows over the tasks that have any, 0 if none has."""
        measured = np.array([len(self._training.query_samples(task)) > 0 for task in tasks])
        return [
            column[measured].mean() if name.startswith("query") and measured.any() else column.mean()
            for name, column in zip(META_LEARNING_METRICS, rows.T)
        ]

    def _task(self, step, number, task, start):
        """Adapts to one task. Returns (its metrics, what it says: the adapted weights or the query gradient, dict of name -> array)."""
        training, adaptation = self._training, self._adaptation
        first, query = training.first_step(step, number), training.query_samples(task)
        adaptation.put(start)
        if not training.inner.keeps_state:
            adaptation.reset()
        before = self._measure(query)[1]
        losses = adaptation.run(task, training.inner.steps, first)
        found = adaptation.weights() if self._gradient_job is None else self._gradient_job.gradients(training.query_batch(task, first))[1]
        return (losses[-1], losses[0], *self._measure(query), before), found

    def _measure(self, samples):
        """(cross-entropy, accuracy) of samples; zeros if there are none."""
        if not len(samples):
            return 0.0, 0.0
        logits = self._logits_of(samples)
        losses = measures.cross_entropies(measures.log_softmax(logits), samples.label)
        return float(losses.mean()), float((logits.argmax(axis=1) == samples.label).mean())

    def optimizer_state(self):
        """The state of the outer rule and, if it is kept, of the inner optimizer: dict of name -> array."""
        inner = self._adaptation.kept or {}
        return {**self._rule.state(), **{_INNER + name: value for name, value in inner.items()}}

    def restore(self, state):
        """Continues from an `optimizer_state`."""
        self._rule.restore(state)
        inner = {name[len(_INNER) :]: state[name] for name in state if name.startswith(_INNER)}
        self._adaptation.kept = inner or None


def outer_rule(flags):
    """The `OuterRule` of the flags."""
    return OuterRule(flags.outer_optimizer, flags.outer_weight_decay)
