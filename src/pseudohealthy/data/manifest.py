"""Cases and manifests: which image belongs to which patient, split and label.

A manifest is a CSV with the columns ``case_id, patient_id, split, label, image`` and, where known,
``mask, brain_mask, site``; further columns are kept. Paths are relative to the manifest's folder. A
manifest that describes files elsewhere (what ``prepare`` writes) names that folder in
``<stem>.roots.json`` beside it and the key in the column ``root``, so a CSV alone can never reach
outside its own folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pseudohealthy.data.paths import cell_files, prefixed, resolved
from pseudohealthy.io.atomic import write_json, write_text

SPLITS = ("train", "val", "test")
REQUIRED = ("case_id", "patient_id", "split", "label", "image")
OPTIONAL = ("mask", "brain_mask", "site")
CELLS = ("image", "mask", "brain_mask")


@dataclass(frozen=True)
class Case:
    """One image of one patient.

    Args:
        case_id, patient_id, split, site: As in the manifest.
        label: None for unknown.
        image, mask, brain_mask: Paths, relative to ``root``.
        root: The folder that paths start from.
        extra: Further columns.
        known_as: The id that version 0.1 gave the patient of a DICOM case in a plain folder, for
            the leak checks of its runs.
    """

    case_id: str
    patient_id: str
    split: str
    label: int | None
    image: str
    mask: str = ""
    brain_mask: str = ""
    site: str = ""
    root: Path = field(default=Path("."), compare=False)
    extra: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    known_as: str = field(default="", compare=False, repr=False)

    def files(self) -> list[Path]:
        """Every file the case needs, with patterns expanded; one that matches nothing stays as it
        is."""
        return [path for cell in CELLS for path in cell_files(getattr(self, cell), self.root)]

    def values(self, column: str) -> list[int]:
        """The mask values that a further column lists, such as "2" or "1 3".

        The columns are ``mask_ignore`` (voxels that leave the evaluation) and ``mask_background``
        (voxels that are no lesion).
        """
        return [int(word) for word in re.findall(r"\d+", self.extra.get(column, ""))]


class Manifest:
    """An ordered table of cases with the folder its relative paths start from."""

    def __init__(self, cases: Iterable[Case], root: Path):
        self.cases, self.root = list(cases), Path(root)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def split(self, name: str) -> Manifest:
        """The cases of one split (``train``, ``val`` or ``test``)."""
        return Manifest([case for case in self.cases if case.split == name], self.root)

    @property
    def patients(self) -> list[str]:
        return sorted({case.patient_id for case in self.cases})

    @property
    def sha256(self) -> str:
        """Digest of ids, splits, labels and paths, the same wherever the folder lies."""
        rows = [
            [
                *(
                    str(getattr(case, name) if getattr(case, name) is not None else "")
                    for name in REQUIRED + OPTIONAL
                )
            ]
            for case in self.cases
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def save(self, path: Path) -> Path:
        """Write the CSV, with paths relative to its folder or a root in ``<stem>.roots.json``."""
        path = Path(path)
        folder = path.resolve().parent
        roots: dict[str, str] = {}
        extra = list(dict.fromkeys(key for case in self.cases for key in case.extra))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [*REQUIRED, *OPTIONAL]
        writer.writerow([*columns, "root", *extra])
        for case in self.cases:
            home = resolved(case.root)
            below = home.is_relative_to(folder)
            prefix = home.relative_to(folder).as_posix() if below else "."
            key = "" if below else roots.setdefault(str(home), f"source{len(roots) or ''}")
            row = [getattr(case, name) for name in columns]
            row = [
                prefixed(value, prefix) if name in CELLS else value
                for name, value in zip(columns, row, strict=True)
            ]
            writer.writerow([*row, key, *(case.extra.get(name, "") for name in extra)])
        if roots:
            write_json(path.with_suffix(".roots.json"), {key: root for root, key in roots.items()})
        write_text(path, text.getvalue())
        return path
