"""The header of one DICOM file: an image of which series, or why it is none."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pydicom

from pseudohealthy.errors import Fault
from pseudohealthy.io.bounded import Bounded, blank
from pseudohealthy.io.dicom_frames import ENHANCED, frame_heads, is_enhanced
from pseudohealthy.io.dicom_header import TAGS, Head, head, is_mosaic, value
from pseudohealthy.io.dicom_pixels import decimal_points

PROJECTIONS = {"CR", "DX", "MG", "IO", "PX", "RG"}  # one file is one radiograph


NO_IMAGE = {
    "SR",
    "PR",
    "KO",
    "DOC",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "SEG",
    "REG",
    "FID",
    "ECG",
    "AU",
    "RWV",
    "PLAN",
}


STORAGE = "1.2.840.10008.5.1.4.1.1."


# reports, raw data, curves.
NO_IMAGE_CLASSES = tuple(STORAGE + k for k in ("88", "104", "66", "67", "11", "9", "4.2"))


SERIES = 0x0020000E  # its tag: where a header ends there, it may have been cut short


IDENTITY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)


def looks_dicom(path: Path) -> bool:
    """Whether the file has DICOM's magic word after its preamble."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def head_of(path: Path) -> Head | str:
    """The header of an image slice, or the reason to leave the file out."""
    if blank(path):
        return "damaged: it ends before its header, or is filled with zeros"
    try:
        with warnings.catch_warnings():
            # Values against the standard; what matters is checked below.
            warnings.simplefilter("ignore")
            with Bounded(path) as file:
                ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
            decimal_points(ds)
            reason = _no_image(path, ds)
            if reason:
                return reason
            found = _enhanced_head(path, ds) if is_enhanced(ds) else head(path, ds)
            if not any(found.matrix) and max(ds.keys(), default=0) <= SERIES:
                return "damaged: it ends before it says whose slice it is"
            found.series, found.who = series_uid(ds), tuple(identity(ds, key) for key in IDENTITY)
            found.mosaic = is_mosaic(ds)
            found.damaged = not min(found.matrix) or _lies(path, ds)
    except Exception as error:  # pydicom raises whatever the damage provokes
        return f"damaged DICOM header ({type(error).__name__})"
    return found


def _no_image(path: Path, ds: Any) -> str:
    """Why a file holds no slice, "" if it does."""
    sop = str(
        ds.get("SOPClassUID") or getattr(ds, "file_meta", {}).get("MediaStorageSOPClassUID", "")
    )
    modality, frames = str(ds.get("Modality", "")), int(ds.get("NumberOfFrames") or 1)
    if modality in NO_IMAGE or any(
        sop == uid or sop.startswith(uid + ".") for uid in NO_IMAGE_CLASSES
    ):
        return f"no image (modality {modality or 'unknown'})"
    if sop == "1.2.840.10008.1.3.10":
        return "a DICOMDIR index; its references are not followed"
    if sop.startswith(STORAGE + "7"):
        return "secondary capture"
    if "LOCALIZER" in [str(v).upper() for v in ds.get("ImageType") or []]:
        return "localizer"
    if (ds.get("SamplesPerPixel") or 1) > 1 or ds.get(
        "PhotometricInterpretation"
    ) == "PALETTE COLOR":
        return f"colour image ({ds.get('PhotometricInterpretation')})"
    if sop not in ENHANCED and frames > 1:
        return "multi-frame image that is no enhanced CT, MR or PET"
    if not ds.get("Rows") and _without_matrix(path):
        return "no image (it has neither Rows nor pixels)"
    if not ds.get("SeriesInstanceUID") and not ds.get("Rows"):
        return "damaged: neither SeriesInstanceUID nor Rows"
    return ""


def _without_matrix(path: Path) -> bool:
    """Whether a file without Rows is whole and never had them, rather than cut off before: later
    elements tell."""
    with Bounded(path) as file:
        ds = pydicom.dcmread(file, defer_size=1024)
    last = max(ds.keys(), default=0)
    whole = last > 0x00280011 or (last > 0x00080018 and "SOPClassUID" not in ds)
    return whole and not any(key in ds for key in ("Rows", "Columns", "PixelData"))


def _enhanced_head(path: Path, ds: Any) -> Head:
    """One head for a multi-frame file; that of its frame where it has one only, which is a slice
    like any other."""
    count = int(ds.get("NumberOfFrames") or 1)
    if count == 1:
        with Bounded(path) as file:
            whole = pydicom.dcmread(file, stop_before_pixels=True)
        try:
            return frame_heads(path, whole)[0][0]
        except Fault:  # told when it is read
            pass
    found = head(path, ds)
    found.frames = max(count, 2)
    return found


def _lies(path: Path, ds: Any) -> bool:
    """Whether the header claims more pixels than the file has bytes."""
    syntax = getattr(ds.file_meta, "TransferSyntaxUID", None)
    packed = bool(syntax is not None and (syntax.is_compressed or syntax.is_deflated))
    size = (
        int(ds.get("Rows") or 0)
        * int(ds.get("Columns") or 0)
        * int(ds.get("BitsAllocated") or 16)
        // 8
    )
    return not packed and size > path.stat().st_size


def series_uid(ds: Any) -> str:
    """The SeriesInstanceUID; what stands for it where there is none: study and number of the
    series."""
    told = str(ds.get("SeriesInstanceUID") or "")
    return told or f"no series UID|{ds.get('StudyInstanceUID', '')}|{ds.get('SeriesNumber', '')}"


def identity(ds: Any, key: str) -> str:
    """A patient's or study's attribute in a form in which spelling does not count."""
    return (value(ds, key) or "").rstrip("^ ").casefold()
