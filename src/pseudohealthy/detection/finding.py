"""What a detector says about one scan, on the scan's own grid; it saves itself beside the input's
type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pseudohealthy.counts import many
from pseudohealthy.detection.bids import Bids
from pseudohealthy.detection.domain import Verdict
from pseudohealthy.detection.output_layout import places
from pseudohealthy.detection.outputs import (
    DICOM,
    KINDS,
    OUTPUTS,
    Target,
    dicom_source,
    split,
    writer,
)
from pseudohealthy.detection.ranks import rank
from pseudohealthy.detection.truth import Known, beside
from pseudohealthy.errors import USAGE, Fault, one_line
from pseudohealthy.io.atomic import together
from pseudohealthy.io.origins import DicomOrigin
from pseudohealthy.io.scan import Scan

MOST_REGIONS = 20
REGIONS_ORDER = (
    "the most conspicuous first: by excess, the sum over a region of what the map exceeds the"
    " threshold by; at most 20"
)


@dataclass(repr=False)
class Finding:
    """scan; healthy (C, D, H, W) in the scan's units; map (D, H, W) float32; mask (D, H, W) bool =
    map > threshold.

    score: of the case, higher = more anomalous. score_sd: its standard error from the method's own
    noise draws; None of one draw. plane_scores (D,). healthy_percentile: share of healthy
    validation cases that score lower, with the case itself counted among them (so it never reads
    100); in words, with their number: rank. regions: connected parts of the mask, the most
    conspicuous first. made: how it was made (run, weights, seed, network calls). window: (low,
    high) in the scan's units for pictures, where the run fixes one.
    """

    scan: Scan
    healthy: np.ndarray
    map: np.ndarray
    foreground: np.ndarray
    score: float
    plane_scores: np.ndarray
    threshold: float | None
    threshold_source: str
    healthy_percentile: float | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    made: dict[str, Any] = field(default_factory=dict)
    window: tuple[float, float] | None = None
    score_sd: float | None = None
    # Of the input and the request, where a command made it.
    hashes: dict[str, Any] = field(default_factory=dict)
    healthy_cases: int | None = None  # validation cases that healthy_percentile ranks among
    domain: Verdict | None = None  # is it like what the run was trained on?
    # Kinds that this input cannot have, and why.
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def case_id(self) -> str:
        return self.scan.name

    @cached_property
    def mask(self) -> np.ndarray:
        """What lies above the threshold; empty without one."""
        if self.threshold is None:
            return np.zeros(self.map.shape, bool)
        return self.map > self.threshold

    @property
    def volume_ml_above(self) -> float | None:
        """Volume above the threshold in ml; None where the input has no geometry."""
        ml = self.scan.voxel_ml
        return None if ml is None else float(np.count_nonzero(self.mask) * ml)

    @property
    def rank(self) -> str:
        """The percentile in words, with the number of healthy scans and p; empty where the run has
        none."""
        return rank(self.healthy_percentile, self.healthy_cases)

    @property
    def n_regions(self) -> int:
        """Connected regions of the mask (26-connectivity), all of them."""
        return self._parts[1]

    @property
    def regions(self) -> list[dict[str, Any]]:
        """Connected regions of the mask (26-connectivity), the most conspicuous first, the first
        20; `n_regions` counts all.

        Conspicuous is what exceeds the threshold by much or over a large part: excess, the sum over
        the region's voxels of map - threshold. A large region barely above the threshold therefore
        stands behind a small glaring one.
        """
        return self._parts[0]

    @cached_property
    def _parts(self) -> tuple[list[dict[str, Any]], int]:
        """`regions` and `n_regions`."""
        labels, count = ndimage.label(self.mask, structure=np.ones((3, 3, 3)))
        if not count:
            return [], 0
        index = np.arange(1, count + 1)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        excess = ndimage.sum_labels(
            self.map.astype(np.float64) - float(self.threshold or 0), labels, index
        )
        peaks = ndimage.maximum_position(self.map, labels, index)
        affine, ml = self.scan.affine, self.scan.voxel_ml
        found = []
        for i in np.argsort(-excess, kind="stable")[:MOST_REGIONS]:
            plane, row, column = map(int, peaks[i])
            region: dict[str, Any] = {
                "voxels": int(sizes[i]),
                "peak": float(self.map[peaks[i]]),
                "excess": round(float(excess[i]), 6),
                "plane": plane,
                "row": row,
                "column": column,
            }
            if affine is not None and ml is not None:
                region["volume_ml"] = round(float(sizes[i] * ml), 4)
                region["peak_mm"] = [
                    round(float(v), 2) for v in (affine @ [plane, row, column, 1])[:3]
                ]
            found.append(region)
        return found, int(count)

    @property
    def notes(self) -> list[str]:
        """What is worth saying and no reason to look twice: kinds that were left out."""
        return [f"LEFT_OUT: {kind} needs {reason}" for kind, reason in self.left_out.items()]

    def __str__(self) -> str:
        """Three lines: score, what lies above the threshold, warnings."""
        return "\n".join(map(one_line, (self._scored(), self._above(), self._warned())))

    def __repr__(self) -> str:
        count = len(self.warnings)
        warned = many(count, "warning") if count else "no warnings"
        return f"<Finding {self.case_id}: score {self.score:.3g}, {warned}>"

    def _scored(self) -> str:
        spread = "" if self.score_sd is None else f" ± {self.score_sd:.2g}"
        return f"{self.case_id}: score {self.score:.3g}{spread}{self.rank and f', {self.rank}'}"

    def _above(self) -> str:
        if self.threshold is None:
            return "no threshold, so nothing is marked"
        limit = f"the threshold {self.threshold:.3g} ({self.threshold_source})"
        count, ml = self.n_regions, self.volume_ml_above
        if not count:
            return f"nothing above {limit}"
        size = (
            f"{many(int(np.count_nonzero(self.mask)), 'voxel')}" if ml is None else f"{ml:.3g} ml"
        )
        return f"{many(count, 'region')} above {limit}, {size} in all"

    def _warned(self) -> str:
        said = [*self.warnings, *self.notes]
        return f"warnings: {'; '.join(said)}" if said else "no warnings"

    def row(self) -> dict[str, Any]:
        """The case's line of findings.csv."""
        return {name: value(self) for name, value in COLUMNS.items()}

    def save(
        self,
        folder: Path | str,
        kinds: Sequence[str] = KINDS,
        layout: str | Bids = "cases",
        truth: np.ndarray | None = None,
    ) -> dict[str, Path]:
        """Write into folder/<case_id>: pseudo_healthy, anomaly_map and anomaly_mask on the input's
        grid and in its type ("volumes") or as NIfTI whatever its type ("nifti"), anomaly_mask.dcm
        ("dicom-seg"), anomaly_map.dcm ("dicom-map") and panel.dcm ("dicom-sc") in the study of a
        DICOM input, panel.png ("panel"), case.html to look at ("html"), case.json and, of several
        planes, slices.csv ("json"). truth: reference (D, H, W) bool, outlined in the pictures;
        case.json then says what of it was marked, and whether the twin still shows it
        (`detection.truth`). layout: "cases", "bids" or what `detection.bids` knows of the inputs.
        Returns the paths by name. All files of the case are written or none. A kind that this input
        cannot have is left out, see `choose`. Fault TRUTH (exit 2) for a reference of another grid,
        KIND (exit 2) where none is left, OUTPUT (exit 6) where the folder cannot be written."""
        kinds = self.choose(kinds)
        if truth is not None and np.shape(truth) != self.map.shape:
            what = (
                f"the reference of {self.case_id} is of {np.shape(truth)} voxels, the scan of"
                f" {self.map.shape}"
            )
            raise Fault("TRUTH", what, "give it on the scan's grid", exit=USAGE)
        folder = Path(folder)
        with together(folder) as stage:
            paths = self._write(stage, kinds, layout, truth)
        places(folder, self.case_id, layout, self.scan).describe()
        return {name: folder / path.relative_to(stage) for name, path in paths.items()}

    def choose(self, kinds: Sequence[str]) -> list[str]:
        """The kinds that this input can have; the others stand in `left_out`. Fault KIND (exit 2)
        where none is left."""
        possible, self.left_out = split_kinds(kinds, self.scan)
        return possible

    def _write(
        self, folder: Path, kinds: Sequence[str], layout: str | Bids, truth: np.ndarray | None
    ) -> dict[str, Path]:
        # The DICOM source comes first: what had to be repaired in it is a warning that the other
        # kinds show
        source = dicom_source(self) if any(OUTPUTS[kind].needs == DICOM for kind in kinds) else None
        to = Target(folder, places(folder, self.case_id, layout, self.scan), truth, source)
        for kind in OUTPUTS:
            if kind in kinds:
                to.paths |= writer(kind)(self, to)
        return to.paths

    def beside(self, truth: np.ndarray) -> Known:
        """What the finding is worth beside a reference (D, H, W) bool."""
        return beside(self.scan.voxels[0], self.healthy[0], self.mask, truth)

    def slices(self) -> str:
        """One line per plane, in the order of the maps, as CSV: plane (from 0), x_mm, y_mm and z_mm
        of its middle (RAS; blank without geometry), score, and the area of its foreground and above
        the threshold in mm2 (pixels without)."""
        affine, spacing = self.scan.affine, self.scan.spacing
        pixel = 1.0 if spacing is None else spacing[1] * spacing[2]
        middle = [(n - 1) / 2 for n in self.map.shape[1:]]
        lines = ["plane,x_mm,y_mm,z_mm,score,foreground_area,area_above"]
        for plane, score in enumerate(self.plane_scores):
            where = (
                ["", "", ""]
                if affine is None
                else [f"{v:.2f}" for v in (affine @ [plane, *middle, 1])[:3]]
            )
            areas = [np.count_nonzero(part[plane]) * pixel for part in (self.foreground, self.mask)]
            lines.append(
                ",".join([str(plane), *where, f"{score:.6f}", *(f"{area:.2f}" for area in areas)])
            )
        return "\n".join(lines) + "\n"

    def describe(self, outputs: dict[str, str] | None = None) -> dict[str, Any]:
        """Everything but the pixels, JSON-able; no path of the machine, no patient data."""
        spacing = self.scan.spacing
        return {
            **self.row(),
            "research_use_only": True,
            "kind": self.scan.kind,
            "shape": list(self.scan.shape),
            "spacing_mm": None if spacing is None else [round(v, 4) for v in spacing],
            "units": self.scan.units,
            "plane_scores": [round(float(v), 6) for v in self.plane_scores],
            "foreground_fraction": round(float(self.foreground.mean()), 4),
            "map_percentiles": dict(
                zip(
                    ("p50", "p95", "p99", "max"),
                    np.percentile(self.map, (50, 95, 99, 100)).tolist(),
                    strict=True,
                )
            ),
            "regions": self.regions,
            "regions_order": REGIONS_ORDER,
            "domain": (
                None if self.domain is None else {**asdict(self.domain), "out": self.domain.out}
            ),
            "made": self.made,
            "left_out": self.left_out,
            "outputs": outputs or {},
        }


# Columns of findings.csv, in their order, and what a finding says under each
COLUMNS: dict[str, Callable[[Finding], Any]] = {
    "case_id": lambda found: found.case_id,
    "score": lambda found: round(found.score, 6),
    "score_sd": lambda found: rounded(found.score_sd, 6),
    "healthy_percentile": lambda found: rounded(found.healthy_percentile, 2),
    "healthy_cases": lambda found: (
        None if found.healthy_percentile is None else found.healthy_cases
    ),
    "volume_ml_above": lambda found: rounded(found.volume_ml_above, 4),
    "n_regions": lambda found: found.n_regions,
    "threshold": lambda found: found.threshold,
    "threshold_source": lambda found: found.threshold_source,
    "status": lambda found: "warn" if found.warnings else "ok",
    "warnings": lambda found: "; ".join([*found.warnings, *found.notes]),
    "seconds": lambda found: round(found.seconds, 3),
}


def rounded(value: float | None, digits: int) -> float | None:
    """The value to so many digits; None stays None."""
    return None if value is None else round(value, digits)


def split_kinds(kinds: Sequence[str], scan: Scan) -> tuple[list[str], dict[str, str]]:
    """The kinds that a finding of this scan can be written as, and what it would need for the
    others.

    Raises Fault KIND (exit 2) for a kind that does not exist, and where none is left.
    """
    return split(kinds, dicom=isinstance(scan.origin, DicomOrigin), placed=scan.affine is not None)
