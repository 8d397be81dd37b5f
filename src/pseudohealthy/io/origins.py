"""Where a scan came from, by its kind of file; what is asked of a scan of any format, so that no
format's library is needed here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pseudohealthy.io.turn import Turn


@dataclass
class DicomOrigin:
    """The files in the order of the acquired planes (one file for a multi-frame image) and what was
    done on reading."""

    paths: tuple[Path, ...]
    modality: str
    # Of a multi-frame image: the number of every plane's frame, from 1.
    frames: tuple[int, ...] = ()
    # From the planes as acquired to those that are cut along the patient's axes.
    turn: Turn | None = None
    plane: str = "native"  # how they are cut


@dataclass
class RasterOrigin:
    """What a picture or array was stored as: numpy type and shape ((H, W) or (pages, H, W) for
    pictures)."""

    dtype: np.dtype
    shape: tuple[int, ...]
    kind: str  # "picture" | "npy" | "idx"
    lossy: bool = False  # JPEG and its like: no value is exactly what was drawn
