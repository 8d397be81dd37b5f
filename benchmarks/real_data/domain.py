"""What the domain check of the bundled model catches: kinds of foreign input by name, and false
alarms with intervals.

    python benchmarks/real_data/domain.py IXI_DATA IMAGES [--out FILE.json]

IXI_DATA: what `prepare ixi-lesions` wrote, and what the model was split by; IMAGES: the folder of
other real images. Whatever of IMAGES is absent is left out, and said.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.stats import beta

from pseudohealthy import io, models
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.io.atomic import write_json
from pseudohealthy.io.scan import Scan
from pseudohealthy.runs.run import Run

EACH = 52  # images of a kind, at most
Picture = np.ndarray


def made(name: str, picture: Picture) -> Scan:
    return Scan(picture.astype(np.float32)[None, None], None, name, "image")


def turned(quarters: int, flipped: bool = False) -> Callable[[Picture], Picture]:
    return lambda picture: np.rot90(picture[::-1] if flipped else picture, quarters).copy()


def inverted(picture: Picture) -> Picture:
    return picture.max() - picture


def inside_inverted(picture: Picture) -> Picture:
    """The head's grey values turned round, the air left black."""
    return np.where(picture > 12, picture.max() - picture, picture)


def half(axis: int, end: bool) -> Callable[[Picture], Picture]:
    def cut(picture: Picture) -> Picture:
        parts = np.array_split(picture, 2, axis)
        return parts[-1] if end else parts[0]

    return cut


def blank_half(picture: Picture) -> Picture:
    out = picture.copy()
    out[: len(out) // 2] = 0
    return out


def stripped(picture: Picture) -> Picture:
    """Without skull and scalp, roughly: what lies deeper than a tenth of the head's breadth."""
    inside = ndimage.binary_fill_holes(picture > 12)
    depth = ndimage.distance_transform_edt(inside)
    return np.where(depth > 0.28 * depth.max(), picture, 0)


MADE: dict[str, Callable[[Picture], Picture]] = {
    "turned by 90 degrees": turned(1),
    "turned by 180 degrees": turned(2),
    "turned by 270 degrees": turned(3),
    "upside down": turned(0, True),
    "left and right exchanged": lambda p: p[:, ::-1].copy(),
    "contrast inverted": inverted,
    "contrast inverted inside the head": inside_inverted,
    "left half of the field of view": half(1, False),
    "front half of the field of view": half(0, False),
    "front half blank": blank_half,
    "skull stripped (by depth)": stripped,
    "darker (gamma 2)": lambda p: 255 * (p / 255.0) ** 2,
    "blurred (3 px)": lambda p: ndimage.gaussian_filter(p.astype(float), 3),
    "half the size, padded": lambda p: np.pad(p[::2, ::2], 60),
}


def pictures(paths: list[Path]) -> Iterator[Callable[[], Scan]]:
    for path in paths[:: max(1, len(paths) // EACH)][:EACH]:
        yield lambda path=path: io.read(path)


def middle(paths: list[Path], share: float = 0.55, axis_planes: str = "axial") -> Iterator[Scan]:
    """One axial plane of each volume, at `share` of the height of its foreground."""
    for path in paths[:EACH]:
        scan = io.read(path)
        planes = np.flatnonzero(
            (scan.voxels[0] > np.percentile(scan.voxels[0], 60)).mean((1, 2)) > 0.05
        )
        at = planes[int(share * (len(planes) - 1))]
        yield made(path.stem, scan.voxels[0, at])


def foreign(images: Path) -> dict[str, Callable[[], Iterator[Scan]]]:
    find = lambda pattern: sorted(images.glob(pattern))  # noqa: E731
    return {
        "FLAIR (LGG, skull stripped)": lambda: pictures(
            [p for p in find("lgg-flair/*/*.png") if "mask" not in p.name]
        ),
        "FLAIR of heads (nichart)": lambda: middle(find("nichart/flair/*.nii.gz")),
        "T1 of heads, other scanners, age 69 to 96 (nichart)": lambda: middle(
            find("nichart/t1/*.nii.gz")
        ),
        "T1 of heads, warped slabs": lambda: middle(find("t1-slabs-more/*.nii.gz"), 0.5),
        "T1, skull stripped (MSLUB)": lambda: middle(find("mslub/*/*/T1*.nii.gz")),
        "T2, skull stripped (BraTS)": lambda: pictures(
            find("wolleb-layout/brats/*/*/*_t2_*.nii.gz")
        ),
        "CT heads (CT-ICH)": lambda: pictures(
            find("ct-ich/images/*.jpg") + find("ct-ich/images/*/*.jpg")
        ),
        "chest radiographs": lambda: pictures(find("chest-xray/png256/*/*.png")),
    }


def synthetic() -> Iterator[Scan]:
    for seed in range(EACH):
        rng = np.random.default_rng(seed)
        yield made(f"noise-{seed}", rng.integers(0, 256, (233, 197)))


def digits(images: Path) -> Iterator[Scan]:
    import gzip

    for path in sorted(images.glob("mnist/*t10k*images*")):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            values = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        for number in range(EACH):
            yield made(f"digit-{number}", values[number])


def interval(hits: int, count: int) -> tuple[float, float]:
    """Clopper and Pearson 1934, 95 %."""
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--run", type=Path, default=models.FOLDER / "brain-t1")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    detector = Detector(Run.open(arguments.run))
    manifest = load(arguments.data)
    healthy = [case for case in manifest.split("test") if case.label == HEALTHY]
    scans = [io.read_image(case.image, case.root) for case in healthy]
    kinds: dict[str, Callable[[], Iterator[Scan]]] = {
        "healthy, as trained on (false alarms)": lambda: iter(scans)
    }
    for name, change in MADE.items():
        kinds[name] = lambda change=change: (made(s.name, change(s.voxels[0, 0])) for s in scans)
    sick = [case for case in manifest.split("test") if case.label != HEALTHY]
    kinds["as trained on, with a simulated lesion"] = lambda: (
        io.read_image(case.image, case.root) for case in sick
    )
    kinds |= {
        "noise": synthetic,
        "digits": lambda: digits(arguments.images),
        **foreign(arguments.images),
    }
    rows = []
    for name, make in kinds.items():
        flagged, count, worst = 0, 0, {}
        for scan in make():
            count += 1
            try:
                fitted = detector.canvas.fit(scan() if callable(scan) else scan)
            except Fault as fault:
                flagged += 1
                worst[fault.code] = worst.get(fault.code, 0) + 1
                continue
            verdict = (
                detector.domain.judge(fitted.planes, fitted.foreground) if detector.domain else None
            )
            if verdict is None or verdict.out:
                flagged += 1
                what = "no foreground" if verdict is None else verdict.turned or verdict.worst
                worst[what] = worst.get(what, 0) + 1
        if not count:
            print(f"{name}: no images here")
            continue
        low, high = interval(flagged, count)
        rows.append(
            {
                "kind": name,
                "warned": flagged,
                "of": count,
                "low": round(low, 3),
                "high": round(high, 3),
                "by": worst,
            }
        )
        print(f"{name:55s} {flagged:3d} of {count:3d} [{low:.2f}, {high:.2f}] {worst}", flush=True)
    if arguments.out:
        write_json(arguments.out, rows)


if __name__ == "__main__":
    main()
