"""modeling/objectives/prototypes.py against a reference written in loops from the formulas of MFT, section 3.1."""

import math

import numpy as np
import pytest

from modeling.objectives.prototypes import (
    Prototypes,
    compute_prototypes,
    non_negative,
    prototypical_scores,
    score_statistics,
    write_prototypes,
)
from ofrecord_util.tasks import Task

DOMAINS, LABELS, WIDTH = 3, 2, 5
# (domain, label) of each sample: domain 2 has no label 1; sizes of the cells differ
CELLS = [(0, 0)] * 3 + [(0, 1)] * 2 + [(1, 0)] * 1 + [(1, 1)] * 4 + [(2, 0)] * 2


def samples(cells, seed=0):
    domain, label = (np.array(part, np.int32) for part in zip(*cells))
    return np.random.RandomState(seed).randn(len(cells), WIDTH).astype(np.float32), domain, label


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def reference_scores(embeddings, domain, label, alpha):
    """t(x) = a cos(e, c[d, y]) + (1 - a) / (K - 1) sum_{d' != d} cos(e, c[d', y]) over the K domains that have y."""
    scores = []
    for e, d, y in zip(embeddings, domain, label):
        centroids = {}
        for other in set(domain):
            members = [v.astype(np.float64) for v, m, n in zip(embeddings, domain, label) if (m, n) == (other, y)]
            if members:
                centroids[other] = sum(members) / len(members)
        others = [cosine(e, c) for other, c in centroids.items() if other != d]
        own = cosine(e, centroids[d])
        scores.append(alpha * own + (1 - alpha) / len(others) * sum(others) if others else own)
    return scores


def test_centroids():
    embeddings, domain, label = samples(CELLS)
    prototypes = compute_prototypes(embeddings, domain, label, DOMAINS, LABELS)
    assert prototypes.centroids.shape == (DOMAINS, LABELS, WIDTH)
    assert prototypes.centroids.dtype == np.float32
    assert prototypes.counts.tolist() == [[3, 2], [1, 4], [2, 0]]
    for d in range(DOMAINS):
        for y in range(LABELS):
            members = [e for e, m, n in zip(embeddings, domain, label) if (m, n) == (d, y)]
            expected = np.mean(members, axis=0) if members else np.zeros(WIDTH)
            np.testing.assert_allclose(prototypes.centroids[d, y], expected, rtol=0, atol=1e-6)


ONE_DOMAIN = [(0, 0)] * 3 + [(0, 1)] * 2
LABEL_IN_ONE_DOMAIN = [(0, 0)] * 2 + [(1, 0)] * 3 + [(1, 1)] * 2 + [(2, 0)] * 3


@pytest.mark.parametrize("alpha", [0.5, 0.8, 0.0, 1.0])
@pytest.mark.parametrize("cells", [CELLS, ONE_DOMAIN, LABEL_IN_ONE_DOMAIN], ids=["missing cell", "one domain", "lone label"])
def test_scores(cells, alpha):
    """A label that only one domain has, and one domain alone, take the own cosine whole (a = 1)."""
    embeddings, domain, label = samples(cells)
    prototypes = compute_prototypes(embeddings, domain, label, DOMAINS, LABELS)
    scores = prototypical_scores(embeddings, domain, label, prototypes, alpha)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, reference_scores(embeddings, domain, label, alpha), rtol=0, atol=1e-6)
    assert np.abs(scores).max() <= 1


def test_scores_of_directions_that_can_be_read_off():
    """Own prototype at 0 degrees, the others at 60 and 180: 0.5 * 1 + 0.5 / 2 * (0.5 - 1)."""
    centroids = np.zeros((3, 1, 2), np.float32)
    centroids[:, 0] = [[2, 0], [0.5, 0.5 * math.sqrt(3)], [-7, 0]]
    prototypes = Prototypes(centroids, np.ones((3, 1), np.int64))
    score = prototypical_scores(np.array([[3.0, 0.0]], np.float32), [0], [0], prototypes)
    np.testing.assert_allclose(score, [0.375], rtol=0, atol=1e-6)


def test_scores_do_not_depend_on_the_order_of_the_samples():
    embeddings, domain, label = samples(CELLS)
    order = np.random.RandomState(2).permutation(len(CELLS))
    straight = prototypical_scores(embeddings, domain, label, compute_prototypes(embeddings, domain, label, DOMAINS, LABELS))
    shuffled = [part[order] for part in (embeddings, domain, label)]
    other = prototypical_scores(*shuffled, compute_prototypes(*shuffled, DOMAINS, LABELS))
    np.testing.assert_allclose(other, straight[order], rtol=0, atol=1e-6)


def test_a_representation_of_zeros_scores_zero():
    embeddings, domain, label = samples(CELLS)
    embeddings[0] = 0
    scores = prototypical_scores(embeddings, domain, label, compute_prototypes(embeddings, domain, label, DOMAINS, LABELS))
    assert scores[0] == 0
    assert np.isfinite(scores).all()


def test_a_domain_without_prototypes_is_compared_with_the_others():
    """Its score is the mean cosine with the other domains' prototypes of the label; the scores of the others do not depend on it."""
    embeddings, domain, label = samples(CELLS)
    used = domain != 1
    prototypes = compute_prototypes(embeddings[used], domain[used], label[used], DOMAINS, LABELS)
    scores = prototypical_scores(embeddings, domain, label, prototypes)
    np.testing.assert_array_equal(scores[used], prototypical_scores(embeddings[used], domain[used], label[used], prototypes))
    for row in np.flatnonzero(~used):
        others = [d for d in range(DOMAINS) if d != 1 and prototypes.counts[d, label[row]]]
        vectors = [prototypes.centroids[d, label[row]].astype(float) for d in others]
        e = embeddings[row].astype(float)
        expected = np.mean([e @ v / np.linalg.norm(e) / np.linalg.norm(v) for v in vectors])
        assert scores[row] == pytest.approx(expected, abs=1e-6)


# Statistics and the file


def test_statistics_and_file(tmp_path):
    embeddings, domain, label = samples(CELLS)
    prototypes = compute_prototypes(embeddings, domain, label, 4, LABELS)  # a fourth domain without samples
    scores = prototypical_scores(embeddings, domain, label, prototypes)
    task = Task("t", ("books", "dvd", "kitchen", "none"), ("0", "1"))
    statistics = score_statistics(scores, domain, task.domains)
    assert list(statistics) == ["books", "dvd", "kitchen"]
    own = [float(s) for s, d in zip(scores, domain) if d == 1]
    mean = sum(own) / 5
    expected = {"count": 5, "mean": mean, "min": min(own), "max": max(own)}
    expected["std"] = math.sqrt(sum((s - mean) ** 2 for s in own) / 5)
    assert statistics["dvd"] == pytest.approx(expected, abs=1e-7)

    path = write_prototypes(str(tmp_path), prototypes, statistics, task)
    with np.load(path, allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["centroids"], prototypes.centroids)
        np.testing.assert_array_equal(stored["counts"], prototypes.counts)
        assert tuple(stored["domains"]) == task.domains
        assert tuple(stored["labels"]) == task.labels
        columns = list(stored["score_columns"])
        assert stored["score_statistics"].shape == (4, len(columns))
        assert dict(zip(columns, stored["score_statistics"][1])) == pytest.approx(expected, abs=1e-7)
        assert not stored["score_statistics"][3].any()


def test_negative_scores_become_zero_and_are_counted():
    lines = []
    scores = np.array([0.5, -0.005, 0.0, -0.25], np.float32)
    found = non_negative(scores, lines.append)
    assert (found.tolist(), found.dtype) == ([0.5, 0.0, 0.0, 0.0], np.float32)
    assert lines == ["2 of 4 prototypical scores are below 0 (the lowest is -0.2500) and become 0"]
    assert non_negative(found, lines.append) is found
    assert len(lines) == 1
