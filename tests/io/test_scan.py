"""A scan knows where its voxels lie, and refuses what cannot be an image."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan, describe_grid, same_grid, usable


def test_spacing_is_the_distance_between_planes_rows_and_columns_and_volume_is_the_determinant():
    sheared = np.array([[0, 0, -0.5, 1], [0.3, -0.5, 0, 2], [5, 0, 0, 3], [0, 0, 0, 1.0]])
    scan = Scan(np.zeros((1, 2, 3, 4), np.float32), sheared, "a", "array")
    assert scan.spacing == pytest.approx((np.hypot(5, 0.3), 0.5, 0.5))
    assert scan.voxel_ml == pytest.approx(5 * 0.5 * 0.5 / 1000)  # shear does not change the volume


def test_without_geometry_there_is_no_spacing():
    scan = Scan.from_array(np.ones((4, 5)))
    assert scan.spacing is None and scan.voxel_ml is None and scan.shape == (1, 1, 4, 5)


@pytest.mark.parametrize(
    "shape, expected", [((4, 5), (1, 1, 4, 5)), ((3, 4, 5), (1, 3, 4, 5)), ((2, 3, 4, 5),) * 2]
)
def test_arrays_and_tensors_become_four_axes(shape, expected):
    import torch

    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    for given in (array, torch.from_numpy(array).requires_grad_()):
        scan = Scan.from_array(given)
        assert scan.shape == expected and scan.voxels.dtype == np.float32
        np.testing.assert_array_equal(scan.voxels.reshape(shape), array)


def test_a_scan_does_not_alias_the_callers_array():
    array = np.zeros((4, 5), np.float32)
    Scan.from_array(array).voxels[...] = 1
    assert not array.any()


def test_few_non_finite_voxels_are_replaced_by_the_lowest_value_and_counted():
    array = np.linspace(-3, 7, 1000).reshape(25, 40)
    array[0, 5], array[3, 3], array[9, 9] = np.nan, np.inf, -np.inf
    scan = Scan.from_array(array)
    assert np.isfinite(scan.voxels).all() and scan.voxels[0, 0, 3, 3] == -3
    assert scan.warnings == ["NONFINITE n=3: replaced by the lowest finite value"]


def test_many_non_finite_voxels_are_refused():
    array = np.ones((10, 10))
    array[0, :2] = np.nan
    with pytest.raises(Fault, match="NONFINITE"):
        Scan.from_array(array)
    with pytest.raises(Fault, match="NONFINITE"):
        Scan.from_array(np.full((10, 10), np.nan))


@pytest.mark.parametrize(
    "array, code",
    [
        (np.zeros(5), "SHAPE"),
        (np.zeros((1, 1, 1, 4, 4)), "SHAPE"),
        (np.zeros((0, 4)), "SHAPE"),
        (np.zeros((4, 4), complex), "DTYPE"),
        (np.full((4, 4), "x"), "DTYPE"),
    ],
)
def test_what_is_no_image_is_refused(array, code):
    with pytest.raises(Fault, match=code):
        Scan.from_array(array)


@pytest.mark.parametrize("affine", [np.eye(3), np.full((4, 4), np.nan), np.zeros((4, 4))])
def test_a_bad_affine_is_refused(affine):
    with pytest.raises(Fault, match="BAD_AFFINE"):
        Scan.from_array(np.ones((4, 4)), affine=affine)


def test_constant_channels_and_thumbnails_are_not_usable():
    image = np.random.default_rng(0).normal(size=(2, 1, 16, 16))
    assert usable(Scan.from_array(image)).shape == (2, 1, 16, 16)
    image[1] = 4
    with pytest.raises(Fault, match=r"CONSTANT_IMAGE.*channel 1"):
        usable(Scan.from_array(image))
    with pytest.raises(Fault, match="TOO_SMALL"):
        usable(Scan.from_array(np.random.default_rng(0).normal(size=(8, 8, 8))))


def test_grids_are_compared_at_their_far_corners():
    affine = np.diag([1.0, 1, 1, 1])
    turned = affine.copy()
    turned[0, 1] = 0.004  # invisible at the first voxel, 0.4 mm at the hundredth
    assert same_grid((1, 2, 2), affine, turned)
    assert not same_grid((1, 101, 2), affine, turned)
    assert describe_grid((2, 3, 4), None) == "2 x 3 x 4 without geometry"
