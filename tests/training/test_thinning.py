"""A threshold of many planes is taken from some of their values, evenly spread over all of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.training import threshold
from pseudohealthy.training.threshold import healthy_values


def test_values_are_thinned_evenly(monkeypatch):
    """16 planes of 32 px whose values rise from 0 to 1, thinned to a tenth: the same quantiles."""
    maps = torch.linspace(0, 1, 16 * 32 * 32).view(16, 32, 32)
    rows = [np.arange(k, k + 4) for k in range(0, 16, 4)]
    recipe = SimpleNamespace(make_map=AnomalyMap, make_canvas=lambda: SimpleNamespace(size=32))
    store = SimpleNamespace(foreground=lambda part: torch.ones(len(part), 32, 32, dtype=torch.bool))
    trainer = SimpleNamespace(run=SimpleNamespace(recipe=recipe), store=store)
    monkeypatch.setattr(
        threshold.validation,
        "applied",
        lambda _, group, model: [SimpleNamespace(maps=maps[part], score=0.0) for part in group],
    )
    whole, _ = healthy_values(trainer, None, rows)
    assert len(whole) == 16 * 32 * 32
    monkeypatch.setattr(threshold, "VALUES", 16 * 32 * 32 // 10)
    some, scores = healthy_values(trainer, None, rows)
    assert len(some) == pytest.approx(len(whole) / 10, rel=0.01) and len(scores) == 4
    for quantile in (0.1, 0.5, 0.99):
        assert np.quantile(some, quantile) == pytest.approx(np.quantile(whole, quantile), abs=0.01)
