"""What a file format is: one row each.

Help lists the formats at once, so this file stands at the root; readers and writers of the package
are named, and imported when a file of their format is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudohealthy.registry import Registry

ARCHIVE = ".zip"  # holds files of any format and is none itself
MAGIC_BYTES = 352  # of a file, by which its format is known


Function = Callable[..., Any]


@dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        said: what messages, help and the app call it.
        suffixes: endings of its files, in small letters; they are no part of a case's name.
        reader: a function, or "module:function" of this package. It takes an `io.source.Source`,
            and by name `plane`, `max_voxels`, `mask` and `assume_spacing` (see `io.read`); it
            returns an `io.scan.Scan`.
        writer: a function, or "module:function" of this package. It takes results (D, H, W) or
            (C, D, H, W) in the type that they are written in, their scan, a folder and a name
            without ending, and returns the path. Without one, scans with a place in the patient go
            back as NIfTI, others as pictures.
        written: endings of the files that the writer leaves.
        pattern: what names of its files match where no ending tells them.
        magic: (offset, bytes) in the first 352 bytes, any of which tells a file of an unknown name.
        files: what its files are called; by default `said` files.
        volume: its scans may have a place in the patient.
        single: each file is one scan, and can be a channel or a mask.
        beside: (ending, other ending) of files that belong together: with the first the reader
            opens the one of the same name with the other, if there is one, and both are hashed.
        finder: "module:function", where several files make a case. The function takes files of this
            format, the folder they are below, how cases are named and what was given (see
            `io.survey`), and returns an `io.source.Survey`.
        identity: "module:function". The id of the case that a path holds, by its first header, or
            None; where names of files may be a patient's.
    """

    said: str
    suffixes: tuple[str, ...]
    reader: str | Function
    writer: str | Function = ""
    written: tuple[str, ...] = ()
    pattern: str = ""
    magic: tuple[tuple[int, bytes], ...] = ()
    files: str = ""
    volume: bool = False
    single: bool = True
    beside: tuple[tuple[str, str], ...] = ()
    finder: str = ""
    identity: str = ""

    def named(self, name: str) -> bool:
        """Whether a file name, in small letters, is one of this format."""
        return name.endswith(self.suffixes) or bool(self.pattern and re.search(self.pattern, name))

    def begins(self, head: bytes) -> bool:
        """Whether the first bytes of a file are those of this format."""
        return any(head[at : at + len(said)] == said for at, said in self.magic)


# By `Source.kind` and `Scan.kind`, in the order in which they are told
FORMATS: Registry[Format] = Registry(
    "format",
    "formats",
    {
        "nifti": Format(
            "NIfTI",
            (".nii", ".nii.gz", ".hdr"),
            "io.nifti:load",
            "io.nifti:save",
            (".nii.gz",),
            magic=((344, b"n+1\0"), (344, b"ni1\0")),
            volume=True,
            beside=((".hdr", ".img"), (".hdr", ".img.gz")),
        ),
        "dicom": Format(
            "DICOM",
            (".dcm", ".dicom", ".ima"),
            "io.dicom:load",
            magic=((128, b"DICM"),),
            volume=True,
            single=False,
            finder="io.dicom_cases:survey",
            identity="io.identify:dicom_id",
        ),
        "raster": Format(
            "PNG, JPEG, TIFF",
            (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
            "io.raster:load_picture",
            "io.raster:save_picture",
            (".png", ".tiff"),
            magic=((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff")),
            files="pictures",
        ),
        "array": Format(".npy", (".npy",), "io.raster:load_npy", "io.raster:save_npy", (".npy",)),
        "idx": Format(
            "idx", (), "io.idx:load", pattern=r"idx[1-4]-u?\w+(\.gz)?$|idx\.gz$", single=False
        ),
    },
)


def register(name: str, row: Format) -> Format:
    """Make a format known. Raises ValueError for a name that another one has."""
    return FORMATS.add(name, row)


def kind_by_name(name: str) -> str:
    """The format that a file has by its name; empty for none."""
    return next((kind for kind, row in FORMATS.items() if row.named(name.lower())), "")


def kind_by_bytes(head: bytes) -> str:
    """The format that a file has by its first bytes; empty for none."""
    return next((kind for kind, row in FORMATS.items() if row.begins(head)), "")


def ending(name: str) -> str:
    """What of a file name is the ending of a format, as it stands there; empty for none."""
    suffixes = (suffix for row in FORMATS.values() for suffix in row.suffixes)
    longest = max(filter(name.lower().endswith, suffixes), key=len, default="")
    return name[len(name) - len(longest) :] if longest else ""


def together(path: Path) -> tuple[Path, ...]:
    """A file, and those there are that are read with it (see `Format.beside`)."""
    pairs = {pair for row in FORMATS.values() for pair in row.beside}
    names = [
        path.name[: -len(ending)] + other
        for ending, other in sorted(pairs)
        if path.name.lower().endswith(ending)
    ]
    return path, *(other for name in names if (other := path.with_name(name)).is_file())


def result_endings() -> set[str]:
    """Endings that images of results can have."""
    return {suffix for row in FORMATS.values() for suffix in row.written}


def told(*more: str) -> str:
    """The formats, and what else is given, in words: "NIfTI, DICOM or idx"."""
    return _joined([*(row.said for row in FORMATS.values()), *more])


def told_files() -> str:
    """What can be a channel, in words: "NIfTI files, pictures or .npy files"."""
    return _joined([row.files or f"{row.said} files" for row in FORMATS.values() if row.single])


def _joined(names: list[str]) -> str:
    """a, b or c"""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
