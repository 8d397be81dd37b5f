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
    """Foreground share, brightness and domain of the training planes, for fingerprint.json."""
    rows = spread_out(store.select("train", HEALTHY), 5_000)
    shares, brightness = [], []
    for part in chunks(rows, 256):
        images, foreground = store.images(part), store.foreground(part)
        shares += foreground.float().flatten(1).mean(1).tolist()
        mean = (images.mean(1) * foreground).flatten(1).sum(1) / foreground.flatten(1).sum(1).clamp(
            min=1
        )
        brightness += mean.tolist()
    levels = [0.5, 5, 50, 95, 99.5]
    return {
        "planes": len(rows),
        "percentiles": levels,
        "foreground_share": np.percentile(shares, levels).round(4).tolist(),
        "foreground_brightness": np.percentile(brightness, levels).round(4).tolist(),
        **({"domain": healthy_domain.to_json()} if (healthy_domain := domain(store)) else {}),
    }


def domain(store: PlaneStore) -> Domain | None:
    """The domain of healthy training planes, with the limit that healthy validation cases set.

    Returns:
        None where no plane has any foreground.
    """
    rows = spread_out(store.select("train", HEALTHY), DOMAIN_PLANES)
    healthy_domain = Domain.learned(
        (store.images(part), store.foreground(part)) for part in chunks(rows, 64)
    )
    if healthy_domain is None:
        return None
    healthy = store.select("val", HEALTHY)
    cases = whole_cases(store, healthy, DOMAIN_PLANES) if len(healthy) else []
    return healthy_domain.calibrated((store.images(case), store.foreground(case)) for case in cases)
