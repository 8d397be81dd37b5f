"""The cache of a training's planes: beside a prepared manifest, else in the user's cache folder.

It never lies in the run: planes are images of patients, and a run is made to be handed on. Only
what training reads is kept,
the splits train and val. A cache folder is named by its content (list of cases, canvas, sizes and
times of the files, where they lie), made under another name and renamed when complete, so that two
trainings that make it at once do not meet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pseudohealthy.data.manifest import Manifest
from pseudohealthy.errors import BAD_OUTPUT, NO_INPUT, Fault
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.training.plane_store import VERSION, PlaneStore, build_cache

SPLITS = ("train", "val")
COLUMNS = ("plane_labels", "mask_ignore", "mask_background")  # of a manifest, that planes depend on
OURS = re.compile(r"[0-9a-f]{16}|\.(tmp|old)-\d+-[0-9a-f]{8}")


@dataclass(frozen=True)
class Entry:
    """One cache folder: its name, size in bytes, number of planes, and when it was last used
    (seconds since 1970)."""

    name: str
    bytes: int
    planes: int
    used: float


def home() -> Path:
    """$XDG_CACHE_HOME/pseudohealthy/planes, or ~/.cache/pseudohealthy/planes."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (
        (Path(named) if os.path.isabs(named) else Path.home() / ".cache")
        / "pseudohealthy"
        / "planes"
    )


def opened(
    manifest: Manifest,
    canvas: Canvas,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PlaneStore:
    """The planes to train and validate on, from the cache or cut now.

    Args:
        manifest: All cases; those of train and val are used.
        cache: A folder to keep them in instead of the usual one.
        progress: Called with the cases done and their total.

    Raises:
        Fault: NO_HEALTHY, NO_INPUT (exit 3), OUTPUT (exit 6).
    """
    subset = Manifest([case for case in manifest if case.split in SPLITS], manifest.root)
    if not len(subset.split("train")):
        raise Fault(
            "NO_HEALTHY",
            "the training split holds no case",
            "give some cases the split train",
            exit=NO_INPUT,
        )
    folder = place(subset, canvas, cache)
    if (store := usable(folder)) is not None:
        return store
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error) from None
    return built(subset, canvas, folder, progress)


def usable(folder: Path) -> PlaneStore | None:
    """The cache in a folder, marked as used now; None where it is missing or damaged."""
    with suppress(Fault, OSError):
        store = PlaneStore.open(folder)
        os.utime(folder / "key.json")
        return store if len(store) else None
    return None


def built(
    manifest: Manifest,
    canvas: Canvas,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> PlaneStore:
    """Cut the planes into a folder of another name, which is renamed to `folder` when complete."""
    unfinished = beside(folder, "tmp")
    try:
        unfinished.mkdir(mode=0o700)
        build_cache(manifest, canvas, unfinished, progress=progress)
        replace(unfinished, folder)
    except OSError as error:
        raise unwritable(error) from None
    except Fault as fault:
        fault.cure = fault.cure if fault.code != "OUTPUT" else unwritable(OSError()).cure
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return PlaneStore.open(folder)


def unwritable(error: OSError) -> Fault:
    cure = (
        "name a folder for the planes with --cache, or free some space (pseudohealthy cache"
        " --clear)"
    )
    return Fault(
        "OUTPUT",
        f"cannot keep the planes: {error.strerror or type(error).__name__}",
        cure,
        exit=BAD_OUTPUT,
    )


def replace(unfinished: Path, folder: Path) -> None:
    """Rename `unfinished` to `folder`, unless another process was first; a damaged cache there is
    removed."""
    try:
        os.rename(unfinished, folder)
    except OSError:
        if usable(folder) is not None:
            return
        old = beside(folder, "old")
        os.rename(folder, old)
        os.rename(unfinished, folder)
        shutil.rmtree(old, ignore_errors=True)


def beside(folder: Path, role: str) -> Path:
    return folder.with_name(f".{role}-{os.getpid()}-{os.urandom(4).hex()}")


def place(manifest: Manifest, canvas: Canvas, cache: Path | None = None) -> Path:
    """The folder of these planes."""
    prepared = (manifest.root / "manifest.csv").is_file() and os.access(manifest.root, os.W_OK)
    if cache is None and prepared:
        return manifest.root / "planes" / content_key(manifest, canvas)
    return (cache or home()) / content_key(manifest, canvas, where=str(manifest.root.resolve()))


def content_key(manifest: Manifest, canvas: Canvas, where: str = "") -> str:
    """16 hex digits of a hash over everything the planes depend on.

    Args:
        where: The data's folder, where the cache is not beside it.
    """
    files = dict.fromkeys(path for case in manifest for path in case.files())
    facts = [
        (path.name, info.st_size, info.st_mtime_ns)
        for path in files
        if path.exists() and (info := path.stat())
    ]
    cells = [[case.extra.get(column, "") for column in COLUMNS] for case in manifest]
    text = json.dumps([VERSION, manifest.sha256, asdict(canvas), facts, cells, where], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- looking after it ------------------------------------------------------------------------------
def entries(folder: Path) -> list[Entry]:
    """The caches in a folder, the one used last first; other folders are not looked at."""
    if not folder.is_dir():
        return []
    caches = [
        entry(path) for path in folder.iterdir() if OURS.fullmatch(path.name) and path.is_dir()
    ]
    return sorted(caches, key=lambda cache: -cache.used)


def entry(folder: Path) -> Entry:
    files = [path.stat() for path in folder.iterdir() if path.is_file()]
    rows = 0
    with suppress(OSError):
        rows = max(0, (folder / "index.csv").read_bytes().count(b"\n") - 1)
    last_used = max((info.st_mtime for info in files), default=folder.stat().st_mtime)
    return Entry(folder.name, sum(info.st_size for info in files), rows, last_used)


def clear(folder: Path) -> list[Entry]:
    """Remove the caches in a folder, and nothing else; trainings that need them make them again.

    Raises:
        Fault: OUTPUT (exit 6).
    """
    caches = entries(folder)
    try:
        for cache in caches:
            shutil.rmtree(folder / cache.name)
    except OSError as error:
        message = f"cannot remove {cache.name}: {error.strerror}"
        raise Fault("OUTPUT", message, "remove it yourself", exit=BAD_OUTPUT) from None
    return caches


def described(folder: Path, caches: list[Entry]) -> dict[str, Any]:
    """What `cache --json` prints."""
    return {
        "folder": str(folder),
        "bytes": sum(cache.bytes for cache in caches),
        "entries": [asdict(cache) for cache in caches],
    }
