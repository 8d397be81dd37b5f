"""DICOM series that hold more than one volume: told apart by what differs, named by it, never
mixed."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import change, parts
from told import fault, warned

from pseudohealthy import io
from pseudohealthy.errors import Fault

PEOPLE = [
    {"PatientID": "B"},
    {"PatientName": "OTHER^NAME"},
    {"PatientBirthDate": "19700101"},
    {"StudyInstanceUID": "1.9"},
    {"FrameOfReferenceUID": "1.9"},
]


@pytest.mark.parametrize("shift", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("other", PEOPLE)
def test_slices_of_two_patients_studies_or_frames_are_never_one_volume(both, other, shift):
    one = {"PatientBirthDate": "19600101"}
    folder = both(one, {**one, **other}, shift=(0, 0, shift))
    sources, _ = io.discover([folder])
    scans = [io.read(s) for s in sources]
    assert [s.shape[1] for s in scans] == [10, 10] and all(warned(s, "MIXED_SERIES") for s in scans)
    assert parts(folder) == {"1": 10, "2": 10}
    assert not any("OTHER" in s.case_id or "SENTINEL" in s.case_id for s in sources)


@pytest.mark.parametrize("value", ["", None])
@pytest.mark.parametrize(
    "key",
    ["PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"],
)
def test_attributes_that_were_emptied_or_removed_part_nothing(
    tmp_path, write_series, volume, key, value
):
    paths = write_series(tmp_path, volume)
    for path in paths[::2]:
        change(path, **{key: value})
    assert io.read(tmp_path).shape[1] == 10 and parts(tmp_path) == {"": 10}


def test_a_name_spelt_otherwise_is_the_same_name(tmp_path, write_series, volume):
    names = ["DOE^JANE^^" if k % 2 else "Doe^Jane" for k in range(10)]
    write_series(tmp_path, volume, PatientName=names)
    assert parts(tmp_path) == {"": 10}


DIFFERENT = [
    ({"ConvolutionKernel": "H30s"}, {"ConvolutionKernel": "H70h"}, "kernel-H30s", "kernel-H70h"),
    (
        {"ConvolutionKernel": ["Br40f", "3"]},
        {"ConvolutionKernel": ["Br40f", "5"]},
        "kernel-Br40f-3",
        "kernel-Br40f-5",
    ),
    ({"EchoNumbers": 1, "EchoTime": 10}, {"EchoNumbers": 2, "EchoTime": 20}, "echo1", "echo2"),
    ({"EchoTime": 10}, {"EchoTime": 20.5}, "te10", "te20.5"),
    ({"EchoNumbers": 1, "EchoTime": 10}, {"EchoNumbers": 1, "EchoTime": 20}, "te10", "te20"),
    (
        {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        "magnitude",
        "phase",
    ),
    (
        {"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
        "magnitude",
        "phase",
    ),
    (
        {"ComplexImageComponent": "REAL"},
        {"ComplexImageComponent": "IMAGINARY"},
        "real",
        "imaginary",
    ),
    (
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]},
        "ADC",
        "TRACEW",
    ),
    (
        {"ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]},
        {"ImageType": ["DERIVED", "PRIMARY", "DIXON", "FAT"]},
        "WATER",
        "FAT",
    ),
    ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, "b0", "b1000"),
    ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "time1", "time2"),
    ({"TemporalPositionIndex": 1}, {"TemporalPositionIndex": 2}, "time1", "time2"),
    ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, "acq1", "acq2"),
    ({"TriggerTime": 0}, {"TriggerTime": 40}, "trigger0", "trigger40"),
    ({"InversionTime": 700}, {"InversionTime": 2500}, "ti700", "ti2500"),
    ({"KVP": 80}, {"KVP": 140}, "kv80", "kv140"),
    ({"FlipAngle": 5}, {"FlipAngle": 26}, "flip5", "flip26"),
    (
        {"NominalPercentageOfCardiacPhase": 40.0},
        {"NominalPercentageOfCardiacPhase": 75.0},
        "cardiac40",
        "cardiac75",
    ),
    ({"ContrastBolusAgent": "A"}, {"ContrastBolusAgent": "B"}, "1", "2"),
]


@pytest.mark.parametrize("one, other, first, second", DIFFERENT)
def test_two_volumes_at_the_same_positions_are_named_by_what_differs(
    both, volume, one, other, first, second
):
    folder, volume = both(one, other, modality="MR", intercept=None, count=4), volume[:4]
    assert parts(folder) == {first: 4, second: 4}
    scans = {s.case_id: io.read(s).voxels[0] for s in io.discover([folder])[0]}
    (a, b), one, two = sorted(scans), f"-{first}", f"-{second}"
    assert a.endswith((one, two)) and b.endswith((one, two)) and a != b
    np.testing.assert_array_equal(scans[a if a.endswith(one) else b], volume)
    np.testing.assert_array_equal(scans[a if a.endswith(two) else b], volume + 1)
    assert io.read(f"{folder}#1").voxels.min() in (volume.min(), volume.min() + 1)
    assert fault(folder).code == "SEVERAL" and "#0 to #1" in str(fault(folder))
    assert fault(f"{folder}#2").code == "ITEM"


@pytest.mark.parametrize("shift", [1.0, 20.0])
@pytest.mark.parametrize("one, other, first, second", DIFFERENT[:11])
def test_they_are_two_volumes_where_they_lie_between_or_beside_each_other_too(
    both, one, other, first, second, shift
):
    assert parts(both(one, other, shift=(0, 0, shift))) == {first: 10, second: 10}


def test_acquisitions_that_interleave_are_two_volumes_and_steps_of_one_scan_are_one(
    tmp_path, both, write_series, volume
):
    assert parts(both({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, shift=(0, 0, 1))) == {
        "acq1": 10,
        "acq2": 10,
    }
    for name, numbers in (("steps", [1 + k // 4 for k in range(10)]), ("each", list(range(10)))):
        write_series(
            tmp_path / name, volume, AcquisitionNumber=numbers, TriggerTime=[7 * k for k in numbers]
        )
        assert parts(tmp_path / name) == {"": 10}


@pytest.mark.parametrize(
    "key", ["EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime"]
)
def test_what_changes_with_every_slice_parts_nothing(tmp_path, write_series, volume, key):
    write_series(tmp_path, volume, **{key: list(range(1, 11))})
    assert parts(tmp_path) == {"": 10}


def test_echo_times_that_differ_in_the_last_digit_are_one(tmp_path, write_series, volume):
    write_series(tmp_path, volume, EchoTime=[3.164 if k % 2 else 3.165 for k in range(10)])
    assert parts(tmp_path) == {"": 10}


@pytest.mark.parametrize("private", ["siemens", "ge", "philips", "sequence"])
def test_b_values_are_found_where_scanners_keep_them(tmp_path, both, private):
    folder = both({}, {}, modality="MR", intercept=None)
    for path in folder.iterdir():
        ds, b = pydicom.dcmread(path), 50 if path.name.startswith("a") else 800
        if private == "siemens":
            ds.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", b)
        elif private == "ge":
            ds.private_block(0x43, "GEMS_PARM_01", create=True).add_new(
                0x39, "IS", [10**9 + b, 8, 0, 0]
            )
        elif private == "philips":
            ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(
                0x03, "FL", float(b)
            )
        else:
            ds.MRDiffusionSequence = [pydicom.Dataset()]
            ds.MRDiffusionSequence[0].DiffusionBValue = float(b)
        ds.save_as(path)
    assert parts(folder) == {"b50": 10, "b800": 10}


def test_gradient_directions_of_one_b_value_are_volumes(both):
    one = {"DiffusionGradientOrientation": [1.0, 0, 0]}
    other = {"DiffusionGradientOrientation": [0.0, 1, 0]}
    assert parts(both({**one, "DiffusionBValue": 700.0}, {**other, "DiffusionBValue": 700.0})) == {
        "1": 10,
        "2": 10,
    }


@pytest.mark.parametrize("order", ["volumes", "places", "trigger", "content"])
def test_time_points_told_by_their_order_alone(tmp_path, write_series, volume, order):
    for t in range(3):
        numbers = [t * 10 + k if order == "volumes" else 3 * k + t for k in range(10)]
        more = {
            "volumes": {},
            "places": {},
            "trigger": {"TriggerTime": [30 * t + 3 * k * t for k in range(10)]},
            "content": {"ContentTime": [f"12{t:02d}{k:02d}" for k in range(10)]},
        }[order]
        write_series(
            tmp_path,
            volume + t,
            names=[f"{t}-{k}" for k in range(10)],
            InstanceNumber=numbers,
            **more,
        )
    assert parts(tmp_path) == {"1": 10, "2": 10, "3": 10}
    starts = [io.read(s).voxels.min() for s in io.discover([tmp_path])[0]]
    assert starts == [volume.min() - 1024 + t for t in range(3)]


def test_slices_without_a_b_value_at_the_places_of_others_with_one_are_a_volume(both):
    assert parts(both({}, {"DiffusionBValue": 1000.0}, modality="MR")) == {"1": 10, "b1000": 10}


def test_phases_times_and_velocities_are_told_apart_together(tmp_path, write_series, volume):
    for velocity in ("in", "rl"):
        for time in (0.0, 40.0):
            names = [f"{velocity}{time}{k}" for k in range(10)]
            more = {
                "SequenceName": f"fl3d1_v150{velocity}",
                "TriggerTime": time,
                "InstanceNumber": 1,
            }
            write_series(tmp_path, volume, names=names, modality="MR", **more)
    assert parts(tmp_path) == {
        "trigger0-1": 10,
        "trigger0-2": 10,
        "trigger40-1": 10,
        "trigger40-2": 10,
    }


def test_volumes_that_nothing_tells_apart_are_refused(tmp_path, both):
    folder = both({"InstanceNumber": 1}, {"InstanceNumber": 1})
    assert fault(folder).code == "DUPLICATE_SLICE" and "folder of its own" in str(fault(folder))


@pytest.mark.parametrize("new_uid", [False, True])
def test_a_series_copied_onto_itself_is_read_once(tmp_path, write_series, volume, new_uid):
    for k, path in enumerate(write_series(tmp_path, volume)):
        copy = tmp_path / f"copy{k}.dcm"
        copy.write_bytes(path.read_bytes())
        if new_uid:
            change(copy, SOPInstanceUID=f"1.7.{k}")
    scan = io.read(tmp_path)
    assert scan.shape[1] == 10 and warned(scan, "DUPLICATE n=10")


def test_a_time_point_that_misses_a_slice_is_named_and_the_other_read(both):
    folder = both({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2})
    (folder / "b4").unlink()
    first, second = io.discover([folder])[0]
    assert io.read(first).shape[1] == 10
    with pytest.raises(Fault) as caught:
        io.read(second)
    assert caught.value.code == "GAP"


@pytest.mark.parametrize("jitter", [0.0015, 0.003, -0.004])
def test_orientation_that_jitters_is_one_volume(tmp_path, write_series, volume, jitter):
    for path in write_series(tmp_path, volume)[1::2]:
        change(path, ImageOrientationPatient=[1.0, jitter, 0, -jitter, 1.0, 0])
    scan = io.read(tmp_path)
    assert scan.shape[1] == 10 and scan.spacing[0] == pytest.approx(2)


def test_pixel_spacing_parts_a_series(both):
    folder = both({"PixelSpacing": [0.5, 0.5]}, {"PixelSpacing": [0.8, 0.8]})
    assert parts(folder) == {"spacing0.5": 10, "spacing0.8": 10}


def test_a_slice_with_an_impossible_spacing_is_refused_and_not_dropped(
    tmp_path, write_series, volume
):
    for which in (0, 5):
        folder = tmp_path / str(which)
        change(write_series(folder, volume)[which], PixelSpacing=[0, 0])
        assert fault(folder).code == "BAD_SPACING"


def test_localisers_inside_a_series_are_left_out_and_its_parts_kept(tmp_path, write_series, volume):
    write_series(tmp_path, volume, ConvolutionKernel="A")
    write_series(
        tmp_path, volume[:3], ConvolutionKernel="B", names=list("xyz"), first=(-10, -20, 70)
    )
    scouts = [f"scout{k}" for k in range(2)]
    write_series(
        tmp_path, volume[:2], orientation=(0, 1, 0, 0, 0, -1), names=scouts, ConvolutionKernel="A"
    )
    assert parts(tmp_path) == {"kernel-A": 10, "kernel-B": 3}
    left = {s.path.name: s.reason for s in io.discover([tmp_path])[1]}
    assert left == dict.fromkeys(scouts, "another orientation than its series")


def test_a_series_uid_per_slice_is_hinted_at(tmp_path, write_series, volume):
    write_series(tmp_path / "s", volume[:6], SeriesInstanceUID=[f"1.2.{k}" for k in range(6)])
    scans = [io.read(s) for s in io.discover([tmp_path])[0]]
    assert len(scans) == 6 and all(
        "look like one volume with slices 2 mm apart" in s.warnings[0] for s in scans
    )
    z = [(0, 0, v) for v in (0, 2, 9, 11, 30)]
    write_series(
        tmp_path / "t", volume[:5], positions=z, SeriesInstanceUID=[f"1.3.{k}" for k in range(5)]
    )
    assert not any(warned(io.read(s), "STACK") for s in io.discover([tmp_path / "t"])[0])


def test_transfer_syntaxes_may_differ_from_slice_to_slice(tmp_path, write_series, volume):
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
        RLELossless,
    )

    syntaxes = (
        RLELossless,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
    )
    for path, syntax in zip(write_series(tmp_path, volume), [*syntaxes, *syntaxes], strict=False):
        ds = pydicom.dcmread(path)
        if syntax == RLELossless:
            ds.compress(syntax)
        else:
            little = syntax != ExplicitVRBigEndian
            if not little:
                ds.PixelData = ds.pixel_array.astype(">i2").tobytes()
            ds.file_meta.TransferSyntaxUID = syntax
            pydicom.dcmwrite(
                path, ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little
            )
            continue
        ds.save_as(path)
    np.testing.assert_array_equal(io.read(tmp_path).voxels[0], volume - 1024.0)
