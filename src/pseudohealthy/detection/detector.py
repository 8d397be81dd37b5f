"""A run made ready: scan in, finding out."""

from __future__ import annotations

import copy
import difflib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from pseudohealthy import io
from pseudohealthy.counts import many
from pseudohealthy.detection.domain import Domain, Verdict
from pseudohealthy.detection.finding import Finding
from pseudohealthy.devices import pick_device, precision_of
from pseudohealthy.errors import BAD_MODEL, USAGE, Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.marks import Range
from pseudohealthy.metrics.thresholds import otsu
from pseudohealthy.networks.precision import for_inference
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.progress import say
from pseudohealthy.registry import plugins
from pseudohealthy.restorers.apply import NOISE_KEY, Applied, How, Part, Stack, read, restorations
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs.changes import same_training
from pseudohealthy.runs.run import Run
from pseudohealthy.settings import coerce

OLD = (
    "OLD_SCORES: threshold and healthy percentile were computed the old way ({}), by an older"
    " version or under other settings; train --resume makes them anew"
)
THRESHOLDS = ("stored", "otsu")
GIVE = f"give a number from 0, {' or '.join(THRESHOLDS)}"
Batch = Annotated[int, Range(1, 65_536)]
CHANGED = (
    "RUN_CHANGED: the recipe is not the one this run was trained with; results may mean something"
    " else"
)


def threshold_of(said: float | str) -> float | str:
    """A threshold as it may be given: "stored", "otsu" or a map value. Fault THRESHOLD (exit 2) for
    anything else."""
    if said in THRESHOLDS:
        return said
    try:
        value = float(said)
    except (TypeError, ValueError, OverflowError):
        near = difflib.get_close_matches(str(said), THRESHOLDS, n=1)
        cure = f"did you mean '{near[0]}'?" if near else GIVE
        raise Fault("THRESHOLD", f"'{said}' is no threshold", cure, exit=USAGE) from None
    if not 0 <= value < math.inf:  # a map is never below 0, and nothing compares with NaN
        raise Fault("THRESHOLD", f"a threshold of {said}", GIVE, exit=USAGE)
    return value


def load(run: Path | str, **options: Any) -> Detector:
    """The detector of a run folder; options as for `Detector`."""
    return Detector(Run.open(run), **options)


class Detector:
    """Finds what differs from health. Call it with a path, a folder, a `Scan`, an array or a
    tensor.

    threshold: a number, "stored" (the run's healthy quantile) or "otsu" (per case; always finds
    something).
    batch: planes restored at once; neither it nor the order of cases changes a result. precision:
    "auto", "bf16", "fp32".
    settings: changes to the run's recipe, ``section.key=value``, such as "restorer.walk.calls=10";
    they are part of `made`.
    strict_domain: refuse a scan that is unlike those the run was trained on, instead of warning of
    it.
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
        strict_domain: bool = False,
    ):
        trained = run.recipe.make_map()
        self.changed = run.changed
        if settings:
            same_training(run.recipe, settings)
            run = replace(run, recipe=copy.deepcopy(run.recipe).set(settings).checked())
        self.run, self.batch, self.settings = run, coerce(batch, Batch, "batch"), tuple(settings)
        self.device = pick_device(device)
        self.precision = precision_of(precision, self.device)
        self.canvas, self.amap = run.recipe.make_canvas(), run.recipe.make_map()
        self.amap.fits(self.canvas.size)
        self.weights_sha256 = None
        if restorer is None:
            restorer, self.weights_sha256 = run.restorer()
            self.check_standard(restorer, trained)
        self.restorer = restorer.to(self.device).eval()
        for_inference(self.restorer, self.precision)
        self.stored = run.read_json("threshold.json") or {}
        recorded = run.record.get("weights_sha256")
        unlike = self.weights_sha256 and recorded not in (None, self.weights_sha256)
        if unlike and not run.usual:
            self.stored = {}  # threshold and healthy scores are of other weights
        elif self.stored and unlike:
            say(
                f"note: the stored threshold of '{run.name}' was set for earlier weights: its"
                f" training was extended and is not done; go on with: {run.going_on}"
            )
        self.fingerprint = run.read_json("fingerprint.json") or {}
        self.domain = (
            Domain.from_json(self.fingerprint["domain"]) if "domain" in self.fingerprint else None
        )
        self.choice = self._choice(threshold)
        self.strict_domain = strict_domain
        if strict_domain and (self.domain is None or not self.domain.strict):
            cases = 0 if self.domain is None else len(self.domain.scores)
            found = (
                f"the domain check of run '{run.name}' rests on"
                f" {many(cases, 'healthy validation case')}, too few to refuse a scan"
            )
            raise Fault(
                "DOMAIN",
                found,
                "leave --strict-domain out, or train with 49 or more",
                exit=BAD_MODEL,
            )

    def check_standard(self, restorer: Restorer, trained: AnomalyMap) -> None:
        """Fault where the map measures in healthy spreads that were not learnt, or of residuals
        smoothed otherwise."""
        # A restorer that describes itself makes its own map.
        if self.amap.standardise == "none" or restorer.unfiltered or restorer.describe():
            return
        same = (self.amap.standardise, self.amap.smooth) == (trained.standardise, trained.smooth)
        if not (same and restorer.calibration_planes):
            raise Fault(
                "STANDARDISE",
                f"run '{self.run.name}' has not learnt healthy residuals for map.standardise ="
                f" {self.amap.standardise} and map.smooth = {self.amap.smooth:g}",
                "train --resume it with these settings and healthy validation data, or --set"
                " map.standardise=none",
                exit=BAD_MODEL,
            )

    def _choice(self, threshold: float | str) -> float | str:
        threshold = threshold_of(threshold)
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
            scan = io.read(scan, plane=self.canvas.plane)
        return next(self.stream([scan]))

    def stream(self, scans: Iterable[Scan]) -> Iterator[Finding]:
        """Findings in order; planes of several small scans share a batch, and only those scans are
        in memory."""
        waiting: list[tuple[Scan, Fitted]] = []
        planes = 0
        for scan in scans:
            fitted = self.fit(scan)
            waiting.append((scan, fitted))
            planes += len(fitted.planes)
            if planes >= self.batch:
                yield from self.restore(waiting)
                waiting, planes = [], 0
        if waiting:
            yield from self.restore(waiting)

    def fit(self, scan: Scan) -> Fitted:
        """The scan on the run's canvas. Faults as `Canvas.fit`, and OUT_OF_DOMAIN where the domain
        is strict."""
        fitted = self.canvas.fit(scan)
        verdict = self.verdict(fitted) if self.strict_domain else None
        if verdict is not None and verdict.out:
            cure = "choose a run for such scans, or leave --strict-domain out"
            raise Fault("OUT_OF_DOMAIN", verdict.found(), cure, case=scan.name)
        return fitted

    def verdict(self, fitted: Fitted) -> Verdict | None:
        """Does a fitted scan look like those the run was trained on? None where nothing can
        tell."""
        return None if self.domain is None else self.domain.judge(fitted.planes, fitted.foreground)

    def restore(
        self, pairs: Sequence[tuple[Scan, Fitted]], spread: bool = True
    ) -> Iterator[Finding]:
        """Findings of scans that are on the canvas already; spread: with the standard error of
        their scores."""
        begun = time.perf_counter()
        stacks = [Stack.of(self.canvas, fitted) for _, fitted in pairs]
        found = self.apply(stacks, spread)
        seconds = (time.perf_counter() - begun) / sum(len(stack.planes) for stack in stacks)
        for (scan, fitted), one in zip(pairs, found, strict=True):
            yield self.finding(scan, fitted, one, seconds * len(fitted.planes))

    def apply(self, stacks: Sequence[Stack], spread: bool = False) -> list[Applied]:
        """Twins, maps and scores of cases on the canvas, restored in batches."""
        return self.read(stacks, self.restorations(stacks), spread)

    def restorations(self, stacks: Sequence[Stack]) -> Iterator[Part]:
        """The first half of `apply`: twins, made while they are asked for."""
        how = How(
            seed=self.run.seed, device=self.device, precision=self.precision, batch=self.batch
        )
        return restorations(self.restorer, stacks, how)

    def read(
        self, stacks: Sequence[Stack], parts: Iterable[Part], spread: bool = False
    ) -> list[Applied]:
        """The second half: maps and scores of what was restored, also by a detector of other map
        settings."""
        return read(self.restorer, self.amap, stacks, parts, spread)

    def finding(self, scan: Scan, fitted: Fitted, found: Applied, seconds: float) -> Finding:
        """Back on the native grid, with score, threshold and warnings."""
        native = self.canvas.undo_map(found.maps, fitted.placement)
        inside = self.amap.inside(fitted.foreground).bool()
        value, source = self.threshold_for(native)
        changed = [CHANGED] if self.changed else []
        changed += self.outdated()
        verdict = self.verdict(fitted)
        return Finding(
            scan=scan,
            healthy=self.canvas.healthy(scan, found.healthy, fitted),
            map=native,
            foreground=self.canvas.undo_map(inside.float(), fitted.placement, nearest=True) > 0.5,
            score=found.score,
            score_sd=found.score_sd,
            plane_scores=found.plane_scores,
            threshold=value,
            threshold_source=source,
            healthy_percentile=self.percentile(found.score),
            healthy_cases=len(self.stored.get("case_scores") or ()) or None,
            domain=verdict,
            warnings=[
                *([verdict.text()] if verdict and verdict.out else []),
                *scan.warnings,
                *self.windowed(scan),
                *self.canvas.unjudged(fitted),
                *(self.unlike(fitted) if verdict is None else []),
                *changed,
            ],
            seconds=seconds,
            made=self.made(),
            window=(
                (fitted.placement.low[0], fitted.placement.high[0])
                if self.canvas.normalise == "window"
                else None
            ),
        )

    def threshold_for(self, native: np.ndarray) -> tuple[float, str]:
        """(value, source) for one map."""
        if self.choice == "stored":
            return float(self.stored["value"]), str(self.stored["source"])
        if self.choice == "otsu":
            return otsu(native).value, "otsu"
        return float(self.choice), "given"

    def percentile(self, score: float) -> float | None:
        """Share of healthy validation cases that score lower, in percent; the case itself counts
        among them, as in conformal prediction, so that no finite sample claims certainty."""
        scores = self.stored.get("case_scores") or []
        return 100 * sum(s < score for s in scores) / (len(scores) + 1) if scores else None

    def outdated(self) -> list[str]:
        """A warning where stored scores are of other planes, or under other noise, than those of
        this detector."""
        own = {"noise_key": NOISE_KEY, "plane_set": self.canvas.plane_set}
        other = [
            name.replace("_", " ") for name, value in own.items() if self.stored.get(name) != value
        ]
        return [OLD.format(", ".join(other))] if other and self.stored.get("case_scores") else []

    def windowed(self, scan: Scan) -> list[str]:
        """A warning where a picture is believed to be in the run's HU window."""
        if not self.canvas.windows_a_picture(scan):
            return []
        return [
            f"WINDOWED: a picture without HU, taken as exported in window {self.canvas.windows[0]}"
        ]

    def unlike(self, fitted: Fitted) -> list[str]:
        """Of runs without a domain check: foreground share or brightness of planes outside
        0.5..99.5 % of training."""
        if not self.fingerprint:
            return []
        inside = fitted.foreground
        busy = inside.flatten(1).any(1)
        if not busy.any():
            return ["EMPTY: no foreground found"]
        share = inside[busy].float().flatten(1).mean(1)
        light = (fitted.planes[busy].mean(1) * inside[busy]).flatten(1).sum(1) / inside[
            busy
        ].flatten(1).sum(1)
        found = []
        for code, values, key in (
            ("OOD_FOREGROUND", share, "foreground_share"),
            ("OOD_INTENSITY", light, "foreground_brightness"),
        ):
            low, high = self.fingerprint[key][0], self.fingerprint[key][-1]
            margin = 0.1 * (high - low) + 0.01
            outside = ((values < low - margin) | (values > high + margin)).float().mean().item()
            if outside > 0.5:
                found.append(
                    f"{code}: {100 * outside:.0f} % of planes are unlike the training planes"
                )
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
            "noise_key": NOISE_KEY,
            "plane_set": self.canvas.plane_set,
            "network_calls": self.restorer.network_calls(),
            "postprocessing": self.amap.describe(self.restorer.describe()),
            "precision": str(self.precision).removeprefix("torch."),
            "device": self.device.type,
            **plugins(),
            "threshold_detail": (
                {k: v for k, v in self.stored.items() if k != "case_scores"}
                if self.choice == "stored"
                else {}
            ),
        }
