"""One plane of one test case by every run of a comparison (Wolleb 2022, Figs 2 and 3).

The case is the named one, else the one with the largest reference. It is kept while the cases are
measured, so nothing is restored for it that is not restored anyway.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation.measure import Reading
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.restorers.apply import Applied


class Pictures(NamedTuple):
    """What a run sees and makes of a plane, on its own canvas.

    Args:
        image: (C, S, S) in [-1, 1].
        healthy: its twin, (C, S, S) in [-1, 1].
        map: (S, S).
        reference: (S, S) bool, or None.
        threshold: 0 where the run has none.
    """

    image: np.ndarray
    healthy: np.ndarray
    map: np.ndarray
    reference: np.ndarray | None
    threshold: float


@dataclass
class Example:
    """The case that is shown, and its pictures.

    Args:
        named: the case that is wanted; "" for the one with the largest reference, else the first
            anomalous one.
        case_id: of the case chosen.
        plane: its plane, from 0.
        planes: how many it has.
        why: how it was chosen, in words.
        channels: what each is called.
        pictures: by method.
    """

    named: str = ""
    case_id: str = ""
    plane: int = 0
    planes: int = 0
    why: str = ""
    channels: list[str] = field(default_factory=list)
    pictures: dict[str, Pictures] = field(default_factory=dict)
    rank: tuple[int, float] = (-1, 0.0)
    found: int | None = None  # where the case is in the batch that was looked at last

    def choose(self, group: Sequence[Reading], canvas: Canvas) -> None:
        """See whether a batch holds a better case than the batches before."""
        self.found = None
        for number, reading in enumerate(group):
            rank, reason = ranked(reading)
            if self.named:
                rank = (1, 0.0) if reading.case.case_id == self.named else (-1, 0.0)
                reason = "as asked for"
            if rank > self.rank:
                self.rank, self.why, self.found, self.pictures = rank, reason, number, {}
                self.case_id, self.planes = reading.case.case_id, len(reading.fitted.planes)
                self.plane = plane_of(reading)
                self.channels = channel_names(reading.case, canvas, reading.fitted.planes.shape[1])

    def keep(
        self, method: str, detector: Detector, fitted: Sequence[Fitted], applied: Sequence[Applied]
    ) -> None:
        """Keep the pictures that a method made of the case in this batch, where it holds a better
        one."""
        if self.found is None:
            return
        placed, result = fitted[self.found], applied[self.found]
        reference = None if placed.mask is None else placed.mask[self.plane].numpy()
        threshold = (
            max(0.0, float(detector.stored.get("value") or 0.0))
            if detector.choice == "stored"
            else 0.0
        )
        self.pictures[method] = Pictures(
            placed.planes[self.plane].numpy(),
            result.healthy[self.plane].numpy(),
            result.maps[self.plane].numpy(),
            reference,
            threshold,
        )


def ranked(reading: Reading) -> tuple[tuple[int, float], str]:
    """Return how well a case is shown first, and why in words.

    The largest reference comes first, then an anomalous case, then any.
    """
    if reading.truth is not None and reading.truth.any():
        return (
            2,
            float(reading.truth.sum()) * (reading.scan.voxel_ml or 1.0),
        ), "the largest reference in the test cases"
    anomalous = reading.case.label not in (HEALTHY, None)
    return (
        ((1, 0.0), "the first anomalous test case")
        if anomalous
        else ((0, 0.0), "the first test case")
    )


def plane_of(reading: Reading) -> int:
    """Return the plane with most reference, else with most foreground."""
    marked = reading.fitted.mask
    area = marked if marked is not None and marked.any() else reading.fitted.foreground
    return int(area.flatten(1).sum(1).argmax())


def check_named(name: str, cases: Sequence[Case]) -> None:
    """Refuse a name that no measured case has.

    Raises:
        Fault: CASE (exit 2).
    """
    names = [case.case_id for case in cases]
    if name and name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        cure = (
            f"did you mean '{near[0]}'?"
            if near
            else "name one of the column case_id with split = test"
        )
        raise Fault("CASE", f"no case that is measured is called '{name[:60]}'", cure, exit=USAGE)


def channel_names(case: Case, canvas: Canvas, count: int) -> list[str]:
    """Name the channels by HU window, by what tells their files apart (t1, t2, flair), else by
    number."""
    numbers = [f"channel {n + 1}" for n in range(count)] if count > 1 else ["image"]
    if canvas.normalise == "window" and len(canvas.windows) == count > 1:
        return [str(window) for window in canvas.windows]
    words = [re.split(r"[\W_]+", part.rsplit("/", 1)[-1]) for part in case.image.split("|")]
    if len(words) != count or count == 1 or len({len(parts) for parts in words}) != 1:
        return numbers
    differing = [column for column in zip(*words, strict=True) if len(set(column)) == count]
    return list(differing[0]) if differing else numbers
