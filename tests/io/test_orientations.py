"""A lesion whose place in the patient is known is found there in the outputs, however the volume is
stored."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from pseudohealthy import io
from pseudohealthy.detection.finding import Finding

WAYS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("order, signs", WAYS)
def test_a_lesion_is_where_it_was_in_all_48_orientations(tmp_path, order, signs):
    shape, spacing = (12, 14, 16), (1.0, 1.5, 2.0)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    affine[:3, 3] = (7, -11, 3)
    rng = np.random.default_rng(0)
    stored = rng.random(shape).astype(np.float32)
    stored[2:5, 9:11, 4:5] = 5
    truth = (affine @ (3, 9.5, 4, 1))[:3]
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "in.nii.gz")
    scan = io.read(tmp_path / "in.nii.gz")
    found = Finding(
        scan,
        scan.voxels,
        scan.voxels[0],
        np.ones(scan.shape[1:], bool),
        1.0,
        np.ones(scan.shape[1]),
        2.0,
        "given",
    )
    paths = found.save(tmp_path / "out", ["nifti"])
    image = nib.load(paths["anomaly_mask"])
    voxels = np.argwhere(np.asarray(image.dataobj))
    assert len(voxels) == 6
    assert np.allclose(nib.affines.apply_affine(image.affine, voxels).mean(0), truth)
    assert np.linalg.norm(found.regions[0]["peak_mm"] - truth) < 2.5
