"""Compressed pixels are those that GDCM, and with it ITK, reads: 12-bit JPEG, streams that
contradict their header."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from pseudohealthy import io
from pseudohealthy.errors import Fault

gdcm = pytest.importorskip("gdcm")


@pytest.fixture
def encode(tmp_path, write_series):
    """One MR slice compressed by GDCM; more: header values written afterwards, which the stream may
    contradict."""

    def made(plane: np.ndarray, syntax: str, bits: int, *, signed: bool = False, **more):
        folder = tmp_path / f"{syntax}-{bits}-{signed}"
        path = write_series(
            folder,
            plane[None].astype(np.int16),
            names=["x.dcm"],
            modality="MR",
            signed=signed,
            intercept=None,
            BitsStored=bits,
            HighBit=bits - 1,
            SliceThickness=2,
        )[0]
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        ds = pydicom.dcmread(path)
        for key, value in more.items():
            setattr(ds, key, value)
        ds.save_as(path)
        return path

    return made


@pytest.fixture
def plane(volume) -> np.ndarray:
    return volume[0].repeat(2, 0).repeat(2, 1)


def test_jpeg_of_12_bits_is_read_and_says_nothing(encode, plane, capfd):
    smooth = np.add.outer(np.arange(64), np.arange(64)) * 30
    scan = io.read(encode(smooth, "JPEGExtendedProcess2_4", 12))
    assert np.abs(scan.voxels[0, 0] - smooth).max() <= 8 and scan.voxels.max() > 3000
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    "syntax", ["JPEG2000Lossless", "JPEGLSLossless", "JPEGLosslessProcess14_1"]
)
@pytest.mark.parametrize("stored", [12, 13, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_a_header_of_other_bits_or_sign_than_its_stream_changes_no_value(
    encode, plane, syntax, stored, signed
):
    path = encode(
        plane, syntax, 12, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=int(signed)
    )
    np.testing.assert_array_equal(io.read(path).voxels[0, 0], plane)


@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEGLSLossless"])
@pytest.mark.parametrize("stored", [10, 12, 13, 16])
def test_a_signed_stream_under_an_unsigned_header_is_cut_to_its_bits_as_by_gdcm(
    encode, plane, syntax, stored
):
    signed = plane.astype(int) - 500
    path = encode(
        signed,
        syntax,
        12,
        signed=True,
        BitsStored=stored,
        HighBit=stored - 1,
        PixelRepresentation=0,
    )
    expected = np.where(signed < 0, signed & (2**stored - 1), signed)
    np.testing.assert_array_equal(io.read(path).voxels[0, 0], expected)


def test_a_damaged_stream_is_not_blamed_on_a_missing_decoder(encode, plane):
    path = encode(plane, "JPEG2000Lossless", 12)
    ds = pydicom.dcmread(path)
    data = bytearray(ds.PixelData)
    data[20:60] = bytes(40)
    ds.PixelData = bytes(data)
    ds.save_as(path)
    with pytest.raises(Fault) as caught:
        io.read(path)
    assert caught.value.code == "TRUNCATED_SLICE" and "pip install" not in str(caught.value)
