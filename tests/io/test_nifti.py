"""NIfTI: any orientation comes in canonical and goes back in place; damaged or doubtful files are
named."""

from __future__ import annotations

import gzip
import itertools
import re
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pseudohealthy import io
from pseudohealthy.errors import Fault

SHAPE = (20, 22, 24)


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)


def save(path: Path, data: np.ndarray, affine=None, *, edit=None, sform=2, qform=1) -> Path:
    image = nib.Nifti1Image(data, np.diag([1, 2, 3, 1.0]) if affine is None else affine)
    image.header.set_sform(image.affine, sform)
    image.header.set_qform(image.affine, qform)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    if edit:
        raw = bytearray(path.read_bytes())
        edit(raw)
        path.write_bytes(raw)
    return path


def put(offset: int, layout: str, *values):
    return lambda raw: struct.pack_into("<" + layout, raw, offset, *values)


def fault(path: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        io.read(path)
    return caught.value


def oblique() -> np.ndarray:
    a, b = np.radians(12), np.radians(-7)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [1.0, 1.2, 2.5]
    affine[:3, 3] = -10, 20, 30
    return affine


ORIENTATIONS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3))
)


@pytest.mark.parametrize("axes, signs", ORIENTATIONS)
def test_all_48_orientations_read_alike_and_go_back_bit_for_bit(tmp_path, data, axes, signs):
    base = nib.Nifti1Image(data, oblique())
    start = nib.io_orientation(base.affine)
    wanted = np.array([[axes[k], signs[k]] for k in range(3)], float)
    turned = base.as_reoriented(nib.orientations.ornt_transform(start, wanted))
    path = save(tmp_path / "x.nii", np.asarray(turned.dataobj), turned.affine, sform=3, qform=2)
    scan = io.read(path)

    reference = io.read(save(tmp_path / "reference.nii", data, oblique()))
    np.testing.assert_array_equal(scan.voxels, reference.voxels)
    np.testing.assert_allclose(scan.affine, reference.affine, atol=1e-4)
    d, h, w = (scan.affine[:3, k] for k in range(3))
    assert d.argmax() == 2 and h.argmin() == 1 and w.argmin() == 0  # superior, posterior, left

    back = nib.load(io.write_volume(scan.voxels[0], scan, tmp_path, "back", dtype=np.float32))
    original = nib.load(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(original.dataobj))
    for key in (
        "dim",
        "pixdim",
        "sform_code",
        "qform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "qoffset_y",
        "qoffset_z",
        "xyzt_units",
    ):
        assert back.header[key].tobytes() == original.header[key].tobytes(), key


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "native"])
def test_every_voxel_keeps_its_place_in_the_patient(tmp_path, data, plane):
    scan = io.read(save(tmp_path / "x.nii.gz", data, oblique()), plane=plane)
    rng = np.random.default_rng(1)
    for _ in range(20):
        index = rng.integers(0, scan.shape[1:])
        stored = np.linalg.solve(oblique(), scan.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(stored, np.round(stored), atol=1e-4)
        assert scan.voxels[(0, *index)] == data[tuple(np.round(stored).astype(int))]
    direction = int(np.abs(scan.affine[:3, 0]).argmax())
    assert direction == {"axial": 2, "coronal": 1, "sagittal": 0, "native": 2}[plane]
    if plane == "native":
        np.testing.assert_array_equal(scan.voxels[0], data.transpose(2, 0, 1))


def test_an_axial_plane_shows_anterior_on_top_and_the_patients_right_on_the_left(tmp_path):
    data = np.zeros((20, 20, 20), np.float32)
    # Far right, anterior, superior in RAS+.
    data[19, 10, 10], data[10, 19, 10], data[10, 10, 19] = (1, 2, 3)
    scan = io.read(save(tmp_path / "x.nii", data, np.eye(4)))
    assert [tuple(np.argwhere(scan.voxels[0] == k)[0]) for k in (1, 2, 3)] == [
        (10, 9, 0),
        (10, 0, 9),
        (19, 9, 9),
    ]


def test_two_dimensional_files_and_trailing_axes_keep_their_shape(tmp_path, data):
    for shape in ((20, 22), (20, 22, 1), (20, 22, 24, 1), (20, 22, 24, 1, 1)):
        given = data.reshape(-1)[: np.prod(shape)].reshape(shape)
        scan = io.read(save(tmp_path / "x.nii", given), plane="sagittal")
        assert scan.shape[1] == (20 if len(shape) > 3 else 1)  # a single plane stays a plane
        back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32))
        assert back.shape == shape
        np.testing.assert_array_equal(np.asarray(back.dataobj), given)


def test_big_endian_nifti2_and_pairs_are_read(tmp_path, data):
    nib.save(nib.Nifti1Pair(data, np.eye(4)), tmp_path / "pair.hdr")
    nib.save(nib.Nifti2Image(data, np.eye(4)), tmp_path / "two.nii")
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4), header), tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    for name in ("pair.hdr", "two.nii", "big.nii"):
        scan = io.read(tmp_path / name)
        np.testing.assert_array_equal(scan.voxels[0], data.transpose(2, 1, 0)[:, ::-1, ::-1])
        back = nib.load(
            io.write_volume(scan.voxels, scan, tmp_path / "out", "back", dtype=np.float32)
        )
        np.testing.assert_array_equal(np.asarray(back.dataobj), data)


def test_masks_are_written_as_bytes_and_integers_are_rounded(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii.gz", data))
    mask = nib.load(io.write_volume(scan.voxels[0] > 100, scan, tmp_path, "mask", dtype=np.uint8))
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), data > 100)
    whole = nib.load(
        io.write_volume(scan.voxels[0] * 1000, scan, tmp_path, "whole", dtype=np.int16)
    )
    np.testing.assert_array_equal(
        np.asarray(whole.dataobj), np.clip(np.rint(data * 1000), -32768, 32767)
    )


def test_several_channels_become_a_fourth_axis(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii.gz", data))
    both = np.concatenate([scan.voxels, 2 * scan.voxels])
    back = np.asarray(
        nib.load(io.write_volume(both, scan, tmp_path, "two", dtype=np.float32)).dataobj
    )
    np.testing.assert_array_equal(back, np.stack([data, 2 * data], -1))


def test_units_other_than_mm_change_the_affine_but_not_the_file(tmp_path, data):
    path = save(tmp_path / "x.nii", data, np.diag([0.001, 0.001, 0.002, 1]), edit=put(123, "B", 1))
    scan = io.read(path)
    assert scan.spacing == pytest.approx((2, 1, 1))
    back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32))
    np.testing.assert_allclose(back.affine, nib.load(path).affine)


def test_text_in_the_header_is_noted_and_not_copied(tmp_path, data):
    image = nib.Nifti1Image(data, np.eye(4))
    image.header["descrip"], image.header["aux_file"] = b"SENTINEL^NAME", b"SENTINEL.txt"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"SENTINEL"))
    nib.save(image, tmp_path / "x.nii")
    scan = io.read(tmp_path / "x.nii")
    assert any("HEADER_TEXT" in w for w in scan.warnings) and "SENTINEL" not in str(scan.warnings)
    out = io.write_volume(scan.voxels, scan, tmp_path, "out", dtype=np.float32)
    assert b"SENTINEL" not in gzip.decompress(out.read_bytes())


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


def test_n23_masks_are_matched_by_world_position_whatever_their_axis_order(tmp_path, data):
    image = nib.Nifti1Image((data > 120).astype(np.uint8), oblique())
    save(tmp_path / "x.nii", data, oblique())
    for codes in ("RAS", "PIR", "ILA"):
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(oblique()), nib.orientations.axcodes2ornt(codes)
        )
        nib.save(image.as_reoriented(turn), tmp_path / "mask.nii.gz")
        for plane in ("axial", "sagittal", "native"):
            scan = io.read(tmp_path / "x.nii", plane=plane)
            np.testing.assert_array_equal(
                io.read_mask("mask.nii.gz", tmp_path, scan), scan.voxels[0] > 120
            )


def test_n23_masks_on_another_grid_are_refused_with_both_grids(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data, oblique()))
    moved = oblique()
    moved[2, 3] += 2
    for shape, affine in ((SHAPE, moved), ((20, 22, 12), oblique()), (SHAPE, np.eye(4))):
        save(tmp_path / "mask.nii", np.ones(shape, np.uint8), affine)
        with pytest.raises(Fault, match=r"GRID_MISMATCH.*24 x 22 x 20 voxels of .* against"):
            io.read_mask("mask.nii", tmp_path, scan)


def test_n23_a_refused_mask_is_described_as_it_lies_beside_the_image(tmp_path):
    """Of a mask that lacks a slab, only the slab differs, whichever way image and mask are
    stored."""
    affine = np.diag([3.0, 2, 6, 1])
    scan = io.read(
        save(tmp_path / "x.nii", np.random.default_rng(0).random(SHAPE).astype(np.float32), affine)
    )
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:5, 4:7, 5:9] = 1
    lacking = affine.copy()
    lacking[0, 3] = 6  # two of its first axis
    turned = lacking[:, [2, 0, 1, 3]]
    seen = []
    for values, where in ((mask[2:], lacking), (mask[2:].transpose(2, 0, 1), turned)):
        save(tmp_path / "mask.nii", values, where)
        with pytest.raises(Fault, match="GRID_MISMATCH") as caught:
            io.read_mask("mask.nii", tmp_path, scan)
        seen.append(caught.value.message)
    assert seen[0] == seen[1]
    image, beside = re.findall(r"(\d+) x (\d+) x (\d+) voxels of (\S+ x \S+ x \S+) mm", seen[0])
    assert (
        image[3] == beside[3]
        and sum(a != b for a, b in zip(image[:3], beside[:3], strict=True)) == 1
    )
    mask[0, 0, 0] = 1
    save(tmp_path / "mask.nii", np.pad(mask, 1), affine + np.outer([3, 2, 6, 0], [0, 0, 0, -1]))
    io.read_mask("mask.nii", tmp_path, scan, resample=True)
    assert any("changed by +0 %" in text for text in scan.warnings), "never -0"


def test_n23_on_request_a_mask_of_another_grid_is_read_at_the_nearest_voxel(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data, oblique()))
    # Its voxel (i, j, k) has its middle at (2i, 2j, 2k) of the scan.
    coarse = oblique() @ np.diag([2, 2, 2, 1])
    small = np.zeros(tuple(n // 2 for n in SHAPE), np.uint8)
    small[3:5, 4:7, 2] = 1
    save(tmp_path / "mask.nii", small, coarse)
    found = io.read_mask("mask.nii", tmp_path, scan, resample=True)
    voxels = np.argwhere(found)
    places = np.round(
        np.linalg.solve(coarse, scan.affine @ np.c_[voxels, np.ones(len(voxels))].T)[:3].T, 3
    )
    for place in np.argwhere(small):
        near = np.abs(places - place).max(axis=1)
        assert (near < 0.01).sum() == 1, "the middle of every marked voxel is marked"
    assert np.abs(places[:, None] - np.argwhere(small)[None]).max(-1).min(1).max() <= 0.5, (
        "and nothing farther away"
    )
    assert any("MASK_RESAMPLED" in w and "changed by" in w for w in scan.warnings)
    far = oblique()
    far[:3, 3] += 10_000
    save(tmp_path / "mask.nii", small, far)
    with pytest.raises(Fault, match="GRID_MISMATCH"):  # nothing of the lesion would be left
        io.read_mask("mask.nii", tmp_path, scan, resample=True)


@pytest.mark.parametrize("high", [1, 255, 0.999, 4])
def test_n24_a_mask_with_one_value_beside_0_is_binary(tmp_path, data, high):
    scan = io.read(save(tmp_path / "x.nii", data))
    save(tmp_path / "m.nii", np.where(data > 120, np.float32(high), 0).astype(np.float32))
    np.testing.assert_array_equal(io.read_mask("m.nii", tmp_path, scan), scan.voxels[0] > 120)
    assert not any("MASK" in w for w in scan.warnings)


def test_n24_labels_count_together_except_the_ignored_and_unknown_values_are_listed(tmp_path, data):
    scan = io.read(save(tmp_path / "x.nii", data))
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5], labels[6:8], labels[9:10] = 1, 2, 4
    save(tmp_path / "m.nii", labels)
    assert io.read_mask("m.nii", tmp_path, scan).sum() == (labels > 0).sum()
    assert io.read_mask("m.nii", tmp_path, scan, ignore=[2]).sum() == np.isin(labels, [1, 4]).sum()
    assert any("MASK_LABELS 0, 1, 2, 4" in w for w in scan.warnings)
    for bad in (data / data.max(), np.where(labels > 1, -1.0, 0)):
        save(tmp_path / "bad.nii", bad.astype(np.float32))
        with pytest.raises(Fault, match="MASK_VALUES"):
            io.read_mask("bad.nii", tmp_path, scan)
    save(tmp_path / "empty.nii", np.zeros(SHAPE, np.uint8))
    assert not io.read_mask("empty.nii", tmp_path, scan).any()


def test_channels_of_a_manifest_cell_are_stacked_and_must_share_a_grid(tmp_path, data):
    save(tmp_path / "a.nii", data)
    save(tmp_path / "b.nii", 2 * data)
    scan = io.read_image("a.nii|b.nii", tmp_path)
    assert scan.shape[0] == 2
    np.testing.assert_array_equal(scan.voxels[1], 2 * scan.voxels[0])
    save(tmp_path / "c.nii", data, np.eye(4))
    with pytest.raises(Fault, match="GRID_MISMATCH"):
        io.read_image("a.nii|c.nii", tmp_path)


def test_writing_where_nothing_can_be_written_is_exit_6_and_leaves_no_temporary_file(
    tmp_path, data
):
    scan = io.read(save(tmp_path / "x.nii", data))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(Fault) as caught:
        io.write_volume(scan.voxels, scan, tmp_path / "taken", "out", dtype=np.float32)
    assert caught.value.exit == 6 and sorted(p.name for p in tmp_path.iterdir()) == [
        "taken",
        "x.nii",
    ]


def test_real_volumes_come_back_bit_for_bit(tmp_path, shared):
    for name in (
        "brainix/FLAIR.nii.gz",
        "brats2015/brats_2013_pat0001_1/Flair_subtrMeanDivStd.nii.gz",
    ):
        original = nib.load(shared / "data" / name)
        scan = io.read(shared / "data" / name)
        back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back", dtype=np.float32))
        np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(original.dataobj))
        np.testing.assert_array_equal(back.affine, original.affine)


@pytest.mark.parametrize("unit, factor", [("meter", 0.001), ("micron", 1000.0)])
def test_units_that_make_a_patient_are_converted_and_others_are_taken_as_mm_and_said(
    tmp_path, data, unit, factor
):
    for scale, said in ((factor, []), (1.0, ["UNITS"])):
        image = nib.Nifti1Image(data, np.diag([2 * scale, 2 * scale, 3 * scale, 1]))
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / "x.nii")
        scan = io.read(tmp_path / "x.nii")
        np.testing.assert_allclose(sorted(scan.spacing), [2, 2, 3], rtol=1e-5)
        assert [w.partition(":")[0] for w in scan.warnings] == said
        assert scan.voxel_ml == pytest.approx(0.012, rel=1e-4)
        back = nib.load(io.write_volume(scan.voxels[0], scan, tmp_path, "back"))
        assert back.header.get_xyzt_units()[0] == unit and np.allclose(back.affine, image.affine)


@pytest.mark.parametrize("size", [2000.0, 0.0005])
def test_voxels_of_no_patient_are_said_and_give_no_volume(tmp_path, data, size):
    nib.save(nib.Nifti1Image(data, np.diag([size, size, size, 1])), tmp_path / "x.nii")
    scan = io.read(tmp_path / "x.nii")
    assert scan.warnings[0].startswith("UNITS: voxels of") and scan.voxel_ml is None


def with_quaternion(path, data, b: float, c: float, d: float) -> None:
    image = nib.Nifti1Image(data, None)
    header = image.header
    header["qform_code"], header["sform_code"] = 1, 0
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = b, c, d
    header["pixdim"][:4] = [-1, 2, 2, 3]
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    raw = header.binaryblock + bytes(4) + data.tobytes(order="F")
    path.write_bytes(raw)


def test_quaternions_are_rounded_as_the_reference_code_rounds_them(tmp_path, data):
    # Half a turn about z, a little too long.
    with_quaternion(tmp_path / "x.nii", data, 0, 0, 1.00001)
    scan = io.read(tmp_path / "x.nii")
    assert scan.warnings == []
    with_quaternion(tmp_path / "y.nii", data, 0, 0, 1)
    exact = io.read(tmp_path / "y.nii")
    np.testing.assert_allclose(scan.affine, exact.affine, atol=1e-6)
    np.testing.assert_array_equal(scan.voxels, exact.voxels)
    np.testing.assert_allclose(
        exact.affine, io.read(nib.load(tmp_path / "y.nii")).affine, atol=1e-6
    )
    # Nibabel reads what is written.
    back = nib.load(io.write_volume(scan.voxels[0], scan, tmp_path, "back"))
    np.testing.assert_allclose(back.affine, nib.load(tmp_path / "y.nii").affine, atol=1e-6)
    with_quaternion(tmp_path / "x.nii", data, 0.9, 0.9, 0.9)
    assert "QUATERNION: of length 1.56" in io.read(tmp_path / "x.nii").warnings[0]


def test_voxels_that_follow_the_header_at_once_are_no_extension(tmp_path, data):
    image = nib.Nifti1Image(data.astype("<f4"), np.diag([2.0, 2, 3, 1]))
    header = image.header.copy()
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 348, 1, 0
    (tmp_path / "x.nii").write_bytes(header.binaryblock + data.astype("<f4").tobytes(order="F"))
    scan = io.read(tmp_path / "x.nii")
    assert scan.warnings == [] and scan.voxels.max() == data.max()
