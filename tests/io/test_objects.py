"""Python objects as scans: the planes of their file, on their own grid; anything else is one clear
line."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io.objects import scan_of

AFFINE = np.array([[0, 2.0, 0, 5], [-1.5, 0, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1]])


@pytest.fixture
def stored() -> np.ndarray:
    """(I, J, K), no two axes of one length."""
    return np.random.default_rng(0).random((20, 24, 12)).astype(np.float32)


class Placed(torch.Tensor):
    """As MONAI's MetaTensor: a tensor that carries its affine."""


def placed(array: np.ndarray) -> torch.Tensor:
    tensor = torch.tensor(array).as_subclass(Placed)
    tensor.affine = torch.tensor(AFFINE)
    return tensor


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_images_with_an_affine_give_what_their_file_gives(tmp_path, stored, plane):
    nib.save(nib.Nifti1Image(stored, AFFINE), tmp_path / "x.nii.gz")
    expected = io.read(tmp_path / "x.nii.gz", plane=plane)
    for value in (
        nib.load(tmp_path / "x.nii.gz"),
        nib.Nifti2Image(stored, AFFINE),
        nib.MGHImage(stored, AFFINE),
        nib.Nifti1Image(stored[..., None], AFFINE),
        placed(stored[None]),
        placed(stored),
        SimpleNamespace(data=torch.tensor(stored)[None], affine=AFFINE),  # as TorchIO's images
    ):
        scan = io.read(value, plane=plane)
        np.testing.assert_array_equal(scan.voxels, expected.voxels)
        np.testing.assert_allclose(scan.affine, expected.affine)
        back = nib.load(io.write_volume(scan.voxels, scan, tmp_path, "back"))
        np.testing.assert_array_equal(np.squeeze(back.get_fdata()), stored)
        np.testing.assert_allclose(back.affine, AFFINE, atol=1e-6)


def test_scaled_values_changed_affines_and_missing_ones(tmp_path, stored):
    image = nib.Nifti1Image((stored * 100).astype(np.int16), AFFINE)
    image.header.set_slope_inter(2, -7)
    nib.save(image, tmp_path / "x.nii")
    np.testing.assert_array_equal(
        io.read(nib.load(tmp_path / "x.nii")).voxels, io.read(tmp_path / "x.nii").voxels
    )
    moved = nib.Nifti1Image(stored, AFFINE)
    moved = moved.__class__(stored, AFFINE @ np.diag([2, 2, 2, 1.0]), moved.header)
    assert sorted(io.read(moved).spacing) == [3, 4, 6]
    assert "ORIENTATION_UNKNOWN" in io.read(nib.Nifti1Image(stored, None)).warnings[0]


def test_channels_come_first_and_batches_are_refused(stored):
    scan = io.read(placed(np.stack([stored, 2 * stored])))
    assert scan.shape == (2, 12, 20, 24)
    np.testing.assert_allclose(scan.voxels[1], 2 * scan.voxels[0])
    with pytest.raises(Fault, match=r"SHAPE.*\(1, 1, 20, 24, 12\)"):
        io.read(placed(stored[None, None]))
    with pytest.raises(Fault, match=r"IS_4D.*slicer"):
        io.read(nib.Nifti1Image(np.stack([stored, stored], -1), AFFINE))


def test_images_of_itk_are_turned_from_lps(tmp_path, stored, monkeypatch):
    nib.save(nib.Nifti1Image(stored, AFFINE), tmp_path / "x.nii")
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = type("Image", (), {"__module__": "SimpleITK.SimpleITK"})()
    for name, value in {
        "GetDimension": 3,
        "GetNumberOfComponentsPerPixel": 1,
        "GetSpacing": spacing,
        "GetOrigin": lps[:3, 3],
        "GetDirection": (lps[:3, :3] / spacing).ravel(),
    }.items():
        setattr(image, name, lambda value=value: value)
    library = SimpleNamespace(GetArrayFromImage=lambda _: stored.transpose(2, 1, 0))
    monkeypatch.setitem(sys.modules, "SimpleITK", library)
    scan, expected = io.read(image), io.read(tmp_path / "x.nii")
    np.testing.assert_array_equal(scan.voxels, expected.voxels)
    np.testing.assert_allclose(scan.affine, expected.affine)


def tensors() -> dict[str, torch.Tensor]:
    whole = torch.arange(12 * 20 * 24).reshape(12, 20, 24) % 128
    return {
        "bfloat16": whole.bfloat16(),
        "float16": whole.half(),
        "int64": whole,
        "bool": whole > 64,
        "gradient": whole.float().requires_grad_(),
        "sparse": whole.float().to_sparse(),
        "turned": whole.float().permute(2, 1, 0).permute(2, 1, 0),
        "float8": (whole % 8).to(torch.float8_e4m3fn),
    }


@pytest.mark.parametrize("kind", tensors())
def test_tensors_of_any_real_type(kind):
    tensor = tensors()[kind]
    expected = (
        tensor.detach().to_dense().float().numpy()
        if kind == "sparse"
        else tensor.detach().float().numpy()
    )
    np.testing.assert_array_equal(io.read(tensor).voxels[0], expected)


def test_arrays_however_they_lie_in_memory(stored):
    volume = stored.transpose(2, 0, 1)
    frozen = np.frombuffer(volume.tobytes(), np.float32).reshape(volume.shape)
    for array in (
        volume,
        frozen,
        volume.astype(">f4"),
        volume.astype(np.longdouble),
        volume.tolist(),
    ):
        np.testing.assert_array_equal(io.read(array).voxels[0], volume)
    hidden = io.read(np.ma.masked_less(volume, 0.1))
    assert hidden.voxels.min() == volume[volume >= 0.1].min() and hidden.warnings[0].startswith(
        "MASKED n="
    )


def test_pictures_of_pillow_are_as_their_file(tmp_path):
    rng = np.random.default_rng(0)
    for array in (
        rng.integers(0, 256, (24, 30, 3)).astype(np.uint8),
        rng.integers(0, 2**16, (24, 30)).astype(np.uint16),
    ):
        picture = Image.fromarray(array)
        picture.save(tmp_path / "x.png")
        scan, expected = io.read(picture), io.read(tmp_path / "x.png")
        np.testing.assert_array_equal(scan.voxels, expected.voxels)
        assert scan.warnings == expected.warnings


@pytest.mark.parametrize(
    "value, code, word",
    [
        (np.float32(3), "SHAPE", "shape ()"),
        (torch.zeros(5), "SHAPE", "shape (5,)"),
        (7, "SHAPE", "shape ()"),
        (np.zeros((1, 1, 4, 20, 20)), "SHAPE", "take one case of a batch"),
        (np.zeros((0, 5)), "SHAPE", "(0, 5)"),
        (np.random.default_rng(0).random((20, 20, 3)), "SHAPE", "(20, 20, 3)"),
        ([[1, 2], [3]], "SHAPE", "list"),
        (torch.ones(20, 20, dtype=torch.complex64), "DTYPE", "complex64"),
        (np.full((4, 4), "x"), "DTYPE", "<U1"),
        (torch.zeros(20, 20, device="meta"), "INPUT", "Tensor"),
        (None, "INPUT", "NoneType"),
        (b"abc", "INPUT", "bytes"),
        ({"image": 1}, "INPUT", "dict"),
        (["a.nii", "b.nii"], "INPUT", "list"),
        (np.zeros((20, 20)), "CONSTANT_IMAGE", ""),
        (np.random.default_rng(0).random((4, 4)), "TOO_SMALL", "4 x 4"),
        (np.ma.masked_all((20, 20)), "NONFINITE", "masked"),
    ],
)
def test_what_is_no_image_is_one_line_that_names_it(value, code, word):
    with pytest.raises(Fault) as caught:
        io.read(value)
    assert caught.value.code == code and word in str(caught.value) and "\n" not in str(caught.value)


def test_a_pydicom_dataset_is_refused_with_the_way_to_read_it():
    pydicom = pytest.importorskip("pydicom")
    with pytest.raises(Fault, match=r"INPUT.*pydicom Dataset; give the path"):
        scan_of(pydicom.Dataset())
