"""`evaluate`: a run and the trivial controls over the test split of a manifest, under a protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pseudohealthy import cases, io
from pseudohealthy.canvas import Fitted
from pseudohealthy.cases import ANOMALOUS, HEALTHY, Case, Manifest
from pseudohealthy.detector import Detector, plane_keys
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation.outcome import Evaluation
from pseudohealthy.evaluation.protocols import strict
from pseudohealthy.evaluation.records import CONTROL, CaseResult
from pseudohealthy.evaluation.restoration import TwinErrors, sentences
from pseudohealthy.evaluation.thresholds import Threshold
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers.baselines import control_restorers
from pseudohealthy.run import Run, prepare_folder
from pseudohealthy.scan import Scan


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
) -> Evaluation:
    """Evaluate a run on the test split of `data`, beside the trivial controls; the command ``evaluate``.

    Refuses cases whose patient the run was trained or validated on (Fault LEAK, exit 2) unless `allow_leak`. limit: at
    most so many test cases, evenly spread (0: all). Cases that cannot be read are left out and named in the notes.
    """
    if protocol != "strict":
        raise Fault("PROTOCOL", f"there is no protocol '{protocol}'", "use strict", exit=USAGE)
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = data if isinstance(data, Manifest) else cases.load(Path(data))
    test = list(manifest.split("test"))
    if not test:
        raise Fault("NO_TEST", "the manifest has no test case", "give some cases split = test", exit=NO_INPUT)
    notes = refuse_leaks(run, test, allow_leak)
    if limit and limit < len(test):
        test = [test[i] for i in np.linspace(0, len(test) - 1, limit).round().astype(int)]
    folder = prepare_folder(out, overwrite=overwrite) if out is not None else None
    detector = Detector(run, device=device, batch=batch, threshold="stored" if has_threshold(run) else "otsu")
    methods = {detector.restorer.name: detector}
    if controls:
        for name, restorer in control_restorers(detector.restorer.cpu()).items():
            methods[CONTROL + " " + name] = Detector(run, device=device, batch=batch, threshold=0.0, restorer=restorer)
        detector.restorer.to(detector.device)
    results: list[CaseResult] = []
    twins = TwinErrors()
    begun = time.perf_counter()
    with Progress("evaluating", len(test)) as bar:
        for group in batches(readable(test, detector, notes, bar), batch):
            for name, method in methods.items():
                results += measure(name, method, group, twins)
            bar.advance(len(group))
    if not results:
        raise Fault(
            "NO_INPUT", f"none of {len(test)} test cases could be read", notes[0] if notes else "", exit=NO_INPUT
        )
    result = strict(
        results,
        thresholds=stored_thresholds(run),
        mask="foreground and reference",
        grid="native",
        postprocessing=detector.amap.describe(detector.restorer.describe()),
    )
    restored = twins.records(detector.amap.describe(detector.restorer.describe()))
    result.records += restored
    result.notes += notes + sentences(restored)
    result.notes.append(f"{len(test)} test cases, {detector.restorer.network_calls()} network calls an image, "
                        f"{time.perf_counter() - begun:.0f} s with all controls")  # fmt: skip
    if folder is not None:
        result.save(folder)
        from pseudohealthy.report.page import evaluation_report

        evaluation_report(
            folder, result, detector.made() | {"data": manifest.root.name, "manifest_sha256": manifest.sha256}
        )
        say(f"report: {folder / 'report.html'}")
    return result


def has_threshold(run: Run) -> bool:
    return (run.read_json("threshold.json") or {}).get("value") is not None


def stored_thresholds(run: Run) -> dict[str, Threshold]:
    """The healthy-quantile thresholds of the run and of each control, by method name."""
    stored = run.read_json("threshold.json") or {}
    found = {
        run.recipe.restorer["name"]: stored,
        **{f"{CONTROL} {k}": v for k, v in stored.get("controls", {}).items()},
    }
    return {k: Threshold.from_dict(v) for k, v in found.items() if v.get("value") is not None}


def refuse_leaks(run: Run, test: list[Case], allow: bool) -> list[str]:
    """Fault LEAK when a test patient is one the run was trained or validated on; where allowed, a note that says so."""
    path = run.folder / "split.csv"
    if not path.is_file():
        return []
    import pandas as pd

    seen = pd.read_csv(path, dtype=str)
    known = set(seen.loc[seen["split"] != "test", "patient_id"])
    leaked = sorted({case.patient_id for case in test} & known)
    if leaked and not allow:
        raise Fault("LEAK", f"{len(leaked)} test patient(s) were in this run's training or validation data, first {leaked[0]}",
                    "evaluate on other patients, or add --allow-leak and say so", exit=USAGE)  # fmt: skip
    notes = (
        [f"LEAK: {len(leaked)} test patient(s) were in the training data; every figure is optimistic"] if leaked else []
    )
    for note in notes:
        say(f"warning: {note}")
    return notes


def readable(
    test: list[Case], detector: Detector, notes: list[str], bar: Progress
) -> Iterator[tuple[Case, Scan, Fitted, np.ndarray | None]]:
    """Cases on the canvas with their native reference; what cannot be read is noted and passed over."""
    for case in test:
        try:
            scan = io.read_image(case.image, case.root)
            truth = io.read_mask(case.mask, case.root, scan) if case.mask else None
            brain = io.read_mask(case.brain_mask, case.root, scan) if case.brain_mask else None
            yield case, scan, detector.canvas.fit(scan, mask=truth, brain_mask=brain), truth
        except Fault as fault:
            fault.case = fault.case or case.case_id
            notes.append(str(fault))
            say(str(fault), error=True)
            bar.advance()


def batches(items: Iterator, planes: int) -> Iterator[list]:
    """Consecutive cases until they fill a batch of planes."""
    group: list = []
    count = 0
    for item in items:
        group.append(item)
        count += len(item[2].planes)
        if count >= planes:
            yield group
            group, count = [], 0
    if group:
        yield group


def measure(name: str, detector: Detector, group: list, twins: TwinErrors) -> list[CaseResult]:
    """What one method says about some cases, as the protocol wants it: voxels on the native grid inside foreground or reference."""
    planes = torch.cat([fitted.planes for _, _, fitted, _ in group])
    foreground = torch.cat([fitted.foreground for _, _, fitted, _ in group])
    keys = [key for _, _, fitted, _ in group for key in plane_keys(fitted)]
    healthy, maps, own = detector.restore_planes(planes, foreground, keys)
    found, start = [], 0
    for case, scan, fitted, truth in group:
        here = slice(start, start + len(fitted.planes))
        start = here.stop
        inside = detector.amap.inside(fitted.foreground).bool()
        twins.add(name, case, detector.canvas, fitted, healthy[here])
        if own is not None:
            plane_scores, score = own[here].numpy(), float(own[here].mean())
        else:
            plane_scores = np.array([detector.amap.score_of(m, f) for m, f in zip(maps[here], inside, strict=True)])
            score = detector.amap.score_of(maps[here], inside)
        if truth is None and case.label == HEALTHY:
            truth = np.zeros(scan.shape[1:], bool)
        values = reference = labels = None
        if truth is not None:
            native = detector.canvas.undo_map(maps[here], fitted.placement)
            where = (detector.canvas.undo_map(fitted.foreground.float(), fitted.placement, nearest=True) > 0.5) | truth
            values, reference = native[where], truth[where]
            if len(fitted.planes) > 1:
                labels = np.where(truth.any((1, 2)), ANOMALOUS, HEALTHY)
        found.append(
            CaseResult(
                case_id=case.case_id,
                patient_id=case.patient_id,
                label=case.label,
                score=score,
                plane_scores=plane_scores if labels is not None else None,
                plane_labels=labels,
                map=values,
                truth=reference,
                method=name,
                voxel_ml=scan.voxel_ml,
            )
        )
    return found
