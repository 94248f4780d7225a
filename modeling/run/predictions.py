"""`predictions_SPLIT.tsv`: the predictions of a run's best snapshot for a split, one line per sample.

    idxs    domain  label   predicted   p(negative) p(positive) text
    0       books   negative positive   0.31        0.69        a moving book

Tabs separate the columns. Text pairs have the columns `text_a` and `text_b`. If the text was not available, there is no text column. The
file is read as a stream, so that a split of any size needs little memory.
"""

import glob
import os
import re
from typing import NamedTuple, Optional

import numpy as np

from modeling.run.measures import Reliability, reliability
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing
from ofrecord_util.reading import TEXT_LIMIT, lines_of, open_file

_HEAD = ("idxs", "domain", "label", "predicted")
_REMEDY = "run the step again, or remove the file"
HARDEST = 20  # samples that a report shows


class Sample(NamedTuple):
    """One sample and its prediction."""

    idxs: int
    domain: str
    label: str
    predicted: str
    probabilities: tuple  # float, in the order of the labels
    texts: tuple  # zero, one or two str


class Summary(NamedTuple):
    """A summary of a split's predictions for the report."""

    labels: tuple  # str [C]
    confusion: dict  # domain -> int64 [C, C], rows are true labels, columns are predicted labels
    hardest: list  # of `Sample`: the lowest probabilities of the true label, lowest first
    has_text: bool
    reliability: Reliability


def predictions_path(folder, name):
    """Path of a run's predictions. `name` is a split, or "teacher_" and a split for the teacher's predictions."""
    return os.path.join(folder, f"predictions_{name}.tsv")


def written_predictions(folder):
    """dict of name -> path for the predictions in a run's folder."""
    paths = glob.glob(predictions_path(glob.escape(folder), "*"))
    names = {re.match(r"predictions_(.*)\.tsv\Z", os.path.basename(path)).group(1): path for path in paths}
    return dict(sorted(names.items()))


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


def write_predictions(path, task, predictions, texts=None):
    """Writes the predictions of a split. The file appears only when it is complete.

    Args:
        path: see `predictions_path`.
        task: `Task`.
        predictions: `modeling.run.evaluation.Predictions`.
        texts: `TextSplit` of the whole split, or None.
    Raises:
        UserError: the file cannot be written.
    """
    parts = [] if texts is None else [texts.text_a] if texts.text_b is None else [texts.text_a, texts.text_b]
    names = ["text"] if len(parts) == 1 else ["text_a", "text_b"][: len(parts)]
    header = [*_HEAD, *(f"p({label})" for label in task.labels), *names]
    try:
        with replacing(path) as file:
            file.write(("\t".join(header) + "\n").encode("utf-8"))
            arrays = (predictions.idxs, predictions.domain, predictions.label, predictions.logits.argmax(axis=1))
            columns = (*map(np.ndarray.tolist, arrays), probabilities_of(predictions.logits))
            for idxs, domain, label, predicted, probabilities in zip(*columns):
                cells = [str(idxs), task.domains[domain], task.labels[label], task.labels[predicted]]
                cells += [f"{value:.6g}" for value in probabilities]
                cells += [part[idxs] for part in parts]
                file.write(("\t".join(cells) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def read_predictions(path):
    """Opens a file of predictions.

    Returns:
        (labels, number of texts per sample, iterator of `Sample`).
    Raises:
        UserError: the file is not a file of predictions. The message names the row; row 1 is the header. The iterator raises it too.
    """
    rows = _rows(path, None)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{path}: is empty; {_REMEDY}")
    return (*header, _rows(path, header))


def _rows(path, header):
    """Yields (labels, number of texts) from the header if `header` is None, otherwise the samples."""
    try:
        with open_file(path, _REMEDY, TEXT_LIMIT) as file:
            for number, line in enumerate(lines_of(file, path, _REMEDY), 1):  # binary: only LF ends a row
                try:
                    cells = line.decode("utf-8").rstrip("\n").split("\t")
                    if header is None:
                        yield _read_header(cells)
                        return
                    if number > 1:
                        yield _sample(cells, *header)
                except ValueError as error:
                    raise UserError(f"{path}: row {number}: {error}; {_REMEDY}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _read_header(cells):
    """(labels, number of texts) from the columns of the first row."""
    labels = tuple(cell[2:-1] for cell in cells[len(_HEAD) :] if cell.startswith("p(") and cell.endswith(")"))
    texts = cells[len(_HEAD) + len(labels) :]
    if tuple(cells[: len(_HEAD)]) != _HEAD or len(labels) < 2 or texts not in ([], ["text"], ["text_a", "text_b"]):
        raise ValueError("is not the header of a run's predictions")
    return labels, len(texts)


def _sample(cells, labels, number_of_texts):
    """The `Sample` of a row. Raises a ValueError with the reason if the row is invalid."""
    expected = len(_HEAD) + len(labels) + number_of_texts
    if len(cells) != expected:
        raise ValueError(f"has {len(cells)} columns, but the header has {expected}")
    idxs, domain, label, predicted = cells[: len(_HEAD)]
    for name in (label, predicted):
        if name not in labels:
            raise ValueError(f"label {name!r:.80} is not one of {', '.join(labels)}")
    end = len(_HEAD) + len(labels)
    probabilities = tuple(map(float, cells[len(_HEAD) : end]))
    if not all(0 <= value <= 1 for value in probabilities):
        raise ValueError(f"a probability is not from 0 to 1: {', '.join(cells[len(_HEAD) : end]):.80}")
    return Sample(int(idxs), domain, label, predicted, probabilities, tuple(cells[end:]))


def summarize(path, hardest=HARDEST):
    """The `Summary` of a file of predictions, with at most `hardest` of the hardest samples."""
    labels, number_of_texts, samples = read_predictions(path)
    confusion, worst, bins, waiting = {}, [], reliability([], []), []

    def least(entries):
        return sorted(entries, key=lambda entry: entry[:2])[:hardest]

    for sample in samples:
        truth = labels.index(sample.label)
        cells = confusion.setdefault(sample.domain, np.zeros((len(labels), len(labels)), np.int64))
        cells[truth, labels.index(sample.predicted)] += 1
        worst.append((sample.probabilities[truth], sample.idxs, sample))
        waiting.append((max(sample.probabilities), sample.label == sample.predicted))
        if len(worst) > 100 * hardest:  # bounds the memory, and sorts rarely
            worst, bins, waiting = least(worst), bins + reliability(*zip(*waiting)), []
    bins = bins + reliability(*zip(*waiting)) if waiting else bins
    return Summary(labels, confusion, [sample for _, _, sample in least(worst)], number_of_texts > 0, bins)


def total_of(summary, domain: Optional[str] = None):
    """Confusion matrix, int64 [C, C], of one domain or of all domains together."""
    count = len(summary.labels)
    return summary.confusion[domain] if domain is not None else sum(summary.confusion.values(), np.zeros((count, count), np.int64))
