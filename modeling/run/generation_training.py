"""A training on sources and targets: batches, memory, and the evaluation of the target tokens on dev and test."""

import math

import numpy as np

from modeling.cli.choices import BLEU_4
from modeling.palm.beam_search import Search
from modeling.palm.dropout import PalmDropoutPlan
from modeling.palm.variables import palm_shapes, unused_names
from modeling.run.bucketing import MOST_SAMPLES, train_batch_size
from modeling.run.child_tuning import ChildTuning
from modeling.run.evaluation import TEXT, Evaluation, predict
from modeling.run.language_training import plan_masking
from modeling.run.measures import PERPLEXITY, TARGET_TOKENS, TOKENS
from modeling.run.model_loading import load_variables
from modeling.run.optimizer import create_optimizer, plan_schedule
from modeling.run.training_run import TrainingRun
from ofrecord_util.batches import iterate_training
from ofrecord_util.corpus_batches import batch_weights
from ofrecord_util.errors import UserError
from ofrecord_util.padded_lengths import LENGTH_STEP
from ofrecord_util.seeds import mask_stream

_INPUTS = ("word_rows", "input_mask", "idxs", "loss_mask")  # of a batch of sources
# Numbers in memory: for each target token and word of the vocabulary; for each target token, unit and decoder layer; for each score of an
# attention. As in modeling/run/resources.py they count the outputs of a graph's operations
_TRAIN = {"logits": 5, "hidden": 150, "scores": 7.5}
_PREDICT = {"logits": 3, "hidden": 45, "scores": 3}
_KEPT_MASKS = 4  # steps whose dropout masks are in memory


def check_generation_flags(flags, trains) -> None:
    """Raises a UserError if flags contradict each other. Call it before records are written."""
    if trains and flags.label_smoothing == 1:
        raise UserError("--label_smoothing 1: the loss does not depend on the target, so there is nothing to learn: give less than 1")
    if trains and flags.metric_for_best == BLEU_4:
        if flags.gpu_num_per_node * flags.num_nodes > 1:
            raise UserError(f"--metric_for_best {BLEU_4}: one process generates texts: give cross_entropy, or --gpu_num_per_node 1")
        if flags.generate_example_num == 0:
            raise UserError(f"--metric_for_best {BLEU_4}: --generate_example_num 0 generates no texts: give more, or cross_entropy")
    Search(min_length=flags.min_length, max_length=flags.max_length or flags.target_length - 1).check()


def decoder_length(splits, positions):
    """Tokens of the decoder's input for some `TargetSplit`s: those of the longest target without its last, rounded up.

    Args:
        positions: of the model, at least as many as that.
    """
    longest = max(split.longest_target for split in splits) - 1
    return min(positions, -(-longest // LENGTH_STEP) * LENGTH_STEP)


def per_row(config, target_length, places=None):
    """Numbers that the decoder needs for each row of a `Graph`, as a function of the graph: for `plan_memory`.

    Args:
        config: `PalmConfig`.
        target_length: Y.
        places: function of the source's length -> masked tokens of a row; None without masks.
    """

    def numbers(graph):
        factors = _TRAIN if graph.trains else _PREDICT
        hidden, masked = config.dec_hidden_layers * target_length * config.hidden_size, places(graph.length) if places else 0
        scores = config.dec_hidden_layers * config.num_attention_heads * target_length * (target_length + graph.length)
        masks = _KEPT_MASKS * (scores + 3 * hidden) if graph.trains else 0
        logits = factors["logits"] * config.vocab_size * (target_length + masked)
        return int(logits + factors["hidden"] * hidden + factors["scores"] * scores + masks)

    return numbers


def load_palm(context, trains):
    """The `Variables` of a run: all word embeddings, because each of them is an output.

    Raises:
        UserError: a run without training has no snapshot.
    """
    snapshot = context.snapshot
    if snapshot is None and not trains:
        raise UserError("--do_train false: --model_load_dir is needed (the snapshot to evaluate)")
    shapes = palm_shapes(context.config, snapshot and snapshot.sizes, context.pretrains)
    return load_variables(context, shapes, snapshot, unused=unused_names(context.pretrains))


class GenerationTraining(TrainingRun):
    """One training in epochs on a `TargetSplit`.

    Args:
        context: `GenerationContext`.
        variables: the trained `Variables`.
        split: `TargetSplit` of the training split.
    Attributes:
        settings: keyword arguments of `global_function` for the train function.
        dropout: `PalmDropoutPlan`.
        layout: `TrainingBatches`.
    Raises:
        UserError: the run that --resume continues had other flags or data, or the run does not fit into memory.
    """

    def __init__(self, context, variables, split):
        flags, engine, batch_size = context.flags, context.engine, train_batch_size(context.flags)
        self._split, self._length = split, decoder_length([split], context.config.max_position_embeddings)
        self._masking = plan_masking(context) if context.pretrains else None
        schedule = plan_schedule(flags, len(split), batch_size, MOST_SAMPLES)
        super().__init__(context, variables, schedule, len(split), batch_size, {})
        needs = per_row(context.config, self._length, self._masking and self._masking.places)
        self.layout = self._choose_layout(split.samples, batch_size, per_row=needs)
        self.child_tuning = ChildTuning(context, variables)
        options = flags.weight_decay_rate, flags.adam_bias_correction, self.child_tuning.clip_norm
        optimizer, rates = create_optimizer(variables, self.schedule, *options)
        self.settings = {"type": "train", "variables": variables, "optimizer": optimizer, "schedule": rates, "engine": engine}
        self.settings.update(mixed_precision=flags.use_fp16, masks=self.child_tuning.masks, parts=self.layout.parts)
        parts = self.layout.parts if engine.sums_gradients else 1
        self.dropout = PalmDropoutPlan(context.config, flags.seed, engine.device, parts, target_length=self._length)

    def samples_in(self, step):
        """Rows of a step (from 1). The last batch of a run may have fewer than the others."""
        return min(self.batch_size, self._context.flags.num_epochs * self.num_samples - (step - 1) * self.batch_size)

    def epochs_until(self, step):
        """Passes over the training split until the end of a step (from 1)."""
        return min(super().epochs_until(step), self._context.flags.num_epochs)

    def batches(self):
        """The run's batches after `start_step`, with their dropout masks."""
        batches = self._with_targets(self._context.flags.num_epochs, self.start_step)
        return self._with_random_numbers(batches, self.dropout, self.start_step)

    def fisher_batches(self):
        """The batches of one epoch, see `TrainingRun`."""
        return self._with_random_numbers(self._with_targets(1, 0), self.dropout, self.fisher_step)

    def _with_targets(self, epochs, start_step):
        flags, samples = self._context.flags, self._split.samples
        run = samples, self.batch_size, self.layout.lengths, epochs, flags.seed, start_step
        for step, batch in enumerate(iterate_training(*run), start=start_step):
            own = {name: batch[name] for name in _INPUTS}
            own.update(self._split.target_arrays(batch["idxs"], self._length, batch["loss_mask"]))
            yield self._masked(own, step) if self._masking else own

    def _masked(self, batch, step):
        """The batch of a step with masked sources. The masks of a row are drawn again in each epoch."""
        rows, place = batch["idxs"], step * self.batch_size
        epochs = (place + np.arange(len(rows))) // self.num_samples
        streams = [mask_stream(self._context.flags.seed, epoch, row) for epoch, row in zip(epochs.tolist(), rows.tolist())]
        masked = self._masking.batch(batch["word_rows"], self._split.samples.lengths[rows], streams)
        masked["masked_weights"] = batch_weights(masked["masked_weights"] * (batch["loss_mask"] > 0)[:, None])
        return {**batch, **masked}


class TargetEvaluator:
    """Measures the target tokens of a split, each given its source and the true tokens before it.

    Args:
        context: `GenerationContext`.
        job: a predict `GlobalFunction` that returns `objectives.generation.predict_targets`, [B, 3].
        splits: dict of split -> `TargetSplit`, or None for a split to leave out.
        train: `TargetSplit` of a run that evaluates dev periodically; None if each split is measured once.
        generator: `SplitGenerator` for a run whose best snapshot BLEU-4 selects.
    Attributes:
        splits: dict of split -> `TargetSplit`.
    """

    def __init__(self, context, job, splits, train, generator):
        self._context, self._job = context, job
        self._generator = generator if train is not None and context.flags.metric_for_best == BLEU_4 else None
        self.splits = {split: rows for split, rows in splits.items() if rows is not None}
        self._length = decoder_length(self.splits.values(), context.config.max_position_embeddings)
        flags, sizes = context.flags, {}
        for split, batch_size in (("dev", flags.dev_batch_size_per_device), ("test", flags.eval_batch_size_per_device)):
            if split in self.splits:
                trained = train and train.samples if split == "dev" else None
                sizes[split] = context.bucketing.evaluation(self.splits[split].samples, batch_size, trained, all_tokens=True)
        self._batches = sizes

    def __call__(self, split="dev"):
        """The `Evaluation` of a split. Its rows are target tokens: `total` is their number."""
        rows = self.splits[split]

        def sums_of(batch):
            return self._job(
                {"word_rows": batch["word_rows"], "input_mask": batch["input_mask"], **rows.target_arrays(batch["idxs"], self._length)}
            )

        loss, hits, total = predict(sums_of, rows.samples, self._batches[split], (*TEXT, "idxs")).astype(np.float64).sum(axis=0).tolist()
        mean = loss / total
        more = {PERPLEXITY: math.exp(min(mean, 700.0)), TOKENS: TARGET_TOKENS}
        if self._generator and split == "dev":
            more.update(self._generator.generate(split)[2])
        own = {"accuracy": round(hits) / round(total), "correct": round(hits), "total": round(total), "cross_entropy": mean}
        by_domain = {self._context.task.domains[0]: {**own, PERPLEXITY: more[PERPLEXITY]}}
        return Evaluation(own["correct"], own["total"], mean, by_domain, more)

    @property
    def needs(self):
        """`per_row` of the predict function, for `start_evaluation`."""
        return per_row(self._context.config, self._length)
