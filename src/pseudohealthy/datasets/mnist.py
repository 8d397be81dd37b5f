"""MNIST (LeCun, Cortes, Burges): 60,000 + 10,000 handwritten digits, 28 x 28, 8 bits, idx files
plain or gzipped.

Layout: ``train-images-idx3-ubyte[.gz]`` and ``t10k-images-idx3-ubyte[.gz]``, also written
``.idx3-ubyte`` and also in ``MNIST/raw/`` (torchvision). ``mnist`` takes every digit as healthy.
``mnist-splotch`` is the experiment of "Brain Hemorrhage Detection With DDPM Reconstruction": clean
digits to train, and a test set of 2,000 clean and 2,000 splotched digits (equation 1), which are
4,000 different digits of the 10,000. Training and validation use only the 60,000.

Traps: writers are not identified here, so "patient" is the digit itself; nothing is known of the
published choice of digits, therefore it is seeded. A splotch often lies on empty background:
evaluate with ``foreground = "all"``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pseudohealthy.anomalies.phantoms import splotch
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.idx import idx, idx_shape

TRAIN = 60_000


def prepare(
    source: Path, out: Path, *, seed: int = 0, limit: int = TRAIN, val: int = 5_000
) -> Manifest:
    """Clean digits: ``limit`` of the 60,000 (``val`` of these for validation) and all 10,000 test
    digits."""
    train, test = _find(source, "train"), _find(source, "t10k")
    cases = _training(source, train, seed, limit, val)
    cases += [_clean(source, test, "test", index) for index in range(_count(test))]
    return _written(cases, out)


def prepare_splotched(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    limit: int = TRAIN,
    val: int = 5_000,
    clean: int = 2_000,
    splotched: int = 2_000,
) -> Manifest:
    """Clean digits to train, ``clean`` untouched and ``splotched`` corrupted digits to test; the
    latter and their masks are written below ``out/splotched``."""
    train, test = _find(source, "train"), _find(source, "t10k")
    cases = _training(source, train, seed, limit, val)
    images, rng = idx(test), np.random.default_rng([seed, 1])
    if clean + splotched > len(images):
        raise Fault(
            "BAD_SETTING",
            f"{clean} + {splotched} of {len(images)} test digits",
            "ask for fewer",
            exit=USAGE,
        )
    chosen = rng.permutation(len(images))[: clean + splotched].tolist()
    cases += [_clean(source, test, "test", index) for index in sorted(chosen[:clean])]
    for index in sorted(chosen[clean:]):
        corrupted, mask = splotch(images[index] / 255, rng)
        cases.append(
            write_splotched(out, f"test-{index:05d}", corrupted, mask, images[index] / 255)
        )
    return _written(cases, out)


def write_splotched(
    out: Path, digit: str, corrupted: np.ndarray, mask: np.ndarray, clean: np.ndarray
) -> Case:
    """One anomalous test case: image (H, W) in [0, 1], bool mask and the true healthy image as
    8-bit PNG below ``out/splotched``; the last is named in the column ``twin``."""
    folder = Path(out) / "splotched"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = (
        (f"{digit}.png", corrupted),
        (f"{digit}_mask.png", mask),
        (f"{digit}_clean.png", clean),
    )
    for name, values in pictures:
        Image.fromarray(np.rint(np.asarray(values) * 255).astype(np.uint8)).save(folder / name)
    return Case(
        f"splotched-{digit}",
        digit,
        "test",
        ANOMALOUS,
        f"splotched/{digit}.png",
        mask=f"splotched/{digit}_mask.png",
        root=Path(out),
        extra={"twin": f"splotched/{digit}_clean.png"},
    )


def _training(source: Path, images: Path, seed: int, limit: int, val: int) -> list[Case]:
    total = _count(images)
    if not 0 < limit <= total or not 0 <= val < limit:
        raise Fault(
            "BAD_SETTING",
            f"limit {limit} with {val} for validation, of {total} digits",
            "ask for fewer",
            exit=USAGE,
        )
    order = np.random.default_rng([seed, 0]).permutation(total)[:limit]
    split = dict.fromkeys(order[val:].tolist(), "train") | dict.fromkeys(
        order[:val].tolist(), "val"
    )
    return [_clean(source, images, split[index], index) for index in sorted(split)]


def _clean(source: Path, images: Path, split: str, index: int) -> Case:
    name = f"{'test' if split == 'test' else 'train'}-{index:05d}"
    return Case(
        name, name, split, HEALTHY, f"{images.relative_to(source).as_posix()}#{index}", root=source
    )


def _find(source: Path, part: str) -> Path:
    for folder in (source, source / "raw", source / "MNIST" / "raw"):
        for name in (f"{part}-images-idx3-ubyte", f"{part}-images.idx3-ubyte"):
            for path in (folder / f"{name}.gz", folder / name):
                if path.is_file():
                    return path
    raise Fault(
        "LAYOUT",
        f"no {part}-images-idx3-ubyte(.gz) in the folder",
        "give the folder with MNIST's four files",
    )


def _count(images: Path) -> int:
    return idx_shape(images)[0]


def _written(cases: list[Case], out: Path) -> Manifest:
    manifest = Manifest(cases, out)
    manifest.save(Path(out) / "manifest.csv")
    return manifest
