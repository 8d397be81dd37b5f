"""What the settings of a sweep share, so that each thing is read, encoded and restored once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.evaluation.measure import Reading, batches, readable
from pseudohealthy.progress import Progress
from pseudohealthy.restorers.apply import Applied, Stack
from pseudohealthy.restorers.base import Restoration, Restorer
from pseudohealthy.runs.run import Run


class Watched(Detector):
    """A detector that keeps the twins (N, C, S, S) and maps (N, S, S) it made last."""

    last: tuple[Tensor, Tensor]

    def apply(self, stacks: Sequence[Stack], spread: bool = False) -> list[Applied]:
        found = super().apply(stacks, spread)
        self.last = torch.cat([one.healthy for one in found]), torch.cat([one.maps for one in found])
        return found


class Replay(nn.Module):
    """A restorer that restores a group of planes once and gives the same twins to whoever asks for them again.

    `rewind` before every reading of the group, `forget` before the next group. Everything else is the restorer's.
    """

    def __init__(self, restorer: Restorer):
        super().__init__()
        self.restorer = restorer
        self.kept: list[Restoration] = []
        self.next = 0

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("restorer"), name)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        if self.next == len(self.kept):
            self.kept.append(replace(self.restorer.restore(images, draw), without=()))
        self.next += 1
        return self.kept[self.next - 1]

    def rewind(self) -> None:
        self.next = 0

    def forget(self) -> None:
        self.kept, self.next = [], 0


class Common:
    """What all settings of a sweep share: the weights, encodings of the way up, and the cases while memory lasts."""

    def __init__(self, run: Run, most: int = 2**30):
        self.run, self.most = run, most
        self.trained, _ = run.restorer()
        self.encodings = Encodings()
        self.cases: list[list[Reading]] | None = None

    def restorer(self, settings: Sequence[str]) -> Restorer:
        """The trained restorer under other settings, with the very same weights."""
        recipe = copy.deepcopy(self.run.recipe).set(settings).checked()
        restorer = recipe.make_restorer()
        restorer.load_state_dict(self.trained.state_dict(), assign=True)
        if hasattr(restorer, "encodings"):
            restorer.encodings = self.encodings
        return restorer.eval().requires_grad_(False)

    def batches(self, chosen: list[Case], detector: Detector, notes: list[str], bar: Progress, size: int) -> Iterator:
        """Batches of cases; read for the first setting and kept for the others unless they are more than `most` bytes."""
        if self.cases is not None:
            yield from self.cases
            bar.advance(len(chosen) - sum(map(len, self.cases)))  # those that could not be read
            return
        kept: list[list[Reading]] = []
        held = 0
        for group in batches(readable(chosen, detector, notes, bar), size):
            held += sum(one.scan.voxels.nbytes + 2 * one.fitted.planes.nbytes for one in group)
            kept = [*kept, group] if held <= self.most else []
            yield group
        self.cases = kept if held <= self.most else None
