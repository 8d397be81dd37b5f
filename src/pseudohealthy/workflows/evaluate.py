"""`evaluate`: a run and the trivial controls over the test split of a manifest, under a protocol."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pseudohealthy.counts import many
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import NO_INPUT, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.leaks import refuse_leaks
from pseudohealthy.evaluation.measure import evenly, has_threshold, measured, scored_by, stored_thresholds, wanted
from pseudohealthy.evaluation.records import CONTROL
from pseudohealthy.evaluation.restoration import TwinErrors, sentences
from pseudohealthy.io.output_folder import output_folder
from pseudohealthy.progress import duration, say
from pseudohealthy.report import evaluation_tables
from pseudohealthy.report.page import evaluation_report
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.runs.run import Run


def evaluate(
    run: Run | Path | str,
    data: Path | str | Manifest,
    out: Path | str | None = None,
    *,
    protocol: str = "strict",
    controls: bool = True,
    device: str = "auto",
    batch: int = 32,
    allow_leak: bool = False,
    limit: int = 0,
    overwrite: bool = False,
    resample_mask: bool = False,
    weights: Path | str = "",
) -> Evaluation:
    """Evaluate a run on the test split of `data`, beside the trivial controls; the command ``evaluate``.

    protocol: one of `protocols.PROTOCOLS`, or "NAME:published"; where it wants validation cases, those of the split
    "val" are measured too. Refuses cases whose patient the run was trained or validated on (Fault LEAK, exit 2) unless `allow_leak`. limit: at
    most so many test cases, evenly spread (0: all). Cases that cannot be read are left out and named in the notes.
    resample_mask: masks on another grid in mm are read at the nearest voxel instead of refused, and each one is named.
    weights: "best_model", "best_model_loss", "last" or a file; by default best_model, of a run that has none last. The
    stored threshold is of best_model and of no others.
    """
    chosen, _ = protocols.find(protocol)
    run = run if isinstance(run, Run) else Run.open(run)
    if weights:
        run = replace(run, which=str(weights))
    file = run.weights()  # refused before anything is written
    manifest = data if isinstance(data, Manifest) else load(Path(data))
    test = list(manifest.split("test"))
    if not test:
        raise Fault("NO_TEST", "the manifest has no test case", "give some cases split = test", exit=NO_INPUT)
    leak = refuse_leaks(run, test, allow_leak)
    notes = list(leak)
    if resample_mask:
        manifest = Manifest([replace(c, extra={**c.extra, "mask_resample": "1"}) for c in manifest], manifest.root)
        test = list(manifest.split("test"))
    test = evenly(test, limit)
    with output_folder(out, overwrite=overwrite) as folder:
        own = run.usual
        detector = Detector(
            run, device=device, batch=batch, threshold="stored" if own and has_threshold(run) else "otsu"
        )
        notes += detector.outdated()
        thresholds = stored_thresholds(run)
        if not own:
            notes.append(f"weights: {file.name}, sha256 {str(detector.weights_sha256)[:12]}")
            if not detector.stored and detector.restorer.name in thresholds:
                del thresholds[detector.restorer.name]
                notes[-1] += "; the stored threshold is of other weights and not used"
        methods = {detector.restorer.name: detector}
        if controls:
            for name, restorer in control_restorers(detector.restorer.cpu()).items():
                methods[CONTROL + " " + name] = Detector(
                    run, device=device, batch=batch, threshold=0.0, restorer=restorer
                )
            detector.restorer.to(detector.device)
        twins = TwinErrors()
        begun = time.perf_counter()
        results = measured(methods, test, batch, notes, twins, "evaluating")
        if not results:
            raise Fault(
                "NO_INPUT",
                f"none of {many(len(test), 'test case')} could be read",
                notes[0] if notes else "",
                exit=NO_INPUT,
            )
        validation = wanted(list(manifest.split("val")), chosen.validation, limit)
        postprocessing = detector.amap.describe(detector.restorer.describe())
        result = protocols.measure(
            protocol,
            results,
            protocols.Setting(
                thresholds=thresholds,
                validation=measured(methods, validation, batch, notes, TwinErrors(), "validating")
                if validation
                else (),
                mask="foreground and reference",
                postprocessing=postprocessing,
            ),
        )
        restored = twins.records(postprocessing)
        stated: dict[str, Any] = {"caveat": " ".join(leak), **scored_by(detector)}
        stated["weights_sha256"] = detector.weights_sha256 or ""
        result.records = [replace(record, **stated) for record in [*result.records, *restored]]
        result.notes += notes + sentences(restored)
        result.notes.append(f"{many(len(test), 'test case')}, {many(detector.restorer.network_calls(), 'network call')} an image, "
                            f"{duration(time.perf_counter() - begun)} with all controls")  # fmt: skip
        result.notes += detector.canvas.limits()
        if folder is not None:
            evaluation_tables.save(result, folder)
            evaluation_report(
                folder, result, detector.made() | {"data": manifest.root.name, "manifest_sha256": manifest.sha256}
            )
            say(f"report: {folder / 'report.html'}")
        return result
