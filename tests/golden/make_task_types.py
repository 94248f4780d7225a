"""Writes task_types.json: measures and losses of regressions and of sets of labels from scikit-learn, SciPy and PyTorch.

To run it (Python 3.11; a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install scikit-learn scipy torch numpy
    python tests/golden/make_task_types.py

The losses are those of transformers' models for sequence classification: MSELoss of the squeezed logits for problem_type "regression",
BCEWithLogitsLoss for "multi_label_classification". The numbers have few decimals, so that the file holds exactly what the libraries got.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    hamming_loss,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_fscore_support,
)

SETS = (9, (0.5, 0.2, 0.8)), (31, (0.6, 0.0, 0.1, 0.9)), (5, (0.4, 0.7))  # rows, and how often a row has each label
FILE = Path(__file__).resolve().parent / "task_types.json"


def regression(draw, rows, decimals):
    """Random numbers and predictions; few decimals make ties."""
    label = np.round(draw.randn(rows) * 2 + 1, decimals)
    predicted = np.round(label * 0.7 + draw.randn(rows), decimals)
    squared = float(mean_squared_error(label, predicted))
    return {
        "label": label.tolist(),
        "predicted": predicted.tolist(),
        "mse": squared,
        "rmse": squared**0.5,
        "mae": float(mean_absolute_error(label, predicted)),
        "pearson": float(pearsonr(label, predicted)[0]),
        "spearman": float(spearmanr(label, predicted)[0]),
        "loss": float(torch.nn.MSELoss()(torch.tensor(predicted).squeeze(), torch.tensor(label).squeeze())),
    }


def sets(draw, rows, shares):
    """Random sets of labels, label c with probability shares[c], and logits."""
    label = (draw.rand(rows, len(shares)) < shares).astype(int)
    logits = np.round(draw.randn(rows, len(shares)) * 2 + 2 * label - 1, 3)
    predicted = (logits > 0).astype(int)
    precision, recall, f1, support = precision_recall_fscore_support(label, predicted, zero_division=0)
    columns = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    return {
        "label": label.tolist(),
        "logits": logits.tolist(),
        "accuracy": float(accuracy_score(label, predicted)),
        "micro_f1": float(f1_score(label, predicted, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(label, predicted, average="macro", zero_division=0)),
        "hamming_loss": float(hamming_loss(label, predicted)),
        "by_label": {name: column.tolist() for name, column in columns.items()},
        "loss": float(torch.nn.BCEWithLogitsLoss()(torch.tensor(logits), torch.tensor(label, dtype=torch.float64))),
    }


def main():
    draw = np.random.RandomState(20)
    record = {
        "versions": {name: version(name) for name in ("scikit-learn", "scipy", "torch", "numpy")},
        "regression": [regression(draw, rows, decimals) for rows, decimals in ((7, 3), (40, 0), (2, 2))],
        "multi_label": [sets(draw, rows, np.array(shares)) for rows, shares in SETS],
    }
    FILE.write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
