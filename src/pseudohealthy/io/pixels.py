"""One DICOM slice: its dataset, stored pixels, rescaling, padding and window, each refused by file name if damaged."""

from __future__ import annotations

import contextlib
import warnings as python_warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import Fault
from pseudohealthy.io.bounded import Bounded

MAX_SIDE = 2**14  # rows or columns beyond this are a damaged header
FREE, RATIO = 2**24, 20_000  # pixels a byte of compressed data may stand for, where there are more than FREE pixels
WRAPPED_ABOVE = -100.0  # HU; the rule's bound for an intercept that cannot be true of unsigned CT


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pydicom and highdicom warn about every value against the standard, quoting it: not for a log."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        yield


def dataset(path: Path, *, header_only: bool = False) -> Any:
    import pydicom

    try:
        with Bounded(path) as file:
            return pydicom.dcmread(file, stop_before_pixels=header_only)
    except OSError as error:
        raise Fault("UNREADABLE", f"{path.name}: {error.strerror or 'cannot be read'}", "check the file") from None
    except Exception as error:
        kind = type(error).__name__
        raise Fault("TRUNCATED_SLICE", f"file={path.name} cannot be read as DICOM ({kind})", "copy it again") from None


def check_matrix(headers: list[tuple[Path, Any]]) -> None:
    sizes = [(int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)) for _, ds in headers]
    usual = max(set(sizes), key=sizes.count)
    for (path, ds), size in zip(headers, sizes, strict=True):
        if size == (0, 0):
            raise Fault("TRUNCATED_SLICE", f"file={path.name} ends before its pixels", "copy it again")
        if min(size) < 1 or max(size) > MAX_SIDE or size != usual:
            found = f"{path.name} declares {size[0]} x {size[1]} pixels"
            raise Fault(
                "BAD_DIMS",
                found + (f", the series {usual[0]} x {usual[1]}" if size != usual else ""),
                "export it again",
            )
        if int(ds.get("SamplesPerPixel") or 1) > 1:
            raise Fault("COLOUR", f"{path.name} is a colour image", "give the original grey-level series")


def stored_values(path: Path, ds: Any) -> np.ndarray:
    """Stored values (rows, columns); Fault TRUNCATED_SLICE, BAD_DIMS or CODEC."""
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if max(rows, columns) > MAX_SIDE:
        raise Fault("BAD_DIMS", f"{path.name} declares {rows} x {columns} pixels", "export it again")
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise Fault(
            "FRAMES", f"{path.name} holds several frames", "give single slices, or an enhanced multi-frame image"
        )
    require_pixels(path, ds, rows * columns)
    try:
        pixels = ds.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        if "dependenc" in str(error) or "plugin" in str(error) or isinstance(error, NotImplementedError):
            name = ds.file_meta.TransferSyntaxUID.name
            raise Fault("CODEC", f"{path.name} is stored as {name}", "pip install python-gdcm pylibjpeg[all]") from None
        raise Fault("TRUNCATED_SLICE", f"file={path.name} cannot be decompressed", "copy it again") from None
    except Exception:
        raise Fault("TRUNCATED_SLICE", f"file={path.name} has damaged pixels", "copy it again") from None
    if pixels.shape != (rows, columns):
        raise Fault("COLOUR", f"{path.name} has pixels of shape {pixels.shape}", "give single grey-level slices")
    return pixels


def require_pixels(path: Path, ds: Any, count: int) -> None:
    """Fault TRUNCATED_SLICE unless the file has the bytes for `count` pixels, before memory is taken for them."""
    data = ds.get("PixelData")
    stored = len(data or b"")
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        short = count > FREE and count > RATIO * stored
    else:
        short = stored < count * int(ds.get("BitsAllocated") or 16) // 8
    if data is None or short:
        raise Fault("TRUNCATED_SLICE", f"file={path.name} ends before its pixels do", "copy it again")


def wrapped(ds: Any) -> bool:
    """Whether a CT slice has the wrong 12-bit header of the RSNA haemorrhage set: unsigned, intercept above -100."""
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

    Where ``wrapped`` holds, air was stored as 3096 = -1000 mod 4096: +1000, -4096 from 4096 on, intercept -1000
    (J. Howard's fastai notebook on RSNA 2019).
    """
    if ds.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, ds)
    slope, inter = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    slope, inter = 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)
    if wrapped(ds):
        stored = stored.astype(np.int32) + 1000
        stored[stored >= 4096] -= 4096
        inter = -1000.0
    if slope == 0 or not np.isfinite([slope, inter]).all():
        raise Fault("RESCALE", f"RescaleSlope {slope:g}, RescaleIntercept {inter:g}", "export the series again")
    return stored * slope + inter


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
        centre, width = (float(v if isinstance(v, (int, float, str)) else v[0]) for v in (centre, width))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (centre - width / 2, centre + width / 2) if width > 0 and np.isfinite([centre, width]).all() else None
