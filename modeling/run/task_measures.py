"""Measures of the predictions of a regression and of sets of labels, as functions of NumPy arrays, in float64. N rows, C labels.

tests/modeling/run/test_task_measures.py compares them with SciPy and scikit-learn.
"""

import numpy as np

from modeling.cli.choices import MACRO_F1, MICRO_F1, MSE, PEARSON, SPEARMAN
from modeling.run.measures import HAMMING_LOSS, MAE, NUMBERS, RMSE, SET_SCALARS


def pearson(first, second) -> float:
    """Pearson's correlation coefficient of two float [N], -1 to 1; 0 if one of them is constant, where it is not defined."""
    first, second = (np.asarray(values, np.float64) - np.mean(values, dtype=np.float64) for values in (first, second))
    spread = np.sqrt((first * first).sum()) * np.sqrt((second * second).sum())
    return float(np.clip((first * second).sum() / spread, -1, 1)) if spread > 0 else 0.0


def ranks(values) -> np.ndarray:
    """Ranks from 1, float64 [N]; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]


def spearman(first, second) -> float:
    """Spearman's rank correlation, Pearson's of the ranks."""
    return pearson(ranks(first), ranks(second))


def number_measures(predicted, label) -> dict:
    """The values of `measures.NUMBERS` for predicted and true numbers, float [N]."""
    predicted, label = np.asarray(predicted, np.float64), np.asarray(label, np.float64)
    error = predicted - label
    squared = float((error * error).mean())
    values = {MSE: squared, RMSE: float(np.sqrt(squared)), MAE: float(np.abs(error).mean())}
    if np.isfinite(squared):
        values.update({PEARSON: pearson(predicted, label), SPEARMAN: spearman(predicted, label)})
    else:
        values.update({PEARSON: 0.0, SPEARMAN: 0.0})
    return {name: values[name] for name in NUMBERS}


def binary_cross_entropies(logits, label) -> np.ndarray:
    """Mean binary cross-entropy of each row over the labels, in nats: float64 [N]. Arguments as for `set_measures`."""
    signed = np.asarray(logits, np.float64) * np.where(np.asarray(label) > 0, -1.0, 1.0)
    return np.logaddexp(0.0, signed).mean(axis=1)


def _counts(predicted, label):
    """(true positives, rows predicted to have the label, rows that have it), each int [C]."""
    predicted, label = np.asarray(predicted, bool), np.asarray(label, bool)
    return (predicted & label).sum(axis=0), predicted.sum(axis=0), label.sum(axis=0)


def _share(numerator, denominator):
    """numerator / denominator, float64, and 0 where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def set_measures(predicted, label) -> dict:
    """The values of `measures.SET_SCALARS`.

    The macro F1 is the mean over all labels, as scikit-learn's f1_score for arrays of labels; a label that neither occurs nor is predicted
    counts as 0. The micro F1 is that of all rows and labels together.

    Args:
        predicted, label: [N, C], 1 or True for the labels of a row.
    """
    hits, found, there = _counts(predicted, label)
    wrong = np.asarray(predicted, bool) != np.asarray(label, bool)
    values = {
        MICRO_F1: float(_share(2 * hits.sum(), found.sum() + there.sum())),
        MACRO_F1: float(_share(2 * hits, found + there).mean()),
        HAMMING_LOSS: float(wrong.mean()),
    }
    return {name: values[name] for name in SET_SCALARS}


def by_label(predicted, label, labels) -> dict:
    """Precision, recall, F1 and rows of each label, in the form of `measures.by_class`.

    Args:
        predicted, label: as for `set_measures`.
        labels: C names.
    """
    hits, found, there = _counts(predicted, label)
    columns = _share(hits, found), _share(hits, there), _share(2 * hits, found + there), there
    names = ("precision", "recall", "f1", "support")
    return {name: {key: column[place].item() for key, column in zip(names, columns)} for place, name in enumerate(labels)}
