"""MNIST's idx files: many images in one file, plain or .gz. Values stay as stored."""

from __future__ import annotations

import functools
import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import RESOURCE, Fault
from pseudohealthy.io.bounded import DEFLATE, Bounded
from pseudohealthy.io.origins import RasterOrigin
from pseudohealthy.io.scan import Scan, finite
from pseudohealthy.io.source import Source

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load(source: Source, **_: Any) -> Scan:
    """One image of a source, the first where none is named; see `formats.Format`."""
    return read_idx(source.paths[0], source.item or 0)


def read_idx(path: Path, item: int) -> Scan:
    """Image `item` of an idx file as (1, 1, H, W). Raises Fault NOT_IDX, TRUNCATED, ITEM."""
    images = idx(path)
    if images.ndim != 3:
        raise Fault(
            "NOT_IDX",
            f"an idx file of shape {images.shape} holds no images",
            "give the images file",
        )
    if not 0 <= item < len(images):
        raise Fault("ITEM", f"item {item} of {len(images)}", "counting starts at 0", exit=2)
    warnings: list[str] = []
    voxels = finite(images[item].astype(np.float32), warnings)[None, None]
    name = f"{path.name.removesuffix('.gz').replace('.', '-')}-{item:05d}"
    origin = RasterOrigin(images.dtype, images.shape[1:], "idx")
    return Scan(voxels, None, name, "idx", origin=origin, warnings=warnings)


def idx(path: Path) -> np.ndarray:
    """All of an idx file (plain or .gz, by content), read-only; kept in memory while it is being
    used."""
    stat = os.stat(path)
    return _idx(Path(path), stat.st_mtime_ns, stat.st_size)


def idx_shape(path: Path) -> tuple[int, ...]:
    """The shape an idx file declares. Raises Fault NOT_IDX, TRUNCATED."""
    with _open(path) as file:
        return _idx_header(file, path)[1]


@functools.lru_cache(maxsize=4)
def _idx(path: Path, mtime: int, size: int) -> np.ndarray:
    with _open(path) as file:
        dtype, shape = _idx_header(file, path)
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if wanted > 2**32:
            raise Fault("TOO_LARGE", f"an idx file of shape {shape}", "split it", exit=RESOURCE)
        try:
            data = file.read(wanted + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            data = b""
    if len(data) != wanted:
        raise Fault(
            "TRUNCATED",
            f"{path.name} does not hold the {wanted} bytes its header declares",
            "copy it again",
        )
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if dtype.byteorder != ">" else array.astype(dtype.newbyteorder("="))


def _open(path: Path) -> Any:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else Bounded(path)


def _idx_header(file: Any, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    try:
        magic = file.read(4)
        known = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in IDX_TYPES
        if known and 1 <= magic[3] <= 4:
            dtype = np.dtype(IDX_TYPES[magic[2]])
            shape = struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
            if int(np.prod(shape, dtype=object)) * dtype.itemsize > DEFLATE * path.stat().st_size:
                found = f"{path.name} cannot hold what its header declares, shape {shape}"
                # Before a case is listed for every image of it
                raise Fault("TRUNCATED", found, "copy it again")
            return dtype, shape
    except (EOFError, OSError, zlib.error, struct.error):
        pass
    found = "this is not an idx file (wrong magic number)"
    raise Fault("NOT_IDX", found, "give MNIST's files as published")
