"""The canvas keeps the grid and stays in range for every shape, affine, pixel size and unit; or it
refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Canvas

SPACINGS = st.one_of(st.floats(0.05, 10), st.sampled_from([1e-6, 1e-4, 0.01, 50.0, 1e3, 1e6]))
SHAPES = st.tuples(st.integers(1, 3), st.integers(10, 41), st.integers(10, 41))
MODES = st.sampled_from(["percentile", "upper", "deviations", "range", "unit"])


def affine(spacing: tuple[float, float, float], seed: int) -> np.ndarray:
    """Turned, mirrored and sheared at will, with columns of these lengths in mm."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] + rng.uniform(-0.2, 0.2, (3, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = axes / np.linalg.norm(axes, axis=0) * spacing
    matrix[:3, 3] = rng.uniform(-1e3, 1e3, 3)
    return matrix


@settings(max_examples=60, deadline=None)
@given(
    SHAPES,
    st.tuples(SPACINGS, SPACINGS, SPACINGS),
    st.integers(4, 40),
    st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    MODES,
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_the_grid_is_kept_and_every_value_is_a_number_in_range(
    shape, steps, size, spacing, mode, crop, strip, seed
):
    rng = np.random.default_rng(seed)
    scan = Scan.from_array(
        rng.random(shape, dtype=np.float32) * 100, affine=affine((1, 1, 1), seed)
    )
    # The readers' own limits are wider than those of `from_array`.
    scan.affine = affine(steps, seed)
    canvas = Canvas(size=size, spacing=spacing, normalise=mode, crop=crop, strip=strip)
    try:
        fitted = canvas.fit(scan, mask=rng.random(shape) > 0.9)
    except Fault as fault:
        assert fault.code == "SPACING" and spacing / min(steps[1:]) * size > 10 * max(shape[1:])
        return
    planes = fitted.planes.numpy()
    assert planes.shape == (shape[0], 1, size, size) and planes.dtype == np.float32
    assert np.isfinite(planes).all() and planes.min() >= -1 and planes.max() <= 1 + 1e-6
    for back in (canvas.undo(planes, fitted.placement), canvas.healthy(scan, -planes, fitted)):
        assert back.shape == (1, *shape) and np.isfinite(back).all()
    assert canvas.healthy(scan, planes, fitted).tobytes() == scan.voxels.tobytes()
    maps = canvas.undo_map(abs(planes[:, 0]), fitted.placement)
    assert maps.shape == shape and maps.min() >= 0 and maps.max() <= 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.just(0.0), st.floats(-3e38, 3e38)),
    st.floats(-44, 38).map(lambda power: 10**power),
    MODES,
    st.integers(0, 2**31),
)
def test_grey_levels_of_any_size_are_fitted_or_refused(offset, factor, mode, seed):
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", invalid="ignore"):
        values = rng.random((2, 12, 12)).astype(np.float32) * np.float32(factor) + np.float32(
            offset
        )
    assume(np.isfinite(values).all())
    canvas = Canvas(size=16, normalise=mode, foreground="all")
    try:
        fitted = canvas.fit(Scan.from_array(values))
    except Fault as fault:
        assert fault.code in ("RANGE", "CONSTANT_IMAGE")
        return
    planes = fitted.planes.numpy()
    assert np.isfinite(planes).all() and abs(planes).max() <= 1 + 1e-6
    assert np.isfinite(canvas.undo(planes, fitted.placement)).all()


@pytest.mark.parametrize("low, high", [(0.0, 1e-40), (-3e38, 3e38)])
def test_a_range_that_float32_cannot_divide_is_refused(low, high):
    values = np.zeros((12, 12), np.float32)
    values[:6], values[6:] = low, high
    with pytest.raises(Fault, match="RANGE"):
        Canvas(size=16, percentiles=(0, 100), foreground="all").fit(Scan.from_array(values))


def test_pixels_a_thousand_times_too_small_are_refused_before_matrices_are_made():
    scan = Scan.from_array(np.random.default_rng(0).random((3, 20, 20)), affine=np.eye(4))
    scan.affine = np.diag([1e-6, 1e-6, 1e-6, 1.0])  # metres that were meant as mm, and more
    with pytest.raises(Fault, match=r"SPACING.*1e-06 x 1e-06 mm on a canvas of 128 mm"):
        Canvas(size=128, spacing=1.0).fit(scan)
