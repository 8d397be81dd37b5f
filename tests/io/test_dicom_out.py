"""Findings as DICOM objects: where the lesion is in the patient, in whose study, and by the rules
of the standard."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, generate_uid

from outside import dciodvfy, needs
from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import Stored, dicom_series
from pseudohealthy.errors import Fault
from pseudohealthy.io import dicom_write

LESION = (slice(2, 5), slice(3, 7), slice(4, 9))  # fits however the axes are turned


def lesion_of(scan) -> np.ndarray:
    mask = np.zeros(scan.shape[1:], bool)
    mask[LESION] = True
    return mask


def segmented_points(path) -> np.ndarray:
    """Patient coordinates (LPS, mm) of the voxels of a SEG, by pydicom and the text of the standard
    alone (C.7.6.2.1.1)."""
    ds = pydicom.dcmread(path)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    shared = ds.SharedFunctionalGroupsSequence[0]
    across, down = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, float
    ).reshape(2, 3)
    row_step, column_step = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points = []
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        first = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        points.append(
            first + columns[:, None] * column_step * across + rows[:, None] * row_step * down
        )
    return np.concatenate(points)


def world(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The same from the scan's affine (RAS), as LPS."""
    return np.argwhere(mask) @ affine[:3, :3].T * [-1, -1, 1] + affine[:3, 3] * [-1, -1, 1]


def same_places(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = (np.array(sorted(np.round(p, 3).tolist())) for p in (a, b))
    return a.shape == b.shape and np.abs(a - b).max() < 0.01


ORIENTATIONS = {
    "axial": ((1.0, 0, 0, 0, 1.0, 0), (0.0, 0, 2.0)),
    "axial, from above": ((1.0, 0, 0, 0, 1.0, 0), (0.0, 0, -2.0)),
    "coronal": ((1.0, 0, 0, 0, 0, -1.0), (0.0, 2.0, 0)),
    "sagittal": ((0.0, 1.0, 0, 0, 0, -1.0), (2.0, 0, 0)),
    "prone": ((-1.0, 0, 0, 0, -1.0, 0), (0.0, 0, 2.0)),
    "oblique": ((0.8, 0.6, 0, -0.6, 0.8, 0), (0.0, 0, 2.0)),
    "tilted": ((1.0, 0, 0, 0, 0.96, 0.28), (0.0, 0, 2.0)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_lesion_comes_back_where_it_is_in_the_patient(tmp_path, write_series, volume, name):
    orientation, step = ORIENTATIONS[name]
    write_series(tmp_path / "in", volume, orientation=orientation, step=step)
    scan = io.read(tmp_path / "in")
    path = dicom_write.write_segmentation(lesion_of(scan), scan, tmp_path / "seg.dcm")
    assert same_places(segmented_points(path), world(lesion_of(scan), scan.affine))


def test_every_frame_names_the_slice_it_lies_on(tmp_path, write_series, volume):
    write_series(tmp_path / "in", volume)
    scan = io.read(tmp_path / "in")
    path = dicom_write.write_segmentation(lesion_of(scan), scan, tmp_path / "seg.dcm")
    sources = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, scan.origin.paths)}
    made = pydicom.dcmread(path)
    assert len(made.PerFrameFunctionalGroupsSequence) == 3
    for group in made.PerFrameFunctionalGroupsSequence:
        named = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(sources[named].ImagePositionPatient, position)
    referenced = made.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == "1.2.3.4" and len(
        referenced.ReferencedInstanceSequence
    ) == len(volume)


def test_a_map_keeps_its_values_and_its_places(tmp_path, write_series, volume):
    import highdicom

    write_series(tmp_path / "in", volume, step=(0.0, 0, -2.0))
    scan = io.read(tmp_path / "in")
    values = np.random.default_rng(0).random(scan.shape[1:]).astype(np.float32)
    path = dicom_write.write_map(values, scan, tmp_path / "map.dcm")
    read = highdicom.imread(path).get_volume(dtype=np.float32)
    # Voxel of the map -> voxel of the scan.
    index = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ scan.affine) @ read.affine
    d, h, w = (read.array.shape[k] // 2 for k in range(3))
    for at in ((0, 0, 0), (d, h, w), (d, 0, w + 1)):
        there = tuple(np.rint(index @ (*at, 1))[:3].astype(int))
        assert read.array[at] == values[there]


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)]
)
def test_frames_of_a_map_ascend_along_the_normal(tmp_path, write_series, volume, orientation):
    """As dcmqi stacks them, whatever places they name."""
    normal = np.cross(orientation[:3], orientation[3:])
    write_series(tmp_path / "s", volume, orientation=orientation, step=-2.0 * normal)
    scan = io.read(tmp_path / "s", plane="native")
    made = pydicom.dcmread(dicom_write.write_map(scan.voxels[0] / 4096, scan, tmp_path / "map.dcm"))
    groups = made.PerFrameFunctionalGroupsSequence
    places = [
        np.dot(np.array(g.PlanePositionSequence[0].ImagePositionPatient, float), normal)
        for g in groups
    ]
    np.testing.assert_allclose(np.diff(places), 2.0)
    assert [g.FrameContentSequence[0].DimensionIndexValues for g in groups] == list(range(1, 11))
    stored = np.frombuffer(made.FloatPixelData, "<f4").reshape(volume.shape)
    np.testing.assert_allclose(stored, (volume[::-1] - 1024.0) / 4096, atol=1e-6)


def multi_frame(folder, write_series, volume):
    """The volume as one enhanced CT image."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    files = write_series(folder / "in", volume, **uids("multi-frame"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = [pydicom.dcmread(file) for file in files]
        made = LegacyConvertedEnhancedCTImage(slices, generate_uid(), 2, generate_uid(), 1)
        made.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


def test_a_multi_frame_image_is_answered_on_its_own_frames(tmp_path, write_series, volume):
    scan = io.read(multi_frame(tmp_path, write_series, volume))
    path = dicom_write.write_segmentation(lesion_of(scan), scan, tmp_path / "seg.dcm")
    assert same_places(segmented_points(path), world(lesion_of(scan), scan.affine))
    dicom_write.write_map(lesion_of(scan).astype(np.float32), scan, tmp_path / "map.dcm")


def test_a_radiograph_has_its_mask_and_its_map_as_segmentations(tmp_path, write_series, volume):
    (path,) = write_series(
        tmp_path / "in",
        volume[:1],
        modality="DX",
        step=None,
        intercept=None,
        FrameOfReferenceUID=None,
    )
    scan = io.read(path)
    values = np.linspace(0, 2, volume[0].size).reshape(1, *volume[0].shape)
    mask = pydicom.dcmread(dicom_write.write_segmentation(values > 1, scan, tmp_path / "seg.dcm"))
    assert np.array_equal(mask.pixel_array.reshape(values.shape), values > 1)
    fraction = pydicom.dcmread(dicom_write.write_map(values, scan, tmp_path / "map.dcm"))
    assert fraction.SegmentationType == "FRACTIONAL"
    assert np.abs(fraction.pixel_array.reshape(values.shape) / 255 * 2 - values).max() < 2 / 255
    assert "divided by 2" in fraction.SegmentSequence[0].SegmentDescription


def test_objects_belong_to_the_study_and_say_what_they_are(tmp_path, write_series, volume):
    write_series(tmp_path / "in", volume, InstitutionName="SENTINEL-HOSPITAL")
    scan = io.read(tmp_path / "in")
    uids, said = set(), []
    for path in written(scan, tmp_path):
        ds = pydicom.dcmread(path)
        assert (ds.StudyInstanceUID, ds.PatientID) == ("1.2.3", "SENTINEL-ID")
        said.append(ds.SeriesDescription)
        assert "SENTINEL-HOSPITAL" not in str(ds), "only patient and study are taken over"
        uids |= {ds.SeriesInstanceUID, ds.SOPInstanceUID}
    assert said == [
        f"Anomaly {what} - pseudohealthy, research use only" for what in ("mask", "map", "panel")
    ]
    assert len(uids) == 6 and "1.2.3.4" not in uids
    segment = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0]
    assert segment.SegmentLabel == "anomaly" and segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion


def written(scan, folder):
    mask = lesion_of(scan)
    return [
        dicom_write.write_segmentation(mask, scan, folder / "seg.dcm"),
        dicom_write.write_map(mask * np.float32(0.7), scan, folder / "map.dcm"),
        dicom_write.write_capture(np.full((30, 40, 3), 9, np.uint8), scan, folder / "sc.dcm"),
    ]


def uids(word: str, **more: str) -> dict[str, str]:
    """Identifiers as a scanner gives them."""
    names = {"series": "series", "StudyInstanceUID": "study", "FrameOfReferenceUID": "frame"}
    return {key: generate_uid(entropy_srcs=[word, name]) for key, name in names.items()} | more


@needs("dciodvfy")
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dciodvfy_finds_no_error(tmp_path, modality):
    values = np.random.default_rng(0).random((6, 24, 32)) * 900
    dicom_series(
        tmp_path / "in",
        values,
        modality=modality,
        stored=Stored(intercept=-1024.0 if modality == "CT" else 0.0),
    )
    for path in written(io.read(tmp_path / "in"), tmp_path):
        assert dciodvfy(path) == [], path.name


@needs("dciodvfy")
@pytest.mark.parametrize("modality, sop", [("DX", "1.1.1"), ("CR", "1.1"), ("MG", "1.1.2")])
def test_dciodvfy_finds_no_error_for_a_radiograph(tmp_path, write_series, volume, modality, sop):
    more = uids(modality, SOPClassUID=f"1.2.840.10008.5.1.4.1.{sop}") | {
        "FrameOfReferenceUID": None
    }
    (path,) = write_series(
        tmp_path / "in", volume[:1], modality=modality, step=None, intercept=None, **more
    )
    for made in written(io.read(path), tmp_path):
        assert dciodvfy(made) == [], made.name


@needs("dciodvfy")
def test_dciodvfy_finds_no_error_for_a_multi_frame_image(tmp_path, write_series, volume):
    scan = io.read(multi_frame(tmp_path, write_series, volume))
    for path in written(scan, tmp_path):
        assert dciodvfy(path) == [], path.name


@needs("dciodvfy")
@pytest.mark.parametrize("what", ["rsna-dicom/series", "rsna-dicom/images", "mr-dicom/dicoms"])
def test_dciodvfy_finds_no_error_for_real_series(shared, tmp_path, what):
    place = shared / "data" / what
    scan = io.read(sorted(place.iterdir())[0] if what.endswith("images") else place)
    for path in written(scan, tmp_path):
        assert dciodvfy(path) == [], path.name


def test_identifiers_that_are_no_uids_are_replaced_the_same_way_every_time(
    tmp_path, write_series, volume
):
    write_series(
        tmp_path / "in",
        volume,
        series="ID_5f8484c3e0",
        StudyInstanceUID="ID_134d398b61",
        PatientAge="42",
        FrameOfReferenceUID="1.2.826.0.1.3680043.8.498.1",
    )
    scan = io.read(tmp_path / "in")
    seg, fraction = (pydicom.dcmread(path) for path in written(scan, tmp_path)[:2])
    assert UID(seg.StudyInstanceUID).is_valid and seg.StudyInstanceUID == fraction.StudyInstanceUID
    assert UID(seg.ReferencedSeriesSequence[0].SeriesInstanceUID).is_valid
    assert (
        seg.FrameOfReferenceUID == "1.2.826.0.1.3680043.8.498.1" and seg.PatientID == "SENTINEL-ID"
    )
    assert "PatientAge" not in seg, "42 what? nothing is guessed"


def test_what_is_not_dicom_is_refused_in_one_line(tmp_path):
    from pseudohealthy.io.scan import Scan

    with pytest.raises(Fault) as caught:
        dicom_write.write_segmentation(
            np.zeros((1, 12, 12), bool), Scan.from_array(np.eye(12)), tmp_path / "seg.dcm"
        )
    assert (caught.value.code, caught.value.exit) == ("KIND", 2) and not (
        tmp_path / "seg.dcm"
    ).exists()


@pytest.mark.parametrize("folder", ["rsna-dicom/series", "mr-dicom/dicoms"])
def test_real_series_and_back(shared, tmp_path, folder):
    scan = io.read(shared / "data" / folder)
    mask = np.zeros(scan.shape[1:], bool)
    mask[len(mask) // 2, 100:110, 60:90] = True
    path = dicom_write.write_segmentation(mask, scan, tmp_path / "seg.dcm")
    assert same_places(segmented_points(path), world(mask, scan.affine))
