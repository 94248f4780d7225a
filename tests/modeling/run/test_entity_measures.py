"""modeling/run/entity_measures.py against seqeval (tests/golden/make_entities.py)."""

import json
import os

import pytest
import tiny

from modeling.run.entity_measures import Counts, count_entities, entities, entity_measures

with open(os.path.join(tiny.ROOT, "tests", "golden", "entities.json"), encoding="utf-8") as file:
    GOLDEN = json.load(file)


@pytest.mark.parametrize("case", range(len(GOLDEN)))
def test_golden_numbers(case):
    golden = GOLDEN[case]
    found = entity_measures(count_entities(golden["true"], golden["predicted"]))
    for name in ("f1", "precision", "recall"):
        assert found["entity_" + name] == pytest.approx(golden[name], abs=1e-12)
    spans = [[[kind or "_", first, last] for kind, first, last in entities(tags)] for tags in golden["true"]]
    assert spans == golden["entities"]


def test_by_hand():
    assert entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-PER"]) == [("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4), ("PER", 5, 5)]
    counts = count_entities([["B-PER", "I-PER", "O"], ["B-LOC"]], [["B-PER", "O", "O"], ["B-LOC"]])
    assert counts == Counts(1, 2, 2)
    assert counts + Counts(1, 1, 3) == Counts(2, 3, 5)
    assert entity_measures(Counts(1, 2, 3)) == {"entity_f1": 0.4, "entity_precision": 0.5, "entity_recall": 1 / 3}
    assert set(entity_measures(Counts()).values()) == {0.0}
