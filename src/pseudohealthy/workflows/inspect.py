"""What would be read from a path: layout, counts, geometry, warnings, contact sheet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy import io
from pseudohealthy.counts import many
from pseudohealthy.data.checks import check
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.design.figures import blank, save
from pseudohealthy.detection.key import extend as extend_key
from pseudohealthy.detection.key import place as place_of_key
from pseudohealthy.errors import NO_INPUT, SOME_FAILED, Fault
from pseudohealthy.io.atomic import write_json
from pseudohealthy.io.scan import Scan
from pseudohealthy.progress import say, track
from pseudohealthy.report import terminal

MOST_TILES = 64
MOST_LINES = 40


@dataclass
class Inspection:
    """What would be read from a path.

    `exit` is 0, or 4 when some inputs cannot be read, 3 when none can.

    Args:
        path: its name.
        rows: one per input.
        notes: about the whole.
    """

    path: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit(self) -> int:
        """The exit code of the command."""
        failed = sum(row["status"] == "failed" for row in self.rows)
        return 0 if not failed else (NO_INPUT if failed == len(self.rows) else SOME_FAILED)

    def as_dict(self) -> dict[str, Any]:
        """Return what inspect.json holds."""
        return {"path": self.path, "notes": self.notes, "inputs": self.rows}

    def text(self) -> str:
        """Return a table of at most 40 inputs, and below it what is wrong with some."""
        table = []
        for row in self.rows[:MOST_LINES]:
            if row["status"] == "failed":
                continue
            grid = " x ".join(map(str, row["shape"]))
            spacing = (
                " x ".join(f"{v:g}" for v in row["spacing_mm"]) + " mm"
                if row["spacing_mm"]
                else "no geometry"
            )
            low, high = row["range"]
            values = f"{low:g}..{high:g} {row['units']}".rstrip()
            table.append((row["case_id"], row["kind"], grid, spacing, values))
        heads = ("case", "kind", "C x D x H x W", "spacing", "values")
        below = [
            f"{row['case_id']}: {row['warnings']}"
            for row in self.rows[:MOST_LINES]
            if row["warnings"]
        ]
        if len(self.rows) > MOST_LINES:
            below.append(f"... and {len(self.rows) - MOST_LINES} more (--json lists all)")
        shown = [terminal.columns(table, heads)] if table else []
        return terminal.text(*self.notes, *shown, *below)


def inspect(
    path: Path | str,
    out: Path | str | None = None,
    *,
    names: str = "series",
    key: Path | str | None = None,
) -> Inspection:
    """Read everything at `path` once; with `out`, write contact_sheet.png and inspect.json there.

    Args:
        path: a file, a folder, a manifest, or FILE#k.
        out: the folder to write into, if any.
        names: what DICOM cases are called by, "series" or "path".
        key: where it is written which series is which file; by default OUT.key.csv beside `out`, if
            that is given.
    """
    path = Path(path)
    inspection = Inspection(path.name)
    key_file = place_of_key(out, key) if out or key else None
    tiles: list[tuple[str, Scan]] = []
    manifest = as_manifest(path) if path.exists() else None  # FILE#k names an item
    if manifest is not None:
        counts = Counter(
            (case.split or "no split", {0: "healthy", 1: "anomalous", None: "unknown"}[case.label])
            for case in manifest
        )
        inspection.notes.append(
            f"{path.name}: a data set of {many(len(manifest), 'case')} of"
            f" {many(len(manifest.patients), 'patient')}"
        )
        inspection.notes += [
            f"  {split}, {label}: {count}" for (split, label), count in sorted(counts.items())
        ]
        inspection.notes += [f"warning: {problem}" for problem in check(manifest)]
        sample = list(manifest)
        sample = [
            sample[i]
            for i in (
                np.linspace(0, len(sample) - 1, min(len(sample), MOST_TILES)).round().astype(int)
            )
        ]
        inspection.notes.append(f"  read here: {len(sample)} of them, evenly spread")
        readers = [
            (case.case_id, lambda case=case: io.read_image(case.image, case.root))
            for case in sample
        ]
    else:
        survey = io.survey([path], names)
        reasons = Counter(item.reason for item in survey.skipped)
        # An archive may have named it after a patient.
        if any(source.origin for source in survey.sources):
            inspection.path = "INPUT"
        inspection.notes.append(
            f"{inspection.path}: {many(len(survey.sources), 'input')},"
            f" {len(survey.skipped)} skipped"
        )
        inspection.notes += [
            f"  skipped {count}: {reason}" for reason, count in reasons.most_common()
        ]
        inspection.notes += [f"  beside them: {survey.aside()}"] if survey.beside else []
        if key_file and extend_key(key_file, survey.sources):
            say(f"key: {key_file} says which series is which file")
        readers = [
            (source.case_id, lambda source=source: io.read(source)) for source in survey.sources
        ]
    for case_id, reader in track(readers, "reading", len(readers)):
        try:
            scan = reader()
        except Fault as fault:
            inspection.rows.append(
                {
                    "case_id": case_id,
                    "status": "failed",
                    "warnings": f"{fault.code}: {fault.message}; {fault.cure}",
                }
            )
            continue
        inspection.rows.append(describe(case_id, scan))
        if len(tiles) < MOST_TILES:
            # A copy of one plane, so that the volume can go.
            middle = scan.voxels[:1, scan.shape[1] // 2 : scan.shape[1] // 2 + 1].copy()
            tiles.append((case_id, Scan(middle, None, scan.name, scan.kind, display=scan.display)))
    if out is not None:
        write_json(Path(out) / "inspect.json", inspection.as_dict())
        if tiles:
            contact_sheet(tiles, Path(out) / "contact_sheet.png")
    return inspection


def as_manifest(path: Path) -> Manifest | None:
    """Return the manifest or folder layout at `path`; None where it is neither (then it is plain
    input)."""
    if io.split_item(path)[1] is not None or (path.is_file() and path.suffix.lower() != ".csv"):
        return None
    try:
        return load(path)
    except Fault as fault:
        if fault.code == "NO_MANIFEST":
            return None
        raise


def describe(case_id: str, scan: Scan) -> dict[str, Any]:
    """Return one row."""
    spacing = scan.spacing
    return {
        "case_id": case_id,
        "status": "warn" if scan.warnings else "ok",
        "kind": scan.kind,
        "shape": list(scan.shape),
        "spacing_mm": None if spacing is None else [round(v, 3) for v in spacing],
        "range": [float(scan.voxels.min()), float(scan.voxels.max())],
        "units": scan.units,
        "warnings": "; ".join(scan.warnings),
    }


def contact_sheet(tiles: list[tuple[str, Scan]], path: Path) -> None:
    """Draw the middle plane of every scan with its name, each in its own window.

    That is the stored one, else 1st to 99th percentile.
    """
    columns = min(8, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = blank(1.8 * columns, 2.0 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, scan) in zip(axes.flat, tiles, strict=False):
        low, high = scan.display or np.percentile(scan.voxels, (1, 99))
        axis.imshow(scan.voxels[0, 0], cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        axis.set_title(name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}", fontsize=6)
    save(figure, path, dpi=110, cut=False)
