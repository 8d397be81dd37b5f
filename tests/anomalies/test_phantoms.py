"""Phantoms: equation 1 of the splotch experiment, heads with lesions, and files that read back as
they were meant."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from pseudohealthy.anomalies import phantoms
from pseudohealthy.anomalies.phantoms import Stored, dicom_series, digits, head, nifti, splotch


def draws(count: int = 4000) -> np.ndarray:
    rng, image = np.random.default_rng(0), np.zeros((28, 28))
    return np.stack([splotch(image, rng)[1] for _ in range(count)])


def test_a_splotch_covers_the_digit_with_white_and_leaves_the_rest():
    rng = np.random.default_rng(1)
    image = rng.random((28, 28)).astype(np.float32)
    corrupted, mask = splotch(image, rng)
    assert mask.dtype == bool and mask.any()
    assert (corrupted[mask] == 1).all() and np.array_equal(corrupted[~mask], image[~mask])


def test_the_splotch_is_equation_one():
    """Replayed from the same draws with the formula written out pixel by pixel."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cx, cy = rng.integers(6, 22, size=2, endpoint=True)
        r = rng.integers(2, 5, endpoint=True)
        n = rng.integers(3, 7, endpoint=True)
        dx, dy = rng.integers(-(r // 2), r // 2, size=(2, n), endpoint=True)
        ri = rng.integers(r // 2, r, size=n, endpoint=True)
        expected = [
            [
                any(np.hypot(x - cx - dx[i], y - cy - dy[i]) <= ri[i] for i in range(n))
                for x in range(28)
            ]
            for y in range(28)
        ]
        assert np.array_equal(splotch(np.zeros((28, 28)), np.random.default_rng(seed))[1], expected)


def test_the_ranges_include_both_ends():
    """Reach of the union: centre 6..22, offset up to 2, radius up to 5: pixels -1..29, so the
    border is touched."""
    masks = draws()
    assert (
        masks[:, 0].any() and masks[:, 27].any() and masks[:, :, 0].any() and masks[:, :, 27].any()
    )
    assert masks.sum(axis=(1, 2)).min() >= 5  # a whole disc of radius 1 always fits
    rows = masks.any(axis=2).sum(axis=1)
    assert rows.max() == 15  # 2 * (5 + [5/2]) + 1
    centre = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
    assert np.abs(centre.mean(axis=0) - 14).max() < 0.3


def test_the_scale_draws_the_same_figure_larger():
    small, large = (
        splotch(np.zeros((28 * k, 28 * k)), np.random.default_rng(5), scale=k)[1] for k in (1, 4)
    )
    blocks = large.reshape(28, 4, 28, 4).mean(axis=(1, 3))
    assert abs(large.sum() / 16 / small.sum() - 1) < 0.25 and blocks[small].mean() > 0.8


def test_digits_come_enlarged():
    large = zoom(load_digits().images / 16.0, (1, 4, 4), order=1, mode="nearest", grid_mode=True)
    images = digits()
    assert images.shape == (1797, 32, 32) and images.dtype == np.float32
    np.testing.assert_array_equal(images, np.clip(large, 0, 1).astype(np.float32))


def test_the_digits_are_the_file_that_their_note_lists():
    sheet = Path(phantoms.__file__).with_name("digits.png")
    note = sheet.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{hashlib.sha256(sheet.read_bytes()).hexdigest()}  digits.png" in note
    assert "Attribution 4.0" in note and "10.24432/C50P49" in note


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_head_with_a_lesion(modality):
    volume, lesion, affine = head(np.random.default_rng(0), lesion=0.2, modality=modality)
    healthy, none, _ = head(np.random.default_rng(0), modality=modality)
    assert volume.shape == lesion.shape == (24, 96, 96) and volume.dtype == np.float32
    assert lesion.any() and not none.any()
    tissue = healthy[12][healthy[12] > healthy.min()]
    assert volume[lesion].mean() > np.median(tissue)
    assert affine[2, 0] > 0 and affine[1, 1] < 0 and affine[0, 2] < 0  # Superior, Posterior, Left
    assert not np.array_equal(head(np.random.default_rng(1))[0], head(np.random.default_rng(2))[0])


def test_a_nifti_keeps_every_voxel_where_it_was(tmp_path):
    volume, _, affine = head(np.random.default_rng(0), shape=(6, 20, 24))
    image = nib.load(nifti(tmp_path / "head.nii.gz", volume, affine))
    assert image.shape == (24, 20, 6)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    index = np.array([2, 5, 7, 1])
    np.testing.assert_allclose(image.affine @ index[[2, 1, 0, 3]], affine @ index, atol=1e-4)
    assert image.get_fdata()[7, 5, 2] == volume[2, 5, 7]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"signed": False, "slope": 0.5},
        {"slope": [1, 2, 1, 0.5]},
        {"slope": None, "intercept": None},
        {"monochrome1": True},
    ],
)
def test_a_series_reads_back_in_its_units(tmp_path, options):
    volume = np.random.default_rng(0).integers(-900, 1500, (4, 12, 16)).astype(np.float32)
    paths = dicom_series(tmp_path, volume, spacing=(5, 0.5, 0.75), stored=Stored(**options))
    sets = [pydicom.dcmread(path) for path in paths]
    assert [data.ImagePositionPatient[2] for data in sets] == [0, 5, 10, 15]
    for data, plane in zip(sets, volume, strict=True):
        slope = float(data.get("RescaleSlope", 1))
        values = data.pixel_array * slope + float(data.get("RescaleIntercept", 0))
        np.testing.assert_allclose(values, plane, atol=slope / 2)
    assert sets[0].PixelSpacing == [0.5, 0.75] and len({data.SOPInstanceUID for data in sets}) == 4
    assert [data.InstanceNumber for data in sets] != sorted(data.InstanceNumber for data in sets)


def test_the_tilt_turns_planes_and_leaves_the_table(tmp_path):
    sets = [
        pydicom.dcmread(path) for path in dicom_series(tmp_path, np.zeros((3, 10, 10)), tilt=20)
    ]
    row, column = np.array(sets[0].ImageOrientationPatient, float).reshape(2, 3)
    step = np.subtract(sets[1].ImagePositionPatient, sets[0].ImagePositionPatient)
    angle = np.rad2deg(np.arccos(np.cross(row, column) @ step / np.linalg.norm(step)))
    assert angle == pytest.approx(20, abs=1e-3)
