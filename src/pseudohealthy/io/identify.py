"""Which DICOM series a file, folder or zip holds, by the first header in it; pixels are not read
and nothing is unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pydicom

from pseudohealthy.io.bounded import Bounded
from pseudohealthy.io.dicom_head import NO_IMAGE, series_uid
from pseudohealthy.io.names import natural, series_id

MOST = 200  # files looked at; a folder of so many others is no series
TAGS = ["SeriesInstanceUID", "Modality", "StudyInstanceUID", "SeriesNumber"]
HEAD = 2**20  # bytes of a zip's member that are read: enough for any header


def dicom_id(path: Path) -> str | None:
    """The id of a DICOM case ("series-1a2b3c4d"), or None for a path that holds none.

    A zip that cannot be read gets an id of its content, for its name may be a patient's.
    """
    try:
        uid = next(filter(None, map(_series, _files(path))), None)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError):
        return "unread-" + _content(path) if path.suffix.lower() == ".zip" else None
    return None if uid is None else series_id(uid)


def _files(path: Path) -> Iterator[IO[bytes]]:
    """The first files under a path, each open from its beginning."""
    if path.is_dir():
        names = (
            Path(folder) / name
            for folder, _, files in sorted(os.walk(path))
            for name in sorted(files, key=natural)
        )
        for name, _ in zip(names, range(MOST), strict=False):
            with Bounded(name) as file:
                yield file
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (m for m in archive.infolist() if not m.is_dir()), key=lambda m: natural(m.filename)
            )
            for member in members[:MOST]:
                with archive.open(member) as packed:
                    yield io.BytesIO(packed.read(HEAD))
    else:
        with Bounded(path) as file:
            yield file


def _series(file: IO[bytes]) -> str | None:
    """SeriesInstanceUID of an image's header, or what stands for it; None for anything else."""
    if file.read(132)[128:] != b"DICM":
        return None
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
            return None if ds.get("Modality") in NO_IMAGE else series_uid(ds)
    # Pydicom raises whatever the damage provokes; reading the case will say what it is.
    except Exception:
        return None


def _content(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(HEAD)).hexdigest()[:8]
