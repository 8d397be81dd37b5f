"""Pictures and bare arrays: PNG, JPEG, TIFF, BMP and .npy. Values stay as stored."""

from __future__ import annotations

import struct
import warnings as python_warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pseudohealthy.counts import many
from pseudohealthy.errors import REFUSED, RESOURCE, Fault
from pseudohealthy.io import tiff
from pseudohealthy.io.atomic import atomic
from pseudohealthy.io.bounded import DEFLATE, Bounded, looks_like
from pseudohealthy.io.mask import drawn
from pseudohealthy.io.origins import RasterOrigin
from pseudohealthy.io.scan import Scan, as_float, finite, luminance
from pseudohealthy.io.source import Source

MAX_PIXELS = 100_000_000  # of one picture; a 12 kB PNG can hold this many
# Pixels a byte of a file can stand for at most: a byte holds 8 of one bit, and LZW makes 2730 bytes
# of one.
PNG_RATIO, RATIO, FAX_RATIO = 8 * DEFLATE, 8 * 2800, 100_000
# What Pillow's decoders raise at damaged files.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000")
YCBCR = 6  # of TIFF's colour spaces, the one that libtiff converts
DEEP = (2, 4, 6)  # colour types of 16-bit PNGs with more than one channel
Layers = tuple[np.ndarray, np.ndarray | None]  # (H, W) or (H, W, channels), and alpha (H, W)


def read_picture(
    path: Path, *, channel: int | None = None, max_voxels: int = 512_000_000, mask: bool = False
) -> Scan:
    """A picture as (1, pages, H, W): grey levels as stored, colour as luminance of the same depth.

    Args:
        channel: take this colour channel instead of the luminance.
        mask: keep what a reference mask needs: see `io.mask.drawn`.

    Raises Fault TRUNCATED, NOT_IMAGE, DTYPE, CHANNELS, TOO_LARGE (exit 7), SIZES.
    """
    warnings: list[str] = []
    with open(path, "rb") as file:
        head = file.read(200)
    if not head:
        raise Fault("EMPTY_FILE", f"{path.name} has 0 bytes", "copy or download it again")
    try:
        with python_warnings.catch_warnings():
            # Pillow's own of size; the limit here is stricter.
            python_warnings.simplefilter("ignore")
            pages = _tiff(path, max_voxels, warnings) if head[:4] in tiff.MAGIC else None
            pages, lossy = (pages, False) if pages else _pillow(path, head, max_voxels, warnings)
            planes = [_grey(*page, channel, mask, warnings) for page in pages]
    except Image.DecompressionBombError:
        found = "a picture beyond 100 million pixels"
        raise Fault("TOO_LARGE", found, "crop or shrink it", exit=RESOURCE) from None
    except UnidentifiedImageError:
        found = f"this is not a picture{looks_like(head)}"
        raise Fault("NOT_IMAGE", found, "give PNG, JPEG or TIFF") from None
    except DAMAGE as error:
        said = "".join(c if c.isprintable() else "?" for c in str(error))[:200]
        found = f"the picture is damaged or cut short ({said or type(error).__name__})"
        raise Fault("TRUNCATED", found, "copy it again") from None
    if len({p.shape for p in planes}) > 1:
        raise Fault("SIZES", "the pages of this TIFF have different sizes", "split it into files")
    stored = np.stack(planes)
    shape = stored.shape if len(planes) > 1 else stored.shape[1:]
    origin = RasterOrigin(stored.dtype, shape, "picture", lossy)
    voxels = finite(as_float(stored, warnings), warnings)
    return Scan(
        voxels[None],
        None,
        path.stem,
        "raster",
        origin=origin,
        warnings=list(dict.fromkeys(warnings)),
    )


def from_pillow(image: Any) -> Scan:
    """A picture that Pillow has opened, (1, 1, H, W), as `read_picture` reads its file."""
    warnings: list[str] = []
    stored = _grey(*_samples(image, warnings), None, False, warnings)
    origin = RasterOrigin(stored.dtype, stored.shape, "picture")
    voxels = finite(as_float(stored, warnings), warnings)[None, None]
    return Scan(voxels, None, "array", "raster", origin=origin, warnings=warnings)


def _tiff(path: Path, max_voxels: int, warnings: list[str]) -> list[Layers] | None:
    """Every page as stored, None where Pillow has to unpack it."""
    with Bounded(path) as file:
        pages = tiff.pages(file, max_voxels)
        if not pages or not all(page.bytewise and page.photometric != YCBCR for page in pages):
            _require_known(pages)
            return None
        for page in pages:
            _require_size(page.width, page.height, len(pages), max_voxels, RATIO, path)
        return [tiff.meaning(tiff.samples(file, page), page, warnings) for page in pages]


def _require_known(pages: list[tiff.Page]) -> None:
    """Fault DTYPE for what neither this program nor Pillow unpacks as it is stored."""
    for page in pages:
        if not page.bytewise and page.bits not in (1, 8):
            found = f"a TIFF of {page.bits} bits in compression {page.compression}"
            raise Fault("DTYPE", found, "save it without compression, or as LZW or Deflate")


def _pillow(
    path: Path, head: bytes, max_voxels: int, warnings: list[str]
) -> tuple[list[Layers], bool]:
    """Every page by Pillow, and whether its compression is lossy."""
    png = head[:8] == b"\x89PNG\r\n\x1a\n"
    deep = head[25] if png and head[24] == 16 else None  # the colour type of a 16-bit PNG
    with Image.open(path) as image:
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        fax = "group" in str(image.info.get("compression"))
        ratio = PNG_RATIO if image.format == "PNG" else FAX_RATIO if fax else RATIO
        found = []
        for page in range(pages):
            if pages > 1:
                image.seek(page)
            _require_size(image.width, image.height, pages, max_voxels, ratio, path)
            found.append(
                _deep(path, image, deep, warnings) if deep in DEEP else _samples(image, warnings)
            )
        lossy = image.format in LOSSY or "jpeg" in str(image.info.get("compression"))
    return found, lossy


def _require_size(
    width: int, height: int, pages: int, max_voxels: int, ratio: int, path: Path
) -> None:
    """Fault TOO_LARGE or TRUNCATED for a size that no limit allows or the file cannot hold, before
    memory is taken for it."""
    pixels, size = width * height, path.stat().st_size
    if pixels > MAX_PIXELS or pixels * pages > max_voxels:
        text = f"{pages} x {height} x {width} pixels"
        raise Fault("TOO_LARGE", f"a picture of {text}", "crop or shrink it", exit=RESOURCE)
    if pixels > ratio * size or pixels < 1:
        found = f"{size} bytes cannot hold {height} x {width} pixels"
        raise Fault("TRUNCATED", found, "copy it again")


def _deep(path: Path, image: Any, colour: int, warnings: list[str]) -> Layers:
    """A 16-bit PNG with colour or alpha, which Pillow cuts to 8 bits: its two bytes apart."""
    if colour == 4:  # grey and alpha, two bytes each, have the layout of four 8-bit channels
        image._mode, image.tile = "RGBA", [tile._replace(args="RGBA") for tile in image.tile]
        channels = np.ascontiguousarray(np.asarray(image)).view(">u2").astype(np.uint16)
    else:
        with Image.open(path) as second:  # its low bytes, as if they were the high ones
            second.tile = [t._replace(args=str(t.args).replace("16B", "16L")) for t in second.tile]
            channels = np.asarray(image).astype(np.uint16) * 256 + np.asarray(second)
    return _layers(_upright(channels, image, warnings))


def _upright(array: np.ndarray, image: Any, warnings: list[str]) -> np.ndarray:
    """Asked for after loading: Pillow turns TIFFs itself, and takes their tag away."""
    return tiff.upright(array, image.getexif().get(0x0112, 1), warnings)


def _layers(array: np.ndarray) -> Layers:
    """(H, W, channels) apart: the fourth of colour and the second of grey is alpha."""
    if array.ndim == 2 or array.shape[2] == 3:
        return array, None
    return (array[..., 0] if array.shape[2] == 2 else array[..., :3]), array[..., -1]


def _samples(image: Any, warnings: list[str]) -> Layers:
    """One page by Pillow, of its own depth."""
    if image.mode in ("P", "PA"):
        warnings.append("PALETTE: palette colours are converted")
        clear = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if clear else "RGB")
    if image.mode in ("CMYK", "YCbCr", "HSV", "La", "RGBa", "1"):
        image = image.convert({"La": "LA", "RGBa": "RGBA", "1": "L"}.get(image.mode, "RGB"))
    array = _upright(np.asarray(image), image, warnings)
    if array.dtype.kind not in "uif" or image.mode == "LAB":
        raise Fault("DTYPE", f"pixels of mode {image.mode}", "store grey levels")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return _layers(array.astype(np.uint16) if image.mode == "I" and _fits_uint16(array) else array)


def _grey(
    array: np.ndarray,
    alpha: np.ndarray | None,
    channel: int | None,
    mask: bool,
    warnings: list[str],
) -> np.ndarray:
    """Grey levels (H, W) of one page: its own, one channel, luminance, or what a mask shows."""
    if channel is not None and (array.ndim > 2 or channel):
        return _channel(array, channel)
    if array.ndim > 2 and array.shape[-1] != 3:
        found = f"a picture of {many(array.shape[-1], 'channel')}"
        raise Fault("CHANNELS", found, "name one as FILE#0, FILE#1, ...", exit=2)
    if mask:
        return drawn(array, alpha, warnings)
    if alpha is not None:
        warnings.append("ALPHA: transparency is dropped")
    if array.ndim == 2 or (array == array[..., :1]).all():
        return array if array.ndim == 2 else array[..., 0]
    warnings.append("COLOUR: converted to luminance")
    return luminance(array)


def _channel(array: np.ndarray, channel: int) -> np.ndarray:
    if array.ndim == 2:
        found, cure = f"channel {channel} of a grey picture", "leave out the number"
        raise Fault("CHANNELS", found, cure, exit=2)
    if channel >= array.shape[-1]:
        found = f"channel {channel} of {array.shape[-1]}"
        raise Fault("CHANNELS", found, "counting starts at 0", exit=2)
    return array[..., channel]


def _fits_uint16(array: np.ndarray) -> bool:
    return bool(array.min() >= 0 and array.max() < 2**16)


def read_npy(path: Path, *, item: int | None = None, max_voxels: int = 512_000_000) -> Scan:
    """A .npy of real numbers: (H, W), (H, W, 1), (D, H, W) or (C, D, H, W); `item` picks along the
    first axis.

    Never unpickles. Raises Fault PICKLE (exit 8), DTYPE, TRUNCATED, TOO_LARGE (exit 7), SHAPE.
    """
    with Bounded(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = header(file)
            offset = file.tell()
        except Exception as error:  # the header is a Python literal: whatever parsing it provokes
            raise Fault(
                "NOT_NPY",
                f"the .npy header cannot be read ({type(error).__name__})",
                "save it again",
            ) from None
    if dtype.hasobject:
        raise Fault(
            "PICKLE",
            "an object array, which would have to be unpickled",
            "save plain numbers",
            exit=REFUSED,
        )
    if dtype.kind not in "buif":
        raise Fault("DTYPE", f"an array of {dtype}", "save real numbers")
    size = int(np.prod(shape, dtype=object))
    if size > max_voxels and item is None:
        raise Fault(
            "TOO_LARGE", f"an array of shape {shape}", f"the limit is {max_voxels}", exit=RESOURCE
        )
    if offset + size * dtype.itemsize > path.stat().st_size or min(shape, default=0) < 1:
        raise Fault("TRUNCATED", f"the file is too short for its shape {shape}", "save it again")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, TypeError, OverflowError):
        raise Fault("NOT_NPY", f"an array of shape {shape}", "save it again") from None
    if item is not None:
        if array.ndim < 3 or item >= len(array):
            raise Fault(
                "ITEM", f"item {item} of an array of shape {shape}", "counting starts at 0", exit=2
            )
        array = array[item]
    scan = Scan.from_array(array, name=path.stem)
    scan.origin = RasterOrigin(array.dtype.newbyteorder("="), array.shape, "npy")
    return scan


def load_picture(source: Source, *, max_voxels: int, mask: bool, **_: Any) -> Scan:
    """The picture of a source; its item is a colour channel. See `formats.Format`."""
    return read_picture(source.paths[0], channel=source.item, max_voxels=max_voxels, mask=mask)


def load_npy(source: Source, *, max_voxels: int, **_: Any) -> Scan:
    """The array of a source, see `formats.Format`."""
    return read_npy(source.paths[0], item=source.item, max_voxels=max_voxels)


def save_picture(array: np.ndarray, scan: Scan, folder: Path, stem: str) -> Path:
    """Results as a picture, see `formats.Format`."""
    return write(array, scan.origin, folder, stem)


def save_npy(array: np.ndarray, scan: Scan, folder: Path, stem: str) -> Path:
    """Results as .npy, see `formats.Format`."""
    return write(array, scan.origin, folder, stem, npy=True)


def write(array: np.ndarray, origin: Any, folder: Path, stem: str, *, npy: bool = False) -> Path:
    """(D, H, W) or (C, D, H, W) beside a picture or array, in the array's own type.

    npy: an array goes back to .npy, in its own shape. One 8- or 16-bit plane is a PNG; several
    planes, and floats, which PNG cannot hold, are a TIFF with one page a plane (channels first).
    """
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
            images[0].save(
                tmp, compression="tiff_deflate", save_all=len(images) > 1, append_images=images[1:]
            )
    return path
