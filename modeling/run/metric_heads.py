"""The classifier on the vectors of metric learning: logistic regression or nearest means, in the form of a snapshot's classifier."""

import numpy as np

from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import Variables
from modeling.cli.choices import NEAREST_MEAN
from modeling.engine import parallel
from modeling.engine.global_function import GlobalFunction
from modeling.engine.runtime import flow
from modeling.objectives.losses import PLAIN, batch_mean, label_losses
from modeling.objectives.metric import nearest_mean_classifier
from modeling.objectives.minimize import minimize
from modeling.run.evaluation import predict
from ofrecord_util.errors import UserError

_TOLERANCE, _MOST_STEPS = 1e-6, 2000  # of the gradient of the mean loss and penalty


class LogisticRegression:
    """Logistic regression with L2 penalty. A static graph computes loss and gradient of all rows, and L-BFGS minimises.

        sum_i L(softmax(W x_i + b), y_i) + |w|^2 / (2 C)

    As in scikit-learn's LogisticRegression, w is the difference of the two rows of W with two labels and W with more, and b has no
    penalty.

    Args:
        num_labels: number of labels.
        strength: C.
        device: "cpu" or "cuda".
        label_loss: `LabelLoss`, the form of L.
    """

    def __init__(self, num_labels, strength=1.0, device="cpu", label_loss=PLAIN):
        self._labels, self._strength, self._device, self._label_loss = num_labels, strength, device, label_loss
        self._variables = self._job = None

    def fit(self, vectors, label):
        """Fits the classifier, from zero.

        Args:
            vectors: float32 [N, H].
            label: int [N].
        Returns:
            (weights float32 [C, H], bias float32 [C], largest element of the gradient, number of steps).
        """
        count, width, labels = len(vectors), vectors.shape[1], self._labels
        rows = np.arange(-(-count // parallel.size()) * parallel.size())
        batch = {"vectors": np.ascontiguousarray(vectors[rows % count], np.float32), "label": label[rows % count].astype(np.int32)}
        batch["loss_mask"] = (rows < count).astype(np.float32) * np.float32(len(rows) / count)
        if self._job is None:
            self._build(width)
        # two rows that are each other's negative have half of the squared norm of their difference
        penalty = (2.0 if labels == 2 else 1.0) / (self._strength * count)

        def objective(place):
            weights, bias = place[:-labels].reshape(labels, width), place[-labels:]
            for name, value in zip(CLASSIFIER, (weights, bias)):
                self._variables.put(name, value)
            outputs, gradients = self._job.gradients(batch)
            by_name = {CLASSIFIER[0]: gradients[CLASSIFIER[0]].astype(np.float64) + penalty * weights}
            by_name[CLASSIFIER[1]] = gradients[self._bias_parameter].astype(np.float64)
            value = float(parallel.to_numpy(outputs).reshape(-1)[0]) + 0.5 * penalty * float(np.square(weights).sum())
            return value, np.concatenate([by_name[name].reshape(-1) for name in CLASSIFIER])

        place, largest, steps = minimize(objective, np.zeros(labels * (width + 1)), _TOLERANCE, _MOST_STEPS)
        weights = place[:-labels].reshape(labels, width)
        return weights.astype(np.float32), place[-labels:].astype(np.float32), largest, steps

    def _build(self, width):
        shapes = {CLASSIFIER[0]: (self._labels, width), CLASSIFIER[1]: (self._labels,)}
        self._variables = Variables({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, self._device)
        (self._bias_parameter,) = [name for name in self._variables.trained() if name != CLASSIFIER[0]]

        def loss(variables, vectors, label, loss_mask):
            logits = flow.matmul(vectors, variables.get(CLASSIFIER[0]), transpose_b=True) + variables.fused(CLASSIFIER[1])
            return batch_mean(label_losses(logits, label, self._label_loss), loss_mask)

        self._job = GlobalFunction(loss, "gradient", self._variables)


class HeadEvaluator:
    """Fits the classifier to the training split before dev is measured, then measures a split as `SplitEvaluator`.

    Args:
        context: `RunContext`.
        evaluator: `SplitEvaluator`, whose function predicts with the classifier of the variables.
        variables: the trained `Variables`.
        vector_job: predict `GlobalFunction` of text vectors.
        train: `Samples` of the training split.
        batches: `EvaluationBatches` of the training split.
        label_loss: `LabelLoss`.
    Attributes:
        splits: dict of split -> `Samples`.
        fits: whether the classifier is fitted. Set it to False when it is trained otherwise, or final.
    Raises:
        UserError: a label has no training row.
    """

    def __init__(self, context, evaluator, variables, vector_job, train, batches, label_loss):
        flags, task = context.flags, context.task
        self.splits, self.fits = evaluator.splits, True
        self._context, self._evaluator, self._variables = context, evaluator, variables
        self._vector_job, self._train, self._batches = vector_job, train, batches
        for label, number in enumerate(np.bincount(train.label, minlength=task.num_labels)):
            if not number:
                raise UserError(
                    f"--head {flags.head}: label {task.labels[label]} has no row in the training split, leave it out of --label_list"
                )
        self._logistic = None
        if flags.head != NEAREST_MEAN:
            self._logistic = LogisticRegression(task.num_labels, flags.logistic_c, context.engine.device, label_loss)

    def fit(self):
        """Fits the classifier of the variables to the vectors of the training split."""
        flags, task, train = self._context.flags, self._context.task, self._train
        vectors = predict(self._vector_job, train, self._batches)
        if self._logistic is None:
            classifier = nearest_mean_classifier(vectors, train.label, task.num_labels, flags.distance_scale)
        else:
            *classifier, largest, steps = self._logistic.fit(vectors, train.label)
            self._context.log(f"logistic regression on {len(vectors)} vectors: {steps} steps, largest gradient {largest:.1e}")
        parallel.wait_for_graphs(self._variables)
        for name, value in zip(CLASSIFIER, classifier):
            self._variables.put(name, value)

    def __call__(self, split="dev"):
        """The `Evaluation` of a split."""
        if self.fits and split == "dev":
            self.fit()
        return self._evaluator(split)
