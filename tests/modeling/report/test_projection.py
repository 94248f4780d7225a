"""modeling/report/projection.py against the singular vectors of the centred matrix."""

import numpy as np
import pytest

from modeling.report.projection import principal_plane


@pytest.mark.parametrize(("count", "width"), [(23, 7), (5, 11), (4099, 3)])
def test_against_the_centred_matrix(count, width):
    draw = np.random.RandomState(count)
    vectors = (draw.randn(count, width) * np.arange(1, width + 1) + 5).astype(np.float32)
    plane = principal_plane(vectors)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    for axis in (0, 1):
        assert abs(plane.axes[axis] @ directions[axis]) == pytest.approx(1)
        assert plane.axes[axis][np.abs(plane.axes[axis]).argmax()] > 0
    assert plane.explained == pytest.approx((singular**2 / (singular**2).sum())[:2])
    coordinates = plane.apply(vectors)
    assert coordinates.dtype == np.float32
    assert coordinates.shape == (count, 2)
    assert coordinates == pytest.approx(centred @ plane.axes.T, abs=1e-4)


def test_a_mean_lies_where_the_means_of_the_coordinates_lie():
    vectors = np.random.RandomState(1).randn(13, 6).astype(np.float32)
    plane = principal_plane(vectors)
    assert plane.apply(vectors[3:8].mean(axis=0)) == pytest.approx(plane.apply(vectors)[3:8].mean(axis=0), abs=1e-6)


@pytest.mark.parametrize("vectors", [np.ones((4, 5)), np.ones((1, 5)), np.outer(np.arange(4.0), np.ones(3)), np.arange(3.0)[:, None]])
def test_fewer_directions_than_two(vectors):
    plane = principal_plane(vectors.astype(np.float32))
    assert np.isfinite(plane.apply(vectors)).all()
    assert plane.explained[1] == 0
    assert not plane.axes[1].any()
    assert plane.explained[0] == pytest.approx(0 if (vectors == vectors[0]).all() else 1)
