"""Findings as other readers see them: dcmqi, by which 3D Slicer opens segmentations and parametric
maps, and dcmtk; and series as dcm2niix sees them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from multiframe import enhanced
from outside import dciodvfy, executable, needs
from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import dicom_series
from pseudohealthy.io import dicom_write
from pseudohealthy.io.scan import Scan


def dcmqi(program: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What dcmqi makes of an object: (planes, rows, columns) and its affine (plane, row, column ->
    RAS+ mm)."""
    folder = path.with_suffix("")
    folder.mkdir()
    command = [
        str(executable(program)),
        "--inputDICOM",
        str(path),
        "--outputDirectory",
        str(folder),
        "-t",
        "nifti",
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    images = list(folder.glob("*.nii.gz"))
    assert said.returncode == 0 and len(images) == 1, said.stdout + said.stderr
    image = nib.load(images[0])
    affine = image.affine[:, [2, 1, 0, 3]]
    return np.asarray(image.dataobj).transpose(2, 1, 0), affine


HEADS = {
    "CT": {},
    "CT, from above": {"step": (0.0, 0, -2.0)},
    "CT, thick slices that overlap": {"SliceThickness": 5},
    "CT, thin slices apart": {"SliceThickness": 0.6},
    "MR": {"modality": "MR", "signed": False, "intercept": None},
    "MR, coronal": {
        "modality": "MR",
        "orientation": (1.0, 0, 0, 0, 0, -1.0),
        "step": (0.0, 2.0, 0),
    },
    "MR, sagittal": {
        "modality": "MR",
        "orientation": (0.0, 1.0, 0, 0, 0, -1.0),
        "step": (2.0, 0, 0),
    },
    "MR, turned": {"modality": "MR", "orientation": (0.8, 0.6, 0, -0.6, 0.8, 0)},
    "MR, rounded": {"modality": "MR", "orientation": (0.996, 0.087, 0, -0.087, 0.996, 0)},
    "a slice": {"step": (0.0, 0, 2.0), "planes": 1, "SliceThickness": 2},
}


def series(name, tmp_path, write_series, volume) -> Scan:
    more = dict(HEADS[name])
    write_series(tmp_path / "in", volume[: more.pop("planes", 10)], **more)
    return io.read(tmp_path / "in", plane="native")


@pytest.fixture(params=[*HEADS, "an image of many frames", "frames in any order"])
def scan(request, tmp_path, write_series, volume):
    if request.param in HEADS:
        return series(request.param, tmp_path, write_series, volume)
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7] if request.param.startswith("frames") else None
    return io.read(enhanced(tmp_path / "in", volume, order=order), plane="native")


@needs("paramap2itkimage")
def test_dcmqi_reads_every_value_of_a_map_where_it_is(scan, tmp_path):
    values = scan.voxels[0] / 1000
    read, affine = dcmqi(
        "paramap2itkimage", dicom_write.write_map(values, scan, tmp_path / "map.dcm")
    )
    np.testing.assert_array_equal(read, values.astype(np.float32))
    several = slice(int(len(values) == 1), 4)  # of one plane it takes 1 mm for the way to the next
    np.testing.assert_allclose(affine[:, several], scan.affine[:, several], atol=2e-3)


@needs("segimage2itkimage")
def test_dcmqi_reads_every_voxel_of_a_mask_where_it_is(scan, tmp_path):
    """Empty planes are not among the frames: the planes that are must come back where they were."""
    mask = scan.voxels[0] > 900
    mask[::3] = len(mask) == 1
    read, affine = dcmqi(
        "segimage2itkimage", dicom_write.write_segmentation(mask, scan, tmp_path / "seg.dcm")
    )
    assert np.count_nonzero(read) == np.count_nonzero(mask)
    index = (
        np.linalg.inv(scan.affine)
        @ affine
        @ np.c_[np.argwhere(read), np.ones(np.count_nonzero(read))].T
    )
    np.testing.assert_allclose(index[:3], np.argwhere(mask).T, atol=0.02)


@needs("paramap2itkimage")
def test_dcmqi_reads_the_values_of_a_tilted_map(tmp_path):
    dicom_series(tmp_path / "in", np.random.default_rng(0).random((6, 16, 20)) * 900, tilt=15.0)
    scan = io.read(tmp_path / "in", plane="native")
    values = scan.voxels[0] / 1000
    read, _ = dcmqi("paramap2itkimage", dicom_write.write_map(values, scan, tmp_path / "map.dcm"))
    np.testing.assert_array_equal(read, values.astype(np.float32))


@needs("dcm2niix")
@pytest.mark.parametrize("name", HEADS)
def test_dcm2niix_sees_the_same_values_at_the_same_places(tmp_path, write_series, volume, name):
    """Both turned so that their axes run to the right, to the front and up. Of multi-frame images
    dcm2niix takes the order of the frames and the thickness where these headers say positions, so
    none is asked here."""
    scan = series(name, tmp_path, write_series, volume)
    folder = tmp_path / "converted"
    folder.mkdir()
    line = [
        str(executable("dcm2niix")),
        "-b",
        "n",
        "-z",
        "n",
        "-f",
        "it",
        "-o",
        str(folder),
        str(tmp_path / "in"),
    ]
    said = subprocess.run(line, capture_output=True, text=True, timeout=60)
    images = list(folder.glob("*.nii"))
    assert said.returncode == 0 and len(images) == 1, said.stdout + said.stderr
    theirs = nib.as_closest_canonical(nib.load(images[0]))
    ours = nib.as_closest_canonical(
        nib.Nifti1Image(scan.voxels[0].transpose(2, 1, 0), scan.affine[:, [2, 1, 0, 3]])
    )
    np.testing.assert_array_equal(np.asarray(theirs.dataobj), np.asarray(ours.dataobj))
    # Of one plane alone nothing says how far the next one is.
    known = [axis for axis, length in enumerate(ours.shape) if length > 1] + [3]
    np.testing.assert_allclose(theirs.affine[:, known], ours.affine[:, known], atol=2e-3)


@needs("dcmdump", "dcmj2pnm")
def test_dcmtk_reads_every_object_and_the_pixels_of_a_capture(scan, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    capture = dicom_write.write_capture(picture, scan, tmp_path / "sc.dcm")
    objects = [
        dicom_write.write_map(scan.voxels[0] / 1000, scan, tmp_path / "map.dcm"),
        dicom_write.write_segmentation(scan.voxels[0] > 900, scan, tmp_path / "seg.dcm"),
        capture,
    ]
    for path in objects:
        line = [str(executable("dcmdump")), "+P", "SOPInstanceUID", "-s", str(path)]
        said = subprocess.run(line, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0 and said.stderr == "", said.stderr
        assert f"[{pydicom.dcmread(path).SOPInstanceUID}]" in said.stdout
    line = [str(executable("dcmj2pnm")), "--write-raw-pnm", str(capture), str(tmp_path / "sc.ppm")]
    subprocess.run(line, check=True, timeout=60)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sc.ppm")), picture)


REAL = (
    "data/mr-dicom/dicoms",
    "data/rsna-dicom/series",
    "cases/corpora/enhanced-perframe/6_1.dcm",
    "cases/corpora/enhanced-no-FoR/hyperfine.dcm",
    "cases/corpora/philips-private-dim/one_volume.dcm",
)


@needs("paramap2itkimage", "segimage2itkimage", "dciodvfy")
@pytest.mark.parametrize("what", REAL)
def test_dcmqi_and_dciodvfy_take_what_is_made_of_real_images(shared, tmp_path, what):
    if not (shared / what).exists():
        pytest.skip(f"no {what} in the shared folder")
    scan = io.read(shared / what, plane="native")
    values = np.random.default_rng(0).random(scan.shape[1:]).astype(np.float32)
    values[values < 0.97] = 0
    mask = values > 0
    path = dicom_write.write_map(values, scan, tmp_path / "map.dcm")
    assert dciodvfy(path) == []
    np.testing.assert_array_equal(dcmqi("paramap2itkimage", path)[0], values)
    path = dicom_write.write_segmentation(mask, scan, tmp_path / "seg.dcm")
    assert dciodvfy(path) == []
    if "rsna" not in what:  # tilted
        np.testing.assert_array_equal(dcmqi("segimage2itkimage", path)[0], mask)


# -- what OHIF and Slicer compare ------------------------------------------------------------------
@pytest.mark.parametrize("write", ["write_segmentation", "write_map"])
def test_planes_of_a_tilted_series_are_measured_along_their_normal(tmp_path, write):
    values = np.random.default_rng(0).random((6, 16, 20)) * 900
    dicom_series(tmp_path / "in", values, tilt=8.0, spacing=(5.0, 0.5, 0.5))
    for path in (tmp_path / "in").iterdir():
        with pydicom.dcmread(path) as ds:
            del ds.SliceThickness
            ds.save_as(path)
    scan = io.read(tmp_path / "in", plane="native")
    made = pydicom.dcmread(
        getattr(dicom_write, write)(np.ones(scan.shape[1:], bool), scan, tmp_path / "made.dcm")
    )
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == pytest.approx(5 * np.cos(np.deg2rad(8)), abs=1e-6)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(
        5 * np.cos(np.deg2rad(8)), abs=1e-6
    )


TURNS = {
    "as it is": (r"0.9999\-0.00998\0.01\0.01\0.99995\0", None),
    "longest": (
        r"0.99985000874932\-.0099997500027\.014099647509\1.0000000000e-2\.99995000374969\0",
        None,
    ),
    "a digit too long, but for the 0": (
        r"0.999850008749321\-0.01\0.014\0.01\0.99995\0",
        r".999850008749321\-0.01\0.014\0.01\0.99995\0",
    ),
    "too long": (
        r"0.99985000874932134\-0.01\0.014\0.01\0.99995\0",
        r"0.99985000874932\-0.01\0.014\0.01\0.99995\0",
    ),
}


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("write", ["write_segmentation", "write_map"])
def test_the_orientation_has_the_digits_of_the_source(tmp_path, write_series, volume, name, write):
    """OHIF calls a parametric map oblique that differs from its source in the last of them."""
    told, expected = TURNS[name]
    for path in write_series(tmp_path / "in", volume):
        with pydicom.dcmread(path) as ds, pydicom.config.disable_value_validation():
            ds.ImageOrientationPatient = told.split("\\")
            ds.save_as(path)
    scan = io.read(tmp_path / "in")
    path = getattr(dicom_write, write)(np.ones(scan.shape[1:], bool), scan, tmp_path / "made.dcm")
    made = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    assert [str(v) for v in made.ImageOrientationPatient] == (expected or told).split("\\")
