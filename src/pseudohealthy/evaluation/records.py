"""What goes into an evaluation (`CaseResult`) and what comes out (`Record`, and their table)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.errors import BAD_MODEL, USAGE, Fault
from pseudohealthy.metrics import table

# Of a record: written where they say something.
OPTIONAL = ("caveat", "noise_key", "plane_set", "commit", "weights_sha256")
# Methods whose name starts so are trivial controls: listed below, compared against.
CONTROL = "control:"

# Figures of one class of boxes are named "metric.class". These classes have the names and the order
# of THOR's table; others follow under their own names.
CLASSES = {
    "boneanomaly": "BA",
    "foreignbody": "FB",
    "fracture": "Frac.",
    "metal": "metal",
    "periostealreaction": "PR",
    "softtissue": "Soft",
}


class Box(NamedTuple):
    """A rectangle in native pixels: columns x0 <= x < x1, rows y0 <= y < y1.

    `kind` is the annotated class.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    kind: str = ""

    @classmethod
    def parse(cls, text: str) -> tuple[Box, ...]:
        """Read a cell of a manifest's column ``boxes``: "x0 y0 x1 y1 class;...".

        Raises:
            Fault: BOXES (exit 2).
        """
        boxes = []
        for item in filter(None, map(str.strip, text.split(";"))):
            *numbers, kind = [*item.split(maxsplit=4), ""][:5]
            try:
                x0, y0, x1, y1 = map(float, numbers)
            except ValueError:
                x0 = y0 = x1 = y1 = float("nan")
            if not (x0 < x1 and y0 < y1):
                cure = "write x0 y0 x1 y1 class, in pixels, separated by ;"
                raise Fault("BOXES", f"'{item[:60]}' is no box", cure, exit=USAGE)
            boxes.append(cls(x0, y0, x1, y1, kind))
        return tuple(boxes)


@dataclass(frozen=True)
class Place:
    """Where the voxels of a case lie, (D, H, W) bool on its native grid.

    Outside ``evaluated`` a map is 0.

    Args:
        evaluated: the voxels that map and truth hold, in C order.
        foreground: what shows the patient (the brain, where the case has a brain mask).
    """

    evaluated: np.ndarray
    foreground: np.ndarray

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Put values (N,) back on the grid (D, H, W), 0 elsewhere."""
        volume = np.zeros(self.evaluated.shape, dtype=np.asarray(values).dtype)
        volume[self.evaluated] = values
        return volume


@dataclass
class CaseResult:
    """What one method said about one case; a voxel counts as found where ``map > threshold``.

    Args:
        label: HEALTHY, ANOMALOUS or None (unknown).
        score: higher = more anomalous.
        plane_scores: (D,).
        plane_labels: (D,) HEALTHY, ANOMALOUS or -1 (unknown).
        map: (N,) float32, scores of the voxels inside the evaluation mask.
        truth: (N,) bool, the reference there; None on a healthy case means empty, on another
            unknown.
        method: the name of what said it.
        voxel_ml: volume of a voxel.
        place: where those voxels lie, for what needs neighbours or planes.
        boxes: annotated boxes of a 2-D image, None where unknown.
        facts: trivial measures of each plane (D,), by name.
        empty_planes: healthy planes without foreground, which have no label since nothing was said
            of them.

    Raises:
        Fault: for scores that are not finite, and for a healthy case with a lesion in its
            reference.
    """

    case_id: str
    patient_id: str
    label: int | None
    score: float
    plane_scores: np.ndarray | None = None
    plane_labels: np.ndarray | None = None
    map: np.ndarray | None = None
    truth: np.ndarray | None = None
    method: str = "method"
    voxel_ml: float | None = None
    place: Place | None = None
    boxes: tuple[Box, ...] | None = None
    facts: dict[str, np.ndarray] = field(default_factory=dict)
    empty_planes: int = 0

    def __post_init__(self) -> None:
        if self.label not in (HEALTHY, ANOMALOUS, None):
            raise ValueError(f"label {self.label!r} is not {HEALTHY}, {ANOMALOUS} or None")
        for values in (self.score, self.plane_scores, self.map):
            if values is not None and not np.isfinite(values).all():
                cure = "check the restored image of this case"
                raise Fault(
                    "NONFINITE_SCORE",
                    "the score is not finite",
                    cure,
                    exit=BAD_MODEL,
                    case=self.case_id,
                )
        if self.map is not None and self.truth is None and self.label == HEALTHY:
            self.truth = np.zeros(len(self.map), dtype=bool)
        for scores, labels in ((self.map, self.truth), (self.plane_scores, self.plane_labels)):
            if scores is not None and labels is not None and np.shape(scores) != np.shape(labels):
                raise ValueError(
                    f"scores of shape {np.shape(scores)} but labels of shape {np.shape(labels)}"
                )
        if self.label == HEALTHY and self.truth is not None and self.truth.any():
            cure = "correct the label in the manifest or remove the mask"
            raise Fault(
                "LABEL_CONFLICT",
                "labelled healthy but its mask is not empty",
                cure,
                case=self.case_id,
            )

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """(map, truth), both (N,); only for cases that have them."""
        return np.asarray(self.map), np.asarray(self.truth, dtype=bool)

    def on_grid(self) -> tuple[np.ndarray, np.ndarray, Place]:
        """Return (map float32, truth bool, place), all (D, H, W); without a place, one row of
        voxels.

        Only for cases with a map; an unknown reference is empty here.
        """
        values = np.asarray(self.map, dtype=np.float32)
        truth = (
            np.zeros(len(values), dtype=bool)
            if self.truth is None
            else np.asarray(self.truth, dtype=bool)
        )
        everywhere = np.ones((1, 1, len(values)), dtype=bool)
        place = self.place or Place(everywhere, everywhere)
        return place.spread(values), place.spread(truth), place


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number and everything needed to know what it is.

    The last five are written only where they are known.

    Args:
        ci95: patient bootstrap; None where it is undefined (a count, fewer than two patients).
        unit: what is counted ("case", "plane", "voxel").
        protocol: its name and, unless it is strict, what it hides.
        threshold_source: as in `thresholds.SOURCES`, None for ranking metrics.
        prevalence: share of anomalous units, the chance level of average precision.
        against: the control a ``*_difference`` is taken from.
        p_value: of that difference, two-sided, from the resamples.
        p_holm: the same, corrected for all differences of the evaluation (Holm 1979).
        caveat: why the number flatters, such as a leak that was allowed.
        noise_key: what keyed the noise.
        plane_set: which planes scores are over.
        commit: of the code that did it.
        weights_sha256: of the weights that `evaluate` measured.
    """

    metric: str
    value: float
    ci95: tuple[float, float] | None
    unit: str
    protocol: str
    threshold_source: str | None
    mask: str
    grid: str
    postprocessing: str
    n_patients: int
    n_cases: int
    prevalence: float | None
    method: str
    threshold: float | None = None
    against: str | None = None
    p_value: float | None = None
    p_holm: float | None = None
    caveat: str = ""
    noise_key: str = ""
    plane_set: str = ""
    commit: str = ""
    weights_sha256: str = ""

    @property
    def is_control(self) -> bool:
        """Whether the method is a trivial control."""
        return self.method.startswith(CONTROL)

    def as_dict(self) -> dict[str, Any]:
        """Return an entry of ``metrics.json``."""
        return {key: value for key, value in asdict(self).items() if key not in OPTIONAL or value}

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> Record:
        """Make a record of an entry of ``metrics.json``; unknown keys are ignored."""
        values = {f.name: entry[f.name] for f in fields(cls) if f.name in entry}
        values["ci95"] = tuple(values["ci95"]) if values.get("ci95") else None
        return cls(**values)


@dataclass(frozen=True)
class Summary:
    """A table of records: headings, one row per method (controls last), and the best of each
    column."""

    headings: list[str]
    methods: list[str]
    cells: dict[tuple[str, str], Record]  # (method, heading)
    best: set[tuple[str, str]]
    differences: dict[tuple[str, str], Record]  # (method, heading): method minus the best control


def summarise(records: Sequence[Record]) -> Summary:
    """Arrange records as a table.

    Numbers share a column only where protocol, threshold source, mask, grid and post-processing are
    the same.
    """
    tabled = [record for record in records if table.shown_in(class_of(record.metric)[0], "table")]
    absolute = [record for record in tabled if not record.against]
    paired = [
        replace(record, metric=record.metric.removesuffix("_difference"))
        for record in tabled
        if record.against
    ]
    settings: dict[str, set[tuple]] = {}
    for record in absolute:
        settings.setdefault(_heading(record), set()).add(_setting(record))

    def key(record: Record) -> tuple[str, str]:
        heading = _heading(record)
        if len(settings.get(heading, ())) > 1:
            heading += f" [{', '.join(_setting(record))}]"
        return record.method, heading

    cells = {key(record): record for record in absolute}
    rank = {heading: _rank(record.metric) for (_, heading), record in cells.items()}
    headings = sorted(rank, key=lambda heading: rank[heading])
    methods = sorted(
        dict.fromkeys(record.method for record in absolute),
        key=lambda name: name.startswith(CONTROL),
    )
    best = set()
    for heading in headings:
        column = {place: merit(record) for place, record in cells.items() if place[1] == heading}
        if len(column) > 1:
            best |= {place for place, value in column.items() if value == max(column.values())}
    return Summary(headings, methods, cells, best, {key(record): record for record in paired})


def merit(record: Record) -> float:
    """Return a number that is higher for the better of two values of one metric."""
    metric = table.find(class_of(record.metric)[0])
    return record.value if metric is None else metric.merit(record.value)


def class_of(metric: str) -> tuple[str, str]:
    """Split a metric's name into metric and class of boxes, which is "" of a pooled one.

    ``box_recall_covered.fracture`` is ("box_recall_covered", "fracture").
    """
    name, _, kind = metric.partition(".")
    return name, kind


def class_name(kind: str) -> str:
    """Return the name of a class of boxes in tables."""
    return CLASSES.get(kind.replace(" ", "").lower(), kind)


def class_rank(kind: str) -> tuple[int, str]:
    """Return where a class stands in tables; pooled figures sort first."""
    names = ["", *CLASSES]
    key = kind.replace(" ", "").lower()
    return (names.index(key) if key in names else len(names)), kind


def number(record: Record, *, signed: bool = False) -> str:
    """Write ``0.873 [0.81, 0.92]``.

    The interval has three places, too, where the value would lie outside of what two say.
    """
    sign = "+" if signed else ""
    if record.ci95 is None:
        return f"{record.value:{sign}.3f}"
    low, high = record.ci95
    digits = 2 if round(low, 2) <= round(record.value, 3) <= round(high, 2) else 3
    return f"{record.value:{sign}.3f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def context(records: Sequence[Record]) -> str:
    """Say in one sentence what the numbers of a table share; empty without records."""
    if not records:
        return ""
    largest = max(records, key=lambda record: record.n_cases)
    coverage = covered(records)
    return (
        f"{many(largest.n_cases, 'case')} of"
        f" {many(largest.n_patients, 'patient')}{'; ' + coverage if coverage else ''}; protocol"
        f" {largest.protocol}; mask: {largest.mask}; grid: {largest.grid}; post-processing:"
        f" {largest.postprocessing}; [95 % interval over patients]; * best of a column"
    )


def covered(records: Sequence[Record]) -> str:
    """Say "4 of 6 cases have voxel figures" where figures of one kind are over fewer cases."""
    total = max((record.n_cases for record in records), default=0)
    clauses = []
    for kind, families in (("voxel", ("voxel", "dice")), ("box", ("box",))):
        of_kind = [record.n_cases for record in records if family_of(record) in families]
        if of_kind and max(of_kind) < total:
            clauses.append(f"{max(of_kind)} of {total} cases have {kind} figures")
    return "; ".join(clauses)


def family_of(record: Record) -> str:
    """Return the family of the record's metric; "" of one that this program does not know."""
    metric = table.find(class_of(record.metric)[0])
    return "" if metric is None else metric.family


def heading_of(record: Record) -> str:
    """Return the words of the record's metric, with the source of its threshold."""
    metric = table.find(class_of(record.metric)[0])
    return record.metric if metric is None else metric.words(record.threshold_source)


def _heading(record: Record) -> str:
    _, kind = class_of(record.metric)
    heading = f"{class_name(kind)}: {heading_of(record)}" if kind else heading_of(record)
    if "average_precision" in record.metric and record.prevalence is not None:
        return f"{heading} (chance {record.prevalence:.2g})"
    return heading


def _rank(metric: str) -> tuple[tuple[int, str], int]:
    name, kind = class_of(metric)
    return class_rank(kind), list(table.METRICS).index(name)


def _setting(record: Record) -> tuple[str, ...]:
    return record.protocol, record.mask, record.grid, record.postprocessing
