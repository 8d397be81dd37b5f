"""Plots are written, hold every curve and survive odd input."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.evaluation import plots
from pseudohealthy.evaluation.curves import curve
from pseudohealthy.evaluation.thresholds import healthy_quantile


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
    assert {rgb(plots.METHOD_COLOURS[0]), rgb(plots.METHOD_COLOURS[1]), rgb(plots.CONTROL_GREYS[0])} <= found
    assert rgb(plots.METHOD_COLOURS[2]) not in found


def test_two_panels_only_where_there_are_voxel_curves(tmp_path):
    one = Image.open(plots.roc(tmp_path / "one.png", CURVES)).size
    two = Image.open(plots.roc(tmp_path / "two.png", CURVES, CURVES)).size
    assert two[0] == pytest.approx(2 * one[0], rel=0.05) and two[1] == pytest.approx(one[1], rel=0.02)


def test_scores_are_drawn_for_each_method_and_for_odd_samples(tmp_path):
    odd = {
        **METHODS,
        "all the same": (np.zeros(5), np.array([0, 1, 0, 1, 0])),
        "one class $x_$": (np.arange(4.0), np.zeros(4)),
    }
    threshold = healthy_quantile(METHODS["ddpm"][0][::2], 0.95, n_patients=40)
    found = colours(plots.scores(tmp_path / "scores.png", odd, {"ddpm": threshold}))
    assert {rgb(plots.HEALTHY_COLOUR), rgb(plots.ANOMALOUS_COLOUR)} <= found


def test_nothing_to_draw_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError):
        plots.roc(tmp_path / "roc.png", {})
    assert not list(tmp_path.iterdir())
