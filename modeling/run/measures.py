"""Measures of a classifier's predictions, as functions of NumPy arrays: accuracy, precision, recall, F1, Matthews correlation, balanced
accuracy, cross-entropy, calibration error, bootstrap intervals, t intervals, and McNemar's test.

N is the number of rows, C the number of classes. A confusion matrix is int [..., C, C]: rows are true classes, columns are predicted
classes. Functions of a confusion matrix accept leading axes and then return arrays with these axes. tests/modeling/run/test_measures.py
compares the values with those of scikit-learn.
"""

import math
from typing import NamedTuple

import numpy as np

from modeling.cli.choices import (
    ACCURACY,
    ANSWER_F1,
    BLEU_4,
    CROSS_ENTROPY,
    ENTITY_F1,
    EXACT_MATCH,
    MACRO_F1,
    MATTHEWS,
    MICRO_F1,
    MSE,
    PEARSON,
    SPEARMAN,
)
from ofrecord_util.seeds import bootstrap_stream

BINS = 15  # of the calibration error
RESAMPLES = 1000  # of a bootstrap interval
LEVEL = 0.95  # of a bootstrap interval

RECALL = "recall"  # the accuracy of pairs: the share whose second half is nearest of 100, or of all
PERPLEXITY = "perplexity"  # exp(cross-entropy) of language modelling, whose rows are masked tokens, or those of targets
ORIGINAL_SHARE = "original_share"  # of the tokens that a discriminator judges: the accuracy of calling each of them original
ENTITY_PRECISION, ENTITY_RECALL = "entity_precision", "entity_recall"
ENTITIES, ANSWERS = (ENTITY_F1, ENTITY_PRECISION, ENTITY_RECALL), (ANSWER_F1, EXACT_MATCH)  # of tagged words, of answers
TOKENS, MASKED_TOKENS, TARGET_TOKENS = "tokens", "masked tokens", "target tokens"  # what the rows are: a key, its default, its other value
TASKS = "tasks"  # a key of meta-learning: the rows were measured after each of so many tasks of their domain; counts are means over them
ROUGE_L = "rouge_l"
TEXT_SCORES = ("bleu_1", "bleu_2", "bleu_3", BLEU_4, ROUGE_L)  # of texts that are generated
# Values of evaluations that do not predict the labels of rows
OF_PARTS = (PERPLEXITY, RECALL, ORIGINAL_SHARE, *ENTITIES, *ANSWERS, *TEXT_SCORES)
BALANCED_ACCURACY, CALIBRATION_ERROR = "balanced_accuracy", "calibration_error"
SCALARS = (MACRO_F1, BALANCED_ACCURACY, MATTHEWS, CALIBRATION_ERROR)  # further values of an evaluation, in the order of metrics.jsonl
HAMMING_LOSS = "hamming_loss"
SET_SCALARS = (MICRO_F1, MACRO_F1, HAMMING_LOSS)  # the same of sets of labels, whose accuracy is the share of rows with all labels right
FURTHER = (MICRO_F1, *SCALARS, HAMMING_LOSS)  # both together
RMSE, MAE = "rmse", "mae"
NUMBERS = (MSE, RMSE, MAE, PEARSON, SPEARMAN)  # the values of an evaluation of a regression
INTERVALS = (ACCURACY, MACRO_F1, BALANCED_ACCURACY, MATTHEWS)  # those with a bootstrap interval
TITLES = {
    ACCURACY: "accuracy",
    MACRO_F1: "macro F1",
    BALANCED_ACCURACY: "balanced accuracy",
    MATTHEWS: "Matthews correlation",
    CROSS_ENTROPY: "cross-entropy",
    CALIBRATION_ERROR: "calibration error",
    MICRO_F1: "micro F1",
    HAMMING_LOSS: "Hamming loss",
    MSE: "mean squared error",
    RMSE: "root mean squared error",
    MAE: "mean absolute error",
    PEARSON: "Pearson correlation",
    SPEARMAN: "Spearman correlation",
    ORIGINAL_SHARE: "original",
    ENTITY_F1: "F1",
    ENTITY_PRECISION: "precision",
    ENTITY_RECALL: "recall",
    ANSWER_F1: "F1",
    EXACT_MATCH: "exact match",
    **{name: f"BLEU-{n}" for n, name in enumerate(TEXT_SCORES[:-1], 1)},
    ROUGE_L: "ROUGE-L",
}


class Shown(NamedTuple):
    """The two values of an evaluation that a report shows first, by their names in metrics.jsonl, with their titles."""

    share: str  # 1 is the best
    share_title: str
    loss: str  # 0 is the best
    loss_title: str


def shown_of(row) -> Shown:
    """The `Shown` of an evaluation, a row of metrics.jsonl."""
    if MSE in row:
        return Shown(PEARSON, TITLES[PEARSON], MSE, TITLES[MSE])
    title = RECALL if RECALL in row else "subset accuracy" if HAMMING_LOSS in row else TITLES[ACCURACY]
    return Shown(ACCURACY, title, CROSS_ENTROPY, TITLES[CROSS_ENTROPY])


def name_value(row):
    """The number in the name of a best snapshot, from the evaluation that selected it, a row of metrics.jsonl; None if it has none."""
    return next((row[name] for name in (MSE, PERPLEXITY, ENTITY_F1, ANSWER_F1, ACCURACY) if name in row), None)


def values_needed(row) -> tuple:
    """Names of the values, apart from numbers of rows, that an evaluation has in every run, by what it measures."""
    if MSE in row:
        return NUMBERS
    return (ACCURACY, CROSS_ENTROPY)


def further_needed(row) -> tuple:
    """Names of the further values that an evaluation has in a run of this version."""
    if MSE in row:
        return ()
    special = set(OF_PARTS) & set(row)
    return tuple(special) if special else SET_SCALARS if HAMMING_LOSS in row else SCALARS


def _ratio(numerator, denominator):
    """numerator / denominator, and 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def confusion_matrix(label, predicted, num_classes: int) -> np.ndarray:
    """Number of rows by true and predicted class.

    Args:
        label, predicted: int [N], classes from 0.
        num_classes: C.
    Returns:
        int64 [C, C].
    """
    cells = np.asarray(label, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


class ClassMeasures(NamedTuple):
    """Measures of each class, float64 [..., C] (the support is int)."""

    precision: np.ndarray  # rows of the class that are predicted as it / rows predicted as it; 0 if there are none
    recall: np.ndarray  # the same / rows of the class; 0 if there are none
    f1: np.ndarray  # harmonic mean of the two, 2 TP / (2 TP + FP + FN); 0 if all three are 0
    support: np.ndarray  # rows of the class


def class_measures(confusion) -> ClassMeasures:
    """Precision, recall, F1 and support of each class, as scikit-learn's precision_recall_fscore_support with zero_division=0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = np.sum(confusion, axis=-1), np.sum(confusion, axis=-2)
    return ClassMeasures(_ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted), support)


def accuracy(confusion):
    """Share of the rows that are predicted as their class."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), np.sum(confusion, axis=(-2, -1)))


def macro_f1(confusion):
    """Mean F1 of the classes that occur, as a true or as a predicted class. These are the classes that scikit-learn's f1_score averages
    if it gets no list of labels."""
    occurs = (np.sum(confusion, axis=-1) + np.sum(confusion, axis=-2)) > 0
    return _ratio(class_measures(confusion).f1.sum(axis=-1), occurs.sum(axis=-1))


def balanced_accuracy(confusion):
    """Mean recall of the classes that have rows."""
    found = class_measures(confusion)
    return _ratio(found.recall.sum(axis=-1), (found.support > 0).sum(axis=-1))


def matthews(confusion):
    """Matthews correlation coefficient for C classes (Gorodkin 2004), -1 to 1:

        (c n - sum_k t_k p_k) / sqrt((n^2 - sum_k p_k^2) (n^2 - sum_k t_k^2))

    with n rows, c of them right, t_k rows of class k and p_k rows predicted as class k. It is 0 if all rows have one class, or are
    predicted as one class.
    """
    confusion = np.asarray(confusion, np.float64)
    total, right = confusion.sum(axis=(-2, -1)), np.trace(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    spread = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
    return _ratio(right * total - (true * predicted).sum(axis=-1), np.sqrt(spread))


_OF_CONFUSION = {ACCURACY: accuracy, MACRO_F1: macro_f1, BALANCED_ACCURACY: balanced_accuracy, MATTHEWS: matthews}


def log_softmax(logits) -> np.ndarray:
    """log(softmax) over the last axis of logits, float64 [..., C]."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropies(log_probabilities, label) -> np.ndarray:
    """-log p(label) of each row, in nats: float64 [N]. Their mean is the cross-entropy.

    Args:
        log_probabilities: float [N, C].
        label: int [N].
    """
    return -log_probabilities[np.arange(len(label)), label]


class Reliability(NamedTuple):
    """Rows by confidence, the probability of the predicted class: BINS bins of equal width. Bin b holds the confidences in
    (b / BINS, (b + 1) / BINS]; the first bin also holds 0."""

    count: np.ndarray  # int64 [BINS], rows
    confidence: np.ndarray  # float64 [BINS], sum of the confidences of the rows
    right: np.ndarray  # float64 [BINS], rows whose prediction is right

    def __add__(self, other):
        return Reliability(*(one + two for one, two in zip(self, other)))


def reliability(confidence, hits) -> Reliability:
    """Groups rows by confidence.

    Args:
        confidence: float [N], probability of the predicted class, 0 to 1.
        hits: bool [N], whether the prediction is right.
    """
    bins = np.clip(np.ceil(np.asarray(confidence, np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, hits))
    return Reliability(np.bincount(bins, minlength=BINS), *sums)


def calibration_error(bins: Reliability) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017), 0 to 1:

        sum_b n_b / N * |right_b / n_b - confidence_b / n_b|

    over the bins of `Reliability`: the mean distance between the share of right predictions and the mean confidence. It is 0 without rows.
    """
    total = bins.count.sum()
    return float(np.abs(bins.right - bins.confidence).sum() / total) if total else 0.0


def measures(log_probabilities, label) -> dict:
    """The values of SCALARS for some rows, as floats by name.

    Args:
        log_probabilities: float64 [N, C]. If one of them is not a number, the calibration error is not one either.
        label: int [N].
    """
    predicted = log_probabilities.argmax(axis=1)
    confusion = confusion_matrix(label, predicted, log_probabilities.shape[1])
    values = {name: float(of(confusion)) for name, of in _OF_CONFUSION.items() if name in SCALARS}
    confidence = np.exp(log_probabilities.max(axis=1))
    known = np.isfinite(confidence).all()
    values[CALIBRATION_ERROR] = calibration_error(reliability(confidence, predicted == label)) if known else math.nan
    return {name: values[name] for name in SCALARS}


def by_class(confusion, labels, tasks: int = 1) -> dict:
    """The values of `class_measures` by label: {label: {"precision", "recall", "f1", "support"}}.

    Args:
        confusion: int [C, C].
        labels: C names.
        tasks: how often it counts each row. The support counts it once.
    """
    found = class_measures(confusion)
    found = found._replace(support=found.support // tasks)
    return {label: {name: column[place].item() for name, column in zip(found._fields, found)} for place, label in enumerate(labels)}


def bootstrap_intervals(confusions, seed: int, resamples: int = RESAMPLES, level: float = LEVEL, tasks: int = 1) -> dict:
    """Percentile bootstrap intervals of the measures of INTERVALS (Efron and Tibshirani 1993, chapter 13).

    A resample draws rows with replacement. It is stratified by domain: it has as many rows of each domain as the data. It is not
    stratified by class. A measure here depends only on the number of rows in each cell of the confusion matrix. The numbers of a
    domain's resampled rows by cell have a multinomial distribution, so the function draws these numbers and not single rows. The
    cross-entropy depends on single rows, and resampling increases the calibration error; they have no interval. The correlation is not
    defined for rows of one class, so its interval leaves out resamples with one class.

    Args:
        confusions: int [D, C, C], the confusion matrix of each domain, of N > 0 rows together.
        seed: of the random stream (`bootstrap_stream`).
        resamples: number of resamples.
        level: coverage of the intervals.
        tasks: how often the matrices count each row. A resample has as many predictions as the data has rows, because further tasks bring
            no further rows.
    Returns:
        dict of name -> (low, high), floats. A measure whose interval has no width is left out, for example if all N rows are correct: it
        would look certain.
    """
    confusions = np.asarray(confusions, np.int64)
    draw = bootstrap_stream(seed, int(confusions.sum()) // tasks)
    drawn = np.zeros((resamples, *confusions.shape[1:]), np.int64)
    for confusion in confusions:
        rows = int(confusion.sum())
        if rows:
            drawn += draw.multinomial(rows // tasks, confusion.ravel() / rows, size=resamples).reshape(drawn.shape)
    several = (drawn.sum(axis=-1) > 0).sum(axis=-1) > 1
    of_classes = drawn[several] if several.any() else drawn
    tail, found = 50 * (1 - level), {}
    for name in INTERVALS:
        values = _OF_CONFUSION[name](of_classes if name == MATTHEWS else drawn)
        low, high = np.percentile(values, (tail, 100 - tail)).tolist()
        if low < high:
            found[name] = low, high
    return found


def mcnemar_test(first_only: int, second_only: int) -> float:
    """P value of McNemar's exact test (McNemar 1947), two-sided: whether two classifiers have the same accuracy on the same rows.

    With b rows that only the first one predicts correctly, c rows that only the second one does, and n = b + c:

        p = min(1, 2 * sum_{k=0}^{min(b, c)} binomial(n, k) / 2^n)

    The p value is 1 if n is 0.

    Args:
        first_only: b.
        second_only: c.
    """
    total = first_only + second_only
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(min(first_only, second_only) + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


_T_QUANTILES = (  # 97.5 % quantiles of Student's t distribution with 1 to 30 degrees of freedom
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
_NORMAL_QUANTILE = 1.959964  # of the normal distribution


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution, from a table; above 30 degrees of freedom from the expansion of Fisher and Cornish
    (Abramowitz and Stegun 1964, 26.7.5), to four digits.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    if freedom <= len(_T_QUANTILES):
        return _T_QUANTILES[freedom - 1]
    x = _NORMAL_QUANTILE
    terms = (x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96, (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    return x + sum(term / freedom**power for power, term in enumerate(terms, 1))


def mean_interval(values) -> tuple:
    """(mean, low, high): the mean and its 95 % t interval (Student 1908), mean ± t s / sqrt(N), s the sample standard deviation.

    It holds for independent values. Low and high are not numbers if there is one value.

    Args:
        values: float [N], N > 0; the differences of pairs for a paired comparison.
    """
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half
