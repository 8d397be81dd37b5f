"""Values of DICOM slices are in the units their headers say, each slice by its own slope."""

from __future__ import annotations

import numpy as np
import pytest
from told import fault, warned

from pseudohealthy import io


def test_d12_monochrome1_changes_no_ct_value_and_inverts_a_radiograph_once(
    tmp_path, write_series, volume
):
    write_series(tmp_path / "ct", volume, photometric="MONOCHROME1")
    np.testing.assert_array_equal(io.read(tmp_path / "ct").voxels[0], volume - 1024.0)
    path = write_series(
        tmp_path / "dx",
        volume[:1],
        modality="DX",
        photometric="MONOCHROME1",
        step=None,
        signed=False,
        intercept=None,
        BitsStored=12,
        HighBit=11,
    )[0]
    scan = io.read(path)
    np.testing.assert_array_equal(scan.voxels[0], 4095.0 - volume[:1])
    assert warned(scan, "INVERTED") and scan.affine is None
    out = io.write_volume(scan.voxels[0], scan, tmp_path, "healthy")
    np.testing.assert_array_equal(io.read(out).voxels, scan.voxels)


def test_d13_every_slice_has_its_own_slope(tmp_path, write_series, volume):
    slopes = [1 + 0.25 * k for k in range(10)]
    write_series(tmp_path, volume, slope=slopes, intercept=3, modality="MR")
    expected = volume * np.array(slopes)[:, None, None] + 3
    np.testing.assert_allclose(io.read(tmp_path).voxels[0], expected, rtol=1e-6)


def test_missing_slope_and_intercept_are_1_and_0(tmp_path, write_series, volume):
    write_series(tmp_path / "mr", volume, slope=None, intercept=None, modality="MR")
    scan = io.read(tmp_path / "mr")
    np.testing.assert_array_equal(scan.voxels[0], volume)
    assert scan.units == "" and not scan.warnings
    write_series(tmp_path / "ct", volume, slope=None, intercept=None)
    assert warned(io.read(tmp_path / "ct"), "NO_RESCALE")
    write_series(tmp_path / "zero", volume, slope=0)
    assert fault(tmp_path / "zero").code == "RESCALE"


def test_signed_and_unsigned_values(tmp_path, write_series):
    high = np.random.default_rng(0).integers(0, 65536, (3, 16, 16))
    write_series(tmp_path / "u", high.astype(np.uint16), signed=False, intercept=0, modality="MR")
    write_series(tmp_path / "s", (high - 32768).astype(np.int16), intercept=0, modality="MR")
    np.testing.assert_array_equal(io.read(tmp_path / "u").voxels[0], high)
    np.testing.assert_array_equal(io.read(tmp_path / "s").voxels[0], high - 32768)


@pytest.mark.parametrize("signed, value", [(True, -2000), (False, 63536)])
def test_padding_takes_the_lowest_real_value(tmp_path, write_series, volume, signed, value):
    padded = volume.astype(np.int32)
    padded[:, :3] = value
    stored = padded.astype(np.int16 if signed else np.uint16)
    write_series(tmp_path, stored, signed=signed, PixelPaddingValue=value)
    scan = io.read(tmp_path)
    assert (scan.voxels[0, :, :3] == volume[:, 3:].min() - 1024).all() and warned(
        scan, "PADDING n=600"
    )
    np.testing.assert_array_equal(scan.voxels[0, :, 3:], volume[:, 3:] - 1024.0)
