"""Runs a predict function on each sample of a split once and measures its predictions (modeling/run/measures.py)."""

import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

import numpy as np
from tqdm import tqdm

from modeling.cli import interruption
from modeling.engine import parallel
from modeling.run import measures
from modeling.run.held_out import measured_parts, split_of, title_of
from modeling.run.number_evaluation import NumberEvaluation, measure_numbers
from modeling.run.prediction_rows import rows_at_once
from modeling.run.task_measures import binary_cross_entropies, by_label, set_measures
from modeling.run.task_outputs import check_logits
from ofrecord_util.batches import iterate_evaluation
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION
from ofrecord_util.packing import arrange, outputs_of, packed_batches

TEXT = ("word_rows", "input_mask", "segment_ids")  # the features of a sample that a prediction needs


class Predictions(NamedTuple):
    """A model's outputs for each sample of a split (N samples, C labels)."""

    idxs: np.ndarray  # int [N], row numbers in the split
    domain: np.ndarray  # int [N]
    label: np.ndarray  # true labels, as of `TextSplit`
    logits: np.ndarray  # float32 [N, C]
    text_digest: str  # digest of the text that contains the rows


DETAILS = ("by_class", "intervals")  # further values of an evaluation: of `measures.by_class` and `measures.bootstrap_intervals`


def further_measures(values):
    """The values of `measures.FURTHER` in a dict on one line, "macro F1 0.7123 (95 % interval 0.681 to 0.742), …"; "" if there are none."""
    parts, intervals = [], values.get("intervals", {})
    for name in measures.FURTHER:
        if name in values:
            interval = " ({:.0f} % interval {:.3f} to {:.3f})".format(100 * measures.LEVEL, *intervals[name]) if name in intervals else ""
            parts.append(f"{measures.TITLES[name]} {values[name]:.4f}{interval}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Evaluation:
    """Measures of a split, in total and by domain."""

    correct: float  # an int, except as a mean over tasks
    total: int  # rows
    cross_entropy: float  # mean, nats
    by_domain: dict  # name -> {"accuracy", "correct", "total", "cross_entropy"} and the values of `measures.FURTHER`
    more: dict = field(default_factory=dict)  # the values of `measures.FURTHER` of all rows, and DETAILS; or those of OF_PARTS
    predictions: Optional[Predictions] = field(default=None, compare=False, repr=False)  # lost when a run is resumed

    @property
    def accuracy(self):
        """correct / total."""
        return self.correct / self.total

    @property
    def perplexity(self):
        """That of language modelling; None of another evaluation."""
        return self.more.get(measures.PERPLEXITY)

    @property
    def of_labels(self):
        """Whether labels were predicted."""
        return not set(measures.OF_PARTS) & set(self.more)

    @property
    def loss(self):
        """The cross-entropy."""
        return self.cross_entropy

    @property
    def loss_title(self):
        """What the loss is, for messages."""
        return measures.TITLES[measures.CROSS_ENTROPY]

    def rank(self, metric):
        """Values that are greater for a better evaluation. Equal cross-entropies are ranked by accuracy."""
        if metric == measures.CROSS_ENTROPY:
            return -self.cross_entropy, self.accuracy
        return self.value(metric), -self.cross_entropy

    @property
    def score(self):
        """The number in the snapshot's name."""
        return measures.name_value(self.to_dict())

    @classmethod
    def from_dict(cls, values):
        """The evaluation from the values of `to_dict`, without predictions."""
        names = *measures.FURTHER, *DETAILS, *measures.OF_PARTS, measures.TOKENS, measures.TASKS
        more = {name: values[name] for name in names if name in values}
        return cls(*(values[name] for name in ("correct", "total", "cross_entropy", "by_domain")), more)

    def to_dict(self):
        """The values for a line of metrics.jsonl."""
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "cross_entropy": self.cross_entropy,
            "by_domain": self.by_domain,
            **self.more,
        }

    def value(self, metric):
        """The value of a metric: one of those of --metric_for_best, or of `measures.FURTHER`."""
        return self.more[metric] if metric in (*measures.FURTHER, *measures.OF_PARTS) else getattr(self, metric)

    def more_text(self):
        """The further measures on one line, with their bootstrap intervals; "" if there are none."""
        return further_measures(self.more)

    def __str__(self):
        if self.perplexity is not None:
            parts = [f"{name} {value[measures.PERPLEXITY]:.4f}" for name, value in self.by_domain.items()]
            told, tokens = f", {', '.join(parts)}" if len(parts) > 1 else "", self.more.get(measures.TOKENS, measures.MASKED_TOKENS)
            return f"perplexity {self.perplexity:.4f}{told}, accuracy {self.accuracy:.4f} ({self.correct}/{self.total} {tokens})"
        spans = [name for name in (*measures.ENTITIES, *measures.ANSWERS) if name in self.more]
        if spans:
            parts = [f"{measures.TITLES[name]} {self.more[name]:.4f}" for name in spans]
            parts += [f"cross-entropy {self.cross_entropy:.4f}"]
            named = {name: value[spans[0]] for name, value in self.by_domain.items()}
            return ", ".join(parts + [f"{name} {value:.4f}" for name, value in named.items() if len(named) > 1])
        parts = ["{} {:.4f}".format(name, value["accuracy"]) for name, value in self.by_domain.items()]
        if measures.ORIGINAL_SHARE in self.more:
            parts.insert(0, f"of the tokens {self.more[measures.ORIGINAL_SHARE]:.4f} are original")
        tasks = self.more.get(measures.TASKS)
        return "{} {:.4f} ({}), cross-entropy {:.4f}{}".format(
            measures.shown_of(self.more).share_title,
            self.accuracy,
            f"{self.total} rows, mean of {tasks} tasks per domain" if tasks else f"{self.correct}/{self.total}",
            self.cross_entropy,
            ", " + ", ".join(parts) if len(parts) > 1 or measures.ORIGINAL_SHARE in self.more else "",
        )


def read_evaluation(values):
    """The `Evaluation`, or of a regression the `NumberEvaluation`, from the values of `to_dict`, without predictions."""
    return (NumberEvaluation if measures.MSE in values else Evaluation).from_dict(values)


def evaluation_batch_size(wanted, length, engine, config, share=1.0):
    """Samples per evaluation step with one sample per row. The number does not change the results.

    Args:
        wanted: value of the flag. It holds on a GPU and with several processes.
        length: tokens of the longest text.
        engine: `Engine`.
        config: `BertConfig`.
        share: share of the usual number of tokens per batch on a CPU.
    Returns:
        int. On a CPU, as many as keep the cores busy: more need more memory (modeling/run/prediction_rows.py).
    """
    if engine.device != "cpu" or engine.ranks > 1:
        return wanted
    return rows_at_once(config, length, engine.lanes.count, share)


def predict(job, samples, batches, names=TEXT):
    """The outputs of a predict function for all samples of a split, in the split's order.

    Args:
        job: a predict `GlobalFunction` that returns one tensor with a row for each text. If `batches` has packed rows, it takes the inputs
            of `ofrecord_util.packing.arrange`, else `names`.
        samples: `Samples` of N samples. Texts of similar length share a batch, to reduce padding.
        batches: `EvaluationBatches`, from `Bucketing.evaluation`.
        names: features that the function takes if each sample has its own row.
    Returns:
        float32 [N, ...].
    """
    if batches.packed:
        parts = list(predict_packed(job, samples.word_rows, samples.segment_ids, samples.lengths, batches.packed))
    else:
        parts = [(rows, parallel.to_numpy(outputs)[: len(rows)]) for rows, outputs in predict_batches(job, samples, batches, names)]
    return np.concatenate([outputs for _, outputs in parts])[np.argsort(np.concatenate([rows for rows, _ in parts]))]


def predict_batches(job, samples, batches, names):
    """Runs a predict function over a split, one sample per row, short texts first, and shows the progress.

    The arguments are those of `predict`. The function may return several tensors.

    Yields:
        (rows, outputs): int64 [b], the rows of the split for the first b <= B rows of the outputs; each row once.
    """
    batch_size = batches.size * parallel.size()
    order = np.argsort(samples.lengths, kind="stable")
    batches = iterate_evaluation(samples.select(order), batch_size, batches.lengths)
    for start, batch in zip(range(0, len(samples), batch_size), _shown(batches, -(-len(samples) // batch_size))):
        yield order[start : start + batch_size], job({name: batch[name] for name in names})


def predict_packed(job, word_rows, segment_ids, lengths, shapes):
    """Runs a predict function over texts that share rows, and shows the progress.

    Args:
        job: as in `predict`.
        word_rows, segment_ids: int32 [N, S].
        lengths: int [N], tokens of each text.
        shapes: tuple of `Rows`, ascending by length, the last one long enough for all texts. A text is in the shortest rows with room for
            it.
    Yields:
        (texts, outputs): int64 [n], some of the N texts, and the outputs for them, float32 [n, ...]; each text once.
    """
    waiting = None  # a batch that the engine still computes, while the next one is arranged
    places = np.searchsorted([shape.length for shape in shapes], lengths)
    groups = [(np.flatnonzero(places == place), shape) for place, shape in enumerate(shapes)]
    batches = [(texts[some], where, shape) for texts, shape in groups for some, where in packed_batches(lengths[texts], shape)]
    for texts, where, shape in _shown(batches, len(batches)):
        outputs = job(arrange(word_rows[texts], segment_ids[texts], lengths[texts], where, shape))
        if waiting is not None:
            yield _fetch(*waiting)
        waiting = texts, outputs, where, shape
    if waiting is not None:
        yield _fetch(*waiting)


def _fetch(texts, outputs, where, shape):
    return texts, outputs_of(parallel.to_numpy(outputs), where, shape)


def _shown(batches, total):
    """Yields the batches, shows the progress, and checks for signals."""
    hidden = None if parallel.is_main() else True
    for batch in tqdm(batches, desc="predict", total=total, unit="batch", disable=hidden, leave=False, delay=1):
        if parallel.processes() == 1:  # a process that stops alone would leave the others waiting
            interruption.check()
        yield batch


def measure(logits, label, domain, task, seed, tasks=1):
    """The `Evaluation` of some predictions, or of a regression the `NumberEvaluation`. All measures are computed in float64.

    Args:
        logits: float [N, C].
        label: as of `TextSplit`.
        domain: int [N], positions in the task's list.
        task: `Task`.
        seed: of the bootstrap intervals.
        tasks: of meta-learning: how often each row is among the N, with the predictions after so many tasks. The numbers of rows are then
            those of distinct rows, and the number of correct ones is the mean over the tasks. Of classes only.
    """
    return _MEASURED[task.task_type](logits, label, domain, task, seed, tasks)


def _measure_numbers(logits, label, domain, task, _seed, _tasks):
    return measure_numbers(np.asarray(logits, np.float64)[:, 0], label, domain, task)


def _measure_sets(logits, label, domain, task, _seed, _tasks):
    losses, predicted = binary_cross_entropies(logits, label), np.asarray(logits) > 0  # a probability above 0.5
    hits = (predicted == (label > 0)).all(axis=1)

    def values(here):
        counts = {"correct": int(hits[here].sum()), "total": int(here.sum())}
        loss = float(losses[here].mean())
        return {"accuracy": float(hits[here].mean()), **counts, "cross_entropy": loss, **set_measures(predicted[here], label[here])}

    by_domain = {name: values(domain == place) for place, name in enumerate(task.domains) if (domain == place).any()}
    more = {**set_measures(predicted, label), DETAILS[0]: by_label(predicted, label, task.labels)}
    return Evaluation(int(hits.sum()), len(label), float(losses.mean()), by_domain, more)


def _measure_classes(logits, label, domain, task, seed, tasks):
    logs = measures.log_softmax(logits)
    losses, predicted = measures.cross_entropies(logs, label), logits.argmax(axis=1)
    hits, by_domain, confusions = predicted == label, {}, []
    for index, name in enumerate(task.domains):
        here = domain == index
        if here.any():
            by_domain[name] = {
                "accuracy": float(hits[here].mean()),
                "correct": _per_task(hits[here], tasks),
                "total": int(here.sum()) // tasks,
                "cross_entropy": float(losses[here].mean()),
                **measures.measures(logs[here], label[here]),
            }
            confusions.append(measures.confusion_matrix(label[here], predicted[here], task.num_labels))
    details = measures.by_class(sum(confusions), task.labels, tasks), measures.bootstrap_intervals(confusions, seed, tasks=tasks)
    more = {**measures.measures(logs, label), **dict(zip(DETAILS, details)), **({measures.TASKS: tasks} if tasks > 1 else {})}
    return Evaluation(_per_task(hits, tasks), len(label) // tasks, float(losses.mean()), by_domain, more)


def _per_task(hits, tasks):
    """Number of correct predictions, as a mean over tasks."""
    return int(hits.sum()) if tasks == 1 else float(hits.sum() / tasks)


_MEASURED = {CLASSIFICATION: _measure_classes, REGRESSION: _measure_numbers, MULTI_LABEL: _measure_sets}


def evaluate(job, samples, batches, task, seed, names=TEXT):
    """`Evaluation` of a predict function that returns label logits, with its predictions. `seed` is that of `measure`, `names` those of
    `predict`."""
    logits = predict(job, samples, batches, names)
    predictions = Predictions(samples.idxs, samples.domain, samples.label, logits, samples.text_digest)
    return replace(measure(logits, samples.label, samples.domain, task, seed), predictions=predictions)


class SplitEvaluator:
    """Measures a model on the splits of a run. Rows of held-out domains are measured apart from the others (modeling/run/held_out.py).

    Args:
        context: `RunContext`.
        job: a predict `GlobalFunction` that returns label logits [B, C].
        splits: dict of split -> `Samples`, or None for a split to leave out.
        batch_sizes: dict of split -> samples per batch from the flags, or one int for all splits.
        train_samples: training `Samples` of a run that evaluates dev periodically; None if each split is measured once.
        batches: `EvaluationBatches` of all splits, with one sample per row; None to choose them.
        names: features that the job takes with `batches`.
    Attributes:
        splits: dict of split -> `Samples`, with names such as "dev_held_out" for the rows of held-out domains.
    Raises:
        UserError: dev is to select a snapshot, and has no row of a domain that is not held out.
    """

    def __init__(self, context, job, splits, batch_sizes=None, train_samples=None, batches=None, names=TEXT):
        self._context, self._job, self._names = context, job, names
        self.splits = measured_parts(context, splits, train_samples is not None)
        sizes = {name: batch_sizes[split_of(name)] if isinstance(batch_sizes, dict) else batch_sizes for name in self.splits}
        chosen = dict.fromkeys(self.splits, batches)
        self._batches = chosen if batches else context.bucketing.evaluations(self.splits, sizes, train_samples)

    def with_job(self, job):
        """An evaluator of another model on the same batches."""
        other = copy.copy(self)
        other._job = job
        return other

    def __call__(self, split="dev"):
        """The `Evaluation` of a split."""
        return evaluate(self._job, self.splits[split], self._batches[split], self._context.task, self._context.flags.seed, self._names)


def evaluate_splits(context, evaluator, best=None, prefix=""):
    """Measures and reports each split of an evaluator.

    Args:
        context: `RunContext`. If it has a run folder, the function writes a line of metrics and the predictions of each split there.
        evaluator: `SplitEvaluator`.
        best: `BestSnapshot` of a run that has trained. The function loads it first, so that all results are those of the best snapshot
            and not those of the last step. Its dev result was computed when it was saved.
        prefix: prefix of the names of the results ("teacher_").
    Returns:
        dict of split -> `Evaluation`.
    """
    folder, log, results = context.folder, context.log, {}
    if best is not None:
        best.load()
        results["dev"] = best.evaluation
        if best.evaluation.of_labels:
            # a resumed run does not have the predictions of an evaluation before the interruption
            folder.write_predictions("dev", best.evaluation.predictions or evaluator("dev").predictions)
        log(f"best dev {best.evaluation}")
        if best.evaluation.more_text():
            log(f"best dev {best.evaluation.more_text()}")
    for split in evaluator.splits:
        if split not in results:
            results[split] = evaluation = evaluator(split)
            labelled = evaluation.predictions is not None
            if labelled:
                check_logits(evaluation.predictions.logits)
            log(f"{prefix}{title_of(split)} {evaluation}")
            if labelled and evaluation.more_text():
                log(f"{prefix}{title_of(split)} {evaluation.more_text()}")
            if folder is not None:
                folder.metrics.add(prefix + split, **evaluation.to_dict())
                if labelled:
                    folder.write_predictions(prefix + split, evaluation.predictions)
    return results
