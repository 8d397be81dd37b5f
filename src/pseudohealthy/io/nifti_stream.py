"""Bytes of a NIfTI file, compressed or not, and what is said where they end early."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pseudohealthy.errors import Fault


def is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def opened(path: Path) -> BinaryIO:
    if path.stat().st_size == 0:
        raise Fault("EMPTY_FILE", f"{path.name} has 0 bytes", "copy or download it again")
    return gzip.open(path) if is_gzip(path) else open(path, "rb")  # type: ignore[return-value]


def fill(stream: BinaryIO, buffer: np.ndarray) -> int:
    """Fill in chunks, so that memory is touched only for bytes that exist; the number of bytes
    found."""
    done = 0
    try:
        while done < len(buffer):
            got = stream.readinto(buffer[done : done + 2**22].data)  # type: ignore[attr-defined]
            if not got:
                break
            done += got
        if done == len(buffer):
            stream.read(0)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Fault(
            "TRUNCATED", f"the compressed data is damaged or cut short ({error})", "copy it again"
        ) from None
    return done


def take(stream: BinaryIO, count: int) -> bytes:
    buffer = np.empty(count, np.uint8)
    return buffer[: fill(stream, buffer)].tobytes()
