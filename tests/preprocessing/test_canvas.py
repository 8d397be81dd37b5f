"""The canvas loses nothing it promises to keep: values, geometry, masks and what the restoration
did not touch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.foreground import foreground
from pseudohealthy.preprocessing.levels import WINDOWS, window_range
from pseudohealthy.preprocessing.placement import Placement

SIDES = st.integers(10, 70)


def scan_of(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Scan:
    return Scan.from_array(rng.random(shape, dtype=np.float32) * np.float32(scale))


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 3), st.integers(0, 200), st.booleans(), st.integers(0, 2**31))
def test_a_canvas_at_least_as_large_as_the_image_gives_every_value_back(
    height, width, channels, room, crop, seed
):
    rng = np.random.default_rng(seed)
    scan = scan_of(rng, channels, 2, height, width, scale=1000)
    size = max(height, width) + room
    canvas = Canvas(
        size=size,
        channels=channels,
        normalise="range",
        value_range=(0, 1000),
        foreground="all",
        crop=crop,
    )
    fitted = canvas.fit(scan)
    assert (
        fitted.planes.shape == (2, channels, canvas.size, canvas.size)
        and fitted.planes.dtype == torch.float32
    )
    assert fitted.planes.min() >= -1 and fitted.planes.max() <= 1 + 1e-6
    np.testing.assert_allclose(
        canvas.undo(fitted.planes, fitted.placement), scan.voxels, rtol=1e-5, atol=1e-2
    )


@settings(max_examples=80, deadline=None)
@given(
    st.integers(40, 90),
    st.integers(40, 90),
    st.integers(12, 200),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_blob_comes_back_within_half_a_model_pixel(height, width, size, crop, nearest, seed):
    """For every shape, crop and size: centre of mass of a blob before and after the model's
    grid."""
    rng = np.random.default_rng(seed)
    row, column = rng.uniform(15, height - 15), rng.uniform(15, width - 15)
    y, x = np.mgrid[:height, :width]
    blob = np.maximum(0, 1 - ((y - row) ** 2 + (x - column) ** 2) / 5**2)
    body = np.zeros((1, height, width), bool)
    top, left = rng.integers(0, int(row) - 9), rng.integers(0, int(column) - 9)
    body[:, top : int(row) + 10, left : int(column) + 10] = True
    canvas = Canvas(size=size, normalise="unit", crop=crop)
    fitted = canvas.fit(Scan.from_array(blob), brain_mask=body)
    back = canvas.undo_map((fitted.planes[:, 0] + 1) / 2, fitted.placement, nearest=nearest)[0]
    apart = [
        ((back * axis).sum() / back.sum() - (blob * axis).sum() / blob.sum()) for axis in (y, x)
    ]
    assert np.abs(apart).max() <= 0.5 / fitted.placement.scale + 1e-3  # the blob's own sampling


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(8, 100), st.booleans(), st.integers(0, 2**31))
def test_an_unchanged_restoration_returns_the_scan_bit_for_bit(height, width, size, crop, seed):
    scan = scan_of(np.random.default_rng(seed), 3, height, width)
    canvas = Canvas(size=size, percentiles=(5, 90), crop=crop)
    fitted = canvas.fit(scan)
    assert canvas.healthy(scan, fitted.planes, fitted).tobytes() == scan.voxels.tobytes()


def test_the_twin_takes_the_restored_value_where_a_lesion_lies_beyond_the_window():
    values = np.full((12, 12), 35.0)
    values[3:6, 3:6] = 200  # above the brain window (0..80 HU)
    scan = Scan.from_array(values)
    canvas = Canvas(size=12, normalise="window", windows=("brain",), foreground="all")
    fitted = canvas.fit(scan)
    restored = fitted.planes.clone()
    restored[:, :, 3:6, 3:6] = 35 / 40 - 1
    np.testing.assert_allclose(canvas.healthy(scan, restored, fitted), 35, atol=1e-4)
    slight = fitted.planes - 1e-4
    assert abs(canvas.healthy(scan, slight, fitted) - scan.voxels).max() < 0.1  # bone stays bone


def test_the_narrowest_window_that_holds_a_value_decides_for_it():
    values = np.full((12, 12), 40.0)
    values[0, :6], values[1, :6] = 150, 900
    scan = Scan.from_array(values)
    canvas = Canvas(
        size=12,
        channels=3,
        normalise="window",
        windows=("bone", "brain", "subdural"),
        foreground="all",
    )
    fitted = canvas.fit(scan)
    assert fitted.planes.shape == (1, 3, 12, 12)
    change = torch.tensor([0.001, 0.01, 0.1]).reshape(1, 3, 1, 1)  # bone, brain, subdural
    moved = canvas.healthy(scan, fitted.planes + change, fitted)[0, 0] - scan.voxels[0, 0]
    assert moved[5, 5] == pytest.approx(0.01 * 40, rel=1e-3)
    assert moved[0, 0] == pytest.approx(0.1 * 100, rel=1e-3)
    assert moved[1, 0] == pytest.approx(0.001 * 1400, rel=1e-3)


@pytest.mark.parametrize("pixel", [(1.0, 2.0), (2.0, 1.0), (0.7, 1.3)])
def test_what_is_round_in_millimetres_is_round_on_a_canvas_in_millimetres(pixel):
    """Rows and columns of unequal size: each is resampled by its own factor, there and back."""
    shape = [round(96 / step) for step in pixel]
    y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, pixel, strict=True))
    blob = np.exp(-(y[:, None] ** 2 + x[None] ** 2) / (2 * 10.0**2)).astype(np.float32)
    scan = Scan.from_array(blob, affine=np.diag([3.0, *pixel, 1.0]))
    fitted = Canvas(size=64, normalise="unit", foreground="all", spacing=1.5).fit(scan)
    shown = (fitted.planes[0, 0].numpy() + 1) / 2
    place = np.arange(64) - 31.5
    spreads = [np.sqrt((shown.sum(axis) * place**2).sum() / shown.sum()) * 1.5 for axis in (1, 0)]
    assert spreads == pytest.approx([10, 10], rel=0.03), (
        "standard deviation in mm along rows and columns"
    )
    back = Canvas(size=64, normalise="unit", foreground="all", spacing=1.5).undo_map(
        torch.from_numpy(shown)[None], fitted.placement
    )
    assert np.abs(back[0] - blob).max() < 0.03


def test_a_map_stays_in_its_range_and_fills_what_the_crop_left_out():
    rng = np.random.default_rng(0)
    image = np.zeros((90, 80), np.float32)
    image[30:60, 20:60] = 1 + rng.random((30, 40))
    canvas = Canvas(size=16, crop=True)
    fitted = canvas.fit(Scan.from_array(image))
    back = canvas.undo_map(rng.random((1, 16, 16)), fitted.placement, fill=-5)
    assert back.shape == (1, 90, 80) and back[0, 0, 0] == -5
    assert back[back != -5].min() >= 0 and back.max() <= 1
    labels = canvas.undo_map(rng.integers(0, 3, (1, 16, 16)), fitted.placement, nearest=True)
    assert set(np.unique(labels)) <= {0, 1, 2}


def test_a_small_mask_is_never_lost():
    scan = scan_of(np.random.default_rng(0), 2, 200, 200)
    mask = np.zeros((2, 200, 200), bool)
    mask[0, 101, 57] = True
    mask[1, 40:80, 40:80] = True
    fitted = Canvas(size=20, foreground="all").fit(scan, mask)
    assert fitted.mask is not None
    assert fitted.mask[0].nonzero().tolist() == [[10, 5]]
    assert fitted.mask[1].sum() == 16 and fitted.mask[1, 4:8, 4:8].all()


def test_percentiles_come_from_the_foreground_and_a_brain_mask_takes_its_place():
    image = np.zeros((40, 40), np.float32)
    image[10:30, 10:30] = np.linspace(100, 200, 400).reshape(20, 20)
    image[0, 0] = 9000
    brain = np.zeros((1, 40, 40), bool)
    brain[:, 10:30, 10:30] = True
    fitted = Canvas(size=40, percentiles=(0, 100)).fit(Scan.from_array(image), brain_mask=brain)
    assert fitted.placement.low == (100,) and fitted.placement.high == (200,)
    assert np.array_equal(fitted.foreground.numpy(), brain)
    assert fitted.planes[0, 0, 0, 0] == 1 and fitted.planes[0, 0, 5, 5] == -1


def test_a_placement_survives_json():
    fitted = Canvas(size=20, crop=True).fit(scan_of(np.random.default_rng(0), 2, 30, 44))
    assert (
        Placement.from_json(json.loads(json.dumps(fitted.placement.to_json()))) == fitted.placement
    )


def test_a_constant_image_is_refused():
    with pytest.raises(Fault, match="CONSTANT_IMAGE"):
        Canvas(size=16).fit(Scan.from_array(np.full((20, 20), 3.0)))


def test_a_two_valued_image_is_not_constant():
    image = np.zeros((20, 20))
    image[5:10, 5:10] = 255
    planes = Canvas(size=20).fit(Scan.from_array(image)).planes
    assert planes.min() == -1 and planes.max() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"normalise": "zscore"},
        {"foreground": "skull"},
        {"percentiles": (99, 1)},
        {"value_range": (1, 1)},
        {"size": 0},
        {"normalise": "window"},
        {"normalise": "window", "windows": ("liver",)},
        {"interpolation": "cubic"},
    ],
)
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(Fault) as caught:
        Canvas(**wrong)
    assert caught.value.exit == 2 and caught.value.cure


def test_channels_must_agree():
    scan = scan_of(np.random.default_rng(0), 2, 1, 20, 20)
    for canvas in (Canvas(), Canvas(normalise="window", windows=("brain",))):
        with pytest.raises(Fault, match="CHANNELS") as caught:
            canvas.fit(scan)
        assert caught.value.exit == 2


def test_windows_by_name_and_by_number():
    assert window_range("brain") == (0, 80) and window_range("40/80") == (0, 80)
    assert window_range("bone") == (-800, 2000) and set(WINDOWS) == {
        "brain",
        "subdural",
        "bone",
        "stroke",
    }


def test_lists_from_a_recipe_make_the_same_canvas():
    assert Canvas(percentiles=[1, 99], windows=[]) == Canvas(percentiles=(1, 99))  # type: ignore[arg-type]


def disc(side: int, radius: float, centre: float = 0.5) -> np.ndarray:
    y, x = (np.mgrid[:side, :side] + 0.5) / side - centre
    return np.hypot(y, x) < radius


@pytest.mark.parametrize("kind", ["skull", "stripped", "z-scored", "radiograph", "strokes"])
def test_the_foreground_is_the_patient(kind):
    rng = np.random.default_rng(0)
    side = 96
    truth = disc(side, 0.4)
    image = np.zeros((side, side))
    if kind == "skull":  # bright scalp, dark skull, brain, noise in the air
        image = (
            np.where(truth, 0.9, 0)
            - 0.85 * (disc(side, 0.36) ^ disc(side, 0.32))
            - 0.4 * disc(side, 0.32)
        )
        image += np.abs(rng.normal(0, 0.02, image.shape))
    elif kind == "stripped":
        image[truth] = rng.normal(500, 60, truth.sum())
        image[disc(side, 0.1)] = 10  # dark ventricle
    elif kind == "z-scored":
        image[truth] = rng.normal(0, 1, truth.sum())
    elif kind == "radiograph":  # dark lungs inside a body that touches the border
        truth = np.zeros((side, side), bool)
        truth[:, 10:-10] = True
        image = np.where(truth, 0.8, 0.02)
        image[20:70, 20:40] = 0.15
    else:  # a digit: thin, two strokes
        side = 28
        truth = np.zeros((side, side), bool)
        truth[5:20, 8:10] = truth[22:24, 6:14] = True
        image = truth * 0.9
    found = foreground(image[None, None].astype(np.float32))[0]
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert overlap > 0.95


def test_head_ct_leaves_the_table_out():
    head, table = disc(96, 0.3), np.zeros((96, 96), bool)
    table[88:91, 10:86] = True
    hu = np.where(head, 40.0, -1000.0) + 1000 * table
    hu[disc(96, 0.05)] = -900  # air in a sinus
    found = foreground(hu[None, None].astype(np.float32), "head-ct")[0]
    assert not found[table].any() and found[48, 48] and 0.97 < found.sum() / head.sum() <= 1


def test_real_slices_keep_their_head(shared):
    """FLAIR slices with skull (very dark sites included): the tumour lies inside the foreground,
    the corners do not."""
    from pseudohealthy.io import read_image, read_mask

    root = shared / "data" / "lgg-flair"
    patients = sorted(path.name for path in root.iterdir() if path.is_dir())[::11]
    assert patients
    for patient in patients:
        scan = read_image(f"{patient}/???.png", root)
        tumour = read_mask(f"{patient}/???_mask.png", root, scan)
        inside = foreground(scan.voxels)
        assert inside[tumour].mean() > 0.99 and not inside[:, 0, 0].any()
        assert 0.2 < inside[len(inside) // 2].mean() < 0.7


def test_a_picture_is_taken_as_exported_in_the_only_window(tmp_path):
    from PIL import Image

    from pseudohealthy import io

    hu = np.array([[-100, 0, 20], [40, 60, 80], [100, 79, 1]], np.float32).repeat(4, 0).repeat(4, 1)
    grey = (np.clip(hu / 80, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "ct.png")
    canvas = Canvas(size=12, normalise="window", windows=("brain",), foreground="all")
    picture, ct = io.read(tmp_path / "ct.png"), Scan.from_array(hu)
    assert canvas.windows_a_picture(picture) and not canvas.windows_a_picture(ct)
    np.testing.assert_allclose(canvas.fit(picture).planes, canvas.fit(ct).planes, atol=0.005)
    three = Canvas(
        size=12, channels=2, normalise="window", windows=("brain", "bone"), foreground="all"
    )
    with pytest.raises(Fault, match="a picture has no HU"):
        three.fit(picture)
