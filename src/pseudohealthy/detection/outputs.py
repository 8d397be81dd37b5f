"""What a finding can be written as: one row a kind, in the order in which kinds are written.

A writer is named and imported when it is asked for: help lists the kinds at once, and those that
draw live in `report`, of which detection knows nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.formats import FORMATS
from pseudohealthy.lazy import lazy

if TYPE_CHECKING:
    import numpy as np

    from pseudohealthy.detection.finding import Finding
    from pseudohealthy.detection.output_layout import Places

IMAGES = ("pseudo_healthy", "anomaly_map", "anomaly_mask")  # as `io.write_volume` writes them
DICOM, PLACED = "a DICOM series", "a place in the patient"


@dataclass(frozen=True)
class Output:
    """A kind of output.

    Args:
        files: what it leaves in the folder of a case; names without a suffix are images.
        writer: "module:function"; the function takes the finding and a `Target`, and returns paths
            by name.
        usual: whether it is written where nothing else is asked for.
        needs: what the input must have, where not every input has it: DICOM or PLACED.
    """

    files: tuple[str, ...]
    writer: str
    usual: bool = False
    needs: str = ""


@dataclass
class Target:
    """Where a case is written to, and what of it has been written.

    Args:
        folder: of all cases. place: of this one.
        truth: reference (D, H, W) bool, where one is known.
        paths: by name, of the kinds before.
        source: headers of the DICOM input, repaired; None where no DICOM kind is asked for.
    """

    folder: Path
    place: Places
    truth: np.ndarray | None = None
    source: Any = None
    paths: dict[str, Path] = field(default_factory=dict)


OUTPUTS = {
    "volumes": Output(IMAGES, "detection.save:volumes", usual=True),
    "nifti": Output(IMAGES, "detection.save:nifti", needs=PLACED),
    "panel": Output(("panel.png",), "report.panel:save", usual=True),
    "dicom-seg": Output(("anomaly_mask.dcm",), "detection.save_dicom:segmentation", needs=DICOM),
    "dicom-map": Output(("anomaly_map.dcm",), "detection.save_dicom:parametric_map", needs=DICOM),
    "dicom-sc": Output(("panel.dcm",), "detection.save_dicom:capture", needs=DICOM),
    "html": Output(("case.html",), "report.case_page:save", usual=True),
    "json": Output(("case.json", "slices.csv"), "detection.save:description", usual=True),
}
DICOM_SOURCE = "detection.save_dicom:source"
KINDS = tuple(kind for kind, output in OUTPUTS.items() if output.usual)


def writer(kind: str) -> Callable[[Finding, Target], dict[str, Path]]:
    """The function that writes a kind."""
    return lazy(OUTPUTS[kind].writer)


def dicom_source(finding: Finding) -> Any:
    """The headers that every DICOM kind is written beside, repaired."""
    return lazy(DICOM_SOURCE)(finding)


def check_kinds(kinds: Sequence[str]) -> None:
    """Fault KIND (exit 2) for a kind that does not exist."""
    unknown = [kind for kind in kinds if kind not in OUTPUTS]
    if unknown:
        found = f"there is no output kind '{unknown[0]}'"
        raise Fault("KIND", found, f"one of: {', '.join(OUTPUTS)}", exit=USAGE)


def check_some(kinds: Sequence[str], formats: Collection[str]) -> None:
    """Fault KIND (exit 2) where inputs of these formats (`Source.kind`) can have none of the
    kinds."""
    placed = any(kind in FORMATS and FORMATS[kind].volume for kind in formats)
    split(kinds, dicom="dicom" in formats, placed=placed)


def split(kinds: Sequence[str], *, dicom: bool, placed: bool) -> tuple[list[str], dict[str, str]]:
    """The kinds that an input can have, and what it would need for the others.

    Raises Fault KIND (exit 2) for a kind that does not exist, and where none is left.

    Args:
        dicom: whether the input is a DICOM series.
        placed: whether it has a place in the patient.
    """
    check_kinds(kinds)
    has = {"": True, DICOM: dicom, PLACED: placed}
    left_out = {kind: OUTPUTS[kind].needs for kind in kinds if not has[OUTPUTS[kind].needs]}
    possible = [kind for kind in kinds if kind not in left_out]
    if kinds and not possible:
        found = ", ".join(f"{kind} needs {reason}" for kind, reason in left_out.items())
        raise Fault("KIND", f"nothing to write: {found}", "add volumes to --kinds", exit=USAGE)
    return possible, left_out
