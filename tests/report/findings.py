"""A finding to show, with hostile names."""

from __future__ import annotations

import numpy as np

from pseudohealthy.detection.finding import Finding
from pseudohealthy.io.scan import Scan

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
# axial: planes to S, rows P, columns L.
AFFINE = np.array([[0, 0, -1.0, 30], [0, -1.0, 0, 40], [5.0, 0, 0, -7], [0, 0, 0, 1]])


def finding(
    shape=(6, 48, 40), *, units="", threshold=0.5, affine=AFFINE, name="case-1", **more
) -> Finding:
    """A disc of tissue with a bright square in plane 3 (of volumes) whose twin lacks it."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[: shape[1], : shape[2]]
    inside = np.hypot(row - shape[1] / 2, column - shape[2] / 2) < 0.3 * min(shape[1:])
    healthy = np.repeat(
        np.where(inside, 40 + rng.normal(0, 2, inside.shape), -1000 if units else 0)[None],
        shape[0],
        0,
    )
    lesion = np.zeros(shape, bool)
    lesion[shape[0] // 2, shape[1] // 2 - 6 : shape[1] // 2, shape[2] // 2 - 5 : shape[2] // 2] = (
        True
    )
    found = (
        np.where(lesion, 0.9, 0.1)
        * np.repeat(inside[None], shape[0], 0)
        * rng.uniform(0.5, 1, shape)
    ).astype(np.float32)
    scan = Scan.from_array(healthy + 25 * lesion, name=name, affine=affine)
    scan.units = units
    return Finding(
        scan=scan,
        healthy=healthy[None].astype(np.float32),
        map=found,
        foreground=np.repeat(inside[None], shape[0], 0),
        score=0.3,
        plane_scores=found.mean((1, 2)),
        threshold=threshold,
        threshold_source="healthy-quantile",
        **more,
    )
