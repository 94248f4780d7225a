"""The evaluation of a regression. Its form is that of `modeling.run.evaluation.Evaluation`, without labels that are right or wrong."""

from dataclasses import dataclass, field
from typing import Any

from modeling.run.measures import MSE, NUMBERS, PEARSON, TITLES
from modeling.run.task_measures import number_measures


@dataclass(frozen=True)
class NumberEvaluation:
    """Measures of a split, in total and by domain."""

    total: int
    values: dict  # the values of `NUMBERS`
    by_domain: dict  # name -> {"total"} and the values of `NUMBERS`
    predictions: Any = field(default=None, compare=False, repr=False)  # `Predictions`; lost when a run is resumed

    of_labels = True
    loss_title = TITLES[MSE]

    @property
    def loss(self):
        """The mean squared error."""
        return self.values[MSE]

    @property
    def score(self):
        """The number in the snapshot's name: the mean squared error."""
        return self.values[MSE]

    @classmethod
    def from_dict(cls, values):
        """The evaluation from the values of `to_dict`, without predictions."""
        return cls(values["total"], {name: values[name] for name in NUMBERS}, values["by_domain"])

    def to_dict(self):
        """The values for a line of metrics.jsonl."""
        return {"total": self.total, **self.values, "by_domain": self.by_domain}

    def value(self, metric):
        """The value of one of `NUMBERS`."""
        return self.values[metric]

    def rank(self, metric):
        """Values that are greater for a better evaluation. Equal correlations are ranked by the mean squared error."""
        error = -self.values[MSE]
        return (error, self.values[PEARSON]) if metric == MSE else (self.values[metric], error)

    def more_text(self):
        """There are no further measures: the line of `str` has all of them."""
        return ""

    def __str__(self):
        parts = [f"{TITLES[name]} {self.values[name]:.4f}" for name in NUMBERS]
        parts += [f"{name} {value[MSE]:.4f}" for name, value in self.by_domain.items() if len(self.by_domain) > 1]
        return f"{', '.join(parts)} ({self.total} rows)"


def measure_numbers(predicted, label, domain, task):
    """The `NumberEvaluation` of predicted and true numbers.

    Args:
        predicted, label: float [N].
        domain: int [N], positions in the task's list.
        task: `Task`.
    """
    parts = {name: domain == place for place, name in enumerate(task.domains)}
    by_domain = {
        name: {"total": int(here.sum()), **number_measures(predicted[here], label[here])} for name, here in parts.items() if here.any()
    }
    return NumberEvaluation(len(label), number_measures(predicted, label), by_domain)
