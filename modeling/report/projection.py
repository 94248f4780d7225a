"""The plane of the first two principal components of some vectors, in NumPy."""

from typing import NamedTuple

import numpy as np

_ROWS_AT_ONCE = 4096


class Projection(NamedTuple):
    """A plane through the mean of N vectors of H numbers."""

    mean: np.ndarray  # float64 [H]
    axes: np.ndarray  # float64 [2, H], orthogonal unit vectors; zeros for an axis along which the vectors do not vary
    explained: np.ndarray  # float64 [2], share of the variance along each axis, in [0, 1]

    def apply(self, vectors):
        """Coordinates in the plane, float32 [..., 2], of vectors [..., H]."""
        return ((vectors - self.mean) @ self.axes.T).astype(np.float32)


def principal_plane(vectors):
    """The `Projection` on the first two principal components.

    The singular vectors of the covariance [H, H] equal the right singular vectors of the centred vectors [N, H]. The covariance is summed
    over a few thousand rows at a time, so that millions of rows need little more memory than their float32 array.

    Args:
        vectors: float [N, H], N >= 1, finite.
    """
    count, width = vectors.shape
    mean = np.mean(vectors, axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for start in range(0, count, _ROWS_AT_ONCE):
        centred = vectors[start : start + _ROWS_AT_ONCE] - mean
        covariance += centred.T @ centred
    directions, variances = np.linalg.svd(covariance / count)[:2]
    axes, explained = np.zeros((2, width)), np.zeros(2)
    # A variance below rounding error does not define a direction. The sign of an axis is arbitrary: its largest component becomes positive
    for place in range(min(2, width)):
        if variances[place] > 1e-12 * max(variances[0], np.finfo(np.float64).tiny):
            axis = directions[:, place]
            axes[place] = axis * np.sign(axis[np.abs(axis).argmax()])
            explained[place] = variances[place] / variances.sum()
    return Projection(mean, axes, explained)
