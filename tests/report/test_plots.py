"""Plots are written, hold every curve and survive odd input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.evaluation.records import Record
from pseudohealthy.metrics.curves import curve
from pseudohealthy.metrics.thresholds import healthy_quantile
from pseudohealthy.report import plots, sweep_plots


def sample(gain, n=80, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 == 1
    return (rng.normal(size=n) + gain * labels).astype(np.float32), labels


METHODS = {
    "ddpm": sample(2),
    "patched ddpm": sample(1.2, seed=1),
    "control: mean intensity": sample(0.4, seed=2),
    "control: area": sample(0, seed=3),
}
CURVES = {name: curve(*pair) for name, pair in METHODS.items()}


def colours(path) -> set[tuple[int, ...]]:
    return {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 24)}


def rgb(code: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(code[1:]))


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall])
def test_every_method_has_its_own_colour_and_controls_are_grey(tmp_path, draw):
    found = colours(draw(tmp_path / "curve.png", CURVES, CURVES))
    assert {
        rgb(plots.METHOD_COLOURS[0]),
        rgb(plots.METHOD_COLOURS[1]),
        rgb(plots.CONTROL_GREYS[0]),
    } <= found
    assert rgb(plots.METHOD_COLOURS[2]) not in found


def test_two_panels_only_where_there_are_voxel_curves(tmp_path):
    one = Image.open(plots.roc(tmp_path / "one.png", CURVES)).size
    two = Image.open(plots.roc(tmp_path / "two.png", CURVES, CURVES)).size
    assert two[0] == pytest.approx(2 * one[0], rel=0.05) and two[1] == pytest.approx(
        one[1], rel=0.02
    )


def test_scores_are_drawn_for_each_method_and_for_odd_samples(tmp_path):
    odd = {
        **METHODS,
        "all the same": (np.zeros(5), np.array([0, 1, 0, 1, 0])),
        "one class $x_$": (np.arange(4.0), np.zeros(4)),
    }
    threshold = healthy_quantile(METHODS["ddpm"][0][::2], 0.95, n_patients=40)
    found = colours(plots.scores(tmp_path / "scores.png", odd, {"ddpm": threshold}))
    assert {rgb(plots.LIGHT["healthy"]), rgb(plots.LIGHT["anomalous"])} <= found


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError):
        plots.roc(tmp_path / "roc.png", {})
    assert not list(tmp_path.iterdir())


def record(method: str, value: float, metric: str = "image_auroc") -> Record:
    return Record(
        metric=metric,
        value=value,
        ci95=(value - 0.1, value + 0.1),
        unit="case",
        protocol="strict",
        threshold_source=None,
        mask="m",
        grid="native",
        postprocessing="none",
        n_patients=9,
        n_cases=9,
        prevalence=0.5,
        method=method,
    )


def test_a_forest_shows_runs_in_colour_and_each_control_once(tmp_path):
    records = [
        record("a", 0.8),
        record("b", 0.6),
        record("control: x (a)", 0.4),
        record("control: x (b)", 0.5),
    ]
    path = plots.forest(tmp_path / "forest.png", {"one": records})
    found = colours(path)
    assert {
        rgb(plots.METHOD_COLOURS[0]),
        rgb(plots.METHOD_COLOURS[1]),
        rgb(plots.CONTROL_GREYS[0]),
    } <= found
    one_setting = plots.forest(tmp_path / "one.png", {"one": records[:3]})
    another = plots.forest(tmp_path / "another.png", {"one": [*records, record("control: y", 0.3)]})
    heights = [Image.open(p).height for p in (one_setting, path, another)]
    assert heights[0] == heights[1] < heights[2], "two settings of one control are one row"
    more = [*records, *(record(r.method, r.value, "plane_auroc") for r in records)]
    wide = plots.forest(tmp_path / "wide.png", {"one": more, "other": records})
    assert Image.open(wide).width > 1.5 * Image.open(path).width
    with pytest.raises(ValueError):
        plots.forest(tmp_path / "none.png", {"one": []})


def test_training_curves_are_of_the_runs_that_have_them(tmp_path):
    history = [
        {"epoch": 1.0, "validation_auroc": 0.6},
        {"epoch": 2.0, "validation_auroc": 0.7},
        {"epoch": 3.0},
    ]
    found = colours(
        plots.training(
            tmp_path / "a.png", {"scratch": history, "pretrained": history[:1], "c": [{"epoch": 1}]}
        )
    )
    assert {rgb(plots.METHOD_COLOURS[0]), rgb(plots.METHOD_COLOURS[1])} <= found
    assert rgb(plots.METHOD_COLOURS[2]) not in found
    with pytest.raises(ValueError):
        plots.training(tmp_path / "none.png", {"c": [{"epoch": 1}]})


@pytest.mark.parametrize("sizes", [(4,), (2, 3), (2, 2, 3), (1, 2, 2, 2)])
def test_a_sweep_is_drawn_over_any_number_of_axes(tmp_path, sizes):
    axes = [(f"map.key{n}", [str(v) for v in range(size)]) for n, size in enumerate(sizes)]
    values = np.random.default_rng(0).random((3, *sizes))
    values[:, -1] = np.nan  # a figure that one setting does not have
    if len(sizes) > 1 and sizes[0] == 1:
        values = np.nan_to_num(values)
    path = sweep_plots.sweep(
        tmp_path / "sweep.png", axes, {"one": values, "other": values}, "run $x_{"
    )
    assert len(colours(path)) > 20


def test_a_sweep_of_two_axes_as_lines_has_a_line_for_each_value_of_the_second(tmp_path):
    axes = [
        ("restorer.guidance.scale", ["0", "10", "100"]),
        ("restorer.walk.start_levels", ["150", "500"]),
    ]
    values = np.stack([np.linspace(0, 0.5, 6).reshape(3, 2) + d for d in (0, -0.02, 0.02)])
    found = colours(
        sweep_plots.sweep(
            tmp_path / "lines.png", axes, {"Dice": values, "AUROC": values}, lines=True
        )
    )
    first, second, third = (
        tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in plots.METHOD_COLOURS[:3]
    )
    assert {first, second} <= found and third not in found


def test_a_strip_has_one_scale_for_all_maps(tmp_path):
    """The brightest colour belongs to the loudest map; a quiet one stays dark beside it."""
    flat = np.zeros((16, 16))
    loud = sweep_plots.strip(
        tmp_path / "a.png", [("quiet", flat, flat, flat + 0.1), ("loud", flat, flat, flat + 1.0)]
    )
    pixels = np.asarray(Image.open(loud).convert("RGB")).astype(int)
    bright = (np.abs(pixels - (252, 255, 164)).max(-1) <= 3).any(0)
    assert not bright[: pixels.shape[1] // 3].any() and bright[pixels.shape[1] // 2 :].sum() > 100
