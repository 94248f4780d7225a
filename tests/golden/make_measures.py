"""Writes measures.json: measures of random predictions from scikit-learn, which shares no code with this project.

To run it (Python 3.10; a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install scikit-learn==1.5.2 numpy==1.26.4 scipy==1.13.1
    python tests/golden/make_measures.py

Each case has probabilities with 4 decimals, so that the file holds exactly what scikit-learn got. The expected calibration error is that of
scikit-learn's `calibration_curve` with equal-width bins (uniform), whose bins are weighted here by their number of rows.
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
)
from sklearn.utils.class_weight import compute_class_weight

FILE = Path(__file__).resolve().parent / "measures.json"
BINS = 15


def case(draw, rows, classes, labels, sharpness):
    """Random probabilities [rows, classes] and labels from `labels`, which the probabilities favour, with scikit-learn's values."""
    label = draw.choice(labels, rows)
    logits = draw.randn(rows, classes) * sharpness
    logits[np.arange(rows), label] += sharpness * 0.8
    raw = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = np.maximum(np.round(raw, 4), 0.0001)
    probabilities = np.round(probabilities / probabilities.sum(axis=1, keepdims=True), 4)
    probabilities[:, -1] = np.round(1 - probabilities[:, :-1].sum(axis=1), 4)
    predicted = probabilities.argmax(axis=1)
    every = np.arange(classes)
    precision, recall, f1, support = precision_recall_fscore_support(label, predicted, labels=every, zero_division=0)
    confidence, hits = probabilities.max(axis=1), predicted == label
    right, mean = calibration_curve(hits, confidence, n_bins=BINS, strategy="uniform")
    edges = np.linspace(0.0, 1.0, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=BINS)
    counts = counts[counts > 0]
    values = {
        "accuracy": accuracy_score(label, predicted),
        "macro_f1": f1_score(label, predicted, average="macro", zero_division=0),
        "balanced_accuracy": balanced_accuracy_score(label, predicted),
        "matthews": matthews_corrcoef(label, predicted),
        "cross_entropy": log_loss(label, probabilities, labels=every),
        "calibration_error": float((counts * np.abs(right - mean)).sum() / rows),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
        "balanced_weights": compute_class_weight("balanced", classes=np.unique(label), y=label).tolist(),
    }
    return {"label": label.tolist(), "probabilities": probabilities.tolist(), "values": values}


def main():
    warnings.simplefilter("ignore")
    draw = np.random.RandomState(20240611)
    shapes = [(23, 2, [0, 1], 1.0), (31, 3, [0, 1, 2], 2.0), (40, 5, [0, 1, 3], 1.0), (7, 2, [1], 1.0), (60, 4, [0, 0, 0, 1, 2, 3], 4.0)]
    cases = [case(draw, *shape) for shape in shapes]
    record = {"versions": {name: version(name) for name in ("scikit-learn", "numpy")}, "cases": cases}
    FILE.write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
