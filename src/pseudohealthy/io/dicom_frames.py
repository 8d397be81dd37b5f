"""The frames of an enhanced multi-frame image as if each were a slice of its own.

What the standard spreads over shared and per-frame functional groups is gathered into one mapping a
frame, with the keywords that single slices use, so that one code tells volumes apart, sorts and
places them. Spacing, thickness, orientation and rescaling may stand in either kind of group, as
scanners write them, or in the image itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import Fault
from pseudohealthy.io.dicom_header import CREATORS, PRIVATE, TAGS, Head, head

ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
    "1.2.840.10008.5.1.4.1.1.128.1",
    "1.2.840.10008.5.1.4.1.1.130",
}
# Of the image itself, where no functional group says otherwise. Its position is that of no
# particular frame.
COMMON = [
    tag
    for tag in TAGS
    if isinstance(tag, str) and tag not in ("ImagePositionPatient", "SOPInstanceUID")
] + [
    "BitsStored",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
]
SLICE_KEYS = {*COMMON, "ImagePositionPatient", "StackID"}
RENAMED = {
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "InversionTimes": "InversionTime",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
}
# Dimensions that say where: stack, position, orientation.
PLACE = {0x00209056, 0x00209057, 0x00200032, 0x00200037}
NOT_SET = 1e30  # Philips writes 7.23e+75 where a number is not known


def is_enhanced(ds: Any) -> bool:
    sop = ds.get("SOPClassUID") or getattr(ds, "file_meta", {}).get("MediaStorageSOPClassUID", "")
    return str(sop) in ENHANCED


def frames(ds: Any, name: str) -> list[dict[Any, Any]]:
    """Every frame's facts by keyword, rows and columns among them. Raises Fault NO_GEOMETRY,
    BAD_HEADER."""
    per_frame = ds.get("PerFrameFunctionalGroupsSequence")
    count = int(ds.get("NumberOfFrames") or 1)
    if not per_frame:
        raise Fault(
            "NO_GEOMETRY", f"{name} has no PerFrameFunctionalGroupsSequence", "export it again"
        )
    if count > len(per_frame):
        raise Fault(
            "BAD_HEADER",
            f"{name} counts {count} frames and describes {len(per_frame)}",
            "export it again",
        )
    common = {key: found for key in COMMON if (found := ds.get(key)) is not None}
    shared = dict(_groups(ds.get("SharedFunctionalGroupsSequence")))
    dimensions = [
        k for k, d in enumerate(ds.get("DimensionIndexSequence") or []) if _pointer(d) not in PLACE
    ]
    out = []
    for index in range(count):
        frame = {**common, **shared, **dict(_groups([per_frame[index]]))}
        indices = np.atleast_1d(frame.pop("DimensionIndexValues", None) or []).tolist()
        frame["Dimensions"] = "-".join(str(indices[k]) for k in dimensions if k < len(indices))
        frame["InstanceNumber"] = index + 1
        out.append(frame)
    return out


def _pointer(dimension: Any) -> int:
    return int(dimension.get("DimensionIndexPointer") or 0)


def _groups(items: Any) -> Iterator[tuple[Any, Any]]:
    """Keyword and value of everything in the functional groups of one frame; private groups first,
    so that they yield."""
    for item in list(items or [])[:1]:
        for sequence in sorted(item, key=lambda e: not e.tag.is_private):
            if sequence.VR != "SQ" or not sequence.value:
                continue
            for element in sequence.value[0]:
                key = RENAMED.get(element.keyword, element.keyword)
                if (key in SLICE_KEYS or key == "DimensionIndexValues") and _known(element.value):
                    yield key, element.value
                elif element.keyword == "DiffusionGradientDirectionSequence" and element.value:
                    yield (
                        "DiffusionGradientOrientation",
                        element.value[0].get("DiffusionGradientOrientation"),
                    )
                elif (element.tag.group, element.tag.element) in (*PRIVATE, *CREATORS):
                    yield (element.tag.group, element.tag.element), element


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and abs(value) > NOT_SET)


def frame_heads(path: Path, ds: Any, **more: Any) -> tuple[list[Head], list[dict[Any, Any]]]:
    """A head for every frame, and the frames."""
    found = frames(ds, path.name)
    single = len(found) == 1
    heads = [
        head(path, frame, frame=None if single else k, **more) for k, frame in enumerate(found)
    ]
    for one in heads:
        one.sop = str(ds.get("SOPInstanceUID") or path)
    return heads, found
