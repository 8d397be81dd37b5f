"""What a finding is worth where the truth is known: was the lesion marked, what else was, does the
twin still show it?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from pseudohealthy.counts import many
from pseudohealthy.metrics.lesions import compare_regions

# Shares of a lesion's contrast; a twin that removed less shows it still, one that removed more in
# reverse.
STILL = (0.75, 1.5)


@dataclass(frozen=True)
class Known:
    """Of one case beside its reference.

    lesions: connected parts of the reference; found: those with a marked voxel, as in
    `metrics.lesions`. marked: share of the reference that is marked; None of a healthy case.
    elsewhere: marked regions that touch no lesion. removed: see `removed`.
    """

    lesions: int
    found: int
    marked: float | None
    elsewhere: int
    removed: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, shares to four places."""
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return rounded | {"twin_still_shows_it": still_shows(rounded["removed"])}

    def text(self) -> str:
        """ "found, 71 % of it marked; 2 regions elsewhere"."""
        where = many(self.elsewhere, "region") if self.elsewhere else "no regions"
        if not self.lesions:
            return (
                f"healthy, {where} marked all the same"
                if self.elsewhere
                else "healthy, nothing marked"
            )
        aside = f"; {where} elsewhere" if self.elsewhere else ""
        if not self.found:
            return f"missed, nothing of it marked{aside}"
        part = "" if self.lesions == 1 else f" {self.found} of {self.lesions}"
        return f"found{part}, {percent(self.marked or 0)} of it marked{aside}"


def beside(image: np.ndarray, twin: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> Known:
    """A case beside its reference.

    Args:
        image, twin: (D, H, W) in the same units.
        mask, truth: (D, H, W) bool, what is marked and what is to be.
    """
    truth = np.asarray(truth, dtype=bool)
    parts = compare_regions(mask, truth)
    marked = float(mask[truth].mean()) if truth.any() else None
    found, elsewhere = int(parts.detected.sum()), len(parts.false_sizes)
    return Known(len(parts.detected), found, marked, elsewhere, removed(image, twin, truth))


def removed(image: np.ndarray, twin: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of a lesion's contrast that the healthy twin removed: 1 - contrast in the twin /
    contrast in the image.

    Contrast is the step across the lesion's outline: the mean of a rim within it minus the mean of
    a rim around it, in every plane 2 pixels wide or, where that is more, a third of the radius of a
    disc of its area. 1: nothing is left to see; 0: as before; below 0: more than before; above 1:
    the step is reversed. Anatomy has steps of its own: of 100 lesions drawn into the healthy
    example slices of brain-t1 (`phantoms.lesion`), the slices as they were before read 1.04 in the
    median, 6 % below 0.75 and 3 % above 1.5. A rim that reaches into bone or air is ruled by them.
    None without a reference, and where it covers a plane or the image has no step there. To four
    places, so that what a file keeps and what is said of it stand on one side of `STILL`.

    Args:
        image, twin: (D, H, W) in the same units.
        truth: (D, H, W) bool.
    """
    within, around = [], []
    for plane, drawn in enumerate(np.asarray(truth, dtype=bool)):
        if not drawn.any() or drawn.all():
            continue
        wide = max(2.0, float(np.sqrt(drawn.sum() / np.pi)) / 3)
        pair = np.stack([image[plane], twin[plane]]).astype(np.float64)
        within.append(pair[:, drawn & (ndimage.distance_transform_edt(drawn) <= wide)])
        around.append(pair[:, ~drawn & (ndimage.distance_transform_edt(~drawn) <= wide)])
    if not within:
        return None
    before, after = np.concatenate(within, 1).mean(1) - np.concatenate(around, 1).mean(1)
    return round(float(1 - after / before), 4) if before else None


def still_shows(share: float | None) -> bool | None:
    """Does a twin that removed this share of a lesion's contrast still show the lesion? None where
    that is not known."""
    return None if share is None else not STILL[0] <= share <= STILL[1]


def twin_text(share: float | None, what: str = "lesion") -> str:
    """ "the lesion is still there: 41 % of its contrast removed"; empty where nothing is known."""
    if share is None:
        return ""
    if share > STILL[1]:
        return f"the {what} is there in reverse: {removed_text(share)} of its contrast removed"
    if still_shows(share):
        return f"the {what} is still there: {removed_text(share)} of its contrast removed"
    return f"{removed_text(share)} of the {what}'s contrast removed"


def removed_text(share: float) -> str:
    """The share of a lesion's contrast that was removed, in whole percent on its own side of the
    lines of `STILL`."""
    if share <= 0:
        return "nothing"
    line = 100 * STILL[share > 1]
    if round(100 * share) == line and 100 * share != line:
        return f"{'over' if 100 * share > line else 'under'} {line:.0f} %"
    return percent(share)


def percent(share: float) -> str:
    """ "71 %"; a share above none never reads 0, one below all never 100."""
    if 0 < share < 0.005 or 0.995 <= share < 1:
        return "under 1 %" if share < 0.5 else "over 99 %"
    return f"{100 * share:.0f} %"
