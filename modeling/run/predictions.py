"""`predictions_SPLIT.tsv`: the predictions of a run's best snapshot for a split, one line per sample.

    idxs    domain  label   predicted   p(negative) p(positive) text
    0       books   negative positive   0.31        0.69        a moving book

With sets of labels (--task_type multi_label) the third column is `labels`, and it and `predicted` hold names with commas between them. A
regression has no columns p(…), and its two are numbers. Tabs separate the columns. Text pairs have the columns `text_a` and `text_b`. If
the text was not available, there is no text column. The file is read as a stream, so that a split of any size needs little memory.
"""

import math
import os
from typing import NamedTuple, Optional

import numpy as np

from modeling.run.measures import Reliability, reliability
from modeling.run.split_files import written_files
from modeling.run.task_outputs import outputs_of
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.files import replacing
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, MULTI_LABEL, REGRESSION
from ofrecord_util.reading import TEXT_LIMIT, lines_of, open_file

_HEADS = {
    CLASSIFICATION: ("idxs", "domain", "label", "predicted"),
    REGRESSION: ("idxs", "domain", "label", "predicted"),
    MULTI_LABEL: ("idxs", "domain", "labels", "predicted"),
}
_WIDTH = 4  # columns of each head
_REMEDY = "run the step again, or remove the file"
HARDEST = 20  # samples that a report shows


class Sample(NamedTuple):
    """One sample and its prediction."""

    idxs: int
    domain: str
    label: str
    predicted: str
    probabilities: tuple  # float, in the order of the labels; () of a regression
    texts: tuple  # zero, one or two str


class Summary(NamedTuple):
    """A summary of a split's predictions for the report."""

    labels: tuple  # str [C]; () of a regression
    confusion: dict  # domain -> int64 [C, C], rows are true labels, columns are predicted labels; {} if a row has not one label
    hardest: list  # of `Sample`: the lowest probabilities of the true label or labels, or the largest errors, first
    has_text: bool
    reliability: Reliability
    task_type: str = CLASSIFICATION


class _Header(NamedTuple):
    """What the first row of a file of predictions says."""

    task_type: str
    labels: tuple
    texts: int  # per sample


def predictions_path(folder, name):
    """Path of a run's predictions. `name` is a split, or "teacher_" and a split for the teacher's predictions."""
    return os.path.join(folder, f"predictions_{name}.tsv")


def written_predictions(folder):
    """dict of name -> path for the predictions in a run's folder."""
    return written_files(folder, predictions_path)


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
    rules = outputs_of(task)
    header = [*_HEADS[task.task_type], *(f"p({label})" for label in task.labels if rules.has_probabilities), *names]
    try:
        with replacing(path) as file:
            file.write(("\t".join(header) + "\n").encode("utf-8"))
            outputs = rules.outputs(predictions.logits)
            arrays = (predictions.idxs, predictions.domain, predictions.label, rules.predicted(outputs))
            columns = (*map(np.ndarray.tolist, arrays), outputs)
            for idxs, domain, label, predicted, row in zip(*columns):
                cells = [str(idxs), task.domains[domain], *(rules.cell(value, task.labels) for value in (label, predicted))]
                cells += [f"{value:.6g}" for value in row if rules.has_probabilities]
                cells += [part[idxs] for part in parts]
                file.write(("\t".join(cells) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def read_predictions(path):
    """Opens a file of predictions.

    Returns:
        (labels, number of texts per sample, iterator of `Sample`). A regression has no labels.
    Raises:
        UserError: the file is not a file of predictions. The message names the row; row 1 is the header. The iterator raises it too.
    """
    header = _header_of(path)
    return header.labels, header.texts, _rows(path, header)


def _header_of(path):
    """The `_Header` of a file of predictions."""
    header = next(_rows(path, None), None)
    if header is None:
        raise UserError(f"{path}: is empty; {_REMEDY}")
    return header


def _rows(path, header):
    """Yields the `_Header` if `header` is None, otherwise the samples."""
    try:
        with open_file(path, _REMEDY, TEXT_LIMIT) as file:
            for number, line in enumerate(lines_of(file, path, _REMEDY), 1):  # binary: only LF ends a row
                try:
                    cells = line.decode("utf-8").rstrip("\n").split("\t")
                    if header is None:
                        yield _read_header(cells)
                        return
                    if number > 1:
                        yield _sample(cells, header)
                except ValueError as error:
                    raise UserError(f"{path}: row {number}: {error}; {_REMEDY}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _read_header(cells):
    """The `_Header` from the columns of the first row."""
    labels = tuple(cell[2:-1] for cell in cells[_WIDTH:] if cell.startswith("p(") and cell.endswith(")"))
    texts, head = cells[_WIDTH + len(labels) :], tuple(cells[:_WIDTH])
    task_type = MULTI_LABEL if head == _HEADS[MULTI_LABEL] else CLASSIFICATION if labels else REGRESSION
    fewest = 0 if task_type == REGRESSION else LABEL_KINDS[task_type].limits[0]
    if head != _HEADS[task_type] or len(labels) < fewest or texts not in ([], ["text"], ["text_a", "text_b"]):
        raise ValueError("is not the header of a run's predictions")
    return _Header(task_type, labels, len(texts))


def _sample(cells, header):
    """The `Sample` of a row. Raises a ValueError with the reason if the row is invalid."""
    labels, kind = header.labels, LABEL_KINDS[header.task_type]
    expected = _WIDTH + len(labels) + header.texts
    if len(cells) != expected:
        raise ValueError(f"has {counted(len(cells), 'column')}, but the header has {expected}")
    idxs, domain, label, predicted = cells[:_WIDTH]
    for name in (*kind.names(label), *kind.names(predicted)):
        if name not in labels:
            raise ValueError(f"label {name!r:.80} is not one of {', '.join(labels)}")
    if header.task_type == REGRESSION and not all(math.isfinite(float(value)) for value in (label, predicted)):
        raise ValueError(f"{label!r:.40} or {predicted!r:.40} is not finite")
    end = _WIDTH + len(labels)
    probabilities = tuple(map(float, cells[_WIDTH:end]))
    if not all(0 <= value <= 1 for value in probabilities):
        raise ValueError(f"a probability is not from 0 to 1: {', '.join(cells[_WIDTH:end]):.80}")
    return Sample(int(idxs), domain, label, predicted, probabilities, tuple(cells[end:]))


def summarize(path, hardest=HARDEST):
    """The `Summary` of a file of predictions, with at most `hardest` of the hardest samples."""
    header = _header_of(path)
    labels, samples, sureness = header.labels, _rows(path, header), _SURENESS[header.task_type]
    confusion, worst, bins, waiting = {}, [], reliability([], []), []

    def least(entries):
        return sorted(entries, key=lambda entry: entry[:2])[:hardest]

    for sample in samples:
        worst.append((sureness(sample, labels), sample.idxs, sample))
        if header.task_type == CLASSIFICATION:
            cells = confusion.setdefault(sample.domain, np.zeros((len(labels), len(labels)), np.int64))
            cells[labels.index(sample.label), labels.index(sample.predicted)] += 1
            waiting.append((max(sample.probabilities), sample.label == sample.predicted))
        if len(worst) > 100 * hardest:  # bounds the memory, and sorts rarely
            worst = least(worst)
            bins, waiting = bins + reliability(*zip(*waiting)) if waiting else bins, []
    bins = bins + reliability(*zip(*waiting)) if waiting else bins
    return Summary(labels, confusion, [sample for _, _, sample in least(worst)], header.texts > 0, bins, header.task_type)


def _sureness_of_set(sample, labels):
    """Mean probability of what is true of each label."""
    there = LABEL_KINDS[MULTI_LABEL].names(sample.label)
    return sum(value if label in there else 1 - value for label, value in zip(labels, sample.probabilities)) / len(labels)


_SURENESS = {  # functions of (sample, labels): how right a prediction is
    CLASSIFICATION: lambda sample, labels: sample.probabilities[labels.index(sample.label)],
    REGRESSION: lambda sample, _labels: -abs(float(sample.label) - float(sample.predicted)),
    MULTI_LABEL: _sureness_of_set,
}


def total_of(summary, domain: Optional[str] = None):
    """Confusion matrix, int64 [C, C], of one domain or of all domains together."""
    count = len(summary.labels)
    return summary.confusion[domain] if domain is not None else sum(summary.confusion.values(), np.zeros((count, count), np.int64))
