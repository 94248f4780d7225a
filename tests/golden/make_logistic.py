"""Writes logistic.json: scikit-learn's LogisticRegression on small random data, with which tests compare.

    python tests/golden/make_logistic.py

Needs scikit-learn, which is not among the project's requirements. The file names the version that computed it.
"""

import json
import os

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression


def main():
    cases = []
    for seed, rows, width, labels, strength, weighted in ((0, 23, 7, 2, 1.0, False), (1, 31, 5, 3, 0.3, False), (2, 29, 6, 2, 2.5, True)):
        draw = np.random.RandomState(seed)
        label = np.arange(rows) % labels
        label[: rows // 5] = 0
        vectors = np.round(draw.randn(rows, width) + 0.8 * draw.randn(labels, width)[label], 3)
        weights = [1.0, 2.5] if weighted else None
        model = LogisticRegression(C=strength, tol=1e-12, max_iter=100000, class_weight=dict(enumerate(weights)) if weighted else None)
        model.fit(vectors, label)
        cases.append(
            {
                "vectors": vectors.tolist(),
                "label": label.tolist(),
                "labels": labels,
                "C": strength,
                "class_weights": weights,
                "coef": model.coef_.tolist(),
                "intercept": model.intercept_.tolist(),
                "probabilities": model.predict_proba(vectors).tolist(),
            }
        )
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logistic.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"scikit-learn": sklearn.__version__, "cases": cases}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
