"""The picture of a case: fixed colours, one window, the right plane, the right letters."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.detection.finding import Finding
from pseudohealthy.io.scan import Scan
from pseudohealthy.report.panel import (
    MASK_COLOUR,
    TRUTH_COLOUR,
    Facts,
    Pictures,
    View,
    mosaic,
    orientation,
    panel,
)

BRIGHTEST = (252, 255, 164)  # the upper end of inferno


def case(peak: float, *, planes=5, lesion_plane=3, size=48):
    """A disc of tissue with a lesion in one plane whose map reaches ``peak``."""
    row, column = np.mgrid[:size, :size]
    tissue = (np.hypot(row - size / 2, column - size / 2) < size * 0.42).astype(np.float32)
    healthy = np.repeat(40 * tissue[None], planes, 0)
    lesion = np.zeros(healthy.shape, bool)
    lesion[lesion_plane, size // 3 : size // 2, size // 3 : size // 2] = True
    found = np.where(lesion, peak, 0.02 * healthy / 40).astype(np.float32)
    return healthy + 30 * lesion, healthy, found, lesion


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def count(path, colour) -> int:
    colour = tuple(bytes.fromhex(colour[1:])) if isinstance(colour, str) else colour
    return int((np.abs(pixels(path) - colour).max(-1) <= 2).sum())


def draw(path, peak, **settings):
    image, healthy, found, lesion = case(peak)
    pictures = Pictures(image, healthy, found, found > 1.0, settings.get("truth", lesion))
    facts = Facts("case-1", peak, settings.get("threshold", 1.0), "healthy-quantile")
    return mosaic(path, pictures, View(plane=settings.get("plane")), facts)


def test_of_a_volume_the_plane_with_the_most_anomaly_is_shown(tmp_path):
    assert draw(tmp_path / "a.png", 3.0) == 3
    assert draw(tmp_path / "b.png", 3.0, plane=0) == 0


def test_colours_come_from_the_threshold_and_not_from_the_image(tmp_path):
    """A map far below the threshold stays dark; its own maximum does not become the brightest
    colour."""
    draw(tmp_path / "loud.png", 2.5)
    draw(tmp_path / "quiet.png", 0.3)
    lit = count(tmp_path / "loud.png", BRIGHTEST) - count(tmp_path / "quiet.png", BRIGHTEST)
    assert lit > 1000  # the lesion; the colour bar is in both


def test_mask_and_reference_are_told_apart(tmp_path):
    draw(tmp_path / "with.png", 2.5)
    draw(tmp_path / "without.png", 2.5, truth=None)
    assert count(tmp_path / "with.png", TRUTH_COLOUR) > 100 + count(
        tmp_path / "without.png", TRUTH_COLOUR
    )
    assert MASK_COLOUR != TRUTH_COLOUR


def test_one_window_serves_input_and_twin(tmp_path):
    """A twin brighter than the window is white, as the input would be there; it is not rescaled."""
    image = np.tile(np.linspace(0, 100, 64), (64, 1))
    flat = np.full_like(image, 300.0)
    pictures = Pictures(image, flat, map=image * 0, mask=image > 200)
    mosaic(tmp_path / "a.png", pictures, View(window=(0, 100)))
    picture = pixels(tmp_path / "a.png")
    middle = picture[picture.shape[0] // 2]
    left, right = middle[: len(middle) // 4], middle[len(middle) * 3 // 10 : len(middle) * 4 // 10]
    assert left.min() < 40 and (right == 255).all()


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_without_a_positive_threshold_the_scale_is_still_fixed(tmp_path, threshold):
    draw(tmp_path / "a.png", 0.5, threshold=threshold)
    assert count(tmp_path / "a.png", BRIGHTEST) < 2000


@pytest.mark.parametrize("shape", [(32, 32), (1, 20, 60), (2, 3, 60, 20)])
def test_images_stacks_and_channels_of_any_shape_are_drawn(tmp_path, shape):
    image = np.random.default_rng(0).random(shape)
    spatial = image if image.ndim < 4 else image[0]
    pictures = Pictures(image, image, spatial, spatial > 0.5)
    mosaic(tmp_path / "a.png", pictures, facts=Facts(title="$x_{"))
    assert pixels(tmp_path / "a.png").std() > 10


def test_every_channel_is_shown_in_its_own_window(tmp_path):
    """Four sequences of other units: a square in the last one alone is seen in input and twin."""
    flat = np.zeros((4, 1, 32, 32))
    flat[:, :, :, 16:] = np.array([1, 10, 100, 1000.0])[:, None, None, None]
    marked = flat.copy()
    marked[3, 0, 4:12, 2:10] = 1000
    spatial = flat[0] * 0
    for name, image in (("plain", flat), ("marked", marked)):
        pictures = Pictures(image, flat, spatial, spatial)
        mosaic(tmp_path / f"{name}.png", pictures, View(window=(0, 1)))
    plain, found = pixels(tmp_path / "plain.png"), pixels(tmp_path / "marked.png")
    rows, columns = np.nonzero(np.abs(plain - found).max(-1) > 200)
    assert len(rows) > 100 and columns.max() < plain.shape[1] // 4, (
        "in the input, which is the first of four pictures"
    )
    assert rows.min() > plain.shape[0] // 2, "in its lower half, where the last two channels are"


def test_letters_follow_the_affine():
    radiological = np.eye(4)
    radiological[:3, :3] = [[0, 0, -1], [0, -1, 0], [1, 0, 0]]  # d to S, h to P, w to L
    assert orientation(radiological) == ("R", "L", "A", "P")
    sagittal = np.eye(4)
    sagittal[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, -1, 0]]  # d to R, h to I, w to P
    assert orientation(sagittal) == ("A", "P", "S", "I")


def test_a_finding_draws_itself(tmp_path):
    image, healthy, found, lesion = case(2.5)
    finding = Finding(
        scan=Scan.from_array(image, name="case-1", affine=np.diag([5.0, 1, 2, 1])),
        healthy=healthy[None],
        map=found,
        foreground=healthy > 0,
        score=2.5,
        plane_scores=found.max((1, 2)),
        threshold=1.0,
        threshold_source="given",
    )
    written = panel(finding, tmp_path / "panel.png", truth=lesion)
    assert count(written, TRUTH_COLOUR) > 100


@pytest.mark.parametrize(
    "left, words", [(30, "the lesion is still there: nothing of"), (0, "100 % of the lesion's")]
)
def test_beside_a_reference_the_twin_is_named_as_what_it_is(tmp_path, monkeypatch, left, words):
    from pseudohealthy.report import panel as module

    image, healthy, found, lesion = case(2.0)
    shown: dict = {}
    monkeypatch.setattr(
        module, "mosaic", lambda path, pictures, *_: shown.update(twin=pictures.twin)
    )
    scan = Scan.from_array(image)
    finding = Finding(
        scan,
        (healthy + left * lesion)[None],
        found,
        found >= 0,
        1.0,
        found.max((1, 2)),
        1.0,
        "given",
    )
    panel(finding, tmp_path / "a.png", truth=lesion)
    assert shown["twin"].startswith(f"healthy twin\n{words}")
    panel(finding, tmp_path / "a.png")
    assert shown["twin"] == "healthy twin"
