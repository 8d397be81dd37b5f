"""Pictures and archives to put into folders, and the ids of what is found."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from pseudohealthy import io


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16)).astype(np.uint8)).save(
        path
    )
    return path


def ids(*inputs, named: str = "series") -> list[str]:
    return [s.case_id for s in io.discover(inputs, named)[0]]


def series(uid: str) -> str:
    return f"series-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def make_zip(path: Path, members: dict[str, bytes], **kw) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path
