"""Zip files from anywhere: unpacked into a private folder that disappears with the program, within
limits."""

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

from pseudohealthy.counts import many
from pseudohealthy.errors import BAD_OUTPUT, REFUSED, Fault
from pseudohealthy.io.bounded import looks_like

MAX_BYTES, MAX_MEMBERS, MAX_RATIO = 10 * 2**30, 100_000, 200
FREE = 10 * 2**20  # archives that expand to less are never called bombs
METHODS = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    10: "PKWARE Implode",
    19: "LZ77",
    93: "Zstandard",
    94: "MP3",
    95: "XZ",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}
OTHERS = {
    b"Rar!": "RAR",
    b"7z\xbc\xaf": "7-Zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "Zstandard",
}
_unpacked: list[tempfile.TemporaryDirectory] = []  # removed when the program ends


def unpack(path: Path) -> Path:
    """The folder (named as the archive) holding its files.

    Raises Fault ARCHIVE (exit 8) for too many members, too many bytes or too high a ratio (counted
    while reading, not as declared), encryption, links, names that leave the folder or occur twice;
    Fault METHOD for a compression that Python does not know, NOT_ZIP for another kind of file,
    EMPTY_FILE, and TRUNCATED for a damaged file.
    """
    _require_zip(path)
    folder = tempfile.TemporaryDirectory(prefix="pseudohealthy-")
    target = Path(folder.name) / (re.sub(r"\W+", "-", path.stem).strip("-") or "archive")
    try:
        with zipfile.ZipFile(path) as archive:
            _extract(archive, path, target)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        folder.cleanup()
        said = "".join(c if c.isprintable() else "?" for c in str(error))[:200]
        raise Fault(
            "TRUNCATED", f"the archive {path.name} is damaged ({said})", "copy it again"
        ) from None
    except OSError as error:
        folder.cleanup()
        # Names no disk can hold.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO):
            said = error.strerror or type(error).__name__
            raise Fault(
                "TRUNCATED", f"the archive {path.name} is damaged ({said})", "copy it again"
            ) from None
        raise Fault(
            "TEMP",
            f"cannot unpack: {error.strerror}",
            "set TMPDIR to a larger disk",
            exit=BAD_OUTPUT,
        ) from None
    except BaseException:
        folder.cleanup()
        raise
    _unpacked.append(folder)
    return target


def is_unpacked(path: Path) -> bool:
    """Whether a file comes from a zip, and so disappears with the program."""
    return any(path.is_relative_to(folder.name) for folder in _unpacked)


def _require_zip(path: Path) -> None:
    """Fault EMPTY_FILE or NOT_ZIP, naming what it is, for what does not begin as a zip does."""
    with open(path, "rb") as file:
        head = file.read(200)
    if not head:
        raise Fault("EMPTY_FILE", f"{path.name} has 0 bytes", "copy or download it again")
    if head[:2] != b"PK" and not zipfile.is_zipfile(path):
        name = next((name for magic, name in OTHERS.items() if head.startswith(magic)), "")
        kind = f" (it is {name})" if name else looks_like(head)
        cure = "give a zip, or unpack it and give the folder"
        raise Fault("NOT_ZIP", f"{path.name} is no zip archive{kind}", cure)


def _require_method(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Fault METHOD, by name, for a compression that Python does not unpack."""
    try:
        archive.open(member).close()
    except NotImplementedError:
        name = METHODS.get(member.compress_type, f"number {member.compress_type}")
        cure = "compress again with Deflate, or unpack it and give the folder"
        raise Fault("METHOD", f"{path.name} is compressed by method {name}", cure) from None


def _extract(archive: zipfile.ZipFile, path: Path, target: Path) -> None:
    def refuse(found: str) -> Fault:
        return Fault(
            "ARCHIVE", f"{path.name}: {found}", "unpack it yourself if you trust it", exit=REFUSED
        )

    members = [m for m in archive.infolist() if not m.is_dir()]
    if any(m.flag_bits & 1 or m.compress_type == 99 for m in members):
        raise Fault(
            "ARCHIVE",
            f"{path.name}: it is encrypted",
            "unpack it, and give the folder",
            exit=REFUSED,
        )
    limit = min(MAX_BYTES, max(FREE, MAX_RATIO * path.stat().st_size))
    if len(members) > MAX_MEMBERS:
        raise refuse(f"{many(len(members), 'file')}, the limit is {MAX_MEMBERS}")
    if sum(m.file_size for m in members) > limit:
        raise refuse(f"it would expand beyond {limit} bytes")
    for member in {m.compress_type: m for m in members}.values():
        _require_method(archive, member, path)
    seen: dict[str, str] = {}
    left = limit
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", member.filename):
            raise refuse("a file name leads out of the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise refuse("it holds a symbolic link")
        if seen.setdefault(str(name).casefold(), str(name)) != str(name):
            raise refuse("two file names differ only in upper and lower case")
        if (target / name).exists():
            raise refuse("a file name occurs twice")
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, open(place, "xb") as out:
            while block := source.read(2**20):
                left -= len(block)
                if left < 0:
                    raise refuse(f"it expands beyond {limit} bytes")
                out.write(block)
