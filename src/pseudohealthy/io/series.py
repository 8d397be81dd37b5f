"""Which DICOM files belong together: one group is one series, orientation, matrix and echo. Reads headers only."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import RESOURCE, Fault
from pseudohealthy.io.bounded import Bounded

MAX_FILES = 20_000
TAGS = [
    "SOPClassUID", "ImageType", "Modality", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient",
    "Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "EchoNumbers",
    "TemporalPositionIdentifier", "DiffusionBValue", "PixelRepresentation",
]  # fmt: skip
PROJECTIONS = {"CR", "DX", "MG", "IO", "PX", "RG"}  # one file is one radiograph
NO_IMAGE = {"SR", "PR", "KO", "DOC", "RTSTRUCT", "RTPLAN", "RTDOSE", "SEG", "REG", "FID", "ECG", "AU", "RWV", "PLAN"}
ENHANCED = {"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.4.1",
            "1.2.840.10008.5.1.4.1.1.4.4", "1.2.840.10008.5.1.4.1.1.128.1", "1.2.840.10008.5.1.4.1.1.130"}  # fmt: skip
STRAY = 0.25  # groups smaller than this share of the series' largest one are strays: localisers, odd slices


@dataclass
class Group:
    """Files of one volume, found but not ordered; `digest` tells groups of one folder apart without a UID in clear.
    series: SeriesInstanceUID; part: what tells volumes of one series apart, in a word."""

    paths: list[Path]
    digest: str
    notes: list[str] = field(default_factory=list)
    series: str = ""
    part: str = ""


@dataclass
class _Head:
    path: Path
    series: str
    modality: str
    enhanced: bool
    damaged: bool
    orientation: np.ndarray | None
    position: tuple[float, ...] | None
    split: tuple[Any, ...]  # matrix, echo, time point, b-value


def looks_dicom(path: Path) -> bool:
    """Whether the file has DICOM's magic word after its preamble."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def group(paths: Iterable[Path]) -> tuple[list[Group], list[tuple[Path, str]]]:
    """Sort DICOM files into groups; the second list holds files left out and why."""
    skipped: list[tuple[Path, str]] = []
    series: dict[tuple[str, Path], list[_Head]] = defaultdict(list)
    unreadable: dict[Path, list[Path]] = defaultdict(list)
    paths = list(paths)
    if len(paths) > MAX_FILES * 10:
        raise Fault("TOO_LARGE", f"{len(paths)} DICOM files", "give fewer folders at a time", exit=RESOURCE)
    for path in paths:
        head = _head(path)
        if isinstance(head, _Head):
            series[head.series, path.parent].append(head)
        else:
            skipped.append((path, head))
            if head.startswith("damaged"):
                unreadable[path.parent].append(path)
    groups: list[Group] = []
    for heads in _joined(series):
        found, strays = _volumes(heads)
        skipped += strays
        groups += found
    for folder, names in unreadable.items():
        beside = [g for g in groups if g.paths[0].parent == folder]
        if len(beside) == 1 and len(beside[0].paths) > 1:  # surely its own: reading must fail rather than lose a slice
            beside[0].paths += names
            skipped = [(path, reason) for path, reason in skipped if path not in names]
        else:
            for one in beside:
                one.notes.append(f"UNREADABLE n={len(names)}: a damaged DICOM file lies beside ({names[0].name})")
    return groups, skipped


def _head(path: Path) -> _Head | str:
    """The header of an image slice, or the reason to leave the file out."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values against the standard; what matters is checked below
            with Bounded(path) as file:
                ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
            sop = str(ds.get("SOPClassUID") or getattr(ds, "file_meta", {}).get("MediaStorageSOPClassUID", ""))
            modality, uid = str(ds.get("Modality", "")), str(ds.get("SeriesInstanceUID", ""))
            if modality in NO_IMAGE or sop.startswith(("1.2.840.10008.5.1.4.1.1.88", "1.2.840.10008.5.1.4.1.1.104")):
                return f"no image (modality {modality or 'unknown'})"
            if sop == "1.2.840.10008.1.3.10":
                return "a DICOMDIR index; its references are not followed"
            if sop.startswith("1.2.840.10008.5.1.4.1.1.7"):
                return "secondary capture"
            if "LOCALIZER" in [str(v).upper() for v in (ds.get("ImageType") or [])]:
                return "localizer"
            if (ds.get("SamplesPerPixel") or 1) > 1 or ds.get("PhotometricInterpretation") == "PALETTE COLOR":
                return f"colour image ({ds.get('PhotometricInterpretation')})"
            enhanced = sop in ENHANCED
            if not enhanced and int(ds.get("NumberOfFrames") or 1) > 1:
                return "multi-frame image that is no enhanced CT, MR or PET"
            if not uid:
                return "damaged: no SeriesInstanceUID"
            rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
            bits = int(ds.get("BitsAllocated") or 16)
            syntax = getattr(ds.file_meta, "TransferSyntaxUID", None)
            packed = bool(syntax is not None and (syntax.is_compressed or syntax.is_deflated))
            lies = not packed and rows * columns * bits // 8 > path.stat().st_size
            orientation, position = _numbers(ds, "ImageOrientationPatient", 6), _numbers(ds, "ImagePositionPatient", 3)
            split = (rows, columns, *(str(ds.get(k, "")) for k in TAGS[12:15]))
    except Exception as error:  # pydicom raises whatever the damage provokes
        return f"damaged DICOM header ({type(error).__name__})"
    damaged = lies or not rows or not columns
    where = None if position is None else tuple(np.round(position, 3).tolist())
    return _Head(path, uid, modality, enhanced, damaged, orientation, where, split)


def _numbers(ds: Any, key: str, count: int) -> np.ndarray | None:
    values = ds.get(key)
    if values is None or len(values) != count:
        return None
    return np.array([float(v) for v in values])


def _joined(series: dict[tuple[str, Path], list[_Head]]) -> list[list[_Head]]:
    """One entry a series: a series spread over folders is joined unless the folders hold the same positions."""
    joined: dict[str, list[list[_Head]]] = defaultdict(list)
    for (uid, _), heads in series.items():
        places = {(h.position, h.split) for h in heads}
        for other in joined[uid]:
            if None not in {p for p, _ in places} and places.isdisjoint({(h.position, h.split) for h in other}):
                other += heads
                break
        else:
            joined[uid].append(list(heads))
    return [heads for folders in joined.values() for heads in folders]


def _volumes(heads: list[_Head]) -> tuple[list[Group], list[tuple[Path, str]]]:
    uid = heads[0].series
    single = [h for h in heads if h.enhanced or h.modality in PROJECTIONS]
    groups = [Group([h.path], _digest(uid, h.path.name), series=uid) for h in single]
    stacks: list[list[_Head]] = []
    for head in heads:
        if head.damaged or head in single:
            continue
        for stack in stacks:
            if stack[0].split == head.split and _parallel(stack[0].orientation, head.orientation):
                stack.append(head)
                break
        else:
            stacks.append([head])
    damaged = [h for h in heads if h.damaged and h not in single]
    stacks = stacks or ([damaged] if damaged else [])
    largest = max((len(s) for s in stacks), default=0)
    kept = [s for s in stacks if len(s) > STRAY * largest]
    strays = [h for s in stacks if len(s) <= STRAY * largest for h in s]
    if damaged and kept and kept[0] is not damaged:
        max(kept, key=len).extend(damaged)  # so that reading this volume fails by name instead of losing a slice
    notes = [f"STRAY_SLICES n={len(strays)}: another orientation, matrix or echo than the series"] if strays else []
    for stack in kept:
        digest = _digest(uid, repr(stack[0].split), stack)
        groups.append(Group(sorted(h.path for h in stack), digest, list(notes), uid))
    return groups, [(h.path, "another orientation, matrix or echo than its series") for h in strays]


def _parallel(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, atol=1e-3))


def _digest(uid: str, more: str, stack: list[_Head] | None = None) -> str:
    axes = "" if not stack or stack[0].orientation is None else str(np.round(stack[0].orientation, 1).tolist())
    return hashlib.sha256(f"{uid}|{more}|{axes}".encode()).hexdigest()[:8]
