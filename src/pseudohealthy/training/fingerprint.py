"""What the training planes look like, so that a scan of another kind can be told."""

from __future__ import annotations

import numpy as np

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.detection.domain import Domain
from pseudohealthy.training.plane_store import PlaneStore, chunks, spread_out
from pseudohealthy.training.threshold import whole_cases

# Healthy planes, at most, that the domain check learns from, and as many that set its limit.
DOMAIN_PLANES = 4_000


def fingerprint(store: PlaneStore) -> dict:
    """What training planes look like, so that a scan of another kind can be told: foreground share,
    brightness."""
    rows = spread_out(store.select("train", HEALTHY), 5_000)
    share, light = [], []
    for part in chunks(rows, 256):
        images, inside = store.images(part), store.foreground(part)
        share += inside.float().flatten(1).mean(1).tolist()
        mean = (images.mean(1) * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
        light += mean.tolist()
    levels = [0.5, 5, 50, 95, 99.5]
    return {
        "planes": len(rows),
        "percentiles": levels,
        "foreground_share": np.percentile(share, levels).round(4).tolist(),
        "foreground_brightness": np.percentile(light, levels).round(4).tolist(),
        **({"domain": known.to_json()} if (known := domain(store)) else {}),
    }


def domain(store: PlaneStore) -> Domain | None:
    """What healthy training planes look like, and how unlike them healthy validation cases may be;
    None where none has any foreground."""
    rows = spread_out(store.select("train", HEALTHY), DOMAIN_PLANES)
    seen = Domain.learned((store.images(part), store.foreground(part)) for part in chunks(rows, 64))
    if seen is None:
        return None
    healthy = store.select("val", HEALTHY)
    cases = whole_cases(store, healthy, DOMAIN_PLANES) if len(healthy) else []
    return seen.calibrated((store.images(case), store.foreground(case)) for case in cases)
