"""From an image and its healthy twin to an anomaly map and a score, as every restorer shares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.maps.filters import median, smooth
from pseudohealthy.maps.regions import largest_region_mass
from pseudohealthy.marks import Range
from pseudohealthy.settings import check_fields


@dataclass(frozen=True, kw_only=True)
class AnomalyMap:
    """How a residual becomes a map, and a map a score.

    Args:
        kind: what the signed residual x - x_healthy becomes: its magnitude ("absolute", the
            published choice), its square, or only what is brighter ("positive") or darker
            ("negative") than the healthy twin.
        smooth: Gaussian sigma, model pixels, of the *signed* residual before `kind`; noise cancels,
            lesions stay.
        standardise: measures the smoothed signed residual in spreads of those of healthy validation
            planes, which are learnt when training ends (until then, and in its validation, the
            residual is plain): "level" divides it by the spread of all pixels together, so that
            maps of different methods share a unit; "pixel" subtracts each pixel's own mean and
            divides by its own spread (where images lie alike and lesions are not where health
            varies most). Concerns residual maps; a method's own map, and a control's, stays as it
            is.
        smooth_after: Gaussian sigma of the map itself.
        median: side of a square median filter on the map, model pixels, odd; 0 for none.
        gate: the map is multiplied by the image's own brightness (0..1) to this power; 0 for none.
            For lesions that are bright themselves (bleeding on CT, FLAIR, splotches): a smoothed
            residual spills over their rim, the gate cuts it off. 2 prefers bright tissue, 32 keeps
            little but the brightest. Before `smooth_after` as well as after it, so that what is
            dark lends nothing to its neighbours: a place then counts for the bright residual about
            it.
        erode: model pixels taken off the rim of the foreground, where registration and partial
            volume leave residuals.
        across: Gaussian sigma, planes, of the finished map along the planes of a volume: a lesion
            shows in several neighbours, an accident of one plane does not. Stored thresholds are of
            maps smoothed alike; the validation of a training looks at single planes and goes
            without, and so does a case of one plane.
        score: "mean" over the foreground, "top" (mean of the highest `share` of it), "max", or
            "region": the sum over the largest connected region of a plane above `level`.
        share: fraction of the foreground that "top" averages.
        level: map value from which "region" counts.
        quantile: of healthy validation map values, that becomes the stored threshold.
    """

    kind: Literal["absolute", "squared", "positive", "negative"] = "absolute"
    smooth: Annotated[float, Range(0, 100)] = 0.0
    standardise: Literal["none", "level", "pixel"] = "none"
    smooth_after: Annotated[float, Range(0, 100)] = 0.0
    median: Annotated[int, Range(1, 63, step=2, also=(0,))] = 0
    gate: Annotated[float, Range(0, 1000)] = 0.0
    erode: Annotated[int, Range(0, 128)] = 0
    across: Annotated[float, Range(0, 100)] = 0.0
    score: Literal["mean", "top", "max", "region"] = "top"
    share: Annotated[float, Range(0, 1, open="low")] = 0.02
    level: Annotated[float, Range(0, 1_000_000)] = 0.0
    quantile: Annotated[float, Range(0, 1, open="both")] = 0.99

    def __post_init__(self) -> None:
        check_fields(self, "map.{}".format)

    def fits(self, size: int) -> None:
        """Refuse a filter that is wider than maps of this side, model pixels.

        Raises:
            Fault: RECIPE (exit 2).
        """
        for key, value, widest in (
            ("median", self.median, size),
            ("erode", self.erode, (size - 1) // 2),
        ):
            if value > widest:
                message = f"map.{key} = {value} on canvas.size = {size}"
                raise Fault("RECIPE", message, f"give at most {widest}", exit=USAGE)

    def residual_map(
        self,
        images: Tensor,
        healthy: Tensor,
        foreground: Tensor,
        mean: Tensor | float = 0.0,
        spread: Tensor | float = 1.0,
    ) -> Tensor:
        """Return the map (B, S, S) of images and twins, summed over channels (Wolleb 2022, eq. 7).

        Args:
            images: (B, C, S, S) in [-1, 1].
            healthy: their twins, likewise.
            foreground: (B, S, S) bool.
            mean: (C, S, S) of healthy residuals, a restorer's buffer, for `standardise`.
            spread: (C, S, S), likewise.
        """
        residual = self.signed(images, healthy)
        if self.standardise != "none":
            residual = (residual - mean) / spread
        if self.kind == "absolute":
            residual = residual.abs()
        elif self.kind == "squared":
            residual = residual.square()
        else:
            residual = (residual if self.kind == "positive" else -residual).clamp(min=0)
        return self.finish(residual.sum(1), images, foreground)

    def signed(self, images: Tensor, healthy: Tensor) -> Tensor:
        """Return the smoothed signed residual (B, C, S, S) float32, image less twin."""
        return smooth(images.float() - healthy.float(), self.smooth)

    def finish(self, maps: Tensor, images: Tensor, foreground: Tensor) -> Tensor:
        """Apply filters, gate and foreground to maps (B, S, S), also to those a method or control
        computed."""
        gate = ((images.mean(1) + 1) / 2).clamp(0, 1) ** self.gate if self.gate else 1.0
        if self.smooth_after:
            maps = smooth((maps * gate)[:, None], self.smooth_after)[:, 0]
        return median(maps, self.median) * gate * self.inside(foreground)

    def along(
        self, maps: Tensor, foreground: Tensor, planes: Sequence[int], counted: Tensor | None = None
    ) -> Tensor:
        """Smooth finished maps of one case `across` its planes.

        Where planes are missing or have no foreground, the others' weights make up for them.

        Args:
            maps: (D, S, S).
            foreground: (D, S, S) bool.
            planes: the number of each in its volume.
            counted: (D,) bool, the planes whose scores count (all by default); the others lend
                nothing, so that no score hangs on them.
        """
        busy = foreground.flatten(1).any(1)
        if not self.across or busy.sum() < 2:
            return maps
        place = torch.as_tensor(planes, dtype=maps.dtype, device=maps.device)[busy]
        distance = (place[:, None] - place).abs() / self.across
        # Truncated at 3 sigma, like `smooth`.
        weights = torch.exp(-0.5 * distance.square()) * (distance <= 3)
        if counted is not None:
            weights = weights * (counted[busy].to(maps.device) | (distance == 0))
        weights = weights / weights.sum(1, keepdim=True)
        smoothed = maps.clone()
        smoothed[busy] = (weights @ maps[busy].flatten(1)).view(-1, *maps.shape[1:])
        return smoothed * self.inside(foreground)

    def inside(self, foreground: Tensor) -> Tensor:
        """Return the foreground (B, S, S) less its rim, as float."""
        inside = foreground.float()
        if self.erode:
            side = 2 * self.erode + 1
            inside = (
                1
                - F.max_pool2d(F.pad(1 - inside[:, None], [self.erode] * 4, value=1.0), side, 1)[
                    :, 0
                ]
            )
        return inside

    def score_of(self, maps: Tensor, foreground: Tensor) -> float:
        """Return one number for a case or a plane.

        Args:
            maps: any number of planes.
            foreground: of the same shape.
        """
        values = maps[foreground.bool()]
        if values.numel() == 0:
            return 0.0
        if self.score == "mean":
            return values.mean().item()
        if self.score == "max":
            return values.max().item()
        if self.score == "region":
            side = maps.shape[-2:]
            inside = foreground.bool().reshape(-1, *side)
            return largest_region_mass(maps.reshape(-1, *side), inside, self.level).max().item()
        count = max(1, round(self.share * values.numel()))
        return values.topk(count).values.mean().item()

    def describe(self, method_map: str = "") -> str:
        """Describe the post-processing in words, for every record of an evaluation.

        Args:
            method_map: how a method made its map itself.
        """
        steps = [method_map or f"{self.kind} residual"]
        steps += (
            [f"signed residual smoothed by sigma {self.smooth:g} px"]
            if self.smooth and not method_map
            else []
        )
        steps += (
            [f"in healthy spreads by {self.standardise}"]
            if self.standardise != "none" and not method_map
            else []
        )
        gate = [f"times brightness to the power {self.gate:g}"] if self.gate else []
        steps += (
            [*gate, f"map smoothed by sigma {self.smooth_after:g} px"] if self.smooth_after else []
        )
        steps += [f"median {self.median} px"] if self.median else []
        steps += gate
        steps += [f"foreground eroded by {self.erode} px"] if self.erode else []
        steps += [f"smoothed by sigma {self.across:g} along the planes"] if self.across else []
        return ", ".join(steps)
