"""One DICOM slice: its dataset, stored pixels, rescaling, padding and window, each refused by file
name if damaged."""

from __future__ import annotations

import contextlib
import os
import warnings as python_warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.tag import Tag

from pseudohealthy.errors import Fault
from pseudohealthy.io.bounded import Bounded

MAX_SIDE = 2**14  # rows or columns beyond this are a damaged header
# Pixels a byte of compressed data may stand for, where there are more than FREE pixels.
FREE, RATIO = (2**24, 20_000)
# Without these of a header, which the standard demands, the bytes of the pixels could be read in
# more than one way.
NEEDED = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
DECIMALS = (
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
)
WRAPPED_ABOVE = -100.0  # HU; the rule's bound for an intercept that cannot be true of unsigned CT


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pydicom and highdicom warn about every value against the standard, quoting it: not for a
    log."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        yield


def dataset(path: Path, *, header_only: bool = False) -> Any:
    """The data set of a file, decimal commas turned into points. Raises Fault UNREADABLE,
    TRUNCATED_SLICE."""
    try:
        with Bounded(path) as file:
            ds = pydicom.dcmread(file, stop_before_pixels=header_only)
        decimal_points(ds)
        return ds
    except OSError as error:
        raise Fault(
            "UNREADABLE", f"{path.name}: {error.strerror or 'cannot be read'}", "check the file"
        ) from None
    except Exception as error:
        kind = type(error).__name__
        raise Fault(
            "TRUNCATED_SLICE", f"file={path.name} cannot be read as DICOM ({kind})", "copy it again"
        ) from None


def decimal_points(ds: Any) -> list[str]:
    """Decimal commas, which the standard does not have, turned into points; the keywords where
    there were any.

    Only where the value holds no point as well: it cannot then mean thousands.
    """
    repaired = []
    for key in DECIMALS:
        raw: Any = ds.get_item(key) if key in ds else None
        text = getattr(raw, "value", None)
        if not isinstance(text, bytes) or b"," not in text or not hasattr(raw, "_replace"):
            continue
        values = [v if b"." in v else v.replace(b",", b".") for v in text.split(b"\\")]
        ds[Tag(key)] = raw._replace(value=b"\\".join(values))
        repaired.append(key)
    if repaired:
        ds.decimal_commas = repaired
    return repaired


def check_matrix(headers: list[tuple[Path, Any]]) -> None:
    sizes = [(int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)) for _, ds in headers]
    usual = max(set(sizes), key=sizes.count)
    for (path, ds), size in zip(headers, sizes, strict=True):
        lone = [key for key in ("Rows", "Columns") if ds.get(key) is None]
        if len(lone) == 1:
            raise Fault("BAD_HEADER", f"{path.name} has no {lone[0]}", "export the series again")
        if size == (0, 0):
            raise Fault(
                "TRUNCATED_SLICE", f"file={path.name} ends before its pixels", "copy it again"
            )
        if min(size) < 1 or max(size) > MAX_SIDE or size != usual:
            found = f"{path.name} declares {size[0]} x {size[1]} pixels"
            raise Fault(
                "BAD_DIMS",
                found + (f", the series {usual[0]} x {usual[1]}" if size != usual else ""),
                "export it again",
            )
        if int(ds.get("SamplesPerPixel") or 1) > 1:
            raise Fault(
                "COLOUR", f"{path.name} is a colour image", "give the original grey-level series"
            )


def stored_values(path: Path, ds: Any) -> np.ndarray:
    """Stored values (rows, columns); Fault TRUNCATED_SLICE, BAD_DIMS or CODEC."""
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if max(rows, columns) > MAX_SIDE:
        raise Fault(
            "BAD_DIMS", f"{path.name} declares {rows} x {columns} pixels", "export it again"
        )
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise Fault(
            "FRAMES",
            f"{path.name} holds several frames",
            "give single slices, or an enhanced multi-frame image",
        )
    require_pixels(path, ds, rows * columns)
    pixels = decoded(path, ds)
    if pixels.shape != (rows, columns):
        raise Fault(
            "COLOUR",
            f"{path.name} has pixels of shape {pixels.shape}",
            "give single grey-level slices",
        )
    return pixels


def decoded(path: Path, ds: Any, frame: int | None = None) -> np.ndarray:
    """Stored values of an image, or of one of its frames. Raises Fault CODEC, TRUNCATED_SLICE."""
    syntax = ds.file_meta.TransferSyntaxUID
    try:
        pixels = ds.pixel_array if frame is None else pixel_array(ds, index=frame)
    except Exception as error:
        if not syntax.is_compressed:
            raise Fault(
                "TRUNCATED_SLICE", f"file={path.name} has damaged pixels", "copy it again"
            ) from None
        whole = _by_gdcm(path, ds)
        if whole is None:
            raise _undecoded(path, syntax.name, error) from None
        pixels = whole if frame is None or whole.ndim == 2 else whole[frame]
    return _in_range(ds, pixels)


def _in_range(ds: Any, pixels: np.ndarray) -> np.ndarray:
    """Negative values of a signed stream whose header says unsigned, cut to the header's bits as
    GDCM does."""
    bits = int(ds.get("BitsStored") or 0)
    if pixels.dtype == np.uint16 and 0 < bits < 16:
        negative = pixels >= 2**15
        pixels = (
            np.where(negative, pixels & ((1 << bits) - 1), pixels) if negative.any() else pixels
        )
    return pixels


def _undecoded(path: Path, syntax: str, error: Exception) -> Fault:
    if not _gdcm() and any(word in str(error) for word in ("dependenc", "plugin")):
        return Fault("CODEC", f"{path.name} is stored as {syntax}", "pip install python-gdcm")
    if isinstance(error, NotImplementedError):
        return Fault(
            "CODEC",
            f"{path.name} is stored as {syntax}",
            "save it uncompressed, with gdcmconv --raw",
        )
    return Fault("TRUNCATED_SLICE", f"file={path.name} cannot be decompressed", "copy it again")


def _gdcm() -> Any:
    """GDCM, for the files that pydicom does not decode itself; None where it is not installed."""
    try:
        import gdcm
    except ImportError:
        return None
    return gdcm


def _by_gdcm(path: Path, ds: Any) -> np.ndarray | None:
    """What GDCM itself makes of a file that pydicom does not hand to it (12-bit JPEG), else
    None."""
    if not _gdcm():
        return None
    if "by_gdcm" not in vars(ds):
        with _silent():
            ds.by_gdcm = _gdcm_pixels(path, (int(ds.Rows), int(ds.Columns)))
    return ds.by_gdcm


def _gdcm_pixels(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    gdcm = _gdcm()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    image = reader.GetImage()
    form = image.GetPixelFormat()
    shape = tuple(image.GetDimension(k) for k in reversed(range(image.GetNumberOfDimensions())))
    dtype = np.dtype(
        f"{'i' if form.GetPixelRepresentation() else 'u'}{form.GetBitsAllocated() // 8}"
    )
    raw = image.GetBuffer() if form.GetSamplesPerPixel() == 1 and shape[-2:] == size else None
    # GDCM returns bytes as text.
    data = b"" if raw is None else raw.encode("utf-8", "surrogateescape")
    return (
        np.frombuffer(data, dtype).reshape(shape)
        if len(data) == dtype.itemsize * int(np.prod(shape))
        else None
    )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """GDCM's codecs write to the error stream even where they succeed."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def require_pixels(path: Path, ds: Any, count: int) -> None:
    """Fault unless the header says how to read its pixels (BAD_HEADER) and the file has the bytes
    for `count` of them (TRUNCATED_SLICE), before memory is taken."""
    data = ds.get("PixelData")
    if data is not None:
        require_header(path, ds)
    stored = len(data or b"")
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        short = count > FREE and count > RATIO * stored
    else:
        short = stored < count * int(ds.get("BitsAllocated") or 16) // 8
    if data is None:
        raise Fault(
            "TRUNCATED_SLICE",
            f"file={path.name} ends before its pixels: it has no PixelData",
            "copy it again",
        )
    if short:
        raise Fault(
            "TRUNCATED_SLICE", f"file={path.name} ends before its pixels do", "copy it again"
        )


def require_header(path: Path, ds: Any) -> None:
    """Fault BAD_HEADER where an attribute is absent without which pixels cannot be read for
    certain."""
    missing = [key for key in NEEDED if ds.get(key) is None]
    if getattr(ds, "file_meta", {}).get("TransferSyntaxUID") is None:
        missing.append("TransferSyntaxUID")
    if missing:
        raise Fault(
            "BAD_HEADER",
            f"{path.name} has no {' and no '.join(missing)}",
            "export the series again",
        )


def wrapped(ds: Any) -> bool:
    """Whether a CT slice has the wrong 12-bit header of the RSNA haemorrhage set: unsigned,
    intercept above -100."""
    intercept = ds.get("RescaleIntercept")
    return (
        ds.get("Modality") == "CT"
        and ds.get("BitsStored") == 12
        and ds.get("PixelRepresentation") == 0
        and intercept is not None
        and float(intercept) > WRAPPED_ABOVE
    )


def rescaled(ds: Any, stored: np.ndarray) -> np.ndarray:
    """Stored values x RescaleSlope + RescaleIntercept of this very slice, or its modality table.

    Where ``wrapped`` holds, air was stored as 3096 = -1000 mod 4096: +1000, -4096 from 4096 on,
    intercept -1000 (J. Howard's fastai notebook on RSNA 2019).
    """
    if ds.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, ds)
    slope, inter = _factor(ds, "RescaleSlope", 1.0), _factor(ds, "RescaleIntercept", 0.0)
    if wrapped(ds):
        stored = stored.astype(np.int32) + 1000
        stored[stored >= 4096] -= 4096
        inter = -1000.0
    if slope == 0 or not np.isfinite([slope, inter]).all():
        raise Fault(
            "RESCALE",
            f"RescaleSlope {slope:g}, RescaleIntercept {inter:g}",
            "export the series again",
        )
    return stored * slope + inter


def _factor(ds: Any, key: str, absent: float) -> float:
    try:
        told = ds.get(key)
        return absent if told is None else float(told)
    except (TypeError, ValueError):
        raise Fault("RESCALE", f"{key} is no number", "export the series again") from None


def padded(ds: Any, stored: np.ndarray) -> np.ndarray:
    """Pixels that hold PixelPaddingValue (or its range) instead of a measurement."""
    value, limit = ds.get("PixelPaddingValue"), ds.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(stored.shape, bool)
    if stored.dtype.kind == "i" and value > np.iinfo(np.int16).max:  # written with the unsigned VR
        value -= 2**16
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    return (stored >= low) & (stored <= high)


def window(ds: Any) -> tuple[float, float] | None:
    """The first WindowCenter and WindowWidth as (low, high)."""
    try:
        centre, width = (ds[key].value for key in ("WindowCenter", "WindowWidth"))
        centre, width = (
            float(v if isinstance(v, (int, float, str)) else v[0]) for v in (centre, width)
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (
        (centre - width / 2, centre + width / 2)
        if width > 0 and np.isfinite([centre, width]).all()
        else None
    )
