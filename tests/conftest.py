"""Shared fixtures: the folders of real data and of reference vectors, when they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path | None:
    """`shared` beside the repository, or the folder named by PSEUDOHEALTHY_SHARED."""
    folder = Path(os.environ.get("PSEUDOHEALTHY_SHARED", ROOT.parent / "shared"))
    return folder if folder.is_dir() else None


@pytest.fixture
def shared() -> Path:
    """Real images and reference vectors for development; skips the test where they are absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared data folder beside the repository (set PSEUDOHEALTHY_SHARED)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny networks are fastest, and bit-reproducible, on one thread."""
    import torch

    torch.set_num_threads(1)
