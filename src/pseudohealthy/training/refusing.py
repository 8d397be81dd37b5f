"""The output folder of a training, which a refused training leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudohealthy.errors import INTERRUPTED, Fault
from pseudohealthy.io.output_folder import prepare_folder, remove_empty
from pseudohealthy.runs.run import WRITTEN

SAVED = "resume.safetensors"  # from here on there is something to go on with
# Files of the run that is written over; a killed training's are cleared with its other .tmp-*
# files.
ASIDE = ".tmp-old-"


@contextmanager
def refusable(folder: Path, *, overwrite: bool = False, first: bool = True) -> Iterator[None]:
    """Make and claim a training's output folder; undo it where a Fault comes before the first save.

    A folder that was not there goes away again, with the parents that were made for it; in one that
    was there, everything is as before, a run that was to be written over included. An interrupted
    training keeps what it has.

    Args:
        overwrite: Whether a run that lies there may be written over.
        first: Whether this is the process that writes.
    """
    if not first:
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        prepare_folder(folder, overwrite=overwrite)
        before = set(folder.rglob("*"))
        aside = put_aside(folder)
        try:
            yield
        except Fault as fault:
            if fault.exit != INTERRUPTED and not (folder / SAVED).is_file():
                put_back(folder, aside)
                # What lies in a folder before it.
                for path in sorted(set(folder.rglob("*")) - before, reverse=True):
                    remove(path)
            raise
    except Fault:
        remove_empty(missing)
        raise
    finally:
        for path in folder.glob(f"{ASIDE}*"):
            path.unlink()


def put_aside(folder: Path) -> list[str]:
    """Rename the files that an earlier training wrote, and return their names."""
    names = sorted(
        {path.name for pattern in (*WRITTEN, "recipe.toml") for path in folder.glob(pattern)}
    )
    for name in names:
        (folder / name).replace(folder / f"{ASIDE}{name}")
    return names


def put_back(folder: Path, aside: list[str]) -> None:
    for path in [path for pattern in (*WRITTEN, "recipe.toml") for path in folder.glob(pattern)]:
        path.unlink()
    for name in aside:
        (folder / f"{ASIDE}{name}").replace(folder / name)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
