"""NIfTI files that are damaged or doubtful are refused by name or read with a warning."""

from __future__ import annotations

import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from nifti_files import SHAPE, put, save
from told import fault

from pseudohealthy import io


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_n1_n2_half_a_file_is_truncated(tmp_path, data, suffix):
    path = save(tmp_path / f"x{suffix}", data)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert fault(path).code == "TRUNCATED"


def test_a_gzip_with_a_flipped_bit_or_without_its_end_is_truncated(tmp_path, data):
    path = save(tmp_path / "x.nii.gz", data)
    raw = path.read_bytes()
    path.write_bytes(raw[:-4])
    assert fault(path).code == "TRUNCATED"
    path.write_bytes(raw[:-6] + bytes([raw[-6] ^ 1]) + raw[-5:])  # the checksum no longer fits
    assert fault(path).code == "TRUNCATED"


@pytest.mark.parametrize(
    "content, code, words",
    [
        (b"", "EMPTY_FILE", "0 bytes"),
        (b"<!DOCTYPE html><title>404</title>" * 20, "NOT_NIFTI", "HTML"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "NOT_NIFTI",
            "git lfs pull",
        ),
        (b"\x93NUMPY" + b"x" * 1000, "NOT_NIFTI", "not a NIfTI"),
    ],
)
def test_n3_n4_other_things_named_nii_gz(tmp_path, content, code, words):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    assert fault(path).code == code and words in str(fault(path))


def test_n5_plain_nifti_named_gz_is_read_by_content(tmp_path, data):
    path = save(tmp_path / "x.nii", data).rename(tmp_path / "x.nii.gz")
    scan = io.read(path)
    assert scan.voxels.sum() == pytest.approx(data.sum(), rel=1e-5) and any(
        "SUFFIX" in w for w in scan.warnings
    )


def test_n6_non_finite_voxels(tmp_path, data):
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    scan = io.read(save(tmp_path / "x.nii", data))
    assert (
        np.isfinite(scan.voxels).all()
        and "NONFINITE n=3: replaced by the lowest finite value" in scan.warnings
    )
    data[:3] = np.nan
    assert fault(save(tmp_path / "y.nii", data)).code == "NONFINITE"


def test_n7_n22_constant_and_tiny_images(tmp_path):
    assert fault(save(tmp_path / "x.nii", np.zeros(SHAPE, np.float32))).code == "CONSTANT_IMAGE"
    for shape in ((1, 1, 1), (3, 3, 1), (8, 8, 8)):
        tiny = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        assert fault(save(tmp_path / "y.nii", tiny)).code == "TOO_SMALL"


def test_n8_four_dimensions(tmp_path, data):
    assert fault(save(tmp_path / "x.nii", np.stack([data, data], -1))).code == "IS_4D"


def test_n11_types_that_are_no_real_numbers(tmp_path, data):
    assert fault(save(tmp_path / "c.nii", data.astype(np.complex64))).code == "DTYPE"
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert fault(save(tmp_path / "rgb.nii", rgb)).code == "DTYPE"
    assert fault(save(tmp_path / "x.nii", data, edit=put(70, "h", 77))).code == "DTYPE"


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_n12_voxel_size_zero(tmp_path, data, value):
    assert fault(save(tmp_path / "x.nii", data, edit=put(84, "f", value))).code == "BAD_SPACING"


def test_n13_affine_not_finite_or_flat(tmp_path, data):
    assert (
        fault(save(tmp_path / "x.nii", data, edit=put(280, "f", float("nan")))).code == "BAD_AFFINE"
    )
    assert (
        fault(save(tmp_path / "x.nii", data, edit=put(280, "4f", 0, 0, 0, 0))).code == "BAD_AFFINE"
    )


def test_n14_forms_disagree_the_sform_wins_and_both_are_kept(tmp_path, data):
    image = nib.Nifti1Image(data, np.eye(4))
    image.header.set_qform(np.diag([2, 2, 2, 1.0]), 1)
    image.header.set_sform(np.eye(4), 2)
    nib.save(image, tmp_path / "x.nii")
    scan = io.read(tmp_path / "x.nii")
    assert scan.spacing == (1, 1, 1) and any("FORMS_DISAGREE" in w for w in scan.warnings)
    back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32)).header
    assert back["qform_code"] == 1 and back["sform_code"] == 2 and back.get_zooms()[0] == 2


def test_n15_without_forms_left_and_right_are_unknown(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data, edit=put(252, "2h", 0, 0)))
    assert any("ORIENTATION_UNKNOWN" in w for w in scan.warnings)
    back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32))
    assert back.header["qform_code"] == 0 and back.header["sform_code"] == 0
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)


def test_n16_a_sheared_affine_is_kept(tmp_path, data):
    sheared = np.diag([1, 1, 3, 1.0])
    sheared[1, 2] = 0.8
    image = nib.Nifti1Image(data, sheared)
    image.header.set_sform(sheared, 1)
    image.header.set_qform(np.eye(4), 0)
    nib.save(image, tmp_path / "x.nii")
    scan = io.read(tmp_path / "x.nii")
    assert any("NOT_ORTHONORMAL" in w for w in scan.warnings) and scan.voxel_ml == pytest.approx(
        0.003
    )
    back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32))
    np.testing.assert_array_equal(back.affine, nib.load(tmp_path / "x.nii").affine)


def test_n17_a_header_that_claims_too_much_is_refused_before_memory_is_taken(tmp_path, data):
    path = save(tmp_path / "x.nii.gz", data)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    put(40, "8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)(raw)
    path.write_bytes(gzip.compress(raw))
    tracemalloc.start()
    found = fault(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.code, found.exit) == ("TOO_LARGE", 7) and peak < 5e6


def test_n18_a_gzip_bomb_is_refused_before_inflating(tmp_path, data):
    raw = bytearray(gzip.decompress(save(tmp_path / "x.nii.gz", data).read_bytes())[:352])
    put(40, "8h", 3, 600, 600, 600, 1, 1, 1, 1)(raw)
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(raw) + bytes(1_000_000))
    assert (fault(tmp_path / "x.nii.gz").code, fault(tmp_path / "x.nii.gz").exit) == (
        "TOO_LARGE",
        7,
    )


@pytest.mark.parametrize(
    "dim", [(3, 0, 22, 24), (3, -5, 22, 24), (0, 20, 22, 24), (9, 20, 22, 24), (1, 20, 1, 1)]
)
def test_n19_bad_dimensions(tmp_path, data, dim):
    assert fault(save(tmp_path / "x.nii", data, edit=put(40, "4h", *dim))).code == "BAD_DIMS"


@pytest.mark.parametrize(
    "slope, inter, warned", [(0, 5, True), (float("nan"), 5, True), (0, 0, False)]
)
def test_n20_a_slope_that_is_none_means_unscaled(tmp_path, data, slope, inter, warned):
    scan = io.read(save(tmp_path / "x.nii", data, edit=put(112, "2f", slope, inter)))
    assert scan.voxels.mean() == pytest.approx(data.mean(), rel=1e-5)
    assert any("SCALING" in w for w in scan.warnings) == warned


def test_slope_and_intercept_are_applied_and_not_written_back(tmp_path):
    stored = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
    scan = io.read(save(tmp_path / "x.nii", stored, edit=put(112, "2f", 0.5, -7)))
    assert scan.voxels.min() == stored.min() * 0.5 - 7
    back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32))
    np.testing.assert_array_equal(np.asarray(back.dataobj), stored * np.float32(0.5) - 7)
