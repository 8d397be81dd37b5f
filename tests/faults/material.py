"""Sound images, from which the rows make their broken ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from pseudohealthy.anomalies.phantoms import dicom_series, head, nifti


def blob(seed: int = 0, *, bright: bool = False, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A grey blob (side, side) uint8 and the mask of the white square on it when `bright`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / (side - 1) - rng.uniform(0.4, 0.6, (2, 1, 1))
    image = 140 * np.exp(-8 * (rows**2 + columns**2)) + rng.uniform(0, 12, (side, side))
    mask = np.zeros((side, side), bool)
    if bright:
        mask[3:7, 4:8] = True
    return np.where(mask, 250, image).astype(np.uint8), mask


def png(path: Path, seed: int = 0, *, bright: bool = False, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blob(seed, bright=bright, side=side)[0]).save(path)
    return path


def blobs(root: Path) -> Path:
    """A folder layout of blobs: train/good, val/good, test/good, test/bad with masks."""
    number = 0
    for place, count in (("train/good", 16), ("val/good", 6), ("test/good", 6), ("test/bad", 6)):
        for k in range(count):
            number += 1
            name = f"{place.replace('/', '-')}-{k}.png"
            png(root / place / name, number, bright=place == "test/bad")
            if place == "test/bad":
                (root / "masks").mkdir(exist_ok=True)
                mask = blob(number, bright=True)[1]
                Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / name)
    return root


def heads(root: Path, modality: str) -> Path:
    """A folder layout of synthetic heads as NIfTI, a diseased one with its mask; MR without
    skull."""
    for number, place in enumerate(
        ("train/good/a", "train/good/b", "val/good/c", "test/good/d", "test/bad/e")
    ):
        shape, lesion = (6, 32, 32), 0.3 if "bad" in place else None
        values, mask, affine = head(
            np.random.default_rng(number), shape=shape, modality=modality, lesion=lesion
        )
        if modality == "MR":
            values = stripped(values)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        nifti(root / f"{place}.nii.gz", values, affine)
        if lesion:
            (root / "masks").mkdir()
            nifti(root / "masks" / "e.nii.gz", mask.astype(np.uint8), affine)
    return root


def stripped(values: np.ndarray) -> np.ndarray:
    """An MR head without what is not brain; the ventricles stay."""
    from scipy import ndimage

    tissue = ndimage.binary_opening((values > 300) & (values < 480), np.ones((1, 3, 3)))
    brain = np.stack([ndimage.binary_fill_holes(plane) for plane in tissue])
    return np.where(brain, values, 0).astype(np.float32)


def volume(
    path: Path, change: Callable[[np.ndarray], np.ndarray] | None = None, *, seed: int = 0
) -> Path:
    """A small synthetic CT head as NIfTI."""
    values, _, affine = head(np.random.default_rng(seed), shape=(4, 24, 24))
    path.parent.mkdir(parents=True, exist_ok=True)
    return nifti(path, values if change is None else change(values), affine)


def edited(path: Path, **fields: object) -> Path:
    """An uncompressed volume with header fields overwritten as they stand, right or wrong."""
    volume(path)
    raw = path.read_bytes()
    header = nib.Nifti1Header(raw[:348], check=False)
    for key, value in fields.items():
        header[key] = value
    path.write_bytes(header.binaryblock + raw[348:])
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def slices(folder: Path, *, seed: int = 0, depth: int = 10, **how: object) -> list[Path]:
    """A synthetic CT series; slices 2 mm apart, so that slice 4 lies at z = 8 mm."""
    values, _, _ = head(np.random.default_rng(seed), shape=(depth, 24, 24))
    return dicom_series(folder, values, spacing=(2.0, 1.0, 1.0), seed=seed, **how)  # type: ignore[arg-type]
