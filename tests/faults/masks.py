"""N: masks of another grid or with unexpected values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage
from pseudohealthy.anomalies.phantoms import head, nifti


def with_masks(stage: Stage, changes: dict[str, Callable]) -> Path:
    """A data set of a healthy head and a diseased one for each change of its right mask: (values,
    affine) -> the same."""
    root = stage.folder / "data"
    (root / "masks").mkdir(parents=True)
    for seed, place in enumerate(["test/good/d", *(f"test/bad/{name}" for name in changes)]):
        values, _, affine = head(np.random.default_rng(seed), shape=(6, 32, 32))
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        nifti(root / f"{place}.nii.gz", values, affine)
        mask = np.zeros((6, 32, 32), np.float32)
        mask[2:4, 12:18, 12:18] = 1
        if seed:
            name = place.rsplit("/", 1)[1]
            nifti(root / "masks" / f"{name}.nii.gz", *changes[name](mask, affine))
    return root


def evaluated(stage: Stage, root: Path, *options: str) -> tuple[Done, set[str]]:
    """`evaluate`, and the cases it measured."""
    out = stage.out()
    done = stage.run(
        "evaluate", stage.ct, "--data", root, "--out", out, "--device", "cpu", *options, hang=240
    )
    table = out / "cases.csv"
    return done, (
        {line.split(",")[0] for line in table.read_text().splitlines()[1:]}
        if table.is_file()
        else set()
    )


@row(
    "N23",
    "mask on another grid (shape or affine)",
    "failed GRID_MISMATCH with both grids; --resample-mask",
    quick=False,
)
def n23(stage: Stage) -> Iterator[Trial]:
    def moved(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        affine = affine.copy()
        affine[:3, 3] += 40
        return mask, affine

    root = with_masks(
        stage, {"right": lambda m, a: (m, a), "shorter": lambda m, a: (m[:-1], a), "moved": moved}
    )
    done, cases = evaluated(stage, root)
    yield fails(
        done,
        "GRID_MISMATCH",
        "case=shorter",
        "case=moved",
        "6 x 32 x 32",
        "5 x 32 x 32",
        "first at",
        exit=4,
        **{"the others measured": cases == {"d", "right"}},
    )
    done, cases = evaluated(stage, root, "--resample-mask")
    yield works(done, "resampled", **{"all measured": len(cases) == 4})


@row(
    "N24",
    "mask of 0.999, {0, 255}, {0, 1, 2, 4}, nothing, grey values",
    "mapping printed; unknown values failed with a list",
    quick=False,
)
def n24(stage: Stage) -> Iterator[Trial]:
    def labels(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask[3] *= 4
        mask[2, 12] *= 2
        return mask, affine

    grey = np.random.default_rng(0).random((6, 32, 32)).astype(np.float32)
    done, cases = evaluated(
        stage,
        with_masks(
            stage,
            {
                "share": lambda m, a: (m * 0.999, a),
                "byte": lambda m, a: (m * 255, a),
                "labels": labels,
                "empty": lambda m, a: (m * 0, a),
                "grey": lambda m, a: (grey, a),
            },
        ),
    )
    yield fails(
        done,
        "MASK_VALUES",
        "values: 0",
        "MASK_LABELS 0, 1, 2, 4",
        "MASK_EMPTY",
        exit=4,
        **{
            "all but the grey one measured": (
                cases >= {"share", "byte", "labels"} and "grey" not in cases
            )
        },
    )
