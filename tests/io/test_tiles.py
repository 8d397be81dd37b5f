"""All channels of a plane in one picture: in reading order, nothing lost."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy.io.tiles import tiled


@pytest.mark.parametrize(
    "count, shape", [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2)), (5, (2, 3))]
)
def test_every_channel_has_its_place(count, shape):
    plane = np.random.default_rng(0).random((count, 4, 6))
    picture = tiled(plane)
    assert picture.shape == (4 * shape[0], 6 * shape[1])
    for number, channel in enumerate(plane):
        row, column = divmod(number, shape[1])
        assert np.array_equal(picture[4 * row : 4 * row + 4, 6 * column : 6 * column + 6], channel)
    if count == 3:
        assert (picture[4:, 6:] == plane.min()).all()
