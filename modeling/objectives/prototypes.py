"""Prototypes and prototypical scores (MFT, section 3.1), in NumPy."""

import os
from typing import NamedTuple

import numpy as np

from ofrecord_util.files import replacing


class Prototypes(NamedTuple):
    """Class centroids of each domain."""

    centroids: np.ndarray  # float32 [K, C, H]: c[d, y], zeros where domain d has no training sample of label y
    counts: np.ndarray  # int64 [K, C]


def compute_prototypes(embeddings, domain, label, num_domains, num_labels):
    """c[d, y] = mean of e(x) over the training samples of domain d and label y.

    Args:
        embeddings: e(x), float [N, H].
        domain, label: int [N].
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
    """t(x) = a cos(e, c[d, y]) + (1 - a) / (K - 1) * sum over d' != d of cos(e, c[d', y]).

    K counts the domains that have label y; where that is one domain, a = 1.

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
    others = present.sum(axis=0) - 1
    others_mean = (cosines.sum(axis=0) - own_cosine) / np.maximum(others, 1)
    scores = np.where(others > 0, alpha * own_cosine + (1.0 - alpha) * others_mean, own_cosine)
    return scores.astype(np.float32)


def score_statistics(scores, domain, domain_names):
    """dict of domain name -> {count, mean, std, min, max} of the scores, for logs and prototypes.npz."""
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


def corrupted_domains(domain, num_domains, seed, step):
    """z: for each sample a domain drawn uniformly from the *other* domains; a pure function of (seed, step).

    Args:
        domain: true domains, int [B].
    Returns:
        int32 [B]; the true domain itself where there is only one.
    """
    domain = np.asarray(domain, np.int64)
    if num_domains < 2:
        return domain.astype(np.int32)
    generator = np.random.default_rng([seed, 0xC0, step])
    return ((domain + generator.integers(1, num_domains, size=len(domain))) % num_domains).astype(np.int32)


def other_domains(domain, num_domains):
    """All that `corrupted_domains` may draw for each sample: int32 [B, K - 1]; the true domain, [B, 1], where it is the only one."""
    domain = np.asarray(domain, np.int64)[:, None]
    if num_domains < 2:
        return domain.astype(np.int32)
    return ((domain + np.arange(1, num_domains)) % num_domains).astype(np.int32)


def write_prototypes(folder, prototypes, statistics, task):
    """Writes FOLDER/prototypes.npz: centroids, counts, names of domains and labels, score statistics [domains, 5]; returns its path."""
    path = os.path.join(folder, "prototypes.npz")
    columns = ("count", "mean", "std", "min", "max")
    table = [[statistics.get(name, {}).get(column, 0) for column in columns] for name in task.domains]
    with replacing(path) as f:
        np.savez(
            f,
            centroids=prototypes.centroids,
            counts=prototypes.counts,
            domains=np.array(task.domains),
            labels=np.array(task.labels),
            score_statistics=np.array(table, np.float64),
            score_columns=np.array(columns),
        )
    return path
