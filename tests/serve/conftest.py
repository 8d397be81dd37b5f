"""A run that looks finished, and an app that shows it and starts no worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.runs.recipe import Recipe

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture
def run_folder(tmp_path: Path, tiny: Callable[..., Recipe]) -> Path:
    """What the app needs of a run that it never starts."""

    folder = tmp_path / "tiny"
    folder.mkdir()
    recipe = tiny().resolved()
    write_text(folder / "recipe.toml", recipe.toml())
    write_json(
        folder / "run.json",
        {
            "recipe": "tiny",
            "status": "finished",
            "step": 12,
            "parameters": 41609,
            "data": "x/blobs",
        },
    )
    write_json(
        folder / "training_history.json",
        [{"step": s, "validation_auroc": a} for s, a in ((4, 0.7), (8, 0.9), (12, 0.8))],
    )
    write_json(
        folder / "threshold.json",
        {"value": 1.5, "source": "healthy-quantile", "quantile": 0.95, "n_patients": 6},
    )
    write_text(
        folder / "MODEL_CARD.md",
        "# tiny\n\n**Research use only. Not a medical device; not for diagnosis.**\n",
    )
    for name in (
        "best_model.safetensors",
        "diagnostics_epoch_2.png",
        "diagnostics_epoch_10.png",
        "training_curves.png",
    ):
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture
def idle(run_folder: Path, tmp_path: Path) -> TestClient:
    """An app whose queue does not move, so that what is sent waits."""
    from app_client import HOME, TestClient, known, started

    return known(TestClient(started(run_folder, tmp_path / "out", queue=3), base_url=HOME))
