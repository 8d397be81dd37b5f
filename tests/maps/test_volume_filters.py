"""Clean-up of maps and masks equals scipy and scikit-image done the long way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops

from pseudohealthy.maps import volume_filters

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


@pytest.mark.parametrize("shape", [(9, 20, 24), (1, 30, 30), (4, 8, 8)])
def test_the_median_of_the_box_is_the_median_of_the_volume(shape):
    rng = np.random.default_rng(0)
    volume = np.zeros(shape, np.float32)
    inner = tuple(slice(side // 4, side // 4 + max(1, side // 3)) for side in shape)
    volume[inner] = rng.normal(size=volume[inner].shape)
    assert np.array_equal(
        volume_filters.median(volume), ndimage.median_filter(volume, 5, mode="reflect")
    )
    assert not volume_filters.median(np.zeros(shape)).any()


def test_small_regions_go_and_corners_connect():
    rng = np.random.default_rng(1)
    mask = rng.random((12, 14, 15)) < 0.08
    kept = np.zeros_like(mask)
    for region in regionprops(label(mask, connectivity=3)):
        if region.area_filled >= 7:
            kept[tuple(region.coords.T)] = True
    assert np.array_equal(volume_filters.without_small(mask, 7), kept)
    assert 0 < kept.sum() < mask.sum()


def test_erosion_takes_the_rim_of_every_plane_and_leaves_planes_apart():
    mask = np.zeros((3, 9, 9), bool)
    mask[1, 1:8, 1:8] = True
    eroded = volume_filters.erode(mask, 2)
    assert eroded[1].sum() == 9 and eroded[1, 3:6, 3:6].all() and not eroded[[0, 2]].any()
    assert np.array_equal(volume_filters.erode(mask, 0), mask)
