"""What the logits of a model mean, by the type of its task: probabilities of classes, a number, or probabilities of labels."""

import numpy as np

from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, MULTI_LABEL, REGRESSION, spell_set


def check_logits(logits):
    """Raises a UserError if a logit, float [N, C], is not finite, so that no label is the most probable one."""
    bad = np.count_nonzero(~np.isfinite(logits).all(axis=1))
    if bad:
        raise UserError(
            f"the logits of {bad} of {len(logits)} texts are not finite numbers: the model's weights are damaged, or too large for float32"
        )


def probabilities_of(logits):
    """Softmax over the last axis of logits, float [N, C]. It is computed in float64. UserError as of `check_logits`."""
    check_logits(logits)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


class ClassOutputs:
    """Classification: softmax, and the most probable label.

    Attributes:
        has_probabilities: whether there is a probability for each label.
    """

    has_probabilities = True

    def cell(self, value, labels):
        """A value of an array of labels, as a Python object, in a file of predictions."""
        return labels[value]

    def outputs(self, logits):
        """The outputs for logits, float [N, C]: float64 [N, C]. UserError as of `check_logits`."""
        return probabilities_of(logits)

    def logits(self, outputs):
        """Logits with these outputs, float64 [N, C]."""
        return np.log(np.maximum(outputs, np.finfo(np.float64).tiny))

    def predicted(self, outputs):
        """The predictions in the form of an array of labels."""
        return outputs.argmax(axis=1)

    def label(self, row, labels):
        """The prediction of one row of outputs, float64 [C], for a program: a name, a number, or a tuple of names."""
        return labels[int(row.argmax())]


class NumberOutputs(ClassOutputs):
    """Regression: the logit is the number."""

    has_probabilities = False

    def cell(self, value, labels):  # noqa: ARG002
        return f"{value:.9g}"

    def outputs(self, logits):
        check_logits(logits)
        return logits.astype(np.float64)

    def logits(self, outputs):
        return outputs

    def predicted(self, outputs):
        return outputs[:, 0]

    def label(self, row, labels):  # noqa: ARG002
        return float(row[0])


THRESHOLD = 0.5  # probability above which a text has a label


class SetOutputs(ClassOutputs):
    """Sets of labels: sigmoid, and each label above THRESHOLD."""

    def cell(self, value, labels):
        return spell_set(name for name, there in zip(labels, value) if there)

    def outputs(self, logits):
        check_logits(logits)
        return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))

    def logits(self, outputs):
        tiny = np.finfo(np.float64).tiny
        return np.log(np.maximum(outputs, tiny)) - np.log(np.maximum(1.0 - outputs, tiny))

    def predicted(self, outputs):
        return (outputs > THRESHOLD).astype(np.int32)

    def label(self, row, labels):
        return tuple(name for name, probability in zip(labels, row) if probability > THRESHOLD)


_OUTPUTS = {CLASSIFICATION: ClassOutputs(), REGRESSION: NumberOutputs(), MULTI_LABEL: SetOutputs()}


def outputs_of(task):
    """The rules for the outputs of a `Task`."""
    return _OUTPUTS[task.task_type]
