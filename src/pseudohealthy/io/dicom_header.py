"""What a DICOM image, or one frame of it, says about itself: whose it is, where it lies, what tells
its volume apart.

One table of facts serves single slices and the frames of an enhanced image alike: `FACTS`. A fact
that is always one value throughout a volume splits a series wherever it differs; one that may
change from slice to slice (a trigger time, an acquisition number) is asked only where a position is
taken more than once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag

with warnings.catch_warnings():  # nibabel calls its readers of DICOM experimental
    warnings.simplefilter("ignore")
    from nibabel.nicom import csareader

# Directions along rows and columns that differ by less belong to one volume: scanners round them,
# some per slice.
PARALLEL = 5e-3
COMPONENTS = {
    "M": "magnitude",
    "P": "phase",
    "R": "real",
    "I": "imaginary",
    "MAGNITUDE": "magnitude",
    "PHASE": "phase",
    "REAL": "real",
    "IMAGINARY": "imaginary",
    "PHASE MAP": "phase",
    "M_FFE": "magnitude",
    "M_SE": "magnitude",
    "M_IR": "magnitude",
    "P_FFE": "phase",
    "P_SE": "phase",
    "P_IR": "phase",
    "R_FFE": "real",
    "R_SE": "real",
    "R_IR": "real",
    "I_FFE": "imaginary",
    "I_SE": "imaginary",
    "I_IR": "imaginary",
}
GE_COMPONENTS = ("magnitude", "phase", "real", "imaginary")  # (0043,102F)
SIEMENS_B = (0x0019, 0x100C)
SIEMENS_CSA = (0x0029, 0x1010)
GE_B = (0x0043, 0x1039)
PHILIPS_B = (0x2001, 0x1003)
UIH_B = (0x0065, 0x1009)
GE_COMPONENT = (0x0043, 0x102F)
SIEMENS_TILES = (0x0019, 0x100A)
SIEMENS_DIRECTION = (0x0019, 0x100E)
PRIVATE = {
    SIEMENS_B: "SIEMENS",
    SIEMENS_CSA: "SIEMENS CSA",
    GE_B: "GEMS",
    PHILIPS_B: "PHILIPS",
    UIH_B: "IMAGE PRIVATE",
    GE_COMPONENT: "GEMS",
    SIEMENS_TILES: "SIEMENS",
    SIEMENS_DIRECTION: "SIEMENS",
}
DESCRIPTIONS = (
    "ContrastBolusAgent",
    "SequenceName",
    "SeriesDescription",
    "ProtocolName",
    "SeriesNumber",
)
CREATORS = sorted({(group, 0x0010) for group, _ in PRIVATE})


@dataclass(eq=False)
class Head:
    """One slice or frame. orientation (6,), position (3,): mm, LPS; None where the header has
    none."""

    path: Path
    series: str = ""
    who: tuple[str, ...] = ()
    modality: str = ""
    sop: str = ""
    number: int | None = None
    matrix: tuple[int, int] = (0, 0)
    spacing: tuple[float, ...] = ()
    orientation: np.ndarray | None = None
    position: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    frame: int | None = None
    frames: int = 1  # of the file, where they are to be told apart
    damaged: bool = False
    mosaic: bool = False


@dataclass(frozen=True)
class Fact:
    """read: a value from a header, None where it is silent. label: the value as part of a file
    name, "" for a number.

    always: one value throughout a volume; `changing`: but not where nearly every slice has its own.
    """

    read: Callable[[Any], Any]
    label: Callable[[Any], str]
    always: bool = False
    changing: bool = False


def value(ds: Any, key: str) -> Any:
    """A header value as text, or None where it is absent, empty or unreadable."""
    try:
        found = ds.get(key)
    except Exception:  # pydicom raises whatever a malformed value provokes
        return None
    text = "" if found is None else str(found).strip()
    return text or None


def number(ds: Any, key: str) -> float | None:
    try:
        found = ds.get(key)
        found = found[0] if isinstance(found, (list, tuple)) or hasattr(found, "insert") else found
        return float(found) if found is not None and np.isfinite(float(found)) else None
    except Exception:
        return None


def numbers(ds: Any, key: str, count: int) -> np.ndarray | None:
    """`count` finite numbers, or None."""
    try:
        found = np.array([float(v) for v in ds.get(key) or ()])
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def words(ds: Any, key: str) -> tuple[str, ...]:
    """A multi-valued text, upper case, without empty values."""
    found = ds.get(key)
    several = isinstance(found, (list, tuple)) or hasattr(found, "insert")
    return tuple(
        w
        for v in ([] if found is None else found if several else [found])
        if (w := str(v).strip().upper())
    )


def private(ds: Any, tag: tuple[int, int]) -> Any:
    """A private value whose creator is the one it is known from, else None."""
    try:
        creator = ds.get((tag[0], tag[1] >> 8))
        found = ds.get(tag)
        if (
            creator is None
            or found is None
            or not str(creator.value).upper().startswith(PRIVATE[tag])
        ):
            return None
        return found.value
    except Exception:
        return None


def is_mosaic(ds: Any) -> bool:
    """Whether all slices of a volume are tiled in one picture (Siemens MOSAIC, United Imaging
    VFRAME)."""
    tiles = private(ds, SIEMENS_TILES)
    with_tiles = isinstance(tiles, int) and tiles > 1
    return with_tiles or not {"MOSAIC", "VFRAME"}.isdisjoint(words(ds, "ImageType"))


def component(ds: Any) -> str | None:
    """Magnitude, phase, real or imaginary."""
    told = COMPONENTS.get((value(ds, "ComplexImageComponent") or "").upper())
    if told:
        return told
    # Value 3 of ImageType is M, P, R or I with Siemens, M_FFE or PHASE MAP with Philips, whose
    # value 4 repeats it.
    for word in words(ds, "ImageType")[2:]:
        if word in COMPONENTS:
            return COMPONENTS[word]
    ge = private(ds, GE_COMPONENT)
    return GE_COMPONENTS[int(ge)] if isinstance(ge, int) and 0 <= ge < 4 else None


def b_value(ds: Any) -> float | None:
    """s/mm2: of the standard, else where Siemens, GE, Philips and United Imaging keep it."""
    told = number(ds, "DiffusionBValue")
    if told is None and (sequence := ds.get("MRDiffusionSequence")):
        told = number(sequence[0], "DiffusionBValue")
    for tag in (SIEMENS_B, PHILIPS_B, UIH_B, GE_B):
        if told is None:
            found = private(ds, tag)
            found = found[0] if hasattr(found, "insert") and len(found) else found
            if isinstance(found, bytes):
                found = found.decode("ascii", "ignore").strip("\0 ")
            try:
                told = None if found in (None, "") else float(found)
            except (TypeError, ValueError):
                continue
            if told is not None and tag == GE_B:
                told %= 1e5  # GE adds 10^9 to some
    if told is None and "DIFFUSION" in words(ds, "ImageType"):
        told = _csa_b_value(private(ds, SIEMENS_CSA))
    return told


def _csa_b_value(raw: Any) -> float | None:
    if not isinstance(raw, bytes):
        return None
    try:
        items = csareader.read(raw)["tags"]["B_value"]["items"]
        return float(items[0]) if items else None
    except Exception:
        return None


def _direction(ds: Any) -> tuple[float, ...] | None:
    found = numbers(ds, "DiffusionGradientOrientation", 3)
    if found is None:
        raw = private(ds, SIEMENS_DIRECTION)
        found = numbers({"v": raw}, "v", 3) if raw is not None else None
    return None if found is None else tuple(np.round(found, 3).tolist())


def _image_type(ds: Any) -> tuple[str, ...] | None:
    return tuple(w for w in words(ds, "ImageType") if w not in COMPONENTS) or None


def _first(*keys: str) -> Callable[[Any], Any]:
    return lambda ds: next((v for key in keys if (v := number(ds, key)) is not None), None)


def _text(*keys: str) -> Callable[[Any], Any]:
    return lambda ds: "|".join(value(ds, key) or "" for key in keys).strip("|") or None


def _named(word: str) -> Callable[[Any], str]:
    return lambda v: f"{word}{v:g}" if isinstance(v, float) else f"{word}{v}"


def _kernel(ds: Any) -> str | None:
    found = ds.get("ConvolutionKernel")
    several = isinstance(found, (list, tuple)) or hasattr(found, "insert")
    return (
        "-".join(str(v).strip() for v in ([] if found is None else found if several else [found]))
        or None
    )


FACTS: dict[str, Fact] = {
    "modality": Fact(lambda ds: value(ds, "Modality"), str, always=True),
    "component": Fact(component, str, always=True),
    "kernel": Fact(_kernel, lambda v: f"kernel-{v}", always=True),
    "echo": Fact(_first("EchoNumbers"), _named("echo"), always=True),
    "b-value": Fact(b_value, _named("b"), always=True),
    "image type": Fact(_image_type, lambda v: "-".join(v), always=True),
    "stack": Fact(_text("StackID"), _named("stack"), always=True),
    "echo time": Fact(_first("EchoTime"), _named("te"), always=True, changing=True),
    "time": Fact(
        _first("TemporalPositionIndex", "TemporalPositionIdentifier"),
        _named("time"),
        always=True,
        changing=True,
    ),
    "gradient direction": Fact(_direction, lambda v: ""),
    "acquisition": Fact(_first("AcquisitionNumber"), _named("acq")),
    "tube voltage": Fact(_first("KVP"), _named("kv")),
    "cardiac phase": Fact(_first("NominalPercentageOfCardiacPhase"), _named("cardiac")),
    "inversion time": Fact(_first("InversionTime"), _named("ti")),
    "flip angle": Fact(_first("FlipAngle"), _named("flip")),
    "repetition time": Fact(_first("RepetitionTime"), _named("tr")),
    "trigger time": Fact(_first("TriggerTime"), _named("trigger")),
    "dimension": Fact(_text("Dimensions"), lambda v: ""),
    "coil": Fact(_text("ReceiveCoilName"), lambda v: ""),
    "description": Fact(_text(*DESCRIPTIONS), lambda v: ""),
    "duration": Fact(_first("ActualFrameDuration"), lambda v: ""),
}
# Within each position, slices are put in the order of the first of these that tells them apart.
ORDERS: dict[str, Callable[[Any], Any]] = {
    "trigger": _first("TriggerTime"),
    "acquired": _text("AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"),
    "reference": _first("FrameReferenceTime"),
    "content": _text("ContentDate", "ContentTime"),
}
TAGS: list[Any] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ImageType",
    "Modality",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PixelRepresentation",
    "SpecificCharacterSet",
    "ComplexImageComponent",
    "ConvolutionKernel",
    "EchoNumbers",
    "EchoTime",
    "DiffusionBValue",
    "MRDiffusionSequence",
    "DiffusionGradientOrientation",
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "KVP",
    "NominalPercentageOfCardiacPhase",
    "InversionTime",
    "FlipAngle",
    "RepetitionTime",
    "TriggerTime",
    "ReceiveCoilName",
    *DESCRIPTIONS,
    "ActualFrameDuration",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "FrameReferenceTime",
    "ContentDate",
    "ContentTime",
    *PRIVATE,
    *CREATORS,
]


class _Present:
    """A pydicom data set that is not asked for what it does not hold, which costs it more than a
    value does."""

    def __init__(self, ds: Any):
        self.ds = ds
        self.keys = {keyword_for_tag(tag) or (tag.group, tag.element) for tag in list(ds.keys())}

    def get(self, key: Any) -> Any:
        return self.ds.get(key) if key in self.keys else None


def head(path: Path, ds: Any, **more: Any) -> Head:
    """The head of a header: a pydicom data set, or a frame of one as a mapping from keywords to
    values."""
    ds = ds if isinstance(ds, dict) else _Present(ds)
    found = Head(
        path,
        modality=str(ds.get("Modality") or ""),
        sop=str(ds.get("SOPInstanceUID") or ""),
        **more,
    )
    count = number(ds, "InstanceNumber")
    found.number = None if count is None else int(count)
    found.matrix = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    spacing = numbers(ds, "PixelSpacing", 2)
    found.spacing = () if spacing is None or spacing.min() <= 0 else tuple(spacing.tolist())
    found.orientation = numbers(ds, "ImageOrientationPatient", 6)
    found.position = numbers(ds, "ImagePositionPatient", 3)
    asked = {**{name: fact.read for name, fact in FACTS.items()}, **ORDERS}
    found.facts = {name: told for name, read in asked.items() if (told := read(ds)) is not None}
    return found


def parallel(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether two orientations are one, up to what scanners round."""
    if a is None or b is None:
        return a is b
    return bool(np.allclose(a, b, atol=PARALLEL, rtol=0))


def plain(text: str) -> str:
    """A label as part of a file name: letters, digits, dots and dashes, at most 40 of them."""
    return re.sub(r"[^\w.]+", "-", text, flags=re.A).strip("-._")[:40]
