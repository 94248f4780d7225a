"""Runs a predict function over a split, every sample once, and measures it."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

import numpy as np
from tqdm import tqdm

from modeling.cli import interruption
from modeling.engine import parallel
from ofrecord_util.batches import iterate_evaluation


class Predictions(NamedTuple):
    """What a model said of each sample of a split (N samples, C labels)."""

    idxs: np.ndarray  # int [N], row numbers in the split
    domain: np.ndarray  # int [N]
    label: np.ndarray  # int [N], the true ones
    logits: np.ndarray  # float32 [N, C]
    text_digest: str  # whose rows they are


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and mean cross-entropy of a split, overall and by domain."""

    correct: int
    total: int
    cross_entropy: float  # mean, nats
    by_domain: dict  # name -> {"accuracy", "correct", "total", "cross_entropy"}
    predictions: Optional[Predictions] = field(default=None, compare=False, repr=False)  # lost where a run is resumed

    @property
    def accuracy(self):
        """correct / total, as the snapshot's name says it."""
        return self.correct / self.total

    @classmethod
    def from_dict(cls, values):
        """The evaluation that `to_dict` gave, without its predictions."""
        return cls(*(values[name] for name in ("correct", "total", "cross_entropy", "by_domain")))

    def to_dict(self):
        """For a line of metrics.jsonl."""
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "cross_entropy": self.cross_entropy,
            "by_domain": self.by_domain,
        }

    def __str__(self):
        parts = ["{} {:.4f}".format(name, value["accuracy"]) for name, value in self.by_domain.items()]
        return "accuracy {:.4f} ({}/{}), cross-entropy {:.4f}{}".format(
            self.accuracy,
            self.correct,
            self.total,
            self.cross_entropy,
            ", " + ", ".join(parts) if len(parts) > 1 else "",
        )


def predict(job, samples, batches, names=("word_rows", "input_mask", "segment_ids")):
    """Output of a predict function for every sample of a split, once, in the split's order.

    Args:
        job: a predict `GlobalFunction` that returns one tensor [B, ...].
        samples: `Samples` of N samples; short texts are run together, so that little is padding.
        batches: `EvaluationBatches`, from `GraphPlan.evaluation`.
        names: features that the function takes.
    Returns:
        float32 [N, ...].
    """
    parts = list(predict_batches(job, samples, batches, names))
    result = np.concatenate([parallel.to_numpy(output)[: len(rows)] for rows, output in parts])
    return result[np.argsort(np.concatenate([rows for rows, _ in parts]))]


def predict_batches(job, samples, batches, names):
    """Runs a predict function over a split, short texts first; shows the progress.

    Arguments as in `predict`; the function may return several tensors.

    Yields:
        (rows, outputs): rows int64 [b] of the split that the first b <= B rows of the outputs belong to; each row once.
    """
    batch_size = batches.size * parallel.size()
    order = np.argsort(samples.lengths, kind="stable")
    batches = iterate_evaluation(samples.select(order), batch_size, batches.lengths)
    total = -(-len(samples) // batch_size)
    shown = tqdm(batches, desc="predict", total=total, unit="batch", disable=None if parallel.is_main() else True, leave=False, delay=1)
    for start, batch in zip(range(0, len(samples), batch_size), shown):
        if parallel.size() == 1:  # ranks must not leave each other alone in a graph
            interruption.check()
        yield order[start : start + batch_size], job({name: batch[name] for name in names})


def measure(logits, label, domain, domain_names):
    """`Evaluation` of logits [N, C] against label [N]; the cross-entropy is computed in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(label)), label]
    hits = logits.argmax(axis=1) == label
    by_domain = {}
    for index, name in enumerate(domain_names):
        here = domain == index
        if here.any():
            by_domain[name] = {
                "accuracy": float(hits[here].mean()),
                "correct": int(hits[here].sum()),
                "total": int(here.sum()),
                "cross_entropy": float(losses[here].mean()),
            }
    return Evaluation(int(hits.sum()), len(label), float(losses.mean()), by_domain)


def evaluate(job, samples, batches, task):
    """`Evaluation` of a predict function that returns label logits, with its predictions."""
    logits = predict(job, samples, batches)
    predictions = Predictions(samples.idxs, samples.domain, samples.label, logits, samples.text_digest)
    return replace(measure(logits, samples.label, samples.domain, task.domains), predictions=predictions)
