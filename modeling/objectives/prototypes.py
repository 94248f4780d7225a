"""Prototypes and prototypical scores (MFT, section 3.1), in NumPy."""

import os
from typing import NamedTuple

import numpy as np

from ofrecord_util.escaping import say
from ofrecord_util.files import replacing, write_npz


class Prototypes(NamedTuple):
    """The centroids of the classes in each domain, computed from the training split."""

    centroids: np.ndarray  # float32 [K, C, H]: c[d, y]; zeros if domain d has no training sample of label y
    counts: np.ndarray  # int64 [K, C], training samples


def compute_prototypes(embeddings, domain, label, num_domains, num_labels):
    """Computes the prototypes: c[d, y] = mean of e(x) over the training samples of domain d and label y.

    Args:
        embeddings: e(x), float [N, H].
        domain, label: int [N].
        num_domains, num_labels: K and C.
    Returns:
        `Prototypes`.
    """
    cell = np.asarray(domain, np.int64) * num_labels + np.asarray(label, np.int64)
    cells = num_domains * num_labels
    sums = np.zeros((cells, embeddings.shape[1]), np.float64)
    np.add.at(sums, cell, embeddings.astype(np.float64))
    counts = np.bincount(cell, minlength=cells)
    centroids = sums / np.maximum(counts, 1)[:, None]
    return Prototypes(centroids.reshape(num_domains, num_labels, -1).astype(np.float32), counts.reshape(num_domains, num_labels))


def _unit(vectors):
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def prototypical_scores(embeddings, domain, label, prototypes, alpha=0.5):
    """Prototypical scores, t(x) = a cos(e, c[d, y]) + (1 - a) / (K - 1) * sum over d' != d of cos(e, c[d', y]).

    K counts the domains that have label y; if there is only one, a = 1. A domain that has no prototype of label y, because it is held
    out, has a = 0: its samples are compared with the other domains.

    Args:
        embeddings: e(x), float [N, H].
        domain, label: int [N].
        prototypes: `Prototypes` of the training split.
        alpha: a, the weight of the sample's own domain.
    Returns:
        float32 [N], each in [-1, 1].
    """
    own, truth = np.asarray(domain, np.int64), np.asarray(label, np.int64)
    directions = _unit(prototypes.centroids.astype(np.float64))[:, truth]  # [K, N, H]
    cosines = np.einsum("knh,nh->kn", directions, _unit(embeddings.astype(np.float64)))  # [K, N]
    present = prototypes.counts[:, truth] > 0  # [K, N]
    cosines = np.where(present, cosines, 0.0)
    rows = np.arange(len(own))
    own_cosine = cosines[own, rows]
    has_own = present[own, rows]
    others = present.sum(axis=0) - has_own
    others_mean = (cosines.sum(axis=0) - own_cosine) / np.maximum(others, 1)
    scores = np.where(others > 0, alpha * own_cosine + (1.0 - alpha) * others_mean, own_cosine)
    scores = np.where(has_own, scores, others_mean)
    return scores.astype(np.float32)


def non_negative(scores, log=say):
    """Scores that weight a loss: negative ones become 0, because a negative weight would train a sample away from its label.

    Args:
        scores: float32 [N].
        log: called with one line if there are negative scores.
    Returns:
        float32 [N].
    """
    negative = scores < 0
    if not negative.any():
        return scores
    log(f"{np.count_nonzero(negative)} of {len(scores)} prototypical scores are below 0 (the lowest is {scores.min():.4f}) and become 0")
    return np.where(negative, np.float32(0), scores)


def score_statistics(scores, domain, domain_names):
    """Statistics of the scores per domain, for logs and prototypes.npz.

    Args:
        scores: float [N].
        domain: int [N].
        domain_names: K names.
    Returns:
        dict of domain name -> {count, mean, std, min, max}; domains without samples are left out.
    """
    result = {}
    for index, name in enumerate(domain_names):
        part = np.asarray(scores, np.float64)[np.asarray(domain) == index]
        if len(part):
            result[name] = {
                "count": len(part),
                "mean": float(part.mean()),
                "std": float(part.std()),
                "min": float(part.min()),
                "max": float(part.max()),
            }
    return result


def write_prototypes(folder, prototypes, statistics, task):
    """Writes FOLDER/prototypes.npz: centroids, counts, names of domains and labels, and the score statistics [K, 5].

    Args:
        folder: an existing folder.
        prototypes: `Prototypes`.
        statistics: of `score_statistics`.
        task: the `Task`, for the names of domains and labels.
    Returns:
        the path of the file.
    """
    path = os.path.join(folder, "prototypes.npz")
    columns = ("count", "mean", "std", "min", "max")
    table = [[statistics.get(name, {}).get(column, 0) for column in columns] for name in task.domains]
    with replacing(path) as f:
        arrays = {
            "centroids": prototypes.centroids,
            "counts": prototypes.counts,
            "domains": np.array(task.domains),
            "labels": np.array(task.labels),
            "score_statistics": np.array(table, np.float64),
            "score_columns": np.array(columns),
        }
        write_npz(f, arrays)
    return path
