"""Writes entities.json: precision, recall and F1 of random tags from seqeval, which shares no code with this project.

To run it (Python 3.10; a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install seqeval==1.2.2 scikit-learn==1.5.2 numpy==1.26.4
    python tests/golden/make_entities.py

The tags of a case need not fit together: an I- may stand without its B-, so that the reading of such tags is compared too. The values are
those of seqeval's default mode, the micro average.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

FILE = Path(__file__).resolve().parent / "entities.json"
BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
BIOES = [*BIO, "E-PER", "S-PER", "E-LOC", "S-LOC"]
PLAIN = ["O", "B", "I"]


def case(draw, tags, sentences, kept):
    """Random tags of sentences, and of a prediction that keeps a share of them, with seqeval's values."""
    true = [[tags[number] for number in draw.randint(0, len(tags), draw.randint(1, 9))] for _ in range(sentences)]
    predicted = [[tag if draw.rand() < kept else tags[draw.randint(0, len(tags))] for tag in sentence] for sentence in true]
    values = {"f1": f1_score, "precision": precision_score, "recall": recall_score, "accuracy": accuracy_score}
    found = {name: float(of(true, predicted)) for name, of in values.items()}
    spans = [[[kind, int(first), int(last)] for kind, first, last in get_entities(sentence)] for sentence in true]
    return {"true": true, "predicted": predicted, "entities": spans, **found}


def main():
    warnings.simplefilter("ignore")
    draw = np.random.RandomState(11)
    cases = [case(draw, tags, 9, kept) for tags in (BIO, BIOES, PLAIN) for kept in (0.9, 0.5)]
    cases += [case(draw, tags, 3, 1.0) for tags in (BIO, ["O"])]
    FILE.write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
