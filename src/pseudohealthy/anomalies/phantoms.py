"""Synthetic images for demo, tutorial and tests: splotched digits, heads with lesions, DICOM files.

The splotch is equation 1 of "Brain Hemorrhage Detection With DDPM Reconstruction" (Loevlie, Liang,
Brockett).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy import ndimage
from scipy.ndimage import gaussian_filter, zoom


def splotch(
    image: np.ndarray, rng: np.random.Generator, *, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Overlay a white splotch on an image.

    Equation 1: centre in {6..22}^2, radius r in {2..5}, n in {3..7} discs with offsets in
    {-[r/2]..[r/2]} and radii in {[r/2]..r}; all uniform integers, both ends included, [.] the
    floor. These are pixels of the paper's 28 x 28 digits.

    Args:
        image: (H, W) in [0, 1].
        rng: Source of the figure.
        scale: 2 draws the same figure for a 56 x 56 image.

    Returns:
        Image (H, W) float32 with the splotch, and its mask (H, W) bool.
    """
    columns_centre, rows_centre = rng.integers(6, 22, size=2, endpoint=True)
    r = int(rng.integers(2, 5, endpoint=True))
    n = int(rng.integers(3, 7, endpoint=True))
    dx, dy = rng.integers(-(r // 2), r // 2, size=(2, n), endpoint=True)
    radii = rng.integers(r // 2, r, size=n, endpoint=True)
    y, x = ((np.arange(side) + 0.5) / scale - 0.5 for side in image.shape)
    squared = (x[:, None] - columns_centre - dx) ** 2 + ((y[:, None] - rows_centre - dy) ** 2)[
        :, None
    ]
    mask = (squared <= radii**2).any(axis=-1)
    return np.where(mask, 1, image).astype(np.float32), mask


def lesion(
    image: np.ndarray,
    inside: np.ndarray,
    rng: np.random.Generator,
    *,
    radius: tuple[float, float] = (4.0, 16.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Add a simulated lesion to a plane of a brain.

    Three to seven overlapping discs about a point of `inside`, as in `splotch`, with a soft edge.
    Tissue is drawn towards .3-.7 (dark: infarct, T1 black hole) or 1.4-2 (bright: blood, fat) times
    its local mean, either with equal chance (dark where bright would saturate), and keeps a third
    of its texture. It models no disease: it tests how strong and how large a deviation must be to
    be detected.

    Args:
        image: (H, W) in [0, 1].
        inside: Where the lesion may lie, (H, W) bool.
        rng: Source of the lesion.
        radius: Range of the base radius in pixels, drawn log-uniformly.

    Returns:
        Image with the lesion, and the mask (H, W) bool where at least half of the change is.

    Raises:
        ValueError: for an empty `inside`.
    """
    image, inside = np.asarray(image, dtype=np.float64), np.asarray(inside, dtype=bool)
    places = np.argwhere(inside)
    if not len(places):
        raise ValueError("no place for a lesion")
    row, column = places[rng.integers(len(places))]
    base = float(np.exp(rng.uniform(*np.log(radius))))
    rows, columns = np.indices(image.shape)
    body = np.zeros(image.shape, dtype=bool)
    for _ in range(int(rng.integers(3, 8))):
        dy, dx = rng.uniform(-base / 2, base / 2, size=2)
        body |= np.hypot(rows - row - dy, columns - column - dx) <= rng.uniform(base / 2, base)
    share = ndimage.gaussian_filter((body & inside).astype(np.float64), 1.0) * inside
    local = ndimage.gaussian_filter(image, 2 * base)
    dark = rng.random() < 0.5 or 1.4 * local[row, column] > 1
    factor = rng.uniform(0.3, 0.7) if dark else rng.uniform(1.4, 2.0)
    target = np.clip(factor * local + (image - local) / 3, 0, 1)
    return (1 - share) * image + share * target, share >= 0.5


def digits() -> np.ndarray:
    """The 1,797 UCI digits of digits.png, 8 x 8 enlarged to (1797, 32, 32) float32 in [0, 1]."""
    with Image.open(Path(__file__).with_name("digits.png")) as sheet:
        rows = np.asarray(sheet).reshape(43, 8, 42, 8)
    small = rows.swapaxes(1, 2).reshape(-1, 8, 8)[:1797] / 240  # 16 steps of 15
    large = zoom(small, (1, 4, 4), order=1, mode="nearest", grid_mode=True)
    return np.clip(large, 0, 1).astype(np.float32)


def head(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int, int] = (24, 96, 96),
    lesion: float | None = None,
    modality: str = "CT",
    spacing: tuple[float, float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A synthetic head with scalp, skull, textured brain, two ventricles and at most one lesion.

    Planes run towards Superior, rows Posterior, columns Left.

    Args:
        rng: Source of size, position, ventricles, texture and noise.
        shape: (D, H, W).
        lesion: Radius of the lesion as a share of the head's (0.15 is large); None for none.
        modality: "CT" in HU (bleeding 65), or "MR", like FLAIR (lesion bright, skull dark).
        spacing: mm; None makes the volume 160 mm wide each way.

    Returns:
        Volume (D, H, W) float32, lesion (D, H, W) bool, affine (4, 4) from index to RAS+ mm.
    """
    air, scalp, bone, tissue, water, bright = {
        "CT": (-1000.0, 30.0, 1000.0, 34.0, 6.0, 65.0),
        "MR": (0.0, 520.0, 40.0, 400.0, 120.0, 680.0),
    }[modality]
    spacing = spacing or (160 / shape[0], 160 / shape[1], 160 / shape[2])
    d, h, w = (
        np.linspace(-1, 1, side)[tuple(np.newaxis if k != axis else slice(None) for k in range(3))]
        for axis, side in enumerate(shape)
    )
    shift = rng.uniform(-0.03, 0.03, size=3)
    d, h, w = d - shift[0] + 0.25, h - shift[1], w - shift[2]
    sizes = np.array([1.15, 0.85, 0.7]) * rng.uniform(0.94, 1.04, size=3)
    radius = np.sqrt((d / sizes[0]) ** 2 + (h / sizes[1]) ** 2 + (w / sizes[2]) ** 2)
    blur = max(shape) / 24
    texture = gaussian_filter(rng.standard_normal(shape), blur)
    texture /= texture.std()
    volume = np.full(shape, air)
    for limit, value in ((1.0, scalp), (0.94, bone), (0.86, tissue)):
        volume[radius < limit] = value
    brain = radius < 0.86
    volume[brain] += (4.0 if modality == "CT" else 30.0) * texture[brain]
    width = rng.uniform(0.06, 0.1)
    for side in (-1, 1):
        ventricle = (d / 0.45) ** 2 + (h / 0.3) ** 2 + ((w - side * 1.4 * width) / width) ** 2 < 1
        volume[ventricle & brain] = water
    mask = np.zeros(shape, dtype=bool)
    if lesion is not None:
        direction = rng.standard_normal(3) * [0.6, 1, 1]
        centre = direction / np.linalg.norm(direction) * rng.uniform(0.3, 0.6) * sizes
        centre[0] = np.clip(centre[0], -0.5, 0.3)
        distance = np.sqrt((d - centre[0]) ** 2 + (h - centre[1]) ** 2 + (w - centre[2]) ** 2) * (
            1 + 0.1 * texture
        )
        mask = (distance < lesion) & brain
        volume[mask] = bright
    noise = rng.standard_normal(shape) * (3.0 if modality == "CT" else 12.0)
    volume = gaussian_filter(volume, (0, 0.5, 0.5)) + noise
    low = -1024.0 if modality == "CT" else 0.0
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return np.maximum(volume, low).astype(np.float32), mask, affine


def nifti(path: Path, volume: np.ndarray, affine: np.ndarray) -> Path:
    """Write a volume as NIfTI, stored as columns, rows, planes.

    Args:
        volume: (D, H, W).
        affine: (4, 4) from index (d, h, w) to RAS+ mm.
    """
    image = nib.Nifti1Image(
        np.ascontiguousarray(volume.transpose(2, 1, 0)), affine[:, [2, 1, 0, 3]]
    )
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    nib.save(image, path)
    return Path(path)


@dataclass(frozen=True)
class Stored:
    """How real values become the 16 bits of a DICOM file: round((value - intercept) / slope).

    Args:
        slope: One number, or one per plane; None leaves the tag out (1 is assumed).
        intercept: None leaves the tag out (0 is assumed).
        signed: int16, else uint16.
        monochrome1: The lowest value is white.
    """

    slope: float | Sequence[float] | None = 1.0
    intercept: float | None = -1024.0
    signed: bool = True
    monochrome1: bool = False

    def put(self, data: Any, values: np.ndarray, plane: int) -> None:
        """Write rescaling and pixels of one plane (H, W) into a data set."""
        slope = self.slope[plane] if isinstance(self.slope, Sequence) else self.slope
        if slope is not None:
            data.RescaleSlope = slope
        if self.intercept is not None:
            data.RescaleIntercept = self.intercept
            data.RescaleType = "HU"
        kind = np.dtype("int16" if self.signed else "uint16")
        pixels = np.rint((values - (self.intercept or 0.0)) / (slope or 1.0))
        pixels = np.clip(pixels, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel = 1
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, int(self.signed)
        data.PhotometricInterpretation = "MONOCHROME1" if self.monochrome1 else "MONOCHROME2"
        data.PixelData = pixels.astype(kind.newbyteorder("<")).tobytes()


def dicom_series(
    folder: Path,
    volume: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (5.0, 1.0, 1.0),
    origin: tuple[float, float, float] = (-48.0, -48.0, 0.0),
    tilt: float = 0.0,
    stored: Stored = Stored(),
    shuffle: bool = True,
    modality: str = "CT",
    seed: int = 0,
) -> list[Path]:
    """Write a volume as one axial DICOM series.

    Args:
        folder: Made where it is missing.
        volume: (D, H, W) in real units (HU).
        spacing: Between planes, rows and columns, mm.
        origin: mm, LPS, of the first pixel.
        tilt: Gantry tilt in degrees about the patient's x axis: planes turn, the table still moves
            along z.
        stored: How values become bits.
        shuffle: File names and instance numbers do not follow position.
        modality: CT or MR.
        seed: Of UIDs and of the shuffling.

    Returns:
        The files in order of position.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    depth = len(volume)
    names = np.random.default_rng(seed).permutation(depth) if shuffle else np.arange(depth)
    study, series, frame = (
        generate_uid(entropy_srcs=[f"{seed}", word]) for word in ("study", "series", "frame")
    )
    angle = np.deg2rad(tilt)
    paths = []
    for plane in range(depth):
        data = Dataset()
        data.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        data.SOPInstanceUID = generate_uid(entropy_srcs=[f"{seed}", "image", f"{plane}"])
        data.StudyInstanceUID = study
        data.SeriesInstanceUID = series
        data.FrameOfReferenceUID = frame
        data.PatientName, data.PatientID, data.Modality = "PHANTOM^HEAD", "PHANTOM", modality
        data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.StudyID = ""
        data.StudyDate = data.SeriesDate = data.ContentDate = "20200101"
        data.StudyTime = data.SeriesTime = data.ContentTime = "120000"
        data.ReferringPhysicianName = data.PositionReferenceIndicator = data.PatientPosition = ""
        data.Manufacturer, data.SeriesDescription, data.SeriesNumber = "pseudohealthy", "phantom", 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.InstanceNumber = int(names[plane]) + 1
        turned = [0.0, float(np.cos(angle)), float(np.sin(angle))]
        data.ImageOrientationPatient = [1.0, 0.0, 0.0, *turned]
        data.ImagePositionPatient = [origin[0], origin[1], origin[2] + plane * spacing[0]]
        data.PixelSpacing = [spacing[1], spacing[2]]
        data.SliceThickness = spacing[0]
        if modality == "CT":
            data.KVP, data.GantryDetectorTilt = 120, tilt
        stored.put(data, volume[plane], plane)
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        path = folder / f"IM{int(names[plane]):04d}.dcm"
        data.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
