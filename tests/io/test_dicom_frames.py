"""Enhanced multi-frame images: every frame a slice, wherever the file keeps what it says about
it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io import dicom_write
from pseudohealthy.io.dicom_series import group

MR = "1.2.840.10008.5.1.4.1.1.4.1"
ALWAYS = {
    "ImageOrientationPatient": ("PlaneOrientationSequence", [1.0, 0, 0, 0, 1.0, 0]),
    "PixelSpacing": ("PixelMeasuresSequence", [0.5, 0.75]),
    "SliceThickness": ("PixelMeasuresSequence", 2.0),
    "RescaleSlope": ("PixelValueTransformationSequence", 1.0),
    "RescaleIntercept": ("PixelValueTransformationSequence", 0.0),
}
WHERE = {
    "ImagePositionPatient": "PlanePositionSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "DimensionIndexValues": "FrameContentSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
}


def put(item: Dataset, sequence: str, key: str, value) -> None:
    if sequence not in item:
        setattr(item, sequence, [Dataset()])
    setattr(getattr(item, sequence)[0], key, value)


def enhanced(
    path: Path,
    planes: np.ndarray,
    frames: list[dict],
    *,
    shared=tuple(ALWAYS),
    series="1.2.3",
    **top,
) -> Path:
    """A multi-frame MR image. frames: what each says by keyword; shared: the keywords of ALWAYS
    that stand only once."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MR
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{abs(hash(path.name)) % 10**8}"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = MR, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientID, ds.PatientName = "MR", "SENTINEL-ID", "SENTINEL^NAME"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.1", series, "1.2.2"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = planes.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    once = Dataset()
    ds.PerFrameFunctionalGroupsSequence = []
    for frame in frames:
        item = Dataset()
        for key, value in frame.items():
            put(item, WHERE.get(key) or ALWAYS[key][0], key, value)
        for key, (sequence, value) in ALWAYS.items():
            if key not in frame:
                put(once if key in shared else item, sequence, key, value)
        ds.PerFrameFunctionalGroupsSequence.append(item)
    ds.SharedFunctionalGroupsSequence = [once]
    for key, value in top.items():
        if value is None:
            delattr(ds, key)
        else:
            setattr(ds, key, value)
    ds.PixelData = planes.astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def at(k: int, **more) -> dict:
    return {"ImagePositionPatient": [-5.0, -7.0, 2.0 * k], **more}


def labels(folder: Path) -> list[str]:
    return [g.part for g in group(sorted(folder.rglob("*.dcm")))[0]]


@pytest.mark.parametrize("shared", [tuple(ALWAYS), (), ("PixelSpacing",)])
def test_measures_and_orientation_may_stand_per_frame_or_once(tmp_path, volume, shared):
    path = enhanced(tmp_path / "a.dcm", volume, [at(k) for k in range(10)], shared=shared)
    scan = io.read(path)
    np.testing.assert_array_equal(scan.voxels[0], volume)
    assert scan.spacing == pytest.approx((2, 0.5, 0.75)) and not scan.warnings
    np.testing.assert_allclose(scan.affine[:3, 3], [5, 7, 0])


def test_frames_in_any_order_are_placed_and_remembered(tmp_path, volume):
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    scan = io.read(enhanced(tmp_path / "a.dcm", volume[order], [at(k) for k in order]))
    np.testing.assert_array_equal(scan.voxels[0], volume)
    assert (
        scan.origin.frames == tuple(order.index(k) + 1 for k in range(10))
        and len(scan.origin.paths) == 1
    )


TWO = [
    (
        {"ComplexImageComponent": "MAGNITUDE"},
        {"ComplexImageComponent": "PHASE"},
        ["magnitude", "phase"],
    ),
    (
        {"FrameType": ["ORIGINAL", "PRIMARY", "M", "NONE"]},
        {"FrameType": ["ORIGINAL", "PRIMARY", "P", "NONE"]},
        ["magnitude", "phase"],
    ),
    ({"TemporalPositionIndex": 1}, {"TemporalPositionIndex": 2}, ["time1", "time2"]),
    ({"EffectiveEchoTime": 4.6}, {"EffectiveEchoTime": 9.2}, ["te4.6", "te9.2"]),
    ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, ["b0", "b1000"]),
    ({"StackID": "1"}, {"StackID": "2"}, ["stack1", "stack2"]),
    ({"FrameAcquisitionNumber": 1}, {"FrameAcquisitionNumber": 2}, ["acq1", "acq2"]),
    (
        {"NominalCardiacTriggerDelayTime": 0.0},
        {"NominalCardiacTriggerDelayTime": 30.0},
        ["trigger0", "trigger30"],
    ),
    ({"FlipAngle": 5.0}, {"FlipAngle": 26.0}, ["flip5", "flip26"]),
    ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, ["kernel-B30f", "kernel-B70f"]),
    ({}, {}, ["1", "2"]),
]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("one, other, names", TWO)
def test_volumes_of_one_file_are_cases_of_their_own(
    tmp_path, volume, one, other, names, interleaved
):
    places = [(k, t) for t in range(2) for k in range(5)]
    places = sorted(places) if interleaved else places
    planes = np.stack([volume[k + 5 * t] for k, t in places])
    path = enhanced(tmp_path / "s" / "a.dcm", planes, [at(k, **(one, other)[t]) for k, t in places])
    assert labels(tmp_path) == names
    for t, source in enumerate(io.discover([tmp_path])[0]):
        assert source.case_id.endswith(f"-{names[t]}") and source.item == t
        np.testing.assert_array_equal(io.read(source).voxels[0], volume[5 * t : 5 * t + 5])
        np.testing.assert_array_equal(io.read(f"{path}#{t}").voxels[0], volume[5 * t : 5 * t + 5])
    with pytest.raises(Fault) as caught:
        io.read(path)
    assert (
        caught.value.code == "SEVERAL"
        and names[1] in str(caught.value)
        and "#0 to #1" in str(caught.value)
    )


def test_a_segmentation_points_at_the_frames_of_its_own_volume(tmp_path, volume):
    kinds = [{"ComplexImageComponent": "MAGNITUDE"}, {"ComplexImageComponent": "PHASE"}]
    path = enhanced(tmp_path / "a.dcm", volume, [at(k // 2, **kinds[k % 2]) for k in range(10)])
    scan = io.read(f"{path}#1")
    dicom_write.write_segmentation(np.ones(scan.shape[1:], bool), scan, tmp_path / "seg.dcm")
    groups = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    told = {
        float(g.PlanePositionSequence[0].ImagePositionPatient[2]): int(
            g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        )
        for g in groups
    }
    assert told == {0.0: 2, 2.0: 4, 4.0: 6, 6.0: 8, 8.0: 10}


def test_stacks_of_different_orientation_are_named_by_it(tmp_path, volume):
    turned = {"ImageOrientationPatient": [0.0, 1.0, 0, 0, 0, -1.0]}
    frames = [at(k) for k in range(5)] + [
        {"ImagePositionPatient": [3.0 * k, 0, 0], **turned} for k in range(5)
    ]
    enhanced(tmp_path / "a.dcm", volume, frames)
    assert labels(tmp_path) == ["axial", "sagittal"]
    scans = [io.read(s, plane="native") for s in io.discover([tmp_path])[0]]
    assert [s.spacing[0] for s in scans] == pytest.approx([2, 3])


def test_a_private_dimension_tells_volumes_apart(tmp_path, volume):
    frames = [at(k % 5, DimensionIndexValues=[1 + k % 5, 1 + k // 5]) for k in range(10)]
    pointers = []
    for pointer in (0x00200032, 0x2005106E):
        pointers.append(Dataset())
        pointers[-1].DimensionIndexPointer = pointer
    enhanced(tmp_path / "a.dcm", volume, frames, DimensionIndexSequence=pointers)
    assert labels(tmp_path) == ["1", "2"]


def test_a_missing_frame_of_reference_is_no_obstacle(tmp_path, volume):
    scan = io.read(
        enhanced(tmp_path / "a.dcm", volume, [at(k) for k in range(10)], FrameOfReferenceUID=None)
    )
    np.testing.assert_array_equal(scan.voxels[0], volume)


@pytest.mark.parametrize(
    "places, code, word",
    [
        ([0, 1, 2, 4, 5], "GAP", "z=6.0"),
        ([0, 1, 2.4, 3, 4.1], "IRREGULAR", "vary"),
        ([0, 0, 0, 0, 0], "NO_GEOMETRY", "one position"),
        ([0, 1, 1, 2, 3], "DUPLICATE_SLICE", "frame 2 and"),
    ],
)
def test_irregular_frames_are_refused_for_what_they_are(tmp_path, volume, places, code, word):
    path = enhanced(tmp_path / "a.dcm", volume[:5], [at(k) for k in places])
    with pytest.raises(Fault) as caught:
        io.read(path)
    assert caught.value.code == code and word in str(caught.value)


def test_frames_without_a_position_or_without_description_are_refused(tmp_path, volume):
    frames = [at(k) for k in range(5)]
    del frames[2]["ImagePositionPatient"]
    for name, path in {
        "frame 3 has no usable ImagePositionPatient": enhanced(
            tmp_path / "a.dcm", volume[:5], frames
        ),
        "counts 6 frames and describes 5": enhanced(
            tmp_path / "b.dcm", volume[:6], [at(k) for k in range(5)], NumberOfFrames=6
        ),
        "no PerFrameFunctionalGroupsSequence": enhanced(
            tmp_path / "c.dcm", volume[:5], [], PerFrameFunctionalGroupsSequence=None
        ),
    }.items():
        with pytest.raises(Fault) as caught:
            io.read(path)
        assert name in str(caught.value)


def test_more_descriptions_than_frames_are_said(tmp_path, volume):
    scan = io.read(enhanced(tmp_path / "a.dcm", volume[:4], [at(k) for k in range(6)]))
    assert scan.shape[1] == 4 and scan.warnings == [
        "FRAMES: file 1 counts 4 frames and describes 6"
    ]


def test_every_frame_has_its_own_slope(tmp_path, volume):
    frames = [at(k, RescaleSlope=1.0 + k, RescaleIntercept=-3.0) for k in range(10)]
    scan = io.read(enhanced(tmp_path / "a.dcm", volume, frames))
    np.testing.assert_allclose(
        scan.voxels[0], volume * (1.0 + np.arange(10))[:, None, None] - 3, rtol=1e-6
    )


def test_compressed_frames_are_decoded(tmp_path, volume):
    path = enhanced(tmp_path / "a.dcm", volume, [at(k) for k in range(10)])
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    ds.save_as(path)
    np.testing.assert_array_equal(io.read(path).voxels[0], volume)


def test_files_of_one_frame_each_are_one_volume(tmp_path, volume):
    for k in range(10):
        enhanced(tmp_path / "s" / f"{(7 * k) % 10}.dcm", volume[k : k + 1], [at(k)])
    scan = io.read(tmp_path)
    np.testing.assert_array_equal(scan.voxels[0], volume)
    assert len(scan.origin.paths) == 10 and scan.origin.paths[1].name == "7.dcm"


def test_files_that_hold_a_time_point_each_are_volumes_named_by_it(tmp_path, volume):
    for t in (1, 2):
        enhanced(
            tmp_path / "s" / f"{t}.dcm",
            volume + t,
            [at(k, TemporalPositionIndex=t) for k in range(10)],
        )
    assert labels(tmp_path) == ["time1", "time2"]
    assert [io.read(s).voxels.min() - volume.min() for s in io.discover([tmp_path])[0]] == [1, 2]


def test_a_real_siemens_and_a_real_philips_file(shared):
    corpora = shared / "cases" / "corpora"
    siemens = io.read(corpora / "enhanced-perframe")
    philips = io.read(corpora / "philips-private-dim")
    assert siemens.shape == (1, 6, 64, 64) and siemens.spacing == pytest.approx(
        (2.4, 3.375, 3.375), abs=1e-3
    )
    assert philips.shape == (1, 16, 64, 64) and philips.voxels.max() == pytest.approx(
        2548.188, abs=1e-2
    )
