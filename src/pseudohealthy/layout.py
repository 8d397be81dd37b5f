"""Where a case's files go: a folder per case, or the names of a BIDS derivative (BIDS 1.10, "Derived datasets")."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pseudohealthy import __version__
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.scan import Scan

LAYOUTS = ("cases", "bids")
DERIVATIVE = Path("derivatives") / "pseudohealthy"
SUFFIXES = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "PDT2", "inplaneT1", "inplaneT2", "angio", "T1rho")
NAME = re.compile(r"(?P<entities>sub-[0-9A-Za-z]+(?:_[a-z]+-[0-9A-Za-z]+)*)_(?P<suffix>[0-9A-Za-z]+)$")
STEMS = {name: name for name in ("pseudo_healthy", "anomaly_map", "anomaly_mask")}
DESCRIPTIONS = {
    "pseudo_healthy": "The image restored to its healthy twin by a generative model; research use only.",
    "anomaly_map": "How far the image is from its healthy twin, voxel by voxel; no probability; research use only.",
    "anomaly_mask": "The anomaly map above its threshold; research use only.",
}


@dataclass
class Places:
    """volumes: folder of the images, with their stems; case: folder of case.json, panel and the rest; root: of BIDS."""

    case: Path
    volumes: Path
    stems: dict[str, str]
    root: Path | None = None
    source: str = ""

    def describe(self) -> None:
        """What BIDS wants beside the images: dataset_description.json, .bidsignore and a sidecar each."""
        if self.root is None:
            return
        made = {"Name": "pseudohealthy", "Version": __version__}
        said = {"Name": "Pseudo-healthy images and anomaly maps", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
        if not (self.root / "dataset_description.json").is_file():
            write_json(self.root / "dataset_description.json", {**said, "GeneratedBy": [made]})
            write_text(self.root / ".bidsignore", "figures\n**/figures\n**/figures/\n")
            write_text(self.root / "README", "Made by pseudohealthy. Research use only, not for diagnosis.\n")
        for name, stem in self.stems.items():
            if (self.volumes / f"{stem}.nii.gz").is_file():
                sidecar: dict[str, object] = {"Description": DESCRIPTIONS[name], "SkullStripped": False}
                if name == "anomaly_mask":
                    sidecar = {"Description": DESCRIPTIONS[name], "Type": "Lesion"}
                write_json(self.volumes / f"{stem}.json", {**sidecar, "Sources": [f"bids:raw:{self.source}"]})


def places(folder: Path, case_id: str, layout: str = "cases", scan: Scan | None = None) -> Places:
    """The places of one case below an output folder.

    "cases": folder/<case_id>/. "bids": folder/derivatives/pseudohealthy/sub-X[/ses-Y]/anat/ for the images, figures/
    beside it for the rest. The map keeps the suffix of its image because it is no probability (`probseg`); the mask
    carries that suffix in its desc, so that several contrasts of one subject do not meet.
    Fault LAYOUT, BIDS_NAME (exit 2): a BIDS name cannot be invented for an input that has none.
    """
    if layout not in LAYOUTS:
        raise Fault("LAYOUT", f"there is no layout '{layout}'", f"one of: {', '.join(LAYOUTS)}", exit=USAGE)
    if layout == "cases":
        return Places(folder / case_id, folder / case_id, dict(STEMS))
    match = NAME.match(case_id)
    if match is None or match["suffix"] not in SUFFIXES or (scan is not None and scan.affine is None):
        cure = "name it like sub-01_T1w.nii.gz or leave out --layout bids"
        raise Fault("BIDS_NAME", "the input has no BIDS name of an anatomical image", cure, exit=USAGE, case=case_id)
    entities, suffix = match["entities"].split("_"), match["suffix"]
    before = "_".join(e for e in entities if not e.startswith("desc-"))
    given = next((e[len("desc-") :] for e in entities if e.startswith("desc-")), "")
    above = Path(*(e for e in entities if e.startswith(("sub-", "ses-"))))
    stems = {
        "pseudo_healthy": f"{before}_desc-{given}pseudohealthy_{suffix}",
        "anomaly_map": f"{before}_desc-{given}anomaly_{suffix}",
        "anomaly_mask": f"{before}_desc-{given}anomaly{suffix}_mask",
    }
    root = folder / DERIVATIVE
    source = (above / "anat" / f"{case_id}.nii.gz").as_posix()
    return Places(root / above / "figures" / case_id, root / above / "anat", stems, root, source)


def relative(path: Path, folder: Path) -> str:
    """The path as case.json names it: from its own folder."""
    return Path(os.path.relpath(path, folder)).as_posix()
