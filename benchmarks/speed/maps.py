"""Map operators and scores per plane, against SciPy's where it has them.

python benchmarks/speed/maps.py [--size 128] [--planes 32] [--out FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from paired import Report, arguments, paired
from scipy import ndimage
from torch import Tensor

from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import median, smooth
from pseudohealthy.maps.morphology import gaussian, region
from pseudohealthy.maps.regions import largest_region_mass
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.restorers.symmetry import mirror_residual


def each(planes: np.ndarray, operator: Callable[[np.ndarray], object]) -> Callable[[], object]:
    """SciPy's operator on one plane after the other."""
    return lambda: [operator(plane) for plane in planes]


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, default=128)
        parser.add_argument("--planes", type=int, default=32)

    given = arguments(__doc__, more=more)
    report = Report("maps", given.out)
    generator = torch.Generator().manual_seed(0)
    images, twins = (
        torch.rand(given.planes, 1, given.size, given.size, generator=generator) * 2 - 1
        for _ in "ab"
    )
    inside = torch.ones(given.planes, given.size, given.size, dtype=torch.bool)
    maps = (images - twins).abs()
    planes, distance = maps[:, 0].numpy(), Perceptual("none")
    amap = AnomalyMap(smooth=2.0, erode=3)
    low = float(maps.mean())

    def ours(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return torch.no_grad()(run)

    pairs: dict[str, tuple[Callable, Callable | None]] = {
        "Gaussian, sigma 2": (
            ours(lambda: smooth(maps, 2.0)),
            each(planes, lambda p: ndimage.gaussian_filter(p, 2.0, truncate=3.0)),
        ),
        "Gaussian, sigma 2, double, 4 sigma": (
            ours(lambda: gaussian(maps, 2.0)),
            each(planes, lambda p: ndimage.gaussian_filter(p, 2.0)),
        ),
        "median 5 x 5": (
            ours(lambda: median(maps[:, 0], 5)),
            each(planes, lambda p: ndimage.median_filter(p, 5)),
        ),
        "closing and dilation, side 13": (
            ours(lambda: region(maps, 13)),
            each(
                planes, lambda p: ndimage.grey_dilation(ndimage.grey_closing(p, (13, 13)), (13, 13))
            ),
        ),
        "residual map: smoothed, eroded": (
            ours(lambda: amap.residual_map(images, twins, inside)),
            None,
        ),
        "largest region's mass": (ours(lambda: largest_region_mass(maps[:, 0], inside, low)), None),
        "symmetric part of the residual": (
            ours(lambda: mirror_residual(images - twins, images, sigma=2.0)),
            None,
        ),
        "structural dissimilarity": (ours(lambda: distance(images, twins)), None),
        "score: mean of the highest 2 %": (
            lambda: [amap.score_of(m, i) for m, i in zip(maps[:, 0], inside, strict=True)],
            None,
        ),
    }
    for name, (own, other) in pairs.items():
        times, foreign = paired({"own": own} | ({"scipy": other} if other else {}), 5)
        more_ = {"x_scipy": times["scipy"] / times["own"]} if other else {}
        report.add(
            f"{name}, {given.size} px",
            1000 * times["own"] / given.planes,
            "ms/plane",
            foreign,
            **more_,
        )


if __name__ == "__main__":
    main()
