"""A DICOM series and the NIfTI file made of it show a model the same planes, and each is written on
its own grid."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch

from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import head
from pseudohealthy.errors import Fault
from pseudohealthy.io import dicom_write
from pseudohealthy.io.orientation import turn_to
from pseudohealthy.io.turn import acquired
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers.apply import How, Stack, apply
from pseudohealthy.restorers.base import Restoration, Restorer

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# (direction along a row, down a column, from slice to slice), LPS
SAGITTAL = ((0, 1, 0), (0, 0, -1), (-1, 0, 0))


class Twin(Restorer):
    """The image with a little of its noise."""

    name = "twin"

    def restore(self, images, draw):
        return Restoration(healthy=images + 0.1 * draw.noise(images))


WAYS = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "axial, face down": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "sagittal": SAGITTAL,
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


def axes_of(row, column, step, spacing=(2.0, 0.5, 0.75), first=(-10.0, -20.0, -30.0)) -> np.ndarray:
    """Index (slice, row, column) -> RAS+ mm, as the standard has it (C.7.6.2.1.1)."""
    affine = np.eye(4)
    for axis, (way, size) in enumerate(zip((step, column, row), spacing, strict=True)):
        affine[:3, axis] = np.multiply(way, size)
    affine[:3, 3] = first
    return LPS @ affine


@pytest.fixture(params=WAYS)
def pair(request, tmp_path, write_series, volume):
    """(folder of a series, NIfTI file of the same values, stored values, affine) of one way of
    acquiring."""
    row, column, step = WAYS[request.param]
    write_series(
        tmp_path / "series", volume, orientation=(*row, *column), step=np.multiply(step, 2.0)
    )
    affine = axes_of(row, column, step)
    nib.save(nib.Nifti1Image((volume - 1024).astype(np.float32), affine), tmp_path / "a.nii.gz")
    return tmp_path / "series", tmp_path / "a.nii.gz", volume - 1024, affine


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_series_and_its_nifti_give_the_same_planes(pair, plane):
    first, second = (io.read(path, plane=plane) for path in pair[:2])
    np.testing.assert_array_equal(first.voxels, second.voxels)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-5)
    assert first.spacing == pytest.approx(second.spacing)


def test_results_come_back_in_the_slices_that_were_acquired(pair, tmp_path):
    import pydicom

    folder, _, stored, affine = pair
    scan = io.read(folder)
    image = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "out"))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), stored)
    np.testing.assert_allclose(image.affine[:, [2, 1, 0, 3]], affine, atol=1e-4)
    for write, shown in (
        (dicom_write.write_segmentation, scan.voxels[0] > 500),
        (dicom_write.write_map, scan.voxels[0]),
    ):
        made = pydicom.dcmread(write(shown, scan, tmp_path / f"{write.__name__}.dcm"))
        frames = (
            made.pixel_array if "PixelData" in made else np.frombuffer(made.FloatPixelData, "<f4")
        )
        frames = frames.reshape(stored.shape)
        wanted = stored > 500 if "PixelData" in made else stored
        for frame, groups in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
            at = [float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
            # slice, row and column of the frame's first pixel.
            index = np.linalg.solve(affine, LPS @ [*at, 1])
            np.testing.assert_allclose(index[1:3], 0, atol=1e-4)
            np.testing.assert_array_equal(frame, wanted[round(index[0])])


def test_a_turn_and_its_way_back_are_inverse():
    array = np.random.default_rng(0).random((2, 3, 4, 5))
    for order, signs in itertools.product(
        itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)
    ):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * signs
        turn = turn_to("axial", affine, array.shape[1:])
        there = turn.there(array)
        np.testing.assert_array_equal(turn.back(there), array)
        index = np.array([1, 2, 0, 1])  # of the turned array
        place = (turn.to_stored(array.shape[1:]) @ index)[:3].astype(int)
        assert there[(0, *index[:3] % there.shape[1:])] == array[(0, *place)]


def test_one_slice_stays_the_slice_it_is(tmp_path, write_series, volume):
    row, column, step = SAGITTAL
    write_series(tmp_path, volume[:1], orientation=(*row, *column), step=np.multiply(step, 2.0))
    scan = io.read(tmp_path)
    assert scan.shape == (1, 1, *volume.shape[1:]) and not any("PLANE" in w for w in scan.warnings)


def test_native_is_as_acquired(pair):
    scan = io.read(pair[0], plane="native")
    assert np.array_equal(scan.voxels[0], pair[2]) and acquired(scan.voxels, scan)[1] is scan


def test_a_model_says_the_same_of_a_sagittal_series_and_its_nifti(tmp_path, write_series):
    """Twin, map and score, on grids of their own; and few slices are too small for both."""
    axial, _, _ = head(np.random.default_rng(4), shape=(24, 28, 26))
    # Slices to the right, rows down.
    sagittal = np.round(axial[::-1].transpose(2, 0, 1)[::-1]).astype(np.int16)
    row, column, step = SAGITTAL
    found = {}
    for name, count in (("whole", len(sagittal)), ("thin", 4)):
        write_series(
            tmp_path / name,
            sagittal[:count] + 1024,
            orientation=(*row, *column),
            step=np.multiply(step, 2.0),
        )
        path = tmp_path / f"{name}.nii.gz"
        nib.save(
            nib.Nifti1Image(sagittal[:count].astype(np.float32), axes_of(row, column, step)), path
        )
        found[name] = [tmp_path / name, path]
    canvas = Canvas(size=24, normalise="window", windows=("brain",), foreground="head-ct")
    twins = [Twin(size=24, channels=1)] * 2
    how = How(seed=0, device=torch.device("cpu"))
    scans = [io.read(place) for place in found["whole"]]
    fitted = [canvas.fit(scan) for scan in scans]
    said = [
        apply(twin, AnomalyMap(), [Stack.of(canvas, one)], how)[0]
        for twin, one in zip(twins, fitted, strict=True)
    ]
    assert said[0].score == pytest.approx(said[1].score, abs=1e-3) and said[0].score > 0
    maps = []
    for scan, one, found_here in zip(scans, fitted, said, strict=True):
        native = canvas.undo_map(found_here.maps, one.placement)
        image = nib.load(io.write_volume(native, scan, tmp_path / scan.kind, "map"))
        data = np.asarray(image.dataobj)
        maps.append(data if scan.kind == "nifti" else data.transpose(2, 1, 0))
        assert maps[-1].shape == sagittal.shape
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-3)
    for place in found["thin"]:
        with pytest.raises(Fault, match="TOO_SMALL"):
            io.read(place)
