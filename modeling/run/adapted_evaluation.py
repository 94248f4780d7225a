"""Measures a meta learner: on each domain after adapting to a few rows of it (modeling/run/meta_training.py)."""

import dataclasses

import numpy as np

from modeling.engine import peers
from modeling.run.evaluation import Predictions, measure, predict
from modeling.run.held_out import divided, held_out_name, names_of, split_of, title_of
from ofrecord_util.errors import UserError
from ofrecord_util.records import SAMPLE_ARRAYS


class AdaptedEvaluator:
    """Measures a meta learner on the splits of a run: for each domain, a copy of the weights is adapted to a few training rows, as often as
    --eval_tasks says. The measures are those of the predictions of all copies together; a row counts once. Several processes divide the
    domains among themselves.

    Args:
        context: `RunContext`.
        training: `MetaTraining`.
        adaptation: `Adaptation`.
        logits_of: function of `Samples` -> label logits.
        splits: dict of split -> `Samples`, or None for a split to leave out.
    Attributes:
        splits: dict of split -> `Samples`.
    """

    def __init__(self, context, training, adaptation, logits_of, splits):
        self._context, self._training, self._adaptation, self._logits_of = context, training, adaptation, logits_of
        given = {split: samples for split, samples in splits.items() if samples is not None}
        self.splits = divided(given, training.measured, training.held_out)
        for name, domains in ((name, domains) for split in given for name, domains in self._parts(split)):
            names = names_of(domains, context.task)
            if name in self.splits:
                tasks = training.evaluation_tasks(domains[0])
                rows, times = len(tasks[0][0].support), f", {len(tasks)} times" if len(tasks) > 1 else ""
                context.log(f"{title_of(name)}: measured on {names}, each after adapting to {rows} rows{times}")
            elif name == "dev":
                raise UserError(f"the dev split has no rows of the domains {names}: name others in --validation_domains")
            elif domains:
                context.log(f"the {split_of(name)} split has no rows of the domains {names}, so it is not measured on them")

    def _parts(self, split):
        """(name, domains) of the rows of a split that are measured together."""
        return (split, self._training.measured), (held_out_name(split), self._training.held_out)

    def __call__(self, split="dev"):
        """The `Evaluation` of a split after adapting. The weights are then as before."""
        training, adaptation, samples = self._training, self._adaptation, self.splits[split]
        start, hits, count = adaptation.weights(), 0, self._context.flags.eval_tasks
        logits = np.zeros((count, len(samples), self._context.task.num_labels), np.float32)  # of each task of a domain
        try:
            for _, domain in peers.own(np.unique(samples.domain).tolist()):
                rows = np.flatnonzero(samples.domain == domain)
                own = samples.select(rows)
                adaptation.put(start)
                hits += int((self._logits_of(own).argmax(axis=1) == own.label).sum())
                for number, (task, first) in enumerate(training.evaluation_tasks(domain)):
                    adaptation.put(start)
                    adaptation.reset()
                    adaptation.run(task, training.inner.evaluation_steps, first)
                    logits[number, rows] = self._logits_of(own)
        finally:
            adaptation.put(start)
        hits, logits = int(peers.add_up(np.array([hits]))[0]), peers.add_up(logits)
        self._context.log(f"{title_of(split)}: accuracy {hits / len(samples):.4f} before adapting")
        label, domain = (np.tile(values, count) for values in (samples.label, samples.domain))
        found = measure(logits.reshape(len(label), -1), label, domain, self._context.task, self._context.flags.seed, count)
        predictions = Predictions(samples.idxs, samples.domain, samples.label, logits[0], samples.text_digest)
        return dataclasses.replace(found, predictions=predictions)


def predictor_of(context, job, splits, batch_size):
    """A function of `Samples` -> label logits, float32 [N, C].

    Args:
        context: `RunContext`.
        job: predict `GlobalFunction` of label logits.
        splits: list of `Samples` (or None) that hold all texts.
        batch_size: value of the batch size flag.
    """
    splits = [samples for samples in splits if samples is not None]
    names = (*SAMPLE_ARRAYS, "lengths")
    together = dataclasses.replace(splits[0], **{name: np.concatenate([getattr(part, name) for part in splits]) for name in names})
    batches = context.bucketing.evaluations({"all": together}, {"all": batch_size})["all"]
    return lambda samples: predict(job, samples, batches)
