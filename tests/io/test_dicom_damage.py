"""DICOM slices that are damaged or say too little are named, and never dropped in silence."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_files import change, each
from pydicom.dataelem import RawDataElement
from told import fault, warned

from pseudohealthy import io
from pseudohealthy.errors import Fault


@pytest.mark.parametrize("tiles", ["siemens", "united", "csa"])
def test_mosaics_are_refused_by_name(tmp_path, write_series, volume, tiles):
    kind = {"siemens": ["MOSAIC"], "united": ["VFRAME"], "csa": []}[tiles]
    step = (0, 0.01, 3)
    told = each({"ImageType": ["ORIGINAL", "PRIMARY", "M", *kind]}, 2)
    for path in write_series(tmp_path, volume[:2], step=step, modality="MR", **told):
        if tiles == "csa":
            ds = pydicom.dcmread(path)
            ds.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 9)
            ds.save_as(path)
    assert fault(tmp_path).code == "MOSAIC" and "dcm2niix" in str(fault(tmp_path))
    assert len(io.discover([tmp_path])[0]) == 1


@pytest.mark.parametrize(
    "key",
    [
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
    ],
)
def test_a_missing_attribute_is_named(tmp_path, write_series, volume, key):
    for path in write_series(tmp_path, volume[:3]):
        change(path, **{key: None})
    assert fault(tmp_path).code == "BAD_HEADER" and f"no {key}" in str(fault(tmp_path))


def test_a_missing_transfer_syntax_is_named_and_missing_pixels_are(tmp_path, write_series, volume):
    for path in write_series(tmp_path / "syntax", volume[:3]):
        ds = pydicom.dcmread(path)
        del ds.file_meta.TransferSyntaxUID
        pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
    assert "TransferSyntaxUID" in str(fault(tmp_path / "syntax"))
    for path in write_series(tmp_path / "pixels", volume[:3]):
        ds = pydicom.dcmread(path)
        del ds.PixelData
        ds.save_as(path)
    assert "PixelData" in str(fault(tmp_path / "pixels"))


def test_a_series_without_a_uid_is_read_and_said(tmp_path, write_series, volume):
    for path in write_series(tmp_path, volume):
        change(path, SeriesInstanceUID=None)
    scan = io.read(tmp_path)
    assert scan.shape[1] == 10 and warned(scan, "NO_SERIES_UID: no SeriesInstanceUID")


@pytest.mark.parametrize("place, count", [((0, 0, 0), 6), ((0, 0, 0), 2), ((-24, 3, 7), 6)])
def test_slices_all_at_one_position_have_no_geometry(tmp_path, write_series, volume, place, count):
    times = [f"12000{k}" for k in range(count)]
    write_series(tmp_path, volume[:count], positions=[place] * count, AcquisitionTime=times)
    assert fault(tmp_path).code == "NO_GEOMETRY" and "one position" in str(fault(tmp_path))


def test_a_stray_file_without_an_image_costs_the_series_nothing(tmp_path, write_series, volume):
    from pydicom.dataset import FileDataset

    paths = write_series(tmp_path, volume)
    whole = pydicom.dcmread(paths[0])
    stray = FileDataset(None, {}, file_meta=whole.file_meta, preamble=b"\0" * 128)
    stray.add_new(0x4453000F + 1, "LO", "SOMEBODY")
    stray.add_new(0x4453100C, "LO", "private data only")
    pydicom.dcmwrite(tmp_path / "stray.dcm", stray)
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66"
    del whole.PixelData, whole.Rows, whole.Columns
    whole.save_as(tmp_path / "raw.dcm")
    sources, skipped = io.discover([tmp_path])
    np.testing.assert_array_equal(io.read(sources[0]).voxels[0], volume - 1024.0)
    assert {s.path.name for s in skipped} == {"stray.dcm", "raw.dcm"} and all(
        "no image" in s.reason for s in skipped
    )


@pytest.mark.parametrize(
    "key",
    ["PixelSpacing", "ImagePositionPatient", "SliceThickness", "RescaleSlope", "RescaleIntercept"],
)
def test_decimal_commas_are_read_as_points_and_said(tmp_path, write_series, volume, key):
    write_series(
        tmp_path / "right",
        volume[:4],
        SliceThickness=2.5,
        slope=1.5,
        intercept=-10.5,
        first=(-1.5, -2.5, -3.5),
    )
    for path in write_series(
        tmp_path / "comma",
        volume[:4],
        SliceThickness=2.5,
        slope=1.5,
        intercept=-10.5,
        first=(-1.5, -2.5, -3.5),
    ):
        ds = pydicom.dcmread(path)
        told = ds[key].value
        values = told if hasattr(told, "insert") else [told]
        text = "\\".join(str(v).replace(".", ",") for v in values)
        text += " " * (len(text) % 2)
        raw = text.encode()
        ds[key] = RawDataElement(ds[key].tag, "DS", len(raw), raw, 0, False, True)
        ds.save_as(path)
    right, comma = io.read(tmp_path / "right"), io.read(tmp_path / "comma")
    np.testing.assert_array_equal(comma.voxels, right.voxels)
    np.testing.assert_array_equal(comma.affine, right.affine)
    assert warned(comma, f"DECIMAL_COMMA: {key}")


def test_a_negative_distance_of_a_single_slice_is_its_size(tmp_path, write_series, volume):
    path = write_series(
        tmp_path, volume[:1], names=["x.dcm"], SpacingBetweenSlices=-3.0, SliceThickness=5
    )[0]
    assert io.read(path).spacing[0] == 3


@pytest.mark.parametrize(
    "left", ["nothing", "zeros", "no series", "no frame of reference", "no matrix", "half pixels"]
)
@pytest.mark.parametrize("names", ["{}.dcm", "IM{}"])
def test_what_is_left_of_the_last_slice_never_shortens_its_volume(
    tmp_path, write_series, volume, left, names
):
    path = write_series(tmp_path, volume, names=[names.format(k) for k in range(10)])[-1]
    raw = path.read_bytes()
    series, frame, matrix = (
        raw.index(tag) for tag in (b" \0\x0e\0UI", b" \0R\0UI", b"(\0\x10\0US")
    )
    kept = {
        "nothing": b"",
        "zeros": bytes(len(raw)),
        "no series": raw[: series + 11],
        "half pixels": raw[:-99],
        "no frame of reference": raw[: frame + 10],
        "no matrix": raw[:matrix],
    }
    path.write_bytes(kept[left])
    assert fault(tmp_path).code == "TRUNCATED_SLICE"


@pytest.mark.parametrize("at", [b"\x08\0\x60\0CS", b" \0\x13\0IS", b"(\0\x10\0US", b"(\0\x11\0US"])
@pytest.mark.parametrize("more", [0, 9])  # between two elements, inside a value
def test_a_cut_slice_fails_the_volume_that_lacks_it_and_no_other(both, at, more):
    folder = both({"EchoNumbers": 1}, {"EchoNumbers": 2})
    path = max(
        (p for p in folder.iterdir() if p.name[0] == "b"),
        key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2],
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(at) + more])
    first, second = io.discover([folder])[0]
    assert io.read(first).shape[1] == 10 and len(second.paths) == 10
    with pytest.raises(Fault):
        io.read(second)


def test_a_cut_slice_in_one_of_two_folders_of_a_series(tmp_path, write_series, volume):
    write_series(tmp_path / "a", volume[:5])
    path = write_series(tmp_path / "b", volume[5:], first=(-10.0, -20.0, -20.0))[-1]
    for kept in (0, 150, path.read_bytes().index(b"(\0\x10\0US"), -9):
        whole = path.read_bytes()
        path.write_bytes(whole[:kept])
        assert fault(tmp_path).code == "TRUNCATED_SLICE"
        path.write_bytes(whole)


def said(path):
    """What a message calls a file of a series: by its place, as its name may be a patient's."""
    return f"file {sorted(path.parent.iterdir()).index(path) + 1} "


# bytes: inside the file header, the data set, the pixels.
@pytest.mark.parametrize("kept", [150, 700, -100])
@pytest.mark.parametrize("which", [0, 6, 9])
def test_d9_a_truncated_slice_is_named_and_nothing_is_dropped(
    tmp_path, write_series, volume, kept, which
):
    path = write_series(tmp_path, volume)[which]
    path.write_bytes(path.read_bytes()[:kept])
    assert fault(tmp_path).code == "TRUNCATED_SLICE" and said(path) in str(fault(tmp_path))


def test_d10_a_matrix_that_lies_allocates_nothing(tmp_path, write_series, volume):
    path = write_series(tmp_path, volume)[2]
    change(path, Rows=60000, Columns=60000)
    assert fault(tmp_path).code == "BAD_DIMS" and said(path) in str(fault(tmp_path))
    assert fault(path).code == "BAD_DIMS"


@pytest.mark.parametrize("key", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_d11_without_geometry_a_slice_is_refused(tmp_path, write_series, volume, key):
    change(write_series(tmp_path, volume[:1])[0], **{key: None})
    assert fault(tmp_path).code == "NO_GEOMETRY" and key in str(fault(tmp_path))


def test_d11_on_request_a_missing_pixel_spacing_is_assumed_and_said(tmp_path, write_series, volume):
    whole = io.read(write_series(tmp_path / "whole", volume)[0].parent, assume_spacing=9.0)
    assert not warned(whole, "ASSUMED") and 9.0 not in whole.spacing, "what the file says wins"
    for path in write_series(tmp_path / "bare", volume):
        change(path, PixelSpacing=None)
    bare = io.read(tmp_path / "bare", assume_spacing=0.5)
    assert (
        warned(bare, "ASSUMED")
        and bare.spacing[1:] == (0.5, 0.5)
        and bare.spacing[0] == whole.spacing[0]
    )
    np.testing.assert_array_equal(bare.voxels, whole.voxels)
