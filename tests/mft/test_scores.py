"""Step 1: prototypical scores, prototypes and their map."""

import os
import re

import numpy as np
import pytest
from mft_steps import DATA, DEV_COUNT, TRAIN_COUNT

from ofrecord_util.reader import read_split
from ofrecord_util.scores import load_map

pytestmark = pytest.mark.slow


def test_scores_are_written(project, step_1):
    scores = step_1.scores
    assert scores.dtype == np.float32
    assert scores.shape == (TRAIN_COUNT,)
    assert (scores <= 1 + 1e-6).all()
    assert (scores >= -1).all()
    assert scores.std() > 1e-3
    records = read_split(project.path(DATA), "train")
    assert np.array_equal(records.sample_weights, scores[records.idxs])
    for split, count in (("train", TRAIN_COUNT), ("dev", DEV_COUNT)):
        assert len(read_split(project.path(DATA), split)) == count
    assert not os.path.exists(project.path(DATA, "ofrecord", "test"))  # there is no test.csv


def test_prototypes_are_written(project, step_1):
    with np.load(project.path(DATA, "ofrecord", "train", "prototypes.npz"), allow_pickle=False) as prototypes:
        assert prototypes["centroids"].shape == (3, 2, 20)
        assert prototypes["counts"].tolist() == [[9, 9], [9, 8], [9, 9]]
        assert prototypes["domains"].tolist() == ["SST-2", "mr", "cr"]
        means = prototypes["score_statistics"][:, prototypes["score_columns"].tolist().index("mean")]
    domain = read_split(project.path(DATA), "train").domain
    assert means == pytest.approx([step_1.scores[domain == index].mean() for index in range(3)], abs=1e-6)


def test_the_map_is_that_of_the_prototypes(project, step_1):
    """A prototype is a mean of representations, and so lies in the plane where the mean of its samples' points lies."""
    records = read_split(project.path(DATA), "train")
    drawn = load_map(project.path(DATA), records.text_digest)
    assert np.array_equal(drawn.domain, records.domain)
    assert np.array_equal(drawn.label, records.label)
    for domain in range(3):
        for label in range(2):
            points = drawn.coordinates[(drawn.domain == domain) & (drawn.label == label)]
            assert drawn.prototypes[domain, label] == pytest.approx(points.mean(axis=0), abs=1e-4)
    assert 0 < drawn.explained[1] <= drawn.explained[0] < 1
    assert np.std(drawn.coordinates, axis=0).min() > 0


def test_step_1_says_what_it_did(project, step_1):
    assert "--num_epochs has no effect" in step_1.output
    assert re.search(r"train: .*; \d+ of \d+ tokens are \[UNK\]", step_1.output)
    for name, count in (("SST-2", 18), ("mr", 17), ("cr", 18)):
        assert re.search(rf"prototypical scores of {name}: {count} samples, mean 0\.\d+, std 0\.\d+", step_1.output)
    with open(project.path("output", "preprocess.log"), encoding="utf-8") as file:
        assert "prototypical scores of mr" in file.read()
