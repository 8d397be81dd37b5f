"""The matrices that carry planes to the model's grid and back: weights sum to one, areas and
positions are kept."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy.preprocessing import resampling

SIZES = [(10, 10), (10, 32), (32, 10), (7, 23), (23, 7), (240, 128), (1, 16)]


@pytest.mark.parametrize("side, size", SIZES)
def test_a_constant_stays_what_it_is(side, size):
    for matrix, sources in (
        (resampling.forward(side, size), side),
        (resampling.linear(side, size), size),
    ):
        np.testing.assert_allclose(matrix @ np.full(sources, 3.0), 3, rtol=1e-6)
        assert matrix.min() >= 0


@pytest.mark.parametrize("side, size", SIZES)
def test_coverage_keeps_the_area(side, size):
    matrix = resampling.coverage(side, size)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)  # a model pixel is covered once
    # And every native pixel spread whole.
    np.testing.assert_allclose(matrix.sum(axis=0), size / side, rtol=1e-5)


@pytest.mark.parametrize("side, size", [(10, 20), (10, 33), (7, 64)])
def test_what_was_enlarged_twice_comes_back_exactly(side, size):
    values = np.random.default_rng(0).random(side)
    np.testing.assert_allclose(
        resampling.inverse(side, size) @ resampling.forward(side, size) @ values, values, atol=1e-5
    )


@pytest.mark.parametrize("side, size", SIZES)
def test_the_nearest_model_pixel_is_taken_whole(side, size):
    matrix = resampling.nearest(side, size)
    assert (
        matrix.shape == (side, size)
        and set(np.unique(matrix)) <= {0, 1}
        and (matrix.sum(axis=1) == 1).all()
    )
    expected = np.clip(np.rint((np.arange(side) + 0.5) * size / side - 0.5), 0, size - 1)
    np.testing.assert_array_equal(matrix.argmax(axis=1), expected)


@pytest.mark.parametrize("side, size", [(64, 16), (16, 64), (50, 30), (240, 128), (100, 97)])
def test_what_lies_at_a_place_stays_there(side, size):
    """Pixel centres are aligned: a ramp of positions gives the position, within a tenth of a pixel
    and without drift."""
    off = (resampling.forward(side, size) @ np.arange(side) - resampling.centres(side, size))[
        size // 4 : -size // 4
    ]
    assert np.abs(off).max() < 0.1 and abs(off.mean()) < 0.01
