"""What all plots look like, and how their files are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudohealthy.design import tokens
from pseudohealthy.io.atomic import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESEARCH_USE = "Research use only - not for diagnosis"


def blank(width: float, height: float) -> Figure:
    """Return a figure of so many inches that needs no screen."""
    # Without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path | str, *, dpi: int = 130, cut: bool = True) -> Path:
    """Write the figure as a PNG, whole or not at all.

    Args:
        figure: as `blank` made it.
        path: of the file.
        dpi: pixels an inch.
        cut: take away what is empty around it.
    """
    edges: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.1} if cut else {}
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", **edges)
    return Path(path)


def short(name: str, most: int = 34) -> str:
    """Shorten text from outside to one line of at most ``most`` characters.

    A dollar sign is escaped, since it would start mathtext.
    """
    name = " ".join(name.split())
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")


def plain(axes: Axes, *, grid: bool = False) -> None:
    """Remove the frame at the top and on the right; draw a grid behind the lines where asked
    for."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(color=tokens("light")["line"], zorder=0)


def square(axes: Axes, legend: Any, title: str) -> None:
    """Set up axes of two rates, 0 to 1, with a legend."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    plain(axes, grid=True)
    axes.legend(loc=legend, fontsize=8, title=title, title_fontsize=8, framealpha=0.9)


def research_use(figure: Figure, caption: str = "") -> None:
    """Write "research use only" below a picture that may be shown without its report.

    Args:
        figure: the picture.
        caption: a line above it.
    """
    text = f"{caption}\n{RESEARCH_USE}" if caption else RESEARCH_USE
    figure.supxlabel(text, fontsize=8, color=tokens("light")["quiet"])
