"""Masks in NIfTI fit their image by place in the world, whatever their labels; channels share a
grid."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest
from nifti_files import SHAPE, oblique, save

from pseudohealthy import io
from pseudohealthy.errors import Fault


def test_n23_masks_are_matched_by_world_position_whatever_their_axis_order(tmp_path, data):
    image = nib.Nifti1Image((data > 120).astype(np.uint8), oblique())
    save(tmp_path / "x.nii", data, oblique())
    for codes in ("RAS", "PIR", "ILA"):
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(oblique()), nib.orientations.axcodes2ornt(codes)
        )
        nib.save(image.as_reoriented(turn), tmp_path / "mask.nii.gz")
        for plane in ("axial", "sagittal", "native"):
            scan = io.read(tmp_path / "x.nii", plane=plane)
            np.testing.assert_array_equal(
                io.read_mask("mask.nii.gz", tmp_path, scan), scan.voxels[0] > 120
            )


def test_n23_masks_on_another_grid_are_refused_with_both_grids(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data, oblique()))
    moved = oblique()
    moved[2, 3] += 2
    for shape, affine in ((SHAPE, moved), ((20, 22, 12), oblique()), (SHAPE, np.eye(4))):
        save(tmp_path / "mask.nii", np.ones(shape, np.uint8), affine)
        with pytest.raises(Fault, match=r"GRID_MISMATCH.*24 x 22 x 20 voxels of .* against"):
            io.read_mask("mask.nii", tmp_path, scan)


def test_n23_a_refused_mask_is_described_as_it_lies_beside_the_image(tmp_path):
    """Of a mask that lacks a slab, only the slab differs, whichever way image and mask are
    stored."""
    affine = np.diag([3.0, 2, 6, 1])
    scan = io.read(
        save(tmp_path / "x.nii", np.random.default_rng(0).random(SHAPE).astype(np.float32), affine)
    )
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:5, 4:7, 5:9] = 1
    lacking = affine.copy()
    lacking[0, 3] = 6  # two of its first axis
    turned = lacking[:, [2, 0, 1, 3]]
    seen = []
    for values, where in ((mask[2:], lacking), (mask[2:].transpose(2, 0, 1), turned)):
        save(tmp_path / "mask.nii", values, where)
        with pytest.raises(Fault, match="GRID_MISMATCH") as caught:
            io.read_mask("mask.nii", tmp_path, scan)
        seen.append(caught.value.message)
    assert seen[0] == seen[1]
    image, beside = re.findall(r"(\d+) x (\d+) x (\d+) voxels of (\S+ x \S+ x \S+) mm", seen[0])
    assert (
        image[3] == beside[3]
        and sum(a != b for a, b in zip(image[:3], beside[:3], strict=True)) == 1
    )
    mask[0, 0, 0] = 1
    save(tmp_path / "mask.nii", np.pad(mask, 1), affine + np.outer([3, 2, 6, 0], [0, 0, 0, -1]))
    io.read_mask("mask.nii", tmp_path, scan, resample=True)
    assert any("changed by +0 %" in text for text in scan.warnings), "never -0"


def test_n23_on_request_a_mask_of_another_grid_is_read_at_the_nearest_voxel(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data, oblique()))
    # Its voxel (i, j, k) has its middle at (2i, 2j, 2k) of the scan.
    coarse = oblique() @ np.diag([2, 2, 2, 1])
    small = np.zeros(tuple(n // 2 for n in SHAPE), np.uint8)
    small[3:5, 4:7, 2] = 1
    save(tmp_path / "mask.nii", small, coarse)
    found = io.read_mask("mask.nii", tmp_path, scan, resample=True)
    voxels = np.argwhere(found)
    places = np.round(
        np.linalg.solve(coarse, scan.affine @ np.c_[voxels, np.ones(len(voxels))].T)[:3].T, 3
    )
    for place in np.argwhere(small):
        near = np.abs(places - place).max(axis=1)
        assert (near < 0.01).sum() == 1, "the middle of every marked voxel is marked"
    assert np.abs(places[:, None] - np.argwhere(small)[None]).max(-1).min(1).max() <= 0.5, (
        "and nothing farther away"
    )
    assert any("MASK_RESAMPLED" in w and "changed by" in w for w in scan.warnings)
    far = oblique()
    far[:3, 3] += 10_000
    save(tmp_path / "mask.nii", small, far)
    with pytest.raises(Fault, match="GRID_MISMATCH"):  # nothing of the lesion would be left
        io.read_mask("mask.nii", tmp_path, scan, resample=True)


@pytest.mark.parametrize("high", [1, 255, 0.999, 4])
def test_n24_a_mask_with_one_value_beside_0_is_binary(tmp_path, data, high):
    scan = io.read(save(tmp_path / "x.nii", data))
    save(tmp_path / "m.nii", np.where(data > 120, np.float32(high), 0).astype(np.float32))
    np.testing.assert_array_equal(io.read_mask("m.nii", tmp_path, scan), scan.voxels[0] > 120)
    assert not any("MASK" in w for w in scan.warnings)


def test_n24_labels_count_together_except_the_ignored_and_unknown_values_are_listed(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data))
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5], labels[6:8], labels[9:10] = 1, 2, 4
    save(tmp_path / "m.nii", labels)
    assert io.read_mask("m.nii", tmp_path, scan).sum() == (labels > 0).sum()
    assert io.read_mask("m.nii", tmp_path, scan, ignore=[2]).sum() == np.isin(labels, [1, 4]).sum()
    assert any("MASK_LABELS 0, 1, 2, 4" in w for w in scan.warnings)
    for bad in (data / data.max(), np.where(labels > 1, -1.0, 0)):
        save(tmp_path / "bad.nii", bad.astype(np.float32))
        with pytest.raises(Fault, match="MASK_VALUES"):
            io.read_mask("bad.nii", tmp_path, scan)
    save(tmp_path / "empty.nii", np.zeros(SHAPE, np.uint8))
    assert not io.read_mask("empty.nii", tmp_path, scan).any()


def test_channels_of_a_manifest_cell_are_stacked_and_must_share_a_grid(tmp_path, data):
    save(tmp_path / "a.nii", data)
    save(tmp_path / "b.nii", 2 * data)
    scan = io.read_image("a.nii|b.nii", tmp_path)
    assert scan.shape[0] == 2
    np.testing.assert_array_equal(scan.voxels[1], 2 * scan.voxels[0])
    save(tmp_path / "c.nii", data, np.eye(4))
    with pytest.raises(Fault, match="GRID_MISMATCH"):
        io.read_image("a.nii|c.nii", tmp_path)
