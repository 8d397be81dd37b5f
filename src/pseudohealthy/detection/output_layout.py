"""Where a case's files go: a folder per case, or the names of a BIDS derivative (BIDS 1.10,
"Derived datasets")."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudohealthy.detection import bids
from pseudohealthy.detection.bids import NAME, Bids, Input
from pseudohealthy.detection.outputs import IMAGES
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.io.scan import Scan
from pseudohealthy.version import __version__

LAYOUTS = ("cases", "bids")
SUFFIXES = (
    "T1w",
    "T2w",
    "FLAIR",
    "PDw",
    "T2starw",
    "PDT2",
    "inplaneT1",
    "inplaneT2",
    "angio",
    "T1rho",
)
STEMS = {name: name for name in IMAGES}
DESCRIPTIONS = {
    "pseudo_healthy": (
        "The image restored to its healthy twin by a generative model; research use only."
    ),
    "anomaly_map": (
        "How far the image is from its healthy twin, voxel by voxel; no probability; research use"
        " only."
    ),
    "anomaly_mask": "The anomaly map above its threshold; research use only.",
}


@dataclass
class Places:
    """volumes: folder of the images, with their stems; case: folder of case.json, panel and the
    rest; root: of BIDS;
    given: what is known of the input; links: data sets by name."""

    case: Path
    volumes: Path
    stems: dict[str, str]
    root: Path | None = None
    given: Input = field(default_factory=lambda: Input(""))
    links: Mapping[str, Path] = field(default_factory=dict)

    def describe(self) -> None:
        """What BIDS wants beside the images: dataset_description.json, .bidsignore and a sidecar
        each."""
        if self.root is None:
            return
        self._describe_set(self.root)
        sources = {"Sources": self.given.sources} if self.given.sources else {}
        for name, stem in self.stems.items():
            if (self.volumes / f"{stem}.nii.gz").is_file():
                said: dict[str, Any] = {"Description": DESCRIPTIONS[name], **self.given.facts}
                if name == "anomaly_mask":
                    said = {k: v for k, v in said.items() if k != "SkullStripped"} | {
                        "Type": "Lesion"
                    }
                    if self.given.sources:  # it lies on the grid of its source, if of nothing else
                        said.setdefault("SpatialReference", self.given.sources[0])
                write_json(self.volumes / f"{stem}.json", {**said, **sources})

    def _describe_set(self, root: Path) -> None:
        made = {"Name": "pseudohealthy", "Version": __version__}
        said = {
            "Name": "Pseudo-healthy images and anomaly maps",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
        }
        path = root / "dataset_description.json"
        before = bids.table(path)
        links = {
            name: way for name, folder in self.links.items() if (way := bids.uri(folder, root))
        }
        if before and links.items() <= (before.get("DatasetLinks") or {}).items():
            return
        links = {**(before.get("DatasetLinks") or {}), **links}
        write_json(
            path, {**said, "GeneratedBy": [made], **({"DatasetLinks": links} if links else {})}
        )
        write_text(root / ".bidsignore", "figures\n**/figures\n**/figures/\n")
        write_text(
            root / "README", "Made by pseudohealthy. Research use only, not for diagnosis.\n"
        )


def places(
    folder: Path, case_id: str, layout: str | Bids = "cases", scan: Scan | None = None
) -> Places:
    """The places of one case below an output folder.

    "cases": folder/<case_id>/. BIDS: folder/derivatives/pseudohealthy/sub-X[/ses-Y]/anat/ for the
    images, figures/ beside it for the rest. The map keeps the suffix of its image because it is no
    probability (`probseg`); the mask carries that suffix in its desc, so that several contrasts of
    one subject do not meet.

    Args:
        layout: "cases"; "bids", of which nothing but the case id is known; or what `bids.read`
            knows of the inputs.

    Fault LAYOUT, BIDS_NAME (exit 2): a BIDS name cannot be invented for an input that has none.
    """
    if isinstance(layout, str) and layout not in LAYOUTS:
        raise Fault(
            "LAYOUT", f"there is no layout '{layout}'", f"one of: {', '.join(LAYOUTS)}", exit=USAGE
        )
    if layout == "cases":
        return Places(folder / case_id, folder / case_id, dict(STEMS))
    given = layout.inputs.get(case_id, Input("")) if isinstance(layout, Bids) else Input(case_id)
    match = NAME.match(given.name)
    if (
        match is None
        or match["suffix"] not in SUFFIXES
        or (scan is not None and scan.affine is None)
    ):
        cure = "name it like sub-01_T1w.nii.gz or leave out --layout bids"
        raise Fault(
            "BIDS_NAME",
            "the input has no BIDS name of an anatomical image",
            cure,
            exit=USAGE,
            case=case_id,
        )
    entities, suffix = match["entities"].split("_"), match["suffix"]
    before = "_".join(e for e in entities if not e.startswith("desc-"))
    said = next((e[len("desc-") :] for e in entities if e.startswith("desc-")), "")
    above = Path(*(e for e in entities if e.startswith(("sub-", "ses-"))))
    stems = {
        "pseudo_healthy": f"{before}_desc-{said}pseudohealthy{given.apart}_{suffix}",
        "anomaly_map": f"{before}_desc-{said}anomaly{given.apart}_{suffix}",
        "anomaly_mask": f"{before}_desc-{said}anomaly{given.apart}{suffix}_mask",
    }
    root = folder / given.derivative
    links = layout.links.get(given.derivative, {}) if isinstance(layout, Bids) else {}
    return Places(
        root / above / "figures" / case_id, root / above / "anat", stems, root, given, links
    )


def relative(path: Path, folder: Path) -> str:
    """The path as case.json names it: from its own folder."""
    return Path(os.path.relpath(path, folder)).as_posix()
