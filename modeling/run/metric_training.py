"""A training on pairs or episodes (modeling/objectives/metric.py), and with --head finetune a training in epochs that follows it.

A batch holds the texts of a pair or an episode in one row of its arrays. Lanes, parts and ranks divide rows, so they never divide what a
loss compares.
"""

from typing import NamedTuple, Optional

import numpy as np

from modeling.bert.dropout import DropoutPlan
from modeling.cli.choices import CONTRASTIVE, FINETUNED
from modeling.engine import parallel
from modeling.objectives.metric import contrastive_loss, grouped_vectors, prototypical_loss
from modeling.run.bucketing import train_batch_size
from modeling.run.child_tuning import ChildTuning, uses_masks
from modeling.run.metric_draws import EpisodeSampler, PairSampler
from modeling.run.optimizer import Schedule, create_optimizer, plan_schedule
from modeling.run.resources import Graph
from modeling.run.training_run import TrainingRun
from ofrecord_util.batches import iterate_training
from ofrecord_util.errors import UserError
from ofrecord_util.on_demand import OnDemand
from ofrecord_util.records import TOKEN_ARRAYS

_MOST_LOOKED_AT = 500  # steps whose texts decide to which lengths batches are padded
_PREFIXES = ("metric-", "finetuning-")  # of the names in a state, by phase
# Numbers per trained parameter that the other phase needs: its moments, and with masks the sum, its product and its gradient
_OTHER_PHASE, _OTHER_MASKED_PHASE = 2, 5


class Phases(NamedTuple):
    """The learning rate of a run: that of the steps on pairs or episodes, then that of the fine-tuning."""

    first: Schedule
    second: Optional[Schedule]

    @property
    def total_steps(self):
        return self.first.total_steps + (self.second.total_steps if self.second else 0)

    @property
    def warmup_steps(self):
        return self.first.warmup_steps + (self.second.warmup_steps if self.second else 0)

    def rate(self, step):
        """The learning rate of `step` (from 0)."""
        if self.second is None or step < self.first.total_steps:
            return self.first.rate(step)
        return self.second.rate(step - self.first.total_steps)

    def decay_factor(self, steps, weight_decay):
        """As `Schedule.decay_factor`."""
        factor = self.first.decay_factor(min(steps, self.first.total_steps), weight_decay)
        rest = steps - self.first.total_steps
        return factor * self.second.decay_factor(rest, weight_decay) if rest > 0 else factor


def check_metric_flags(flags) -> None:
    """Raises a UserError if flags of metric learning contradict each other. Call it before data is read and records are written."""
    if flags.freeze_encoder:
        raise UserError("--freeze_encoder: metric learning trains the encoder; to fit a classifier only, give --learning_rate 0")
    if flags.adversarial_factor and flags.head != FINETUNED:
        raise UserError("--adversarial_factor: the term belongs to the fine-tuning of --head finetune, give this flag or leave it out")
    if flags.consistency_weight and flags.objective == CONTRASTIVE and flags.head != FINETUNED:
        raise UserError(
            "--consistency_weight: a pair has no label predictions to compare: give --objective prototypical or --head finetune, or "
            "leave the flag out"
        )


class MetricTraining(TrainingRun):
    """One run of metric learning.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        samples: `Samples` of the training split.
    Attributes:
        settings: keyword arguments of `global_function` for the train function on pairs or episodes.
        finetuning_settings: the same for the fine-tuning that follows; None without one.
        dropout, finetuning_dropout: `DropoutPlan` of each.
        layout: `TrainingBatches` of the steps on pairs or episodes.
        evaluator: `HeadEvaluator`, to be set before `run`.
    Raises:
        UserError: the flags contradict the data, the run that --resume continues had other ones, or the run does not fit into memory.
    """

    evaluator = None

    def __init__(self, context, variables, samples):
        flags = context.flags
        self._samples, self._contrastive = samples, flags.objective == CONTRASTIVE
        self._sampler = self._choose_sampler(context, samples)
        counted = ("batch_size_per_device", "pairs") if self._contrastive else ("episodes_per_step", "episodes")
        self._groups = train_batch_size(flags, *counted)
        if self._contrastive and self._groups % 2:
            raise UserError(
                f"--batch_size_per_device {flags.batch_size_per_device}: half of the pairs have equal labels, give an even number"
            )
        self._rows = train_batch_size(flags)  # of a step of the fine-tuning
        warmup = int(flags.num_steps * flags.warmup_proportion)
        tuning = plan_schedule(flags, len(samples), self._rows) if flags.head == FINETUNED else None
        schedule = Phases(Schedule(flags.learning_rate, flags.num_steps, warmup), tuning)
        texts = self._sampler.texts
        super().__init__(context, variables, schedule, len(samples), self._groups * texts, {})
        if tuning:
            longest = min(samples.seq_length, -(-int(samples.lengths.max()) // 8) * 8)
            context.bucketing.graphs.append(Graph(True, self._rows // parallel.size() // flags.gradient_accumulation_steps, longest))
        needed = self._longest_texts(min(flags.num_steps, _MOST_LOOKED_AT))
        further = 0 if not tuning else _OTHER_MASKED_PHASE if uses_masks(flags) else _OTHER_PHASE
        self.layout = self._choose_layout(samples, self.batch_size, further=further, together=texts, needed=needed)
        self.child_tuning = ChildTuning(context, variables)
        passes = 1 + (bool(flags.consistency_weight) and not self._contrastive)
        self.settings, self.dropout = self._settings(variables, schedule.first, self.layout.parts, passes)
        self.finetuning_settings = self.finetuning_dropout = None
        if tuning:
            parts = flags.gradient_accumulation_steps
            self.finetuning_settings, self.finetuning_dropout = self._settings(variables, tuning, parts, self.smoothness.passes)
        self._log_what_is_drawn()

    def _choose_sampler(self, context, samples):
        flags, source = context.flags, context.splits.source("train")
        where = samples.domain, samples.label, context.task
        if self._contrastive:
            return PairSampler(*where, flags.within_domain, flags.seed, source)
        rows = flags.support_num, flags.query_num
        return EpisodeSampler(*where, flags.episode_labels, *rows, flags.within_domain, flags.seed, source)

    def _longest_texts(self, steps):
        """Tokens of the longest text of each of the first steps, as often as the run has steps."""
        longest = [self._samples.lengths[self._sampler.draw(step, self._groups)[0]].max() for step in range(steps)]
        return np.resize(np.array(longest, np.int64), self.schedule.first.total_steps)

    def _settings(self, variables, schedule, parts, passes):
        """(keyword arguments of `global_function`, `DropoutPlan`) of a train function."""
        flags, engine = self._context.flags, self._context.engine
        options = flags.weight_decay_rate, flags.adam_bias_correction, self.child_tuning.clip_norm
        optimizer, rates = create_optimizer(variables, schedule, *options)
        settings = {"type": "train", "variables": variables, "optimizer": optimizer, "schedule": rates, "engine": engine}
        settings.update(mixed_precision=flags.use_fp16, parts=parts, masks=self.child_tuning.masks)
        return settings, DropoutPlan(self._context.config, flags.seed, engine.device, parts if engine.sums_gradients else 1, passes)

    def _log_what_is_drawn(self):
        where = "within domains" if self._context.flags.within_domain else "across domains"
        if self._contrastive:
            equal, other = self._sampler.count.values()
            self._context.log(f"{self._groups} pairs per step, {where}, of {equal:,} pairs of equal labels and {other:,} of others")
        else:
            self._context.log(f"{self._groups} episodes of {self._sampler.labels} labels and {self._sampler.texts} texts per step, {where}")

    def objective(self, variables, kernels, target, **batch):
        """The loss of a step on pairs or episodes, for a train function: (loss, metrics) in the order of `finetuning_metrics`."""
        flags, sampler, dropout = self._context.flags, self._sampler, self.dropout.take(batch)
        weight, terms = flags.consistency_weight, len(self.smoothness.names)

        def vectors():
            found = grouped_vectors(variables, self._context.config, kernels, sampler.texts, dropout, **batch)
            dropout.hidden()  # the last mask of a pass is that of a classifier, which vectors do not have
            return found

        if self._contrastive:
            return contrastive_loss(vectors(), target, terms)
        settings = sampler.labels, flags.support_num, flags.distance_scale
        return prototypical_loss(vectors(), target, *settings, vectors() if weight else None, weight, terms)

    def samples_in(self, step):
        """Texts of a step (from 1)."""
        number = step - self.schedule.first.total_steps
        if number <= 0:
            return self.batch_size
        return min(self._rows, self._context.flags.num_epochs * self.num_samples - (number - 1) * self._rows)

    def epochs_until(self, step):
        """Passes over the training split until the end of a step (from 1)."""
        metric_steps = self.schedule.first.total_steps
        rest = max(0, step - metric_steps) * self._rows / self.num_samples
        return min(step, metric_steps) * self.batch_size / self.num_samples + min(rest, self._context.flags.num_epochs)

    def batches(self):
        """The batches of the steps after `start_step`, with their dropout masks. Those of pairs or episodes have a `target`."""
        flags, steps = self._context.flags, self.schedule.first.total_steps
        for step in range(self.start_step, steps):
            yield self._grouped_batch(step)
        if self.schedule.second is not None:
            start = max(0, self.start_step - steps)
            batches = iterate_training(self._samples, self._rows, self.layout.lengths, flags.num_epochs, flags.seed, start)
            yield from self._with_random_numbers(batches, self.finetuning_dropout, steps + start)

    def _grouped_batch(self, step):
        rows, target = self._sampler.draw(step, self._groups)
        flat, texts = rows.reshape(-1), self._sampler.texts
        longest = int(self._samples.lengths[flat].max())
        length = min(length for length in self.layout.lengths if length >= longest)
        batch = {
            name: np.ascontiguousarray(getattr(self._samples, name)[flat, :length]).reshape(len(rows), texts * length)
            for name in TOKEN_ARRAYS
        }
        batch.update(target=target, idxs=self._samples.idxs[flat], loss_mask=np.ones(len(flat), np.float32))
        return dict(batch, **self.dropout.masks(step, len(flat), length))

    def fisher_batches(self):
        """Pairs or episodes of as many texts as the training split has, see `TrainingRun`. The fine-tuning has the same child network."""
        count = -(-self.num_samples // self.batch_size)
        return map(self._grouped_batch, range(self.fisher_step, self.fisher_step + count))

    def before_step(self, step):
        """Fits the classifier with which the fine-tuning starts, before its first step."""
        super().before_step(step)
        if self.schedule.second is not None and step == self.schedule.first.total_steps:
            self.evaluator.fit()
            self.evaluator.fits = False

    def before_snapshot(self):
        """Fits the classifier to the vectors, which have changed since the last evaluation."""
        if self.evaluator.fits:
            self.evaluator.fit()


def _without_loss_mask(batch):
    """The inputs of a function on pairs or episodes, which are all complete."""
    return {name: array for name, array in batch.items() if name != "loss_mask"}


class MetricJob:
    """The steps of both phases as one function, in place of a train `GlobalFunction`.

    Args:
        metric: train `GlobalFunction` on pairs or episodes.
        finetuning: that of the fine-tuning, or None.
    """

    def __init__(self, metric, finetuning=None):
        self._jobs, self._current = (metric, finetuning), 0

    def __call__(self, batch):
        """One step. Returns (loss, metrics)."""
        if "target" not in batch:
            self._current = 1
            return self._jobs[1](batch)
        return self._jobs[0](_without_loss_mask(batch))

    def gradients(self, batch):
        """As `GlobalFunction.gradients`, of a batch of pairs or episodes."""
        return self._jobs[0].gradients(_without_loss_mask(batch))

    def optimizer_state(self):
        """The state of the optimizer of the phase, `OnDemand` of name -> array."""
        state, prefix = self._jobs[self._current].optimizer_state(), _PREFIXES[self._current]
        return OnDemand([prefix + name for name in state], lambda name: state[name[len(prefix) :]])

    def restore(self, state):
        """Continues from an `optimizer_state`, before the first step."""
        self._current = int(any(name.startswith(_PREFIXES[1]) for name in state))
        prefix = _PREFIXES[self._current]
        names = [name[len(prefix) :] for name in state if name.startswith(prefix)]
        self._jobs[self._current].restore(OnDemand(names, lambda name: state[prefix + name]))
