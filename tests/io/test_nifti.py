"""NIfTI: any orientation comes in canonical and goes back in place; what a header says of units and
axes is kept or said."""

from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from nifti_files import oblique, put, save

from pseudohealthy import io
from pseudohealthy.errors import Fault

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


def test_a_header_and_its_image_file_are_one_input(tmp_path):
    """Both are hashed and compared: equal headers do not make two volumes one."""
    from pseudohealthy.detection.worker import input_sha256
    from pseudohealthy.io.discover import discover

    hashes = []
    for number in range(2):
        values = np.random.default_rng(number).random((8, 8, 4)).astype(np.float32)
        folder = tmp_path / str(number)
        folder.mkdir()
        nib.save(nib.Nifti1Pair(values, np.eye(4)), folder / "v.hdr")
        (source,), _ = discover([folder])
        assert [path.name for path in source.files] == ["v.hdr", "v.img"]
        hashes.append(input_sha256(source))
    assert hashes[0] != hashes[1]
    headers = [(tmp_path / str(number) / "v.hdr").read_bytes() for number in range(2)]
    assert headers[0] == headers[1]
