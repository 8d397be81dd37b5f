"""Reference masks: honest ones are taken and said, what is none is refused before a figure is
made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan

ROWS, COLUMNS = np.mgrid[:96, :96]


def disc(radius: float, row: int = 40, column: int = 60) -> np.ndarray:
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 < radius**2


@pytest.fixture
def image(tmp_path) -> np.ndarray:
    """A head in air with a bright lesion, beside the masks as x.png."""
    rng = np.random.default_rng(0)
    tissue = np.where(disc(40, 48, 48), rng.normal(90, 6, (96, 96)), rng.integers(0, 4, (96, 96)))
    values = np.where(disc(8), 150, tissue).clip(0, 255).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "x.png")
    return values


LESION = disc(8)
BYTE = LESION.astype(np.uint8) * np.uint8(255)


def read(folder: Path, name: str, array: np.ndarray | None = None, **how) -> tuple[int, list[str]]:
    """How many pixels a mask marks, and what was said."""
    if array is not None and name.endswith(".npy"):
        np.save(folder / name, array)
    elif array is not None:
        Image.fromarray(array).save(folder / name, **how)
    scan: Scan = io.read_image("x.png", folder)
    return int(io.read_mask(name, folder, scan).sum()), scan.warnings


def coloured(grey: np.ndarray, colour: tuple[int, int, int], where: np.ndarray) -> np.ndarray:
    pixels = np.stack([grey] * 3, -1)
    pixels[where] = colour
    return pixels


def with_alpha(colour: int, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([np.full((96, 96, 3), colour, np.uint8), alpha])


@pytest.mark.parametrize("radius", [3, 8, 20])
@pytest.mark.parametrize("quality", [60, 75, 95, 100])
def test_jpeg_masks_are_cut_at_half_whatever_their_size(tmp_path, image, radius, quality):
    mask = disc(radius).astype(np.uint8) * np.uint8(255)
    count, said = read(tmp_path, "m.jpg", mask, quality=quality)
    assert count == disc(radius).sum() and said[0].startswith("MASK_JPEG of 0 to 25")
    Image.open(tmp_path / "m.jpg").save(tmp_path / "m.png")  # no longer a JPEG, but once it was
    assert read(tmp_path, "m.png")[0] == count or quality == 100


def test_a_coloured_jpeg_is_cut_at_half_and_jpeg_labels_are_refused(tmp_path, image):
    red = coloured(np.zeros((96, 96), np.uint8), (255, 0, 0), LESION)
    assert read(tmp_path, "m.jpg", red, quality=90)[0] == pytest.approx(LESION.sum(), abs=3)
    with pytest.raises(Fault, match=r"MASK_VALUES.*JPEG keeps no labels"):
        read(tmp_path, "m.jpg", LESION.astype(np.uint8) + disc(3, 70, 30), quality=95)


@pytest.mark.parametrize("value", [1, 60, 255])
def test_two_values_are_a_mask_and_nothing_is_said(tmp_path, image, value):
    assert read(tmp_path, "m.png", LESION.astype(np.uint8) * value) == (LESION.sum(), [])
    assert read(tmp_path, "m.npy", LESION.astype(np.float32) * value) == (LESION.sum(), [])
    assert read(tmp_path, "m.png", LESION.astype(np.uint16) * 257 * value) == (LESION.sum(), [])


def test_labels_count_together(tmp_path, image):
    labels = LESION.astype(np.uint8) + 2 * disc(5, 60, 40).astype(np.uint8)
    count, said = read(tmp_path, "m.png", labels)
    assert count == (labels > 0).sum() and said == ["MASK_LABELS 0, 1, 2: all above 0 count"]
    assert read(tmp_path, "m.png", labels * 85)[0] == count


@pytest.mark.parametrize("step", [1, 4])
def test_many_numbered_lesions_are_labels_not_shades(tmp_path, image, step):
    labels = np.zeros((96, 96), np.uint8)
    for number in range(42):
        row, column = 10 + 13 * (number // 7), 8 + 12 * (number % 7)
        labels[row : row + 4, column : column + 4] = step * (number + 1)
    assert read(tmp_path, "m.png", labels)[0] == 42 * 16


def test_soft_edges_and_probabilities_are_cut_at_half_and_said(tmp_path, image):
    soft = ndimage.zoom(ndimage.zoom(LESION.astype(np.float32), 0.25, order=1), 4, order=1).clip(
        0, 1
    )
    for name, values in (("m.png", (soft * 255).astype(np.uint8)), ("m.npy", soft)):
        count, said = read(tmp_path, name, values)
        assert count == (values >= values.max() / 2).sum() and "cut at" in said[0]
    likely = ndimage.gaussian_filter(LESION.astype(np.float32), 3)
    count, said = read(tmp_path, "m.npy", likely)
    assert count == (likely >= 0.5).sum() and said[0].startswith("MASK_PROBABILITY")
    turned = ndimage.rotate(LESION.astype(np.float32), 13, reshape=False, order=3)  # overshoots
    count, _ = read(tmp_path, "m.npy", turned)
    assert count == pytest.approx(ndimage.rotate(LESION, 13, reshape=False, order=0).sum(), rel=0.1)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("drawn", ["filled", "mixed", "contour"])
def test_the_image_with_the_lesion_drawn_on_it_is_refused(tmp_path, image, drawn, suffix):
    where = LESION ^ ndimage.binary_erosion(LESION) if drawn == "contour" else LESION
    pixels = coloured(image, (255, 0, 0), where)
    if drawn == "mixed":
        pixels = (pixels // 2 + np.stack([image] * 3, -1) // 2).astype(np.uint8)
    with pytest.raises(Fault, match="MASK_OVERLAY"):
        read(tmp_path, f"m.{suffix}", pixels)


def test_the_image_itself_is_refused(tmp_path, image):
    bright = np.where(LESION, 255, image).astype(np.uint8)
    for name, array in (
        ("m.png", image),
        ("m.jpg", image),
        ("m.npy", image / 255),
        ("b.png", bright),
    ):
        with pytest.raises(Fault, match="MASK_VALUES"):
            read(tmp_path, name, array)
    levels = (image // 40 * 40).astype(np.uint8)  # few greys, as labels have
    levels[0, 0] = 240
    with pytest.raises(Fault, match=r"MASK_VALUES.*a copy of the image"):
        read(tmp_path, "m.png", levels)


def test_inverted_masks_are_refused_and_large_lesions_only_warned_about(tmp_path, image):
    white = coloured(np.full((96, 96), 255, np.uint8), (255, 0, 0), LESION)
    for name, array in (
        ("m.png", ~BYTE),
        ("m.jpg", ~BYTE),
        ("m.png", white),
        ("m.png", with_alpha(0, ~BYTE)),
    ):
        with pytest.raises(Fault, match="MASK_INVERTED"):
            read(tmp_path, name, array)
    large = disc(40, 48, 48)
    count, said = read(tmp_path, "m.png", large.astype(np.uint8))
    assert count == large.sum() and said[0].startswith(f"MASK_MOST: {count} of 9216")
    assert read(tmp_path, "m.png", (disc(38, 48, 48)).astype(np.uint8))[1] == []


def test_a_mask_in_the_transparency_is_found(tmp_path, image):
    for colour in (0, 255):
        count, said = read(tmp_path, "m.png", with_alpha(colour, BYTE))
        assert count == LESION.sum() and "MASK_ALPHA" in said[0]
    opaque = np.dstack([np.stack([BYTE] * 3, -1), np.full((96, 96), 255, np.uint8)])
    assert read(tmp_path, "m.png", opaque) == (LESION.sum(), [])
    grey = np.dstack([np.full((96, 96), 255, np.uint8), BYTE])
    Image.fromarray(grey, "LA").save(tmp_path / "m.png")
    assert read(tmp_path, "m.png")[0] == LESION.sum()


def test_an_empty_mask_is_empty(tmp_path, image):
    assert read(tmp_path, "m.png", BYTE * 0) == (0, [])
