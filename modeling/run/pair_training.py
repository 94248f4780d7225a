"""A training on the halves of the texts of a corpus (modeling/objectives/pairs.py), and the recall on dev and test.

Every pair is compared with all others of its group. A batch holds a group in one row of its arrays, as in modeling/run/metric_training.py:
lanes and parts divide no group. Each process, and each accumulated batch, has a group of its own.
"""

import dataclasses

import numpy as np

from modeling.bert.config import CLS
from modeling.bert.dropout import DropoutPlan
from modeling.bert.names import POOLER, TEMPERATURE
from modeling.bert.variables import encoder_shapes
from modeling.cli.choices import ALL_PAIRS
from modeling.objectives.metric import grouped_vectors
from modeling.objectives.pairs import compare_pairs, learns_temperature, pair_loss, scale_of, temperature_shapes
from modeling.run.bucketing import train_batch_size
from modeling.run.child_tuning import ChildTuning
from modeling.run.evaluation import Evaluation, predict
from modeling.run.held_out import domains_of, measured_parts, split_of
from modeling.run.measures import RECALL
from modeling.run.optimizer import create_optimizer, plan_schedule
from modeling.run.training_run import TrainingRun
from ofrecord_util.corpus_rows import Rows
from ofrecord_util.errors import UserError
from ofrecord_util.pair_batches import PairSteps, cut_in_halves, padded, recall_blocks

_MOST_LOOKED_AT = 500  # steps whose texts decide to which lengths batches are padded


def pair_shapes(config, snapshot, loss=None):
    """dict of name -> shape of the variables. A pooler that is not used is there only if the snapshot has it.

    Args:
        loss: --pair_loss; None for a run that does not train.
    """
    needed = config.pooling == CLS or snapshot is None or any(name.startswith(POOLER) for name in snapshot.sizes)
    shapes = {name: shape for name, shape in encoder_shapes(config).items() if needed or not name.startswith(POOLER)}
    return {**shapes, **(temperature_shapes(loss) if loss else {})}


class _Lengths:
    """What the choice of padded lengths needs to know of the halves of a corpus."""

    def __init__(self, corpus, pair):
        longest = corpus.manifest["longest"]
        self.seq_length = corpus.seq_length
        self.lengths = np.array([longest if pair else 2 + (longest - 1) // 2])


def check_pair_flags(flags) -> None:
    """Raises a UserError if flags of the training on pairs contradict each other. Call it before records are written."""
    if flags.freeze_encoder:
        raise UserError("--freeze_encoder: the training on pairs trains the encoder alone; leave the flag out")


class PairTraining(TrainingRun):
    """One training on pairs.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        corpus: `Corpus`.
    Attributes:
        settings: keyword arguments of `global_function` for the train function.
        dropout: `DropoutPlan`.
        layout: `TrainingBatches`.
    Raises:
        UserError: the corpus is too small, the run that --resume continues had other flags or data, or the run does not fit into memory.
    """

    def __init__(self, context, variables, corpus):
        flags, engine, pairs = context.flags, context.engine, train_batch_size(context.flags)
        if len(corpus) < pairs:
            raise UserError(
                f"--batch_size_per_device {flags.batch_size_per_device}: a step compares {pairs} texts, and the corpus has {len(corpus)}: "
                "give a smaller number or more text"
            )
        self._groups = pairs // flags.batch_size_per_device
        self._steps = PairSteps(corpus, self._groups, flags.batch_size_per_device, flags.seed, flags.shuffle_window)
        schedule = plan_schedule(flags, self._steps.per_epoch * pairs, pairs)
        super().__init__(context, variables, schedule, len(corpus), pairs, {})
        needed = np.resize(self._steps.longest(min(schedule.total_steps, _MOST_LOOKED_AT)), schedule.total_steps)
        lengths, texts = _Lengths(corpus, context.task.pair or flags.paired_lines), 2 * flags.batch_size_per_device
        self.layout = self._choose_layout(lengths, 2 * pairs, together=texts, needed=needed)
        self.child_tuning = ChildTuning(context, variables)
        options = flags.weight_decay_rate, flags.adam_bias_correction, self.child_tuning.clip_norm
        optimizer, rates = create_optimizer(variables, schedule, *options)
        self.settings = {"type": "train", "variables": variables, "optimizer": optimizer, "schedule": rates, "engine": engine}
        self.settings.update(mixed_precision=flags.use_fp16, masks=self.child_tuning.masks, parts=self.layout.parts)
        self.dropout = DropoutPlan(context.config, flags.seed, engine.device, self.layout.parts if engine.sums_gradients else 1)
        context.log(f"{self._groups * flags.batch_size_per_device} pairs per step in groups of {flags.batch_size_per_device}")

    def objective(self, variables, kernels, target, loss_mask, scale=None, **batch):  # noqa: ARG002  all pairs count
        """The loss of a step, for a train function: (loss, metrics) in the order of `pair_metrics`."""
        loss, dropout = self._context.flags.pair_loss, self.dropout.take(batch)
        vectors = grouped_vectors(variables, self._context.config, kernels, 2 * target.shape[1], dropout, **batch)
        dropout.hidden()  # the last mask of a pass is that of a classifier, which vectors do not have
        temperature = variables.get(TEMPERATURE) if learns_temperature(loss) else None
        return pair_loss(vectors, target, loss, temperature, scale)

    def epochs_until(self, step):
        """Passes over the corpus until the end of a step (from 1). The rows that an epoch leaves out count as passed."""
        return step / self._steps.per_epoch

    def batches(self):
        """The run's batches after `start_step`, with their dropout masks."""
        return map(self._batch, range(self.start_step, self.schedule.total_steps))

    def fisher_batches(self):
        """The batches of one epoch, see `TrainingRun`."""
        return map(self._batch, range(self.fisher_step, self.fisher_step + self._steps.per_epoch))

    def _batch(self, step):
        batch = self._steps.batch(step, self.layout.lengths)
        if self._context.flags.pair_loss == ALL_PAIRS:
            batch["scale"] = np.full((self._groups, 1), scale_of(step, self._context.config.hidden_size), np.float32)
        texts = 2 * batch["target"].size
        return dict(batch, **self.dropout.masks(step, texts, batch["word_rows"].size // texts))


class PairEvaluator:
    """Measures the recall of a split: the share of its pairs whose second text is the nearest one of 100, or of all if there are fewer. The
    pairs that are compared are the same in every run.

    Args:
        context: `RunContext`.
        job: a predict `GlobalFunction` of text vectors.
        splits: dict of split -> `Samples` with the ids of the vocabulary, or None for a split to leave out.
        batch_sizes: dict of split -> texts per batch from the flags.
        corpus: `Corpus` of a run that evaluates dev periodically; None if each split is measured once.
    Attributes:
        splits: dict of split -> `Samples`, with names such as "dev_held_out" for the rows of held-out domains.
    Raises:
        UserError: a split, or its part of held-out or of other domains, has a single pair; or dev is to select a snapshot, and has no row
            of a domain that is not held out.
    """

    def __init__(self, context, job, splits, batch_sizes, corpus=None):
        self._context, self._job = context, job
        self.splits = measured_parts(context, splits, corpus is not None)
        self._halves, self._batches = {}, {}
        for name, samples in self.splits.items():
            if len(samples) < 2:
                place, one = context.splits.source(split_of(name)), "one pair" + domains_of(context, name)
                raise UserError(f"{place}: has {one}, so there is none to compare it with; give more rows")
            self._halves[name] = texts = _halves_of(samples)
            trained = corpus if name == "dev" else None
            self._batches[name] = context.bucketing.evaluation(texts, batch_sizes[split_of(name)], trained, may_share=True)

    def __call__(self, split="dev"):
        """The `Evaluation` of a split."""
        samples, task = self.splits[split], self._context.task
        vectors = predict(self._job, self._halves[split], self._batches[split])
        hits, losses = compare_pairs(vectors, recall_blocks(len(samples)))
        by_domain = {}
        for domain, name in enumerate(task.domains):
            here = samples.domain == domain
            if here.any():
                by_domain[name] = _measures(hits[here], losses[here])
        whole = _measures(hits, losses)
        return Evaluation(whole["correct"], whole["total"], whole["cross_entropy"], by_domain, {RECALL: whole["accuracy"]})


def _halves_of(samples):
    """`Samples` of the 2 N halves of N samples."""
    texts = cut_in_halves(Rows(samples.word_rows, samples.segment_ids, samples.lengths))
    twice = samples.select(np.repeat(np.arange(len(samples)), 2))
    return dataclasses.replace(twice, lengths=texts.lengths, **padded(texts, samples.seq_length))


def _measures(hits, losses):
    """dict of "accuracy", "correct", "total", "cross_entropy"."""
    correct = int(hits.sum())
    return {"accuracy": correct / len(hits), "correct": correct, "total": len(hits), "cross_entropy": float(losses.mean())}
