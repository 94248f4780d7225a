"""A training in epochs: schedule, optimizer, dropout and batches from the flags."""

from modeling.bert.dropout import DropoutPlan
from modeling.engine import parallel
from modeling.run.bucketing import MOST_SAMPLES, train_batch_size
from modeling.run.child_tuning import ChildTuning, fisher_layout, fisher_size
from modeling.run.optimizer import create_optimizer, plan_schedule
from modeling.run.resources import Graph
from modeling.run.training_run import TrainingRun
from ofrecord_util.batches import iterate_training
from ofrecord_util.errors import UserError


class Training(TrainingRun):
    """One training run.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        samples: `Samples` of the training split.
        may_share_rows: whether the objective supports several texts per row.
        others: further `Model`s in memory (a teacher).
        compared: values per token that the objective compares with those of a teacher, see `MemoryPlan`.
        facts: other values that must be the same when the run is continued, by name (a teacher's digest).
    Attributes:
        settings: keyword arguments of `global_function` for the train function.
        schedule: `Schedule`.
        num_samples, batch_size: samples in the training split, and per step.
        mean_weight: mean sample weight.
        dropout: `DropoutPlan`. The train function takes the step's masks from its inputs with `dropout.take(batch)`.
        layout: `TrainingBatches`, the layout of a step's texts in rows.
        start_step: number of completed steps: 0, or the step of the state from which --resume continues.
    Raises:
        UserError: --fisher_batch_size is too large or contradicts --texts_per_row, the run that --resume continues had other flags or data,
            or the run does not fit into memory.
    """

    def __init__(self, context, variables, samples, may_share_rows=False, others=(), compared=None, **facts):
        flags, batch_size = context.flags, train_batch_size(context.flags)
        self._samples = samples
        self.mean_weight = float(samples.sample_weights.mean())  # scale of a classification loss that the scores weight
        schedule = plan_schedule(flags, len(samples), batch_size, MOST_SAMPLES)
        super().__init__(context, variables, schedule, len(samples), batch_size, facts)
        self.child_tuning = ChildTuning(context, variables)
        options = flags.weight_decay_rate, flags.adam_bias_correction, self.child_tuning.clip_norm
        optimizer, rates = create_optimizer(variables, self.schedule, *options)
        self._fisher_size = fisher_size(flags, batch_size)
        if self._fisher_size != batch_size:  # batches of other texts need not fit into rows that several texts share
            if getattr(flags, "texts_per_row", 1) > 1:
                raise UserError(f"--fisher_batch_size: not possible with --texts_per_row {flags.texts_per_row}: leave one of them out")
            may_share_rows = False
            context.bucketing.graphs.append(Graph(True, -(-self._fisher_size // parallel.size()), samples.seq_length))
        self.layout = self._choose_layout(samples, batch_size, may_share_rows, others, compared)
        self.settings = {
            "type": "train",
            "variables": variables,
            "optimizer": optimizer,
            "schedule": rates,
            "engine": context.engine,
            "mixed_precision": flags.use_fp16,
            "masks": self.child_tuning.masks,
            "parts": self.layout.parts,
        }
        parts = self.layout.parts if context.engine.sums_gradients else 1
        self.dropout = DropoutPlan(context.config, flags.seed, context.engine.device, parts, self.smoothness.passes)

    def samples_in(self, step):
        """Samples of a step (from 1). The last batch of a run may have fewer than the others."""
        return min(self.batch_size, self._context.flags.num_epochs * self.num_samples - (step - 1) * self.batch_size)

    def epochs_until(self, step):
        """Passes over the training split until the end of a step (from 1)."""
        return min(super().epochs_until(step), self._context.flags.num_epochs)

    def batches(self):
        """The run's batches after `start_step`, with their dropout masks."""
        flags = self._context.flags
        run = self._samples, self.batch_size, self.layout.lengths, flags.num_epochs, flags.seed
        batches = iterate_training(*run, self.start_step, self.layout.per_row)
        return self._with_random_numbers(batches, self.dropout, self.start_step)

    def fisher_batches(self):
        """The batches of one epoch, see `TrainingRun`."""
        rows, counted = fisher_layout(self._fisher_size, self.batch_size, self.layout.parts * parallel.size())
        run = self._samples, rows, self.layout.lengths, 1, self._context.flags.seed
        return self._with_random_numbers(iterate_training(*run, 0, self.layout.per_row, **counted), self.dropout, self.fisher_step)
