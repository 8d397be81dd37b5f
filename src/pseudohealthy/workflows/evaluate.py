"""`evaluate`: a run and the trivial controls on the test split of a manifest, under a protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from pseudohealthy.counts import many
from pseudohealthy.data.given import manifest_of
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.leaks import refuse_leaks
from pseudohealthy.evaluation.measure import (
    evenly,
    has_threshold,
    measured,
    scored_by,
    stored_thresholds,
    wanted,
)
from pseudohealthy.evaluation.records import CONTROL, Record
from pseudohealthy.evaluation.restoration import TwinErrors, sentences
from pseudohealthy.io.output_folder import output_folder
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.progress import duration, say
from pseudohealthy.report import evaluation_tables
from pseudohealthy.report.page import evaluation_report
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.request import verb


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run on the test split of `data`, beside the trivial controls; the command
    ``evaluate``.

    Args:
        run: a run, where it lies, or a detector, which is then measured as it is.
        data: a manifest, where it lies, or images (see `data.given.manifest`).
        out: folder for figures and report; None writes nothing.
        protocol: one of `protocols.PROTOCOLS`, or "NAME:published"; where it wants validation
            cases, those of the split "val" are measured too.
        controls: beside the run.
        device: as in `detect`.
        batch: planes restored at once; changes speed and memory only.
        allow_leak: also cases whose patient the run was trained or validated on, else Fault LEAK
            (exit 2).
        limit: at most so many test cases, evenly spread (0: all).
        overwrite: write into `out` although something lies there.
        resample_mask: masks on another grid in mm are read at the nearest voxel instead of refused,
            and each one is named.
        weights: "best_model", "best_model_loss", "last" or a file; by default best_model, of a run
            that has none last. The stored threshold is of best_model and of no others.

    Cases that cannot be read are left out and named in the notes.
    """

    run: Run | Detector | Path | str
    data: Any
    out: Path | str | None = None
    _: KW_ONLY
    protocol: str = "strict"
    controls: bool = True
    device: str = "auto"
    batch: int = 32
    allow_leak: bool = False
    limit: int = 0
    overwrite: bool = False
    resample_mask: bool = False
    weights: Path | str = ""

    def __call__(self) -> Evaluation:
        protocols.find(self.protocol)
        given = self.run if isinstance(self.run, Detector) else None
        asked = self.run.run if isinstance(self.run, Detector) else self.run
        run = asked if isinstance(asked, Run) else Run.open(asked)
        if self.weights and given:
            found, cure = "weights beside a detector", "give the run instead, or no weights"
            raise Fault("USAGE", found, cure, exit=USAGE)
        if self.weights:
            run = replace(run, which=str(self.weights))
        run.weights()  # refused before anything is written
        manifest = manifest_of(self.data)
        test = list(manifest.split("test"))
        if not test:
            raise Fault(
                "NO_TEST",
                "the manifest has no test case",
                "give some cases split = test",
                exit=NO_INPUT,
            )
        leak = refuse_leaks(run, test, self.allow_leak)
        if self.resample_mask:
            manifest = Manifest(
                [replace(c, extra={**c.extra, "mask_resample": "1"}) for c in manifest],
                manifest.root,
            )
            test = list(manifest.split("test"))
        test = evenly(test, self.limit)
        with output_folder(self.out, overwrite=self.overwrite) as folder:
            notes = list(leak)
            methods, thresholds = self.methods(run, notes, given)
            detector = next(iter(methods.values()))
            begun = time.perf_counter()
            result, twin_records = self.figures(
                methods, thresholds, test, list(manifest.split("val")), notes
            )
            stated: dict[str, Any] = {"caveat": " ".join(leak), **scored_by(detector)}
            stated["weights_sha256"] = detector.weights_sha256 or ""
            result.records = [
                replace(record, **stated) for record in [*result.records, *twin_records]
            ]
            result.notes += notes + sentences(twin_records)
            calls = many(detector.restorer.network_calls(), "network call")
            took = duration(time.perf_counter() - begun)
            result.notes.append(
                f"{many(len(test), 'test case')}, {calls} an image, {took} with all controls"
            )
            result.notes += detector.canvas.limits()
            if folder is not None:
                evaluation_tables.save(result, folder)
                origin = detector.made() | {
                    "data": manifest.root.name,
                    "manifest_sha256": manifest.sha256,
                }
                evaluation_report(folder, result, origin)
                say(f"report: {folder / 'report.html'}")
            return result

    def methods(
        self, run: Run, notes: list[str], given: Detector | None
    ) -> tuple[dict[str, Detector], dict[str, Threshold]]:
        """Return the run, first, and the controls, and the stored threshold of each, by name."""
        usual = run.usual
        choice = "stored" if usual and has_threshold(run) else "otsu"
        detector = given or Detector(run, device=self.device, batch=self.batch, threshold=choice)
        notes += detector.outdated()
        thresholds = stored_thresholds(run)
        if given and given.choice != "stored":
            thresholds.pop(given.restorer.name, None)
            if given.choice != "otsu":
                thresholds[given.restorer.name] = Threshold(float(given.choice), "given")
        if not usual:
            notes.append(
                f"weights: {run.weights().name}, sha256 {str(detector.weights_sha256)[:12]}"
            )
            if not detector.stored and detector.restorer.name in thresholds:
                del thresholds[detector.restorer.name]
                notes[-1] += "; the stored threshold is of other weights and not used"
        methods = {detector.restorer.name: detector}
        if self.controls:
            for name, restorer in control_restorers(detector.restorer.cpu()).items():
                options: dict[str, Any] = {
                    "device": self.device,
                    "batch": self.batch,
                    "threshold": 0.0,
                }
                methods[f"{CONTROL} {name}"] = Detector(run, restorer=restorer, **options)
            detector.restorer.to(detector.device)
        return methods, thresholds

    def figures(
        self,
        methods: dict[str, Detector],
        thresholds: dict[str, Threshold],
        test: list[Case],
        validation: Sequence[Case],
        notes: list[str],
    ) -> tuple[Evaluation, list[Record]]:
        """Return the protocol's figures, and those of the twins.

        Raises:
            Fault: NO_INPUT (exit 3) where no case can be read.
        """
        twins = TwinErrors()
        results = measured(methods, test, self.batch, notes, twins, "evaluating")
        if not results:
            message = f"none of {many(len(test), 'test case')} could be read"
            raise Fault("NO_INPUT", message, notes[0] if notes else "", exit=NO_INPUT)
        tuning = wanted(list(validation), protocols.find(self.protocol)[0].validation, self.limit)
        detector = next(iter(methods.values()))
        words = detector.amap.describe(detector.restorer.describe())
        setting = protocols.Setting(
            thresholds=thresholds,
            validation=measured(methods, tuning, self.batch, notes, TwinErrors(), "validating")
            if tuning
            else (),
            mask="foreground and reference",
            postprocessing=words,
        )
        return protocols.measure(self.protocol, results, setting), twins.records(words)


evaluate = verb(Evaluate)
