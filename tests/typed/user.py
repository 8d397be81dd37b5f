"""A user's file: `make check` reads it with mypy --strict, so names have their real types.

An ignored error that is none any more is an error, so a type that became Any is noticed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

import pseudohealthy as ph


@ph.register("typed")
class Typed(ph.Restorer):
    """A convolution."""

    def __init__(self, *, size: int, channels: int) -> None:
        super().__init__(size=size, channels=channels)
        self.network = nn.Conv2d(channels, channels, 3, padding=1)

    def parts(self) -> tuple[str, ...]:
        return ("network",)

    def loss(self, batch: ph.Batch, part: str) -> Tensor:
        error: Tensor = self.network(batch.images) - batch.images
        return error.square().flatten(1).mean(1)

    def restore(self, images: Tensor, draw: ph.Draw) -> ph.Restoration:
        twin: Tensor = self.network(images + 0.1 * draw.noise(images))
        return ph.Restoration(healthy=twin.clamp(-1, 1))

    def network_calls(self) -> int:
        return 1


def use(images: np.ndarray, masks: np.ndarray, out: Path) -> float:
    """Train, detect and measure."""
    run: ph.Run = ph.train("quick", images, out / "run", steps=5)
    run = ph.resume(run.folder, data=images, steps=6)
    detector: ph.Detector = ph.load(run.folder, device="cpu")
    finding: ph.Finding = detector(images[0])
    found: np.ndarray = finding.map
    result: ph.Evaluation = ph.evaluate(detector, ph.manifest(images, masks, split="test"))
    figures: list[float] = [record.value for record in result.records]
    score: str = finding.score  # type: ignore[assignment]
    ph.train("quick", images, out, stepps=5)  # type: ignore[call-arg]
    return float(found.max()) + figures[0] + len(score)
