"""One picture per case: input | healthy twin | anomaly map | mask.

Beside a reference the twin is named as what it is. Input and twin share one window; scaling them
apart would hide the difference. The map's colours run from 0 to twice the threshold for every case,
so a healthy image looks dark instead of being stretched until it glows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from pseudohealthy.counts import many
from pseudohealthy.design import tokens
from pseudohealthy.design.figures import blank, research_use, short
from pseudohealthy.design.figures import save as save_figure
from pseudohealthy.detection.truth import removed, twin_text
from pseudohealthy.io.tiles import tiled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pseudohealthy.detection.finding import Finding
    from pseudohealthy.detection.outputs import Target

# Of the dark theme, since they are drawn over scans.
MASK_COLOUR, TRUTH_COLOUR = tokens("dark")["anomalous"], tokens("dark")["healthy"]
# Of a stored window's greys by the foreground; a window that cuts both ends is filled entirely.
FILLED = 0.4
Letters = tuple[str, str, str, str]


def save(finding: Finding, to: Target) -> dict[str, Path]:
    """Write panel.png of a case; see `detection.outputs`."""
    return {
        "panel": panel(finding, to.place.case / "panel.png", window=finding.window, truth=to.truth)
    }


def panel(
    finding: Finding,
    path: Path | str,
    *,
    truth: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
) -> Path:
    """Draw the picture of a finding.

    Args:
        finding: the case.
        path: of the picture.
        truth: its reference (D, H, W) bool, if any.
        window: (low, high); by default as `starting_window` says.
        plane: counted from 0; by default the one with the largest sum of the map.
    """
    scan = finding.scan
    letters = orientation(scan.affine) if scan.affine is not None else None
    spacing = scan.spacing
    removal = None if truth is None else removed(scan.voxels[0], finding.healthy[0], truth)
    pictures = Pictures(
        image=scan.voxels,
        healthy=finding.healthy,
        map=finding.map,
        mask=finding.mask,
        truth=truth,
        twin="\n".join(filter(None, ["healthy twin", twin_text(removal)])),
    )
    view = View(
        window=window or starting_window(finding),
        aspect=1.0 if spacing is None else spacing[1] / spacing[2],
        letters=letters,
    )
    facts = Facts(finding.case_id, finding.score, finding.threshold, finding.threshold_source)
    mosaic(path, pictures, view, facts)
    return Path(path)


def starting_window(finding: Finding) -> tuple[float, float]:
    """Return (low, high) in the scan's units, in which a picture begins.

    The run's, else the one stored in the file where it shows the foreground, else 1 to 99 % of the
    foreground. Software writes the range of all voxels, outliers included, where a window is meant:
    that one shows a brain in the lowest quarter of the greys.
    """
    image = finding.scan.voxels[0]
    percentiles = _window(image[finding.foreground] if finding.foreground.any() else image)
    return finding.window or _showing(finding.scan.display, percentiles) or percentiles


def _showing(
    window: tuple[float, float] | None, percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the window if the foreground's range fills at least FILLED of its greys."""
    if window is None:
        return None
    overlap = min(window[1], percentiles[1]) - max(window[0], percentiles[0])
    return window if overlap >= FILLED * (window[1] - window[0]) else None


@dataclass(frozen=True)
class Pictures:
    """What a panel shows.

    Args:
        image: (H, W), (D, H, W) or (C, D, H, W), any units; channels side by side.
        healthy: The healthy twin, of the image's shape and units.
        map: (H, W) or (D, H, W), the anomaly map.
        mask: Of the map's shape, above the threshold.
        truth: Of the map's shape, the reference.
        twin: What stands above the twin, one or two lines.
    """

    image: np.ndarray
    healthy: np.ndarray
    map: np.ndarray
    mask: np.ndarray
    truth: np.ndarray | None = None
    twin: str = "healthy twin"


@dataclass(frozen=True)
class View:
    """How a panel shows it.

    Args:
        window: (low, high) of the first channel, which the mask is drawn on; by default, and of
            other channels always, the 1 to 99 % range of the input.
        aspect: Height of a pixel over its width.
        letters: (left, right, top, bottom) of the patient.
        plane: Counted from 0; by default the one with the largest sum of the map.
    """

    window: tuple[float, float] | None = None
    aspect: float = 1.0
    letters: Letters | None = None
    plane: int | None = None


@dataclass(frozen=True)
class Facts:
    """What stands above a panel; a positive threshold also sets the scale of the map."""

    title: str = ""
    score: float | None = None
    threshold: float | None = None
    threshold_source: str = ""


def mosaic(
    path: Path | str, pictures: Pictures, view: View | None = None, facts: Facts | None = None
) -> int:
    """Draw input, healthy twin, anomaly map and mask; return the plane shown."""

    view, facts = view or View(), facts or Facts()
    threshold, aspect = facts.threshold, view.aspect
    image, healthy = _channels(pictures.image), _channels(pictures.healthy)
    map, mask = _volume(pictures.map), _volume(pictures.mask)
    plane = view.plane
    if plane is None:
        plane = int(np.argmax(map.reshape(len(map), -1).sum(1)))
    windows = [_window(channel) for channel in image]
    windows[0] = view.window or windows[0]
    # Never the map's own maximum. Without a positive threshold: half the model's range [-1, 1].
    top = 2 * threshold if threshold is not None and threshold > 0 else 1.0
    height, width = image.shape[2] * aspect, image.shape[3]
    side = 3.0
    figure = blank(4 * side + 0.9, side * min(max(height / width, 0.4), 2.0) + 1.15)
    axes = figure.subplots(1, 4)
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1, "aspect": aspect, "interpolation": "nearest"}
    several = f", {many(len(image), 'channel')}" if len(image) > 1 else ""
    for place, volume, name in (
        (axes[0], image, f"input{several}"),
        (axes[1], healthy, pictures.twin),
    ):
        place.imshow(tiled(_scaled(volume[:, plane], windows)), **grey)
        place.set_title(name, fontsize=10)
    axes[3].imshow(_scaled(image[:, plane], windows)[0], **grey)
    heat = axes[2].imshow(
        map[plane], cmap="inferno", vmin=0, vmax=top, aspect=aspect, interpolation="nearest"
    )
    axes[2].set_title("anomaly map", fontsize=10)
    bar = figure.colorbar(heat, ax=axes[2], fraction=0.046, pad=0.02, extend="max")
    bar.set_label("anomaly score", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if threshold is not None and threshold > 0:
        bar.ax.axhline(threshold, color="white", linewidth=2)
        bar.ax.axhline(threshold, color="black", linewidth=1, linestyle="--")
    overlay = np.zeros((*mask.shape[1:], 4))
    overlay[mask[plane] > 0] = to_rgba(MASK_COLOUR, 0.45)
    axes[3].imshow(overlay, aspect=aspect, interpolation="nearest")
    legend = [Line2D([], [], color=MASK_COLOUR, linewidth=3, label="above threshold")]
    if pictures.truth is not None:
        _outline(axes[3], _volume(pictures.truth)[plane] > 0)
        legend.append(Line2D([], [], color=TRUTH_COLOUR, linewidth=2, label="reference"))
    axes[3].legend(
        handles=legend,
        fontsize=8,
        ncols=2,
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.99),
        borderaxespad=0.2,
        handlelength=1.2,
        columnspacing=1,
    )
    for place in axes:
        place.set_axis_off()
        if view.letters:
            _letter(place, view.letters)
    title = [short(facts.title, 60)]
    if len(map) > 1:
        title.append(f"plane {plane + 1} of {len(map)}")
    if facts.score is not None:
        title.append(f"score {facts.score:.4g}")
    if threshold is not None:
        title.append(
            f"threshold {threshold:.4g}"
            + (f" ({short(facts.threshold_source, 60)})" if facts.threshold_source else "")
        )
    figure.suptitle("   |   ".join(title), fontsize=10)
    research_use(figure)
    save_figure(figure, path, dpi=110, cut=False)
    return plane


def orientation(affine: np.ndarray) -> Letters:
    """Return the letters (left, right, top, bottom) of a plane's edges.

    Args:
        affine: (4, 4), index (d, h, w, 1) -> RAS+ mm.
    """

    def ends(axis: int) -> tuple[str, str]:
        direction = np.asarray(affine, dtype=np.float64)[:3, axis]
        world = int(np.argmax(np.abs(direction)))
        letters = (("L", "R"), ("P", "A"), ("I", "S"))[world]
        return letters if direction[world] > 0 else letters[::-1]

    return (*ends(2), *ends(1))


def _volume(array: np.ndarray) -> np.ndarray:
    """Return (D, H, W) of (H, W) or (D, H, W)."""
    array = np.asarray(array)
    return array[None] if array.ndim == 2 else array


def _channels(array: np.ndarray) -> np.ndarray:
    """Return (C, D, H, W) of (H, W), (D, H, W) or (C, D, H, W)."""
    return np.asarray(array) if np.ndim(array) == 4 else _volume(array)[None]


def _scaled(plane: np.ndarray, windows: Sequence[tuple[float, float]]) -> np.ndarray:
    """Scale channels (C, H, W) to [0, 1], each in its own window."""
    low, high = np.array(windows, dtype=np.float64).T[:, :, None, None]
    return np.clip((plane - low) / np.maximum(high - low, 1e-12), 0, 1)


def _window(image: np.ndarray) -> tuple[float, float]:
    if not image.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(image, (1, 99)))
    return (
        (low, high)
        if high > low
        else (float(image.min()), max(float(image.max()), float(image.min()) + 1))
    )


def _outline(axes: Axes, truth: np.ndarray) -> None:
    """Draw the border of the reference along pixel edges.

    A black line below keeps it visible on white.
    """
    if not truth.any():
        return
    padded = np.pad(truth, 1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    vertical = [
        ((c - 0.5, r - 1.5), (c - 0.5, r - 0.5)) for r, c in zip(rows, columns, strict=True)
    ]
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    horizontal = [
        ((c - 1.5, r - 0.5), (c - 0.5, r - 0.5)) for r, c in zip(rows, columns, strict=True)
    ]
    axes.add_collection(LineCollection(vertical + horizontal, colors="black", linewidths=2.4))
    axes.add_collection(LineCollection(vertical + horizontal, colors=TRUTH_COLOUR, linewidths=1.4))


def _letter(axes: Axes, letters: Letters) -> None:
    positions = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
    )
    for (x, y, ha, va), letter in zip(
        (*positions, (0.5, 0.02, "center", "bottom")), letters, strict=True
    ):
        axes.text(
            x,
            y,
            letter,
            ha=ha,
            va=va,
            transform=axes.transAxes,
            fontsize=8,
            color="white",
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0},
        )
