"""A run made ready: scan in, finding out; and the command that does so for everything it is given."""

from __future__ import annotations

import copy
import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.canvas import Fitted
from pseudohealthy.devices import precision_of
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import BAD_MODEL, USAGE, Fault
from pseudohealthy.finding import Finding
from pseudohealthy.maps import AnomalyMap, smooth
from pseudohealthy.networks.precision import for_inference
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.run import Run
from pseudohealthy.scan import Scan
from pseudohealthy.training.distributed import pick_device

CHANGED = "RUN_CHANGED: the recipe is not the one this run was trained with; results may mean something else"


def load(run: Path | str, **options: Any) -> Detector:
    """The detector of a run folder; options as for `Detector`."""
    return Detector(Run.open(run), **options)


@torch.no_grad()
def restore_planes(
    restorer: Restorer, amap: AnomalyMap, images: Tensor, foreground: Tensor, draw: Draw, precision: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(twins (B, C, S, S), maps (B, S, S), the method's own scores (B,) or None), float32, of one batch of planes."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        restoration = restorer.restore(images, draw)
    healthy = restoration.healthy.float()
    if restoration.map is None:
        mean, spread = restorer.residual_mean, restorer.residual_spread
        maps = amap.residual_map(images, healthy, foreground, mean, spread)
    else:
        own = restoration.map.float()
        if restorer.unfiltered:  # a control is as smooth as the method it stands beside
            own = smooth(own[:, None], amap.smooth)[:, 0]
        maps = amap.finish(own, images, foreground)
    return healthy, maps, restoration.score


class Detector:
    """Finds what differs from health. Call it with a path, a folder, a `Scan`, an array or a tensor.

    threshold: a number, "stored" (the run's healthy quantile) or "otsu" (per case; always finds something).
    batch: planes restored at once; neither it nor the order of cases changes a result. precision: "auto", "bf16", "fp32".
    settings: changes to the run's recipe, ``section.key=value``, such as "restorer.steps=10"; they are part of `made`.
    """

    def __init__(
        self,
        run: Run,
        *,
        device: str = "auto",
        batch: int = 32,
        precision: str = "auto",
        threshold: float | str = "stored",
        settings: Sequence[str] = (),
        restorer: Restorer | None = None,
    ):
        trained = run.recipe.make_map()
        self.changed = run.changed
        if settings:
            run = Run(run.folder, copy.deepcopy(run.recipe).set(settings).resolved(), run.record)
        self.run, self.batch, self.settings = run, batch, tuple(settings)
        self.device = pick_device(device)
        self.precision = precision_of(precision, self.device)
        self.canvas, self.amap = run.recipe.make_canvas(), run.recipe.make_map()
        self.weights_sha256 = None
        if restorer is None:
            restorer, self.weights_sha256 = run.restorer()
            self.check_standard(restorer, trained)
        self.restorer = restorer.to(self.device).eval()
        for_inference(self.restorer, self.precision)
        self.stored = run.read_json("threshold.json") or {}
        self.fingerprint = run.read_json("fingerprint.json")
        self.choice = self._choice(threshold)

    def check_standard(self, restorer: Restorer, trained: AnomalyMap) -> None:
        """Fault where the map measures in healthy spreads that were not learnt, or of residuals smoothed otherwise."""
        if self.amap.standardise == "none" or restorer.unfiltered or restorer.describe():  # or it makes its own map
            return
        same = (self.amap.standardise, self.amap.smooth) == (trained.standardise, trained.smooth)
        if not (same and restorer.calibration_planes):
            raise Fault(
                "STANDARDISE",
                f"run '{self.run.name}' has not learnt healthy residuals for map.standardise = {self.amap.standardise}"
                f" and map.smooth = {self.amap.smooth:g}",
                "train --resume it with these settings and healthy validation data, or --set map.standardise=none",
                exit=BAD_MODEL,
            )

    def _choice(self, threshold: float | str) -> float | str:
        if isinstance(threshold, str) and threshold not in ("stored", "otsu"):
            try:
                threshold = float(threshold)
            except ValueError:
                raise Fault(
                    "THRESHOLD", f"'{threshold}' is no threshold", "give a number, stored or otsu", exit=USAGE
                ) from None
        if threshold == "stored" and self.stored.get("value") is None:
            raise Fault(
                "THRESHOLD",
                f"run '{self.run.name}' has no stored threshold",
                "give --threshold VALUE or otsu",
                exit=BAD_MODEL,
            )
        return threshold

    def __call__(self, scan: Any) -> Finding:
        """The finding of one scan. Faults as the readers raise them."""
        if not isinstance(scan, Scan):
            from pseudohealthy import io

            scan = io.read(scan, plane=self.canvas.plane)
        return next(self.stream([scan]))

    def stream(self, scans: Iterable[Scan]) -> Iterator[Finding]:
        """Findings in order; planes of several small scans share a batch, and only those scans are in memory."""
        waiting: list[tuple[Scan, Fitted]] = []
        planes = 0
        for scan in scans:
            fitted = self.canvas.fit(scan)
            waiting.append((scan, fitted))
            planes += len(fitted.planes)
            if planes >= self.batch:
                yield from self.restore(waiting)
                waiting, planes = [], 0
        if waiting:
            yield from self.restore(waiting)

    def restore(self, pairs: Sequence[tuple[Scan, Fitted]]) -> Iterator[Finding]:
        """Findings of scans that are on the canvas already."""
        begun = time.perf_counter()
        planes = torch.cat([fitted.planes for _, fitted in pairs])
        foreground = torch.cat([fitted.foreground for _, fitted in pairs])
        healthy, maps, own = self.restore_planes(
            planes, foreground, [key for pair in pairs for key in plane_keys(pair[1])]
        )
        seconds = (time.perf_counter() - begun) / len(planes)
        start = 0
        for scan, fitted in pairs:
            here = slice(start, start + len(fitted.planes))
            start = here.stop
            scores = None if own is None else own[here]
            yield self.finding(scan, fitted, healthy[here], maps[here], scores, seconds * len(fitted.planes))

    def restore_planes(
        self, planes: Tensor, foreground: Tensor, keys: Sequence
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Twins, maps and own scores of planes (N, C, S, S), in batches; planes without foreground are their own twins.

        keys: as of `plane_keys`, the planes of a case one after another.
        """
        healthy, maps = planes.clone(), torch.zeros(foreground.shape)
        scores = torch.zeros(len(planes))
        scored = False
        busy = foreground.flatten(1).any(1).nonzero()[:, 0]
        for rows in busy.split(self.batch):
            images = planes[rows].to(self.device, memory_format=torch.channels_last)
            inside = foreground[rows].to(self.device)
            draw = Draw(self.run.seed, [keys[i] for i in rows.tolist()])
            twin, part, own = restore_planes(self.restorer, self.amap, images, inside, draw, self.precision)
            # Outside the foreground nothing is judged, so nothing is changed: air stays air.
            twin = torch.where(inside[:, None], twin, images)
            healthy[rows], maps[rows] = twin.cpu().contiguous(), part.cpu()
            if own is not None:
                scores[rows], scored = own.float().cpu(), True
        cases = itertools.groupby(range(len(keys)), key=lambda i: keys[i][0]) if self.amap.across else ()
        for _, same in cases:
            rows = list(same)
            here = slice(rows[0], rows[-1] + 1)
            maps[here] = self.amap.along(maps[here], foreground[here], [keys[i][1] for i in rows])
        if not (torch.isfinite(maps).all() and torch.isfinite(healthy).all()):
            raise Fault(
                "NONFINITE_MAP", "the restoration is not finite", "use another run, or --precision fp32", exit=BAD_MODEL
            )
        return healthy, maps, scores if scored else None

    def finding(
        self, scan: Scan, fitted: Fitted, healthy: Tensor, maps: Tensor, own: Tensor | None, seconds: float
    ) -> Finding:
        """Back on the native grid, with score, threshold and warnings."""
        native = self.canvas.undo_map(maps, fitted.placement)
        inside = self.amap.inside(fitted.foreground).bool()
        if own is not None:
            plane_scores, score = own.numpy(), float(own.mean())
        else:
            plane_scores = np.array([self.amap.score_of(m, f) for m, f in zip(maps, inside, strict=True)])
            score = self.amap.score_of(maps, inside)
        value, source = self.threshold_for(native)
        changed = [CHANGED] if self.changed else []
        return Finding(
            scan=scan,
            healthy=self.canvas.healthy(scan, healthy, fitted),
            map=native,
            foreground=self.canvas.undo_map(inside.float(), fitted.placement, nearest=True) > 0.5,
            score=score,
            plane_scores=plane_scores,
            threshold=value,
            threshold_source=source,
            healthy_percentile=self.percentile(score),
            warnings=[
                *scan.warnings,
                *self.windowed(scan),
                *self.canvas.unjudged(fitted),
                *self.unlike(fitted),
                *changed,
            ],
            seconds=seconds,
            made=self.made(),
            window=(fitted.placement.low[0], fitted.placement.high[0]) if self.canvas.normalise == "window" else None,
        )

    def threshold_for(self, native: np.ndarray) -> tuple[float, str]:
        """(value, source) for one map."""
        if self.choice == "stored":
            return float(self.stored["value"]), str(self.stored["source"])
        if self.choice == "otsu":
            from pseudohealthy.evaluation.thresholds import otsu

            return otsu(native).value, "otsu"
        return float(self.choice), "given"

    def percentile(self, score: float) -> float | None:
        """Share of healthy validation cases that score lower, in percent; the case itself counts among them, as in
        conformal prediction, so that no finite sample claims certainty."""
        scores = self.stored.get("case_scores") or []
        return 100 * sum(s < score for s in scores) / (len(scores) + 1) if scores else None

    def windowed(self, scan: Scan) -> list[str]:
        """A warning where a picture is believed to be in the run's HU window."""
        if not self.canvas.windows_a_picture(scan):
            return []
        return [f"WINDOWED: a picture without HU, taken as exported in window {self.canvas.windows[0]}"]

    def unlike(self, fitted: Fitted) -> list[str]:
        """Warnings where planes look unlike the training planes: foreground share or brightness outside 0.5..99.5 %."""
        if not self.fingerprint:
            return []
        inside = fitted.foreground
        busy = inside.flatten(1).any(1)
        if not busy.any():
            return ["EMPTY: no foreground found"]
        share = inside[busy].float().flatten(1).mean(1)
        light = (fitted.planes[busy].mean(1) * inside[busy]).flatten(1).sum(1) / inside[busy].flatten(1).sum(1)
        found = []
        for code, values, key in (
            ("OOD_FOREGROUND", share, "foreground_share"),
            ("OOD_INTENSITY", light, "foreground_brightness"),
        ):
            low, high = self.fingerprint[key][0], self.fingerprint[key][-1]
            margin = 0.1 * (high - low) + 0.01
            outside = ((values < low - margin) | (values > high + margin)).float().mean().item()
            if outside > 0.5:
                found.append(f"{code}: {100 * outside:.0f} % of planes are unlike the training planes")
        return found

    def made(self) -> dict[str, Any]:
        """How results of this detector were made."""
        return {
            "run": self.run.name,
            "recipe": self.run.recipe.name,
            "recipe_sha256": self.run.recipe_sha256,
            "weights_sha256": self.weights_sha256,
            "restorer": self.restorer.name,
            "settings": list(self.settings),
            "seed": self.run.seed,
            "network_calls": self.restorer.network_calls(),
            "postprocessing": self.amap.describe(self.restorer.describe()),
            "precision": str(self.precision).removeprefix("torch."),
            "device": self.device.type,
            "threshold_detail": {k: v for k, v in self.stored.items() if k != "case_scores"}
            if self.choice == "stored"
            else {},
        }


def plane_keys(fitted: Fitted) -> list[tuple[str, int]]:
    """Noise keys of a scan's planes: what the model sees decides, not file names, order or company."""
    content = hashlib.blake2b(fitted.planes.numpy().tobytes(), digest_size=16).hexdigest()
    return [(content, index) for index in range(len(fitted.planes))]
