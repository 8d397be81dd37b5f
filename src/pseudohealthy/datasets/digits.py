"""The 1,797 handwritten digits that come along (8 x 8, UCI), enlarged to 32 x 32: the splotch
experiment without a download.

Nothing is read from ``source``. All images are written as PNG below ``out``; healthy = clean,
anomalous = splotched (equation 1, drawn at the scale of 32 px). Traps: the 43 writers are not
identified, so a writer can be in several splits; the enlarged digits are smooth, and a splotch is
therefore easier to see than on MNIST.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pseudohealthy.anomalies.phantoms import digits, splotch
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets.mnist import write_splotched
from pseudohealthy.errors import USAGE, Fault


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    val: int = 200,
    clean: int = 200,
    splotched: int = 200,
) -> Manifest:
    """``clean`` + ``splotched`` different digits to test, ``val`` to validate, all others to
    train."""
    images = digits()
    if (
        not 0 < len(images) - val - clean - splotched < len(images)
        or min(val, clean, splotched) < 0
    ):
        raise Fault(
            "BAD_SETTING",
            f"{val} + {clean} + {splotched} of {len(images)} digits",
            "ask for fewer",
            exit=USAGE,
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images)).tolist()
    splits = ["splotched"] * splotched + ["test"] * clean + ["val"] * val
    split = dict(zip(order, splits, strict=False))
    out = Path(out)
    (out / "clean").mkdir(parents=True, exist_ok=True)
    cases = []
    for index, image in enumerate(images):
        name = f"digit-{index:04d}"
        if split.get(index) == "splotched":
            cases.append(write_splotched(out, name, *splotch(image, rng, scale=32 / 28), image))
            continue
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(out / "clean" / f"{name}.png")
        cases.append(
            Case(name, name, split.get(index, "train"), HEALTHY, f"clean/{name}.png", root=out)
        )
    manifest = Manifest(cases, out)
    manifest.save(out / "manifest.csv")
    return manifest
