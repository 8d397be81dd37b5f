"""Writers of a finding's DICOM objects; see `outputs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudohealthy.detection.finding import Finding
from pseudohealthy.detection.outputs import Target, writer
from pseudohealthy.io import dicom_source, dicom_write
from pseudohealthy.io.names import unnamed


def source(finding: Finding) -> Any:
    """The headers of the source, repaired; what was repaired is a warning of the case, once."""
    made = dicom_source.read(finding.scan)
    notes = [unnamed(note, finding.scan.unnamed) for note in made.notes]
    finding.warnings += [note for note in notes if note not in finding.warnings]
    return made


def segmentation(finding: Finding, to: Target) -> dict[str, Path]:
    """The mask as a DICOM segmentation."""
    path = to.place.case / "anomaly_mask.dcm"
    return {
        "dicom_seg": dicom_write.write_segmentation(finding.mask, finding.scan, path, to.source)
    }


def parametric_map(finding: Finding, to: Target) -> dict[str, Path]:
    """The map as a DICOM parametric map."""
    path = to.place.case / "anomaly_map.dcm"
    return {"dicom_map": dicom_write.write_map(finding.map, finding.scan, path, to.source)}


def capture(finding: Finding, to: Target) -> dict[str, Path]:
    """The panel as a DICOM secondary capture; where no panel is asked for it is drawn and
    removed."""
    drawn = to.paths.get("panel")
    shown = drawn or writer("panel")(finding, to)["panel"]
    with Image.open(shown) as picture:
        pixels = np.array(picture.convert("RGB"))
    if drawn is None:
        shown.unlink()
    path = to.place.case / "panel.dcm"
    return {"dicom_sc": dicom_write.write_capture(pixels, finding.scan, path, to.source)}
