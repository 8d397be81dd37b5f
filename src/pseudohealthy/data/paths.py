"""The paths in a manifest's cells, which never leave their root.

A cell is, for example, ``a.nii.gz|b.nii.gz``, ``digits.gz#12`` or ``patient/???.png``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from pseudohealthy.errors import REFUSED, USAGE, Fault
from pseudohealthy.formats import together
from pseudohealthy.io.names import HELD

MARKS = ("..", ":", "|", "**", "\0")  # in a cell that is more than the name of a file
# Moves a terminal's cursor or turns its text round.
UNSHOWN = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def inside(cell: str, root: Path, number: int) -> str:
    """A cell with every item relative to the root.

    Args:
        cell: Text of the cell.
        root: The folder that paths start from.
        number: Row of the manifest, for messages.

    Raises:
        Fault: PATH_ESCAPE (exit 8) for an item outside the root, BAD_MANIFEST (exit 2) for one that
            is no file name.
    """
    if not cell or _plain(cell):
        return cell
    items = []
    for item in map(str.strip, cell.split("|")):
        windows = PureWindowsPath(item)
        if (
            Path(item).is_absolute()
            and Path(item).is_relative_to(root)
            and ".." not in Path(item).parts
        ):
            items.append(Path(item).relative_to(root).as_posix())
            continue
        climbs, depth = False, 0
        for part in windows.parts:  # splits at both / and \
            depth += -1 if part == ".." else part != "."
            climbs |= depth < 0
        if climbs or windows.drive or windows.root or "\0" in item:
            raise Fault(
                "PATH_ESCAPE",
                f"manifest row {number} names a file outside the manifest's folder",
                "use paths below that folder",
                exit=REFUSED,
            )
        if not possible(item) or any("**" in part and part != "**" for part in windows.parts):
            message = f"manifest row {number} names a file that no file system can hold"
            raise Fault("BAD_MANIFEST", message, "correct the row", exit=USAGE)
        items.append(item)
    return "|".join(items)


def possible(path: str) -> bool:
    """Whether a file system can hold such a name; it raises for others."""
    return (
        "\0" not in path
        and len(path) < 1000
        and all(len(part.encode()) < 256 for part in re.split(r"[/\\]", path))
    )


def _plain(cell: str) -> bool:
    return cell[0] not in "/\\" and len(cell) < 60 and not any(mark in cell for mark in MARKS)


def prefixed(cell: str, prefix: str) -> str:
    return (
        cell
        if prefix == "." or not cell
        else "|".join(f"{prefix}/{item}" for item in cell.split("|"))
    )


def cell_files(cell: str, root: Path) -> list[Path]:
    """The files of one manifest cell, with patterns expanded."""
    files: list[Path] = []
    for item in cell.split("|") if cell else ():
        if item.startswith(HELD):
            continue
        name = re.sub(r"#\d+$", "", item)
        if any(mark in name for mark in "*?[") and not (root / name).exists():
            files += sorted(root.glob(PurePosixPath(name.replace("\\", "/")).as_posix())) or [
                root / name
            ]
        else:
            files += together(root / name)
    return files


@lru_cache(maxsize=4096)
def resolved(path: Path) -> Path:
    """The path without links, looked up once."""
    return path.resolve()
