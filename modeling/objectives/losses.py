"""General loss terms as graph functions of logits. tests/modeling/objectives/test_losses.py has a NumPy reference for each."""

from typing import Callable, NamedTuple, Optional, Tuple

from modeling.engine.runtime import flow
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION


class LabelLoss(NamedTuple):
    """Settings of `label_losses`. The defaults are plain cross-entropy."""

    class_weights: Optional[Tuple[float, ...]] = None  # w, one factor per label; None for 1
    smoothing: float = 0.0  # epsilon, 0 to 1
    task_type: str = CLASSIFICATION  # the two values above are those of classification


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
    """Loss of each sample, by the type of the task: that of `class_losses`, `squared_errors` or `binary_cross_entropies`."""
    return _BY_TYPE[settings.task_type].losses(logits, label, settings)


def squared_errors(logits, label, settings=None):  # noqa: ARG001
    """Squared error of each sample, (logit - label)^2. The mean over a batch is that of transformers for problem_type "regression".

    Args:
        logits: [B, 1], the predicted numbers.
        label: float32 [B].
    Returns:
        [B].
    """
    error = logits.sum(dim=1) - label  # of the one column
    return error * error


def binary_cross_entropies(logits, label, settings=None):  # noqa: ARG001
    """Mean binary cross-entropy of each sample over the labels, with p = sigmoid(logit):

        1/C sum_c -y_c log p_c - (1 - y_c) log(1 - p_c)

    The mean over a batch is that over samples and labels, as that of transformers for problem_type "multi_label_classification".

    Args:
        logits: [B, C].
        label: int32 [B, C], 1 for the labels of a sample, else 0.
    Returns:
        [B].
    """
    signed = logits * (label.to(flow.float32) * 2.0 - 1.0)  # the loss of a label is -log sigmoid of this
    # log sigmoid(x) is the first of log softmax(x, 0); OneFlow's logsigmoid is infinite for logits of -1000
    pairs = flow.stack([signed, signed * 0.0], dim=2)  # [B, C, 2]
    return -flow.log_softmax(pairs, dim=-1)[:, :, 0].mean(dim=1)


def class_losses(logits, label, settings=PLAIN):
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
    if settings[:2] == PLAIN[:2]:
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
    return batch_mean(_class_hits(logits, label), loss_mask)


def _class_hits(logits, label):
    return (flow.argmax(logits, dim=-1) == label.to(flow.int64)).to(flow.float32)


def _absolute_errors(logits, label):
    return flow.abs(logits.sum(dim=1) - label)


def _set_hits(logits, label):
    """1 for the samples of which the labels with a positive logit (probability above 0.5) are the true ones: [B]."""
    wrong = ((logits > 0.0).to(flow.float32) - label.to(flow.float32)).abs().sum(dim=1)
    return (wrong < 0.5).to(flow.float32)


class _Type(NamedTuple):
    """What training reports for a type of task."""

    losses: Callable  # (logits, label, settings) -> [B]
    measure: Callable  # (logits, label) -> [B], whose mean is reported
    name: str  # of this mean


_BY_TYPE = {
    CLASSIFICATION: _Type(class_losses, _class_hits, "accuracy"),
    REGRESSION: _Type(squared_errors, _absolute_errors, "absolute_error"),
    MULTI_LABEL: _Type(binary_cross_entropies, _set_hits, "subset_accuracy"),
}


def label_measure(logits, label, loss_mask, settings=PLAIN):
    """The mean that training reports beside the loss: the accuracy, of a regression the absolute error, of sets of labels the share of
    samples whose labels are all right. Arguments as for `label_losses` and `batch_mean`."""
    return batch_mean(_BY_TYPE[settings.task_type].measure(logits, label), loss_mask)


def measure_name(settings=PLAIN) -> str:
    """The name of `label_measure` in the metrics."""
    return _BY_TYPE[settings.task_type].name


def stack_metrics(*values):
    """Stacks M scalars into one tensor [M], so that a step copies one small array to the host."""
    return flow.cat([value.reshape(1) for value in values], dim=0)


def sum_terms(terms):
    """Sum of one or more tensors. Python's `sum` would add a 0 first."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
