"""One scan in memory: voxels in native units, where they lie in the patient, and how to put results
back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import Fault

MAX_NONFINITE = (
    0.01  # a larger share of NaN or infinite voxels is a broken file, not a few bad voxels
)
EXACT = 2**24  # whole numbers up to here are the same in float32
STEP_MM, EXTENT_MM = (0.01, 100.0), (2.0, 3000.0)  # of a voxel, and of the longest side of a volume
MIN_SIDE = 10  # rows and columns; smaller "images" are thumbnails or mistakes


@dataclass
class Scan:
    """Voxels (C, D, H, W) float32 in the file's own units: channels, planes, rows, columns.

    affine: float64 (4, 4), index (d, h, w, 1) -> patient RAS+ in mm; None where the file has no
    geometry.
    name: case id, safe as a file name, never taken from DICOM identifiers.
    kind: of `formats.FORMATS`; units: "HU" or "".
    origin: what the writer needs to put an array back on the file's grid.
    display: window (low, high) stored in the file, for pictures only.
    sha256: of the files it was read from, where a command needs it.
    unnamed: files whose names must not be told, since they may be a patient's.
    """

    voxels: np.ndarray
    affine: np.ndarray | None
    name: str
    kind: str
    units: str = ""
    origin: Any = None
    warnings: list[str] = field(default_factory=list)
    display: tuple[float, float] | None = None
    sha256: str | None = None
    unnamed: tuple[Path, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        c, d, h, w = self.voxels.shape
        return c, d, h, w

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Distance in mm from one plane, row and column to the next: (dD, dH, dW)."""
        if self.affine is None:
            return None
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return d, h, w

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel in ml, from the determinant: right for sheared grids too. None without
        geometry, and where the geometry is no patient's: such volumes would be read as real."""
        if self.affine is None or not of_a_patient(self.shape[1:], self.affine):
            return None
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @classmethod
    def from_array(
        cls, array: Any, *, name: str = "array", affine: np.ndarray | None = None
    ) -> Scan:
        """A scan from numpy, torch or lists: (H, W), (D, H, W) or (C, D, H, W), real numbers.

        A colour picture (H, W, 3) or (H, W, 4) of uint8 becomes its luminance.

        Args:
            affine: (4, 4), index (d, h, w, 1) -> RAS+ mm.

        Raises Fault INPUT, SHAPE, DTYPE, NONFINITE or BAD_AFFINE.
        """
        warnings: list[str] = []
        array = numbers(array, warnings)
        if array.ndim == 3 and array.shape[-1] in (1, 3, 4) and 1 not in array.shape[:2]:
            array = _picture(array, warnings)
        if not 2 <= array.ndim <= 4 or 0 in array.shape:
            cure = "take one case of a batch" if array.ndim > 4 else "planes come first"
            shapes = f"give (H, W), (D, H, W) or (C, D, H, W); {cure}"
            raise Fault("SHAPE", f"an array of shape {array.shape}", shapes)
        if affine is not None:
            affine = matrix(affine)
        voxels = finite(as_float(array, warnings), warnings)
        voxels = voxels.reshape((1,) * (4 - voxels.ndim) + voxels.shape)
        return cls(voxels, affine, name, "array", warnings=warnings)


def numbers(value: Any, warnings: list[str]) -> np.ndarray:
    """What a tensor, an array or nested lists hold, as a numpy array of real numbers.

    Raises Fault INPUT for what holds no numbers, DTYPE for other numbers than real ones.
    """
    kind = type(value).__name__
    cure = "give a path, an array, a tensor, or an image of nibabel, MONAI or TorchIO"
    try:
        if hasattr(value, "detach") and hasattr(value, "layout"):
            value = _off_device(value)
        if isinstance(value, np.ma.MaskedArray):
            value = _unmasked(value, warnings)
        array = np.asarray(value)
    except ValueError:
        raise Fault("SHAPE", f"a {kind} whose rows differ in length", cure) from None
    except (TypeError, RuntimeError, NotImplementedError) as error:
        said = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise Fault("INPUT", f"an object of type {kind} ({said})", cure) from None
    if array.dtype.kind in "OUSV" and not isinstance(value, np.ndarray):
        raise Fault("INPUT", f"an object of type {kind}", cure)
    if array.dtype.kind not in "buif":
        raise Fault("DTYPE", f"an array of {array.dtype}", "give real numbers")
    return array


def _off_device(tensor: Any) -> Any:
    """A tensor numpy can take: dense, without gradient, in a type that numpy has."""
    tensor = tensor.detach()
    tensor = tensor if str(tensor.layout) == "torch.strided" else tensor.to_dense()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def _unmasked(array: np.ma.MaskedArray, warnings: list[str]) -> np.ndarray:
    if not (hidden := int(np.ma.count_masked(array))):
        return array.data
    if hidden == array.size:
        raise Fault("NONFINITE", "an array that is masked everywhere", "turn its mask")
    warnings.append(f"MASKED n={hidden}: replaced by the lowest value that is not masked")
    return array.filled(array.min())


def _picture(array: np.ndarray, warnings: list[str]) -> np.ndarray:
    """(H, W, channels) as (H, W)."""
    if array.shape[-1] == 1:
        return array[..., 0]
    if array.dtype != np.uint8:
        cure = "of a picture give one channel or the mean, of a volume the planes first"
        raise Fault("SHAPE", f"an array of shape {array.shape}, {array.dtype}", cure)
    if array.shape[-1] == 4:
        warnings.append("ALPHA: transparency is dropped")
    colours = array[..., :3]
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    warnings.append("COLOUR: converted to luminance")
    return luminance(colours)


def luminance(colours: np.ndarray) -> np.ndarray:
    """Rec. 601 luma of (..., 3), of the same type; 8-bit values equal Pillow's."""
    if colours.dtype.kind != "u" or colours.dtype.itemsize > 2:
        return colours @ np.array([0.299, 0.587, 0.114], np.result_type(colours, np.float32))
    return (colours @ np.array([19595, 38470, 7471], np.int64) + 2**15 >> 16).astype(colours.dtype)


def matrix(affine: Any) -> np.ndarray:
    """An affine as float64 (4, 4). Raises Fault BAD_AFFINE."""
    affine = np.array(affine, np.float64)
    if affine.shape != (4, 4) or not invertible(affine):
        what = "the affine is not an invertible 4 x 4 matrix"
        raise Fault("BAD_AFFINE", what, "give index -> RAS+ mm")
    return affine


def as_float(values: np.ndarray, warnings: list[str]) -> np.ndarray:
    """A float32 copy; says so where whole numbers are too large to be kept exactly."""
    with np.errstate(over="ignore"):
        voxels = np.array(values, np.float32)
    wide = values.dtype.kind in "iu" and values.dtype.itemsize > 2 and values.size > 0
    if wide and max(-int(values.min()), int(values.max())) > EXACT:
        warnings.append(f"PRECISION: whole numbers beyond {EXACT} are kept to 7 digits")
    return voxels


def finite(voxels: np.ndarray, warnings: list[str]) -> np.ndarray:
    """Replace up to 1 % of non-finite voxels by the lowest finite value, in place; more raise
    NONFINITE."""
    bad = ~np.isfinite(voxels)
    n = int(bad.sum())
    if n == 0:
        return voxels
    if n > MAX_NONFINITE * voxels.size:
        share = 100 * n / voxels.size
        found = (
            f"{n} of {voxels.size} voxels ({share:.1f} %) are NaN, infinite or too large for"
            " float32"
        )
        raise Fault("NONFINITE", found, "repair the file")
    voxels[bad] = voxels[~bad].min()
    warnings.append(f"NONFINITE n={n}: replaced by the lowest finite value")
    return voxels


def usable(scan: Scan) -> Scan:
    """The scan itself, or Fault TOO_SMALL or CONSTANT_IMAGE where no method could say anything
    about it."""
    _, d, h, w = scan.shape
    if min(h, w) < MIN_SIDE:
        raise Fault(
            "TOO_SMALL",
            f"planes of {h} x {w} voxels ({d} of them)",
            f"needs at least {MIN_SIDE} x {MIN_SIDE}",
        )
    for index, channel in enumerate(scan.voxels):
        if channel.min() == channel.max():
            which = f"channel {index}" if len(scan.voxels) > 1 else "the image"
            raise Fault(
                "CONSTANT_IMAGE",
                f"{which} has the same value everywhere",
                "check the export of this file",
            )
    return scan


def invertible(affine: np.ndarray) -> bool:
    """Whether it is finite and its axes point three ways, however short they are."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or steps.min() < 1e-12:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / steps)) > 1e-6)


def of_a_patient(shape: tuple[int, ...], affine: np.ndarray) -> bool:
    """Whether a (D, H, W) grid has the size of a patient or a part of one: not microns, not
    metres."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    extent = (steps * np.array(shape)).max()
    voxel = STEP_MM[0] <= steps.min() and steps.max() <= STEP_MM[1]
    return bool(voxel and EXTENT_MM[0] <= extent <= EXTENT_MM[1])


def same_grid(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> bool:
    """Whether two affines put every corner of a (D, H, W) grid within a tenth of a voxel of each
    other."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    apart = corners @ (affine - other)[:3, :3].T + (affine - other)[:3, 3]
    smallest = min(np.linalg.norm(a[:3, :3], axis=0).min() for a in (affine, other))
    return bool(np.linalg.norm(apart, axis=1).max() <= 0.1 * smallest)


def describe_grid(shape: tuple[int, ...], affine: np.ndarray | None) -> str:
    """A grid in a few words, for messages."""
    text = " x ".join(str(n) for n in shape)
    if affine is None:
        return f"{text} without geometry"
    steps = " x ".join(f"{n:.3g}" for n in np.linalg.norm(affine[:3, :3], axis=0))
    first = ", ".join(f"{n:.4g}" for n in affine[:3, 3])
    return f"{text} voxels of {steps} mm, first at ({first})"
