"""TIFF as it is stored: every depth and sign, strips and tiles, contiguous and planar.

Pillow knows few of TIFF's sample types, takes some for others (signed bytes, 32-bit numbers) and
cuts 16-bit colour to 8 bits. So libtiff, through Pillow, only unpacks bytes here, one strip or
tile at a time, and numpy makes numbers of them.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pseudohealthy.errors import RESOURCE, Fault

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NONE, BYTEWISE = 1, (1, 5, 8, 32773, 32946, 34925, 50000)  # LZW, deflate, packbits, LZMA, zstd
RATIO = 2800  # bytes that one byte of a strip stands for at most (LZW)
MAX_BYTES = 2**30  # of the samples of one page
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # SampleFormat; 4 is "undefined"
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
REDUCED, MASK = 1, 4  # bits of NewSubfileType
# How an image tagged with an Orientation comes upright: (transpose, flip rows, flip columns).
UPRIGHT = {
    2: (0, 0, 1),
    3: (0, 1, 1),
    4: (0, 1, 0),
    5: (1, 0, 0),
    6: (1, 0, 1),
    7: (1, 1, 1),
    8: (1, 1, 0),
}


@dataclass(frozen=True)
class Page:
    """What the tags of one page say of its samples; `channels` counts all of them, alpha too."""

    tags: Any
    order: str
    width: int
    height: int
    channels: int
    bits: int
    kind: str  # "u", "i", "f", or "" for what is no real number
    photometric: int
    compression: int

    @property
    def bytewise(self) -> bool:
        """Whether its compression is of bytes, not of pictures (JPEG) or of bits (fax)."""
        return self.compression in BYTEWISE

    @property
    def planar(self) -> bool:
        return self.tags.get(284, 1) == 2 and self.channels > 1

    @property
    def extra(self) -> bool:
        """Left out where there are others: thumbnails and transparency masks."""
        return bool(int(self.tags.get(254, 0)) & (REDUCED | MASK))


def pages(file: BinaryIO, most: int) -> list[Page]:
    """The pages of a TIFF, at most `most` + 1 of them; empty where this is none."""
    found: list[Page] = []
    for tags, order in _directories(file):
        found.append(_page(tags, order))
        if len(found) > most:
            break
    found = [page for page in found if not page.extra] or found
    if len(found) == 1 and (planes := _stacked(found[0])) > 1:
        cure = "save it as a TIFF of one page a plane"
        raise Fault("PAGES", f"{planes} planes behind the tags of one page", cure)
    return found


def _stacked(page: Page) -> int:
    """How many planes ImageJ or tifffile say lie behind each other, without tags of their own."""
    said = str(page.tags.get(270, ""))
    if match := re.search(r"^ImageJ=.*?^images=(\d+)", said, re.S | re.M):
        return int(match[1])
    if match := re.match(r'\{"shape": \[([\d, ]+)\]', said):
        whole = math.prod(map(int, match[1].split(",")))
        return whole // max(1, page.width * page.height * page.channels)
    return 1


def _directories(file: BinaryIO) -> Iterator[tuple[Any, str]]:
    file.seek(0)
    header = file.read(16)
    if header[:4] not in MAGIC:
        return
    ends, order = header[:2], "<" if header[:2] == b"II" else ">"
    if header[2:4] in (b"+\0", b"\0+"):  # Pillow knows a BigTIFF by its little-endian header only
        header = b"II+\0" + header[4:]
    else:
        header = header[:8]
    offset, seen = ImageFileDirectory_v2(header, ends).next, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        tags = ImageFileDirectory_v2(header, ends)
        tags.load(file)
        yield tags, order
        offset = tags.next


def _page(tags: Any, order: str) -> Page:
    channels = int(tags.get(277, 1))
    bits, formats = _all(tags.get(258, 1)), _all(tags.get(339, 1))
    same = len(set(bits)) == 1 and len(set(formats)) == 1
    default = RGB if channels in (3, 4) else BLACK_IS_0
    return Page(
        tags,
        order,
        int(tags[256]),
        int(tags[257]),
        channels,
        bits[0],
        KINDS.get(formats[0], "") if same else "",
        int(tags.get(262, default)),
        int(tags.get(259, NONE)),
    )


def _all(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def samples(file: BinaryIO, page: Page) -> np.ndarray:
    """The stored numbers (H, W, channels) of a page whose compression is bytewise.

    Raises Fault DTYPE for what is no real number, TRUNCATED, TOO_LARGE (exit 7).
    """
    dtype = _dtype(page)
    if page.height * page.width * page.channels * dtype.itemsize > MAX_BYTES:
        text = f"{page.height} x {page.width} pixels of {page.channels} x {page.bits} bits"
        raise Fault("TOO_LARGE", text, "crop or shrink it", exit=RESOURCE)
    parts = page.channels if page.planar else 1
    planes = [_plane(file, page, dtype, part, parts) for part in range(parts)]
    return np.concatenate(planes, axis=2)


def _dtype(page: Page) -> np.dtype:
    """The native numpy type of the samples."""
    sizes = (16, 32, 64) if page.kind == "f" else range(1, 33) if page.kind else ()
    if page.bits not in (*sizes, *((64,) if page.kind else ())) or page.channels < 1:
        found = f"samples of {page.bits} bits, format {page.tags.get(339, 1)}"
        raise Fault("DTYPE", f"a TIFF with {found}", "save whole or real numbers of one type")
    return np.dtype(f"{page.kind}{max(1, 2 ** math.ceil(math.log2(page.bits / 8)))}")


def _plane(file: BinaryIO, page: Page, dtype: np.dtype, part: int, parts: int) -> np.ndarray:
    """(H, W, samples of this plane), put together of strips or tiles."""
    tiled = 324 in page.tags
    wide, high = (322, 323) if tiled else (256, 278)
    width = int(page.tags.get(wide, page.width))
    height = int(page.tags.get(high, page.height))
    height = height if tiled else min(height, page.height)
    if width < 1 or height < 1:
        raise Fault("TRUNCATED", "the TIFF has strips or tiles of no size", "save it again")
    across, down = -(-page.width // width), -(-page.height // height)
    where = _segments(file, page, tiled, parts * across * down)[part * across * down :]
    channels = page.channels // parts
    out = np.zeros((page.height, page.width, channels), dtype)
    for number, (offset, count) in enumerate(where[: across * down]):
        top, left = number // across * height, number % across * width
        rows = height if tiled else min(height, page.height - top)
        if tiled and count == 0:
            continue  # a tile that was never written is empty
        block = _block(file, page, offset, count, (rows, width, channels)).astype(dtype, copy=False)
        here = out[top : top + rows, left : left + width]
        here[:] = block[: here.shape[0], : here.shape[1]]
    return out


def _segments(file: BinaryIO, page: Page, tiled: bool, wanted: int) -> list[tuple[int, int]]:
    """(offset, bytes) of every strip or tile, all of them within the file."""
    size = file.seek(0, io.SEEK_END)
    offsets = _all(page.tags.get(324 if tiled else 273, ()))
    counts = _all(page.tags.get(325 if tiled else 279, ()))
    if not counts:  # old writers leave them out
        counts = tuple(b - a for a, b in zip(offsets, (*offsets[1:], size), strict=True))
    found = list(zip(offsets, counts, strict=False))
    if len(found) < wanted or any(a < 0 or n < 0 or a + n > size for a, n in found):
        raise Fault("TRUNCATED", "the TIFF is shorter than its tags say", "copy it again")
    return found


def _block(file: BinaryIO, page: Page, offset: int, count: int, shape: tuple) -> np.ndarray:
    """The numbers of one strip or tile, (rows, columns, channels)."""
    rows, width, channels = shape
    row = -(-width * channels * page.bits // 8)
    file.seek(offset)
    packed = np.frombuffer(_inflated(page, file.read(count), rows * row), np.uint8)
    if page.tags.get(266, 1) == 2 and page.compression == NONE:
        packed = np.packbits(np.unpackbits(packed, bitorder="little"))
    packed = packed[: rows * row].reshape(rows, row)
    predictor = page.tags.get(317, 1)
    if predictor == 3 and page.kind == "f":
        return _float_differences(packed, page.bits // 8, shape)
    values = _numbers(packed, page, width * channels).reshape(shape)
    if predictor == 2 and page.compression != NONE:
        whole = values.view(f"u{values.itemsize}")  # differences wrap around
        values = np.cumsum(whole, axis=1, dtype=whole.dtype).view(values.dtype)
    return values


def _numbers(packed: np.ndarray, page: Page, count: int) -> np.ndarray:
    """(rows, count) of rows of bytes: whole bytes as they stand, other depths bit by bit."""
    if page.bits in (8, 16, 32, 64):
        stored = np.dtype(f"{page.order}{page.kind}{page.bits // 8}")
        return packed.copy().view(stored)[:, :count].astype(stored.newbyteorder("="))
    bits = np.unpackbits(packed, axis=1)[:, : count * page.bits].reshape(-1, count, page.bits)
    values = np.zeros(bits.shape[:2], np.int64)
    for place in range(page.bits):
        values = values * 2 + bits[:, :, place]
    return values - (values >> page.bits - 1 << page.bits) if page.kind == "i" else values


def _float_differences(packed: np.ndarray, size: int, shape: tuple) -> np.ndarray:
    """Predictor 3 undone: the bytes of a row by significance, each less the pixel before it."""
    rows, width, channels = shape
    whole = np.cumsum(packed.reshape(rows, -1, channels), axis=1, dtype=np.uint8)
    planes = whole.reshape(rows, size, width * channels).transpose(0, 2, 1)
    return np.ascontiguousarray(planes).view(f">f{size}").reshape(shape)


def _inflated(page: Page, data: bytes, wanted: int) -> bytes:
    """The bytes of a strip or tile, at least `wanted` of them."""
    if page.compression != NONE and data:
        if wanted > RATIO * len(data):
            found = f"{len(data)} bytes cannot hold a strip of {wanted}"
            raise Fault("TRUNCATED", found, "copy it again")
        data = _through_libtiff(data, wanted, page.compression, int(page.tags.get(266, 1)))
    if len(data) < wanted:
        raise Fault("TRUNCATED", "a strip of the TIFF is cut short", "copy it again")
    return data


def _through_libtiff(data: bytes, wanted: int, compression: int, fill: int) -> bytes:
    """A strip unpacked as the one row of an 8-bit picture, which has any bytewise compression."""
    tags = {
        256: wanted,
        257: 1,
        258: 8,
        259: compression,
        262: BLACK_IS_0,
        266: fill,
        273: 0,
        277: 1,
        278: 1,
        279: len(data),
    }
    tags[273] = 14 + 12 * len(tags)
    fields = b"".join(struct.pack("<HHII", key, 4, 1, value) for key, value in tags.items())
    head = struct.pack("<4sIH", b"II*\0", 8, len(tags))
    with Image.open(io.BytesIO(head + fields + bytes(4) + data)) as image:
        return image.tobytes()


def meaning(
    values: np.ndarray, page: Page, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples (H, W, channels) as grey levels (H, W) or colours (H, W, 3), and alpha (H, W).

    Upright, polarity turned so that high is bright, palettes and inks converted. Several grey
    channels stay channels. Raises Fault DTYPE.
    """
    colours = {PALETTE: 1, RGB: 3, CMYK: 4}.get(page.photometric, 1)
    if page.photometric not in (WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, MASK, CMYK) or (
        values.shape[2] < colours or (page.photometric == PALETTE and page.kind != "u")
    ):
        found = f"colour space {page.photometric} with {values.shape[2]} channels"
        raise Fault("DTYPE", f"a TIFF of {found}", "save it as grey levels or RGB")
    values = upright(values, int(page.tags.get(274, 1)), warnings)
    alpha = values[..., colours] if values.shape[2] > colours and _alpha(page) else None
    values = values if alpha is None and colours == 1 else values[..., :colours]
    return _shown(values, page, warnings), alpha


def _shown(values: np.ndarray, page: Page, warnings: list[str]) -> np.ndarray:
    """Grey levels or colours of the channels that are no alpha."""
    if page.photometric == WHITE_IS_0:
        values = _turned(values, page, warnings)
    if page.photometric == PALETTE:
        warnings.append("PALETTE: palette colours are converted")
        return _looked_up(values[..., 0], page)
    if page.photometric == CMYK:
        return _inks(values)
    if page.bits == 1:
        values = values * np.uint8(255)  # as every 1-bit picture is shown
    return values[..., 0] if values.shape[2] == 1 else values


def _alpha(page: Page) -> bool:
    """Whether the channels beyond the colours are said, or used, to be transparency."""
    said = _all(page.tags.get(338, ()))
    return page.photometric in (RGB, CMYK, PALETTE) or (bool(said) and set(said) <= {1, 2})


def upright(values: np.ndarray, tag: int, warnings: list[str]) -> np.ndarray:
    """An image (H, W, ...) as its Orientation tag says it is to be looked at."""
    if tag not in UPRIGHT:
        return values
    transpose, rows, columns = UPRIGHT[tag]
    warnings.append("ROTATED: turned as its EXIF tag says; outputs are turned too")
    values = values.swapaxes(0, 1) if transpose else values
    return np.flip(values, tuple(axis for axis, flip in enumerate((rows, columns)) if flip))


def _turned(values: np.ndarray, page: Page, warnings: list[str]) -> np.ndarray:
    if page.kind == "f":  # there is no brightest number to count down from
        warnings.append("POLARITY: real numbers stored with 0 as white; their sign is turned")
        return -values
    if page.kind == "i":
        return ~values
    return values ^ values.dtype.type(2**page.bits - 1)


def _looked_up(index: np.ndarray, page: Page) -> np.ndarray:
    table = np.array(page.tags.get(320, ()), np.uint32)
    if table.size != 3 * 2**page.bits:
        raise Fault("TRUNCATED", "the TIFF has no whole palette", "save it again")
    table = table // 256 if table.max(initial=0) > 255 else table  # some writers fill 8 of 16 bits
    return table.astype(np.uint8).reshape(3, -1).T[index]


def _inks(values: np.ndarray) -> np.ndarray:
    """CMYK (H, W, 4) as RGB of the same type."""
    if values.dtype.kind != "u":
        raise Fault("DTYPE", f"a TIFF of inks in {values.dtype}", "save it as grey levels or RGB")
    full = float(np.iinfo(values.dtype).max)
    light = (full - values[..., :3]) * (1 - values[..., 3:] / full)
    return np.rint(light).astype(values.dtype)
