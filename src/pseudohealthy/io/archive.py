"""Zip files from anywhere: unpacked into a private folder that disappears with the program, within limits."""

from __future__ import annotations

import errno
import lzma
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pseudohealthy.errors import BAD_OUTPUT, REFUSED, Fault

MAX_BYTES, MAX_MEMBERS, MAX_RATIO = 10 * 2**30, 100_000, 200
FREE = 10 * 2**20  # archives that expand to less are never called bombs
_unpacked: list[tempfile.TemporaryDirectory] = []  # removed when the program ends


def unpack(path: Path) -> Path:
    """The folder (named as the archive) holding its files.

    Raises Fault ARCHIVE (exit 8) for too many members, too many bytes or too high a ratio (counted while reading, not
    as declared), encryption, links, names that leave the folder or occur twice; Fault TRUNCATED for a damaged file.
    """
    folder = tempfile.TemporaryDirectory(prefix="pseudohealthy-")
    target = Path(folder.name) / (re.sub(r"\W+", "-", path.stem).strip("-") or "archive")
    try:
        with zipfile.ZipFile(path) as archive:
            _extract(archive, path, target)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error) as error:
        folder.cleanup()
        said = "".join(c if c.isprintable() else "?" for c in str(error))[:200]
        raise Fault("TRUNCATED", f"the archive {path.name} is damaged ({said})", "copy it again") from None
    except OSError as error:
        folder.cleanup()
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
            errno.EIO,
        ):  # names no disk can hold
            said = error.strerror or type(error).__name__
            raise Fault("TRUNCATED", f"the archive {path.name} is damaged ({said})", "copy it again") from None
        raise Fault(
            "TEMP", f"cannot unpack: {error.strerror}", "set TMPDIR to a larger disk", exit=BAD_OUTPUT
        ) from None
    except BaseException:
        folder.cleanup()
        raise
    _unpacked.append(folder)
    return target


def is_unpacked(path: Path) -> bool:
    """Whether a file comes from a zip, and so disappears with the program."""
    return any(path.is_relative_to(folder.name) for folder in _unpacked)


def _extract(archive: zipfile.ZipFile, path: Path, target: Path) -> None:
    def refuse(found: str) -> Fault:
        return Fault("ARCHIVE", f"{path.name}: {found}", "unpack it yourself if you trust it", exit=REFUSED)

    members = [m for m in archive.infolist() if not m.is_dir()]
    limit = min(MAX_BYTES, max(FREE, MAX_RATIO * path.stat().st_size))
    if len(members) > MAX_MEMBERS:
        raise refuse(f"{len(members)} files, the limit is {MAX_MEMBERS}")
    if sum(m.file_size for m in members) > limit:
        raise refuse(f"it would expand beyond {limit} bytes")
    seen: set[str] = set()
    left = limit
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", member.filename):
            raise refuse("a file name leads out of the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise refuse("it holds a symbolic link")
        if member.flag_bits & 1:
            raise refuse("it is encrypted")
        if str(name).casefold() in seen:
            raise refuse("a file name occurs twice")
        seen.add(str(name).casefold())
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, open(place, "xb") as out:
            while block := source.read(2**20):
                left -= len(block)
                if left < 0:
                    raise refuse(f"it expands beyond {limit} bytes")
                out.write(block)
