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
    """A figure of that many inches that needs no screen."""
    # Without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path | str, *, dpi: int = 130, cut: bool = True) -> Path:
    """Write the PNG whole or not at all.

    Args:
        figure: As `blank` made it.
        path: Of the file.
        dpi: Pixels an inch.
        cut: Take away what is empty around it.
    """
    edges: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.1} if cut else {}
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", **edges)
    return Path(path)


def short(name: str, most: int = 34) -> str:
    """Text from outside: one line, cut, and without the mathtext that a dollar sign would start."""
    name = " ".join(name.split())
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")


def plain(axes: Axes, *, grid: bool = False) -> None:
    """No frame at the top and on the right; a grid behind the lines where it helps reading."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(color=tokens("light")["line"], zorder=0)


def square(axes: Axes, legend: Any, title: str) -> None:
    """Axes of two rates, 0 to 1."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    plain(axes, grid=True)
    axes.legend(loc=legend, fontsize=8, title=title, title_fontsize=8, framealpha=0.9)


def research_use(figure: Figure, before: str = "") -> None:
    """The line below a picture that others may look at without its report."""
    text = f"{before}\n{RESEARCH_USE}" if before else RESEARCH_USE
    figure.supxlabel(text, fontsize=8, color=tokens("light")["quiet"])
