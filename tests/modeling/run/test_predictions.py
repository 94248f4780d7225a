"""modeling/run/predictions.py: what is written is read, counted as a loop counts it, and the hardest samples are the hardest."""

import numpy as np
import pytest

from modeling.run.evaluation import Predictions
from modeling.run.predictions import (
    predictions_path,
    read_predictions,
    summarize,
    total_of,
    write_predictions,
    written_predictions,
)
from modeling.run.task_outputs import probabilities_of
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task
from ofrecord_util.text import TextSplit

TASK = Task("t", ("books", "dvd", "none"), ("no", "yes", "may be"))
COUNT = 2503  # more than are held at once


def random_predictions(count=COUNT, seed=4):
    draw = np.random.RandomState(seed)
    idxs = draw.permutation(count).astype(np.int32)
    logits = (draw.randn(count, 3) * 3).astype(np.float32)
    return Predictions(idxs, draw.randint(0, 2, count), draw.randint(0, 3, count), logits, "digest")


def texts_of(count, pair=False):
    first = [f'"row {row} \u2028 \r <b> \x85' for row in range(count)]
    column = np.zeros(count, np.int32)
    return TextSplit("path", first, [f"b {row}" for row in range(count)] if pair else None, column, column, "digest")


@pytest.mark.parametrize("texts", [None, texts_of(COUNT), texts_of(COUNT, pair=True)])
def test_round_trip(tmp_path, texts):
    path, predictions = predictions_path(str(tmp_path), "dev"), random_predictions()
    write_predictions(path, TASK, predictions, texts)
    assert written_predictions(str(tmp_path)) == {"dev": path}
    labels, number_of_texts, samples = read_predictions(path)
    parts = [] if texts is None else [texts.text_a] if texts.text_b is None else [texts.text_a, texts.text_b]
    assert labels == TASK.labels
    assert number_of_texts == len(parts)
    probabilities, samples = probabilities_of(predictions.logits), list(samples)
    assert len(samples) == COUNT
    for row, sample in enumerate(samples):
        number = predictions.idxs[row]
        assert (sample.idxs, sample.domain) == (number, TASK.domains[predictions.domain[row]])
        assert sample.label == TASK.labels[predictions.label[row]]
        assert sample.predicted == TASK.labels[predictions.logits[row].argmax()]
        assert sample.probabilities == pytest.approx(probabilities[row], rel=1e-5)
        assert sample.texts == tuple(part[number] for part in parts)


def test_summary_against_a_loop(tmp_path):
    path, predictions = predictions_path(str(tmp_path), "test"), random_predictions()
    write_predictions(path, TASK, predictions)
    summary = summarize(path, hardest=7)
    expected = {"books": np.zeros((3, 3), int), "dvd": np.zeros((3, 3), int)}
    for domain, label, logits in zip(predictions.domain, predictions.label, predictions.logits):
        expected[TASK.domains[domain]][label, np.argmax(logits)] += 1
    assert set(summary.confusion) == set(expected)
    for domain, counts in expected.items():
        assert np.array_equal(summary.confusion[domain], counts)
        assert np.array_equal(total_of(summary, domain), counts)
    assert np.array_equal(total_of(summary), sum(expected.values()))
    assert total_of(summary).sum() == COUNT
    truth = probabilities_of(predictions.logits)[np.arange(COUNT), predictions.label]
    assert [sample.idxs for sample in summary.hardest] == predictions.idxs[np.argsort(truth)][:7].tolist()
    assert not summary.has_text


def test_equal_probabilities_keep_the_order_of_the_rows(tmp_path):
    path = predictions_path(str(tmp_path), "dev")
    zeros = np.zeros(9, np.int64)
    write_predictions(path, TASK, Predictions(np.arange(9)[::-1], zeros, zeros, np.zeros((9, 3), np.float32), ""))
    assert [sample.idxs for sample in summarize(path, 4).hardest] == [0, 1, 2, 3]


HEADER = "idxs\tdomain\tlabel\tpredicted\tp(no)\tp(yes)\ttext\n"
ROW = "0\tbooks\tno\tyes\t0.5\t0.5\ta\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text\tdomain\tlabel\n", "row 1: is not the header"),
        (HEADER.replace("p(no)\t", ""), "row 1: is not the header"),
        (HEADER + "0\tbooks\tno\tyes\t0.5\t0.5\n", "row 2: has 6 columns, but the header has 7"),
        (HEADER + ROW * 3 + ROW.replace("yes", "perhaps"), "row 5: label 'perhaps' is not one of no, yes"),
        (HEADER + "x\tbooks\tno\tyes\t0.5\t0.5\ta\n", "row 2: invalid literal"),
        (HEADER.encode() + b"0\tbooks\tno\tyes\t0.5\t0.5\t\xff\n", "row 2: .*utf-8"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "predictions_dev.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(UserError, match=message):
        summarize(str(path))


def test_nothing_is_written_where_nothing_can_be(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_predictions(str(tmp_path / "none" / "predictions_dev.tsv"), TASK, random_predictions(3))
