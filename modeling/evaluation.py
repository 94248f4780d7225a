"""Runs a predict function over a split, every sample once, and measures it."""

from typing import NamedTuple

import numpy as np

from modeling.runtime import flow
from ofrecord_util.batches import iterate_evaluation, real_lengths


class Evaluation(NamedTuple):
    """Accuracy and mean cross-entropy of a split, overall and by domain."""

    correct: int
    total: int
    cross_entropy: float  # mean, nats
    by_domain: dict  # name -> {"accuracy", "correct", "total", "cross_entropy"}

    @property
    def accuracy(self):
        """correct / total, as the snapshot's name says it."""
        return self.correct / self.total

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


def to_tensors(batch, names, device):
    """The named arrays of a batch as OneFlow tensors on the device."""
    return {name: flow.tensor(batch[name], device=device) for name in names}


def predict(job, records, batch_size, lengths, device, names=("input_ids", "input_mask", "segment_ids")):
    """Output of a predict function for every sample of a split, once, in the split's order.

    Args:
        job: a predict `GlobalFunction` that returns one tensor [B, ...].
        records: `Records` of N samples; short texts are run together, so that little is padding.
        batch_size: B.
        lengths: lengths that batches are padded to, from `Phase.evaluation_lengths`.
        names: features that the function takes.
    Returns:
        float32 [N, ...].
    """
    order = np.argsort(real_lengths(records), kind="stable")
    outputs = []
    for batch in iterate_evaluation(records.select(order), batch_size, lengths):
        outputs.append((job(**to_tensors(batch, names, device)), int(batch["valid"].sum())))
    result = np.concatenate([output.numpy()[:count] for output, count in outputs])
    return result[np.argsort(order)]


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


def evaluate(job, records, batch_size, lengths, task, device):
    """`Evaluation` of a predict function that returns label logits."""
    return measure(predict(job, records, batch_size, lengths, device), records.label, records.domain, task.domains)
