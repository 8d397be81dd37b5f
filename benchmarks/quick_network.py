"""The unit costs behind every budget: one network call and one training step of the small recipes, and program start-up.

    python benchmarks/quick_network.py

Medians of seven after one warm-up, two threads or as many as torch takes. Under a minute on two cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from pseudohealthy.networks.unet import UNet

NETWORKS = {
    "mnist-splotch-small, 28 px": (
        28,
        {"width": 64, "multipliers": (1, 2), "blocks": 1, "scale_shift": True, "stem": 2},
    ),
    "flair-small, 128 px": (128, {"width": 64, "multipliers": (1, 2, 2), "blocks": 1, "scale_shift": True, "stem": 4}),
}


def median(run: Callable[[], object], times: int = 7) -> float:
    """Median seconds of a call after a warm-up."""
    run()
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, bf16 autocast, batch 16")
    print(f"{'network':28} {'parameters':>12} {'forward ms/image':>17} {'training ms/image':>18}")
    for name, (size, settings) in NETWORKS.items():
        network = UNet(**settings)
        x, t = torch.randn(16, 1, size, size), torch.randint(0, 1000, (16,))

        def forward(network: UNet = network, x: torch.Tensor = x, t: torch.Tensor = t) -> None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                network(x, t)

        def step(network: UNet = network, x: torch.Tensor = x, t: torch.Tensor = t) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss = network(x, t).float().square().mean()
            loss.backward()

        parameters = sum(p.numel() for p in network.parameters())
        print(f"{name:28} {parameters:12,} {1000 * median(forward) / 16:17.2f} {1000 * median(step) / 16:18.2f}")
    start = median(
        lambda: subprocess.run([sys.executable, "-m", "pseudohealthy", "--help"], capture_output=True, check=True)
    )
    print(f"pseudohealthy --help: {1000 * start:.0f} ms")


if __name__ == "__main__":
    main()
