"""A folder to write into: made, empty, writable and claimed by one process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudohealthy.errors import BAD_OUTPUT, Fault

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]


def prepare_folder(folder: Path | str, *, overwrite: bool = False) -> Path:
    """An output folder, made where missing. Fault (exit 6) when it is a file, not writable, or not
    empty."""
    folder = Path(folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise Fault(
                "OUTPUT", f"'{folder.name}' is a file", "name a folder with --out", exit=BAD_OUTPUT
            )
        folder.mkdir(parents=True, exist_ok=True)
        claim(folder)
        if not overwrite and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise Fault(
                "OUTPUT_NOT_EMPTY",
                f"'{folder.name}' is not empty",
                "choose another --out, or add --overwrite",
                exit=BAD_OUTPUT,
            )
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Fault(
            "OUTPUT",
            f"cannot write into '{folder.name}': {error.strerror}",
            "choose another --out",
            exit=BAD_OUTPUT,
        ) from None
    return folder


_claimed: dict[
    tuple[int, int], int
] = {}  # (device, inode) of folders this process writes into -> descriptor that locks


def claim(folder: Path) -> None:
    """Keep other processes from writing into `folder` as long as this one lives. Fault OUTPUT_BUSY
    (exit 6).

    The folder itself is locked: no lock file is left behind, and the lock ends with the process,
    even with kill -9.
    """
    if fcntl is None:
        return
    info = folder.stat()
    if (info.st_dev, info.st_ino) in _claimed:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Fault(
            "OUTPUT_BUSY",
            f"another process writes into '{folder.name}'",
            "wait for it, or choose another --out",
            exit=BAD_OUTPUT,
        ) from None
    except OSError:  # a network file system without locks
        os.close(handle)
        return
    _claimed[info.st_dev, info.st_ino] = handle
    for stale in folder.glob(".tmp-*"):  # left by a process that was killed while it wrote
        shutil.rmtree(stale) if stale.is_dir() and not stale.is_symlink() else stale.unlink(
            missing_ok=True
        )


def release(folder: Path) -> None:
    """Let others write into a folder that this process claimed; nothing where it did not."""
    info = folder.stat()
    handle = _claimed.pop((info.st_dev, info.st_ino), None)
    if handle is not None:
        os.close(handle)


@contextmanager
def output_folder(out: Path | str | None, *, overwrite: bool = False) -> Iterator[Path | None]:
    """`prepare_folder` for what is written at the end; None for None. Where a Fault comes first,
    folders that were made for it go away again."""
    if out is None:
        yield None
        return
    folder = Path(out)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield prepare_folder(folder, overwrite=overwrite)
    except Fault:
        remove_empty(missing)
        raise


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as nothing lies in them."""
    for path in folders:
        if not path.is_dir() or any(path.iterdir()):
            return
        release(path)
        path.rmdir()
