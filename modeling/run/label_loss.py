"""The form of the label loss of a run: --task_type, --class_weights and --label_smoothing; which flags a type of task has no use for."""

import numpy as np

from modeling.cli.choices import BALANCED, METRICS, NUMBER_METRICS, SET_METRICS
from modeling.objectives.losses import LabelLoss
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION

_METRICS = {CLASSIFICATION: METRICS, REGRESSION: NUMBER_METRICS, MULTI_LABEL: SET_METRICS}  # the first is the default
# Flags whose value must be off, because their term is defined by the probabilities of exclusive labels
_OF_CLASSES = {"class_weights": None, "label_smoothing": 0.0, "consistency_weight": 0.0, "adversarial_factor": 0.0}


def check_task_type(flags) -> None:
    """Checks the flags that belong to a type of task, and sets --metric_for_best to the default of the type. Call it before `RunContext`.

    Args:
        flags: from `parse_flags`; changed.
    Raises:
        UserError: a flag has no meaning for the type.
    """
    task_type, metrics = flags.task_type, _METRICS[flags.task_type]
    if "metric_for_best" not in flags.given:
        flags.metric_for_best = metrics[0]
    if flags.metric_for_best not in metrics:
        raise UserError(
            f"--metric_for_best {flags.metric_for_best}: --task_type {task_type} does not measure it: give {', '.join(metrics[:-1])} or "
            f"{metrics[-1]}"
        )
    if task_type == CLASSIFICATION:
        return
    wrong = [f"--{name}" for name, off in _OF_CLASSES.items() if getattr(flags, name) != off]
    if wrong:
        raise UserError(f"{', '.join(wrong)}: --task_type {task_type} has no such term, only classification has: leave the flag out")


def balanced_weights(label, num_labels: int) -> tuple:
    """The weights of --class_weights balanced: w_c = N / (K n_c), with N rows, n_c of them of label c, and K labels that have rows.

    The mean weight of the rows is 1. These are the weights of scikit-learn's compute_class_weight("balanced").

    Args:
        label: int [N].
        num_labels: C.
    Returns:
        tuple of C floats; 1 for a label without rows, which no row uses.
    """
    counts = np.bincount(label, minlength=num_labels)
    present = np.count_nonzero(counts)
    return tuple(len(label) / (present * count) if count else 1.0 for count in counts.tolist())


def choose_label_loss(context, label) -> LabelLoss:
    """The `LabelLoss` of a run, and a line of the log if it is not plain cross-entropy.

    Args:
        context: `RunContext` (flags, task, log).
        label: int [N], labels of the training samples.
    Raises:
        UserError: the number of weights is not that of the labels, no training sample has a weight above 0, or the smoothing is 1.
    """
    flags, labels = context.flags, context.task.labels
    if context.task.task_type != CLASSIFICATION:
        return LabelLoss(task_type=context.task.task_type)
    weights = flags.class_weights
    if weights == BALANCED:
        weights = balanced_weights(label, len(labels))
    if weights is not None:
        if len(weights) != len(labels):
            given = ",".join(f"{weight:g}" for weight in weights)
            raise UserError(f"--class_weights {given}: {len(weights)} weights for {len(labels)} labels, in this order: {', '.join(labels)}")
        if not any(weights[place] for place in set(label.tolist())):
            raise UserError("--class_weights: each label of the training rows has the weight 0, so there is nothing to learn")
        context.log("class weights: " + ", ".join(f"{name} {weight:.4g}" for name, weight in zip(labels, weights)))
        weights = tuple(map(float, weights))
    if flags.label_smoothing == 1:
        raise UserError("--label_smoothing 1: the target does not depend on the label, so there is nothing to learn: give less than 1")
    if flags.label_smoothing:
        context.log(f"label smoothing {flags.label_smoothing:g}: {flags.label_smoothing / len(labels):.4g} for each label that is not true")
    return LabelLoss(weights, flags.label_smoothing)
