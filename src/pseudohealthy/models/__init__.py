"""Models that come with the package: a run folder each, named wherever a command wants a RUN.

``brain-t1``: mid-axial T1 slices of heads with skull (IXI); what it is good for and whose images it
has seen stands in its MODEL_CARD.md, the licence of those images in NOTICE.md. ``examples`` holds
slices of subjects it was not trained on.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """What is there, in alphabetical order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/recipe.toml"))


def find(name: str) -> Path | None:
    """The run folder of a bundled model; None for any other name."""
    return FOLDER / name if name in names() else None


def folder_of(run: Path | str) -> Path:
    """Where a RUN lies, as every command takes it: a run folder that is there, else the bundled
    model of that name, else the path as it is given."""
    path = Path(run)
    return path if (path / "recipe.toml").is_file() else find(str(run)) or path


def examples(name: str) -> Path:
    """The folder of its example images: test/good, test/bad and masks, as a plain data folder is
    laid out."""
    return FOLDER / name / "examples"
