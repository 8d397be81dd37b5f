"""Pictures and bare arrays: PNG, JPEG, TIFF, BMP, .npy and MNIST's idx files. Values stay as stored, never rescaled."""

from __future__ import annotations

import functools
import gzip
import os
import struct
import warnings as python_warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import REFUSED, RESOURCE, Fault
from pseudohealthy.io.atomic import atomic
from pseudohealthy.io.bounded import Bounded
from pseudohealthy.scan import Scan, finite

MAX_PIXELS = 100_000_000  # of one picture; a 12 kB PNG can hold this many
# Pixels a byte of a file can stand for at most. Deflate makes 1032 bytes of one, each of 8 one-bit pixels; LZW 2730.
DEFLATE, PNG_RATIO, RATIO, FAX_RATIO = 1100, 8 * 1100, 8 * 2800, 100_000
# What Pillow's decoders raise at damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError,
          EOFError, struct.error, zlib.error)  # fmt: skip
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@dataclass
class RasterOrigin:
    """What a picture or array was stored as: numpy type and shape ((H, W) or (pages, H, W) for pictures)."""

    dtype: np.dtype
    shape: tuple[int, ...]
    kind: str  # "picture" | "npy" | "idx"


def read_picture(path: Path, *, channel: int | None = None, max_voxels: int = 512_000_000, mask: bool = False) -> Scan:
    """A picture as (1, pages, H, W): grey levels as stored; colour as luminance with a warning, or one channel of it.

    mask: any colour other than black counts, as 1. Raises Fault TRUNCATED, NOT_IMAGE, TOO_LARGE (exit 7), SIZES.
    """
    from PIL import Image, UnidentifiedImageError

    from pseudohealthy.io.nifti import looks_like

    warnings: list[str] = []
    with open(path, "rb") as file:
        head = file.read(200)
    if not head:
        raise Fault("EMPTY_FILE", f"{path.name} has 0 bytes", "copy or download it again")
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # Pillow's own size warning; the limit below is stricter
            image = Image.open(path)
        with image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24] == 16 and head[25] in (2, 6):
                warnings.append("DEPTH: 16-bit colour is read with 8 bits a channel")
            planes = []
            for page in range(pages):
                if pages > 1:
                    image.seek(page)
                _require_size(image, pages, max_voxels, path)  # each page has its own
                planes.append(_grey(image, channel, mask, warnings if page == 0 else []))
    except Image.DecompressionBombError:
        raise Fault("TOO_LARGE", "a picture beyond 100 million pixels", "crop or shrink it", exit=RESOURCE) from None
    except UnidentifiedImageError:
        raise Fault("NOT_IMAGE", f"this is not a picture{looks_like(head)}", "give PNG, JPEG or TIFF") from None
    except DAMAGE as error:
        said = "".join(c if c.isprintable() else "?" for c in str(error))[:200] or type(error).__name__
        raise Fault("TRUNCATED", f"the picture is damaged or cut short ({said})", "copy it again") from None
    if len({p.shape for p in planes}) > 1:
        raise Fault("SIZES", "the pages of this TIFF have different sizes", "split it into files")
    stored = np.stack(planes)
    origin = RasterOrigin(stored.dtype, stored.shape if pages > 1 else stored.shape[1:], "picture")
    voxels = finite(stored.astype(np.float32), warnings)
    return Scan(voxels[None], None, path.stem, "raster", origin=origin, warnings=warnings)


def _require_size(image: Any, pages: int, max_voxels: int, path: Path) -> None:
    """Fault TOO_LARGE or TRUNCATED for a size no limit allows or the file cannot hold, before memory is taken for it."""
    pixels, size = image.width * image.height, path.stat().st_size
    if pixels > MAX_PIXELS or pixels * pages > max_voxels:
        text = f"{pages} x {image.height} x {image.width} pixels"
        raise Fault("TOO_LARGE", f"a picture of {text}", "crop or shrink it", exit=RESOURCE)
    fax = "group" in str(image.info.get("compression"))
    if pixels > (PNG_RATIO if image.format == "PNG" else FAX_RATIO if fax else RATIO) * size:
        found = f"{size} bytes cannot hold {image.height} x {image.width} pixels"
        raise Fault("TRUNCATED", found, "copy it again")


def _grey(image: Any, channel: int | None, mask: bool, warnings: list[str]) -> np.ndarray:
    """One page as a 2-D array of its own depth."""
    from PIL import ImageOps

    if image.getexif().get(0x0112, 1) not in (0, 1):
        image = ImageOps.exif_transpose(image)
        warnings.append("ROTATED: turned as its EXIF tag says; outputs are turned too")
    if image.mode == "P" or ("transparency" in image.info and image.mode not in ("L", "I;16")):
        warnings.append("PALETTE: palette colours are converted")
        image = image.convert("RGBA").convert("RGB")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA"):
        warnings.append("ALPHA: transparency is dropped")
        image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    if image.mode == "1":
        image = image.convert("L")
    array = np.asarray(image)
    if array.dtype.kind not in "uif":
        raise Fault("DTYPE", f"pixels of mode {image.mode}", "store grey levels")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim == 2:
        if channel:
            raise Fault("CHANNELS", f"channel {channel} of a grey picture", "leave out the number", exit=2)
        return array.astype(np.uint16) if image.mode == "I" and _fits_uint16(array) else array
    if mask:
        return (array != 0).any(axis=-1).astype(np.uint8)
    if channel is not None:
        if channel >= array.shape[-1]:
            raise Fault("CHANNELS", f"channel {channel} of {array.shape[-1]}", "counting starts at 0", exit=2)
        return array[..., channel]
    if (array == array[..., :1]).all():
        return array[..., 0]
    warnings.append("COLOUR: converted to luminance")
    return np.asarray(image.convert("L"))


def _fits_uint16(array: np.ndarray) -> bool:
    return bool(array.min() >= 0 and array.max() < 2**16)


def read_npy(path: Path, *, item: int | None = None, max_voxels: int = 512_000_000) -> Scan:
    """A .npy of real numbers: (H, W), (H, W, 1), (D, H, W) or (C, D, H, W); `item` picks along the first axis.

    Never unpickles. Raises Fault PICKLE (exit 8), DTYPE, TRUNCATED, TOO_LARGE (exit 7), SHAPE.
    """
    with Bounded(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            offset = file.tell()
        except Exception as error:  # the header is a Python literal: whatever parsing it provokes
            raise Fault(
                "NOT_NPY", f"the .npy header cannot be read ({type(error).__name__})", "save it again"
            ) from None
    if dtype.hasobject:
        raise Fault("PICKLE", "an object array, which would have to be unpickled", "save plain numbers", exit=REFUSED)
    if dtype.kind not in "buif":
        raise Fault("DTYPE", f"an array of {dtype}", "save real numbers")
    size = int(np.prod(shape, dtype=object))
    if size > max_voxels and item is None:
        raise Fault("TOO_LARGE", f"an array of shape {shape}", f"the limit is {max_voxels}", exit=RESOURCE)
    if offset + size * dtype.itemsize > path.stat().st_size or min(shape, default=0) < 1:
        raise Fault("TRUNCATED", f"the file is too short for its shape {shape}", "save it again")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, TypeError, OverflowError):
        raise Fault("NOT_NPY", f"an array of shape {shape}", "save it again") from None
    if item is not None:
        if array.ndim < 3 or item >= len(array):
            raise Fault("ITEM", f"item {item} of an array of shape {shape}", "counting starts at 0", exit=2)
        array = array[item]
    if array.ndim == 3 and array.shape[-1] == 1:
        scan = Scan.from_array(array[..., 0], name=path.stem)
    else:
        scan = Scan.from_array(array, name=path.stem)
    scan.origin = RasterOrigin(array.dtype.newbyteorder("="), array.shape, "npy")
    return scan


def read_idx(path: Path, item: int) -> Scan:
    """Image `item` of an idx file as (1, 1, H, W). Raises Fault NOT_IDX, TRUNCATED, ITEM."""
    images = idx(path)
    if images.ndim != 3:
        raise Fault("NOT_IDX", f"an idx file of shape {images.shape} holds no images", "give the images file")
    if not 0 <= item < len(images):
        raise Fault("ITEM", f"item {item} of {len(images)}", "counting starts at 0", exit=2)
    warnings: list[str] = []
    voxels = finite(images[item].astype(np.float32), warnings)[None, None]
    name = f"{path.name.removesuffix('.gz').replace('.', '-')}-{item:05d}"
    origin = RasterOrigin(images.dtype, images.shape[1:], "idx")
    return Scan(voxels, None, name, "idx", origin=origin, warnings=warnings)


def idx(path: Path) -> np.ndarray:
    """All of an idx file (plain or .gz, by content), read-only; kept in memory while it is being used."""
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
        raise Fault("TRUNCATED", f"{path.name} does not hold the {wanted} bytes its header declares", "copy it again")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if dtype.byteorder != ">" else array.astype(dtype.newbyteorder("="))


def _open(path: Path) -> Any:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else Bounded(path)


def _idx_header(file: Any, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    try:
        magic = file.read(4)
        if len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in IDX_TYPES and 1 <= magic[3] <= 4:
            dtype, shape = np.dtype(IDX_TYPES[magic[2]]), struct.unpack(f">{magic[3]}I", file.read(4 * magic[3]))
            if int(np.prod(shape, dtype=object)) * dtype.itemsize > DEFLATE * path.stat().st_size:
                found = f"{path.name} cannot hold what its header declares, shape {shape}"
                raise Fault("TRUNCATED", found, "copy it again")  # before a case is listed for every image of it
            return dtype, shape
    except (EOFError, OSError, zlib.error, struct.error):
        pass
    raise Fault("NOT_IDX", "this is not an idx file (wrong magic number)", "give MNIST's files as published")


def write(array: np.ndarray, origin: Any, folder: Path, stem: str, *, npy: bool = False) -> Path:
    """(D, H, W) or (C, D, H, W) beside a picture or array, in the array's own type.

    npy: an array goes back to .npy, in its own shape. One 8- or 16-bit plane is a PNG; several planes, and floats,
    which PNG cannot hold, are a TIFF with one page a plane (channels first).
    """
    from PIL import Image

    if npy:
        path = folder / f"{stem}.npy"
        same = isinstance(origin, RasterOrigin) and array.size == np.prod(origin.shape)
        shaped = array.reshape(origin.shape) if same else array
        with atomic(path) as tmp:
            np.save(tmp, shaped, allow_pickle=False)
        return path
    pages = [np.ascontiguousarray(page) for page in array.reshape(-1, *array.shape[-2:])]
    as_png = len(pages) == 1 and array.dtype in (np.uint8, np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        pages = [page.astype(np.float32) for page in pages]
    path = folder / f"{stem}{'.png' if as_png else '.tiff'}"
    images = [Image.fromarray(page) for page in pages]
    with atomic(path) as tmp:
        if as_png:
            images[0].save(tmp)
        else:
            images[0].save(tmp, compression="tiff_deflate", save_all=len(images) > 1, append_images=images[1:])
    return path
