"""General loss terms as graph functions of logits. tests/modeling/objectives/test_losses.py has a NumPy reference for each."""

from typing import NamedTuple, Optional, Tuple

from modeling.engine.runtime import flow


class LabelLoss(NamedTuple):
    """Settings of `label_losses`. The defaults are plain cross-entropy."""

    class_weights: Optional[Tuple[float, ...]] = None  # w, one factor per label; None for 1
    smoothing: float = 0.0  # epsilon, 0 to 1


PLAIN = LabelLoss()


def cross_entropy(logits, label):
    """Cross-entropy of each sample, -log softmax(logits)[label].

    Args:
        logits: [B, C].
        label: int32 [B].
    Returns:
        [B].
    """
    log_probs = flow.log_softmax(logits, dim=-1)
    one_hot = flow.nn.functional.one_hot(label.to(flow.int64), logits.shape[1]).to(flow.float32)
    return -(log_probs * one_hot).sum(dim=1)


def label_losses(logits, label, settings=PLAIN):
    """Loss of each sample for its true label y, with class weights w and label smoothing epsilon (Szegedy et al. 2016, section 7):

        w_y * sum_c q_c * -log softmax(logits)_c,   q_c = (1 - epsilon) [c = y] + epsilon / C

    The weight is that of the true label, also for the smoothed part of the target. The mean over a batch is not divided by the sum of the
    weights. With the defaults the graph has the operations of `cross_entropy` and no others.

    Args:
        logits: [B, C].
        label: y, int32 [B].
        settings: `LabelLoss`.
    Returns:
        [B].
    """
    if settings == PLAIN:
        return cross_entropy(logits, label)
    classes = logits.shape[1]
    target = one_hot = flow.nn.functional.one_hot(label.to(flow.int64), classes).to(flow.float32)
    if settings.smoothing:
        target = one_hot * (1.0 - settings.smoothing) + settings.smoothing / classes
    losses = -(flow.log_softmax(logits, dim=-1) * target).sum(dim=1)
    if settings.class_weights is None:
        return losses
    # a sum of columns, because a graph takes the weights as factors and not as a tensor of each rank and device
    return losses * sum_terms([one_hot[:, c] * weight for c, weight in enumerate(settings.class_weights)])


def symmetric_divergence(logits, other):
    """Disagreement of two predictions of each sample, (KL(p || q) + KL(q || p)) / C with p, q the softmax of the logits; as in SOFA's
    fine-tuning of StructBERT. The gradient reaches both.

    Args:
        logits, other: [B, C].
    Returns:
        [B].
    """
    logs, other_logs = flow.log_softmax(logits, dim=-1), flow.log_softmax(other, dim=-1)
    difference = flow.softmax(logits, dim=-1) - flow.softmax(other, dim=-1)
    return (difference * (logs - other_logs)).sum(dim=1) * (1.0 / logits.shape[1])


def batch_mean(values, loss_mask):
    """Mean of values [B] over the real samples.

    Args:
        loss_mask: float32 [B] with mean 1; 0 for the rows that only fill up the last batch.
    """
    return (values * loss_mask).mean()


def accuracy(logits, label, loss_mask):
    """Share of the real samples whose largest logit is at `label`; arguments as for `cross_entropy` and `batch_mean`."""
    hit = (flow.argmax(logits, dim=-1) == label.to(flow.int64)).to(flow.float32)
    return batch_mean(hit, loss_mask)


def stack_metrics(*values):
    """Stacks M scalars into one tensor [M], so that a step copies one small array to the host."""
    return flow.cat([value.reshape(1) for value in values], dim=0)


def sum_terms(terms):
    """Sum of one or more tensors. Python's `sum` would add a 0 first."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
