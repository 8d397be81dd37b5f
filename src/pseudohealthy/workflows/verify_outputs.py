"""Check what `detect` wrote: hashes of files, and figures and maps computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy import io
from pseudohealthy.counts import many
from pseudohealthy.detection.detector import Detector
from pseudohealthy.detection.worker import input_sha256
from pseudohealthy.devices import pick_device
from pseudohealthy.errors import SOME_FAILED, Fault
from pseudohealthy.io import hashing
from pseudohealthy.io.read import load_source, only
from pseudohealthy.restorers.apply import NOISE_KEY
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.verification import (
    LARGEST,
    Verification,
    compared,
    tolerance_of,
    unlike,
)


def verify_outputs(
    folder: Path, data: Path | str | None, run: Path | str | None, device: str
) -> Verification:
    """Check every case's files against the hashes of its case.json, then one case restored
    again."""
    verification = Verification(damaged=SOME_FAILED)
    records, sound = dict(_cases(folder)), []
    for row in _rows(folder):
        name = row.get("case_id")
        if row.get("status") not in ("ok", "warn"):
            verification.add(
                f"case {name}", None, f"status: {row.get('status')}; nothing was written for it"
            )
        elif name not in records:
            verification.add(f"case {name}", None, "no case.json (kind json): no hash was kept")
        else:
            damage = _changed(folder, *records[name])
            files = records[name][1].get("outputs_sha256") or {}
            score = row.get("score") == records[name][1].get("score")
            verification.add(
                f"case {name}",
                not damage and score,
                damage
                or (
                    f"{many(len(files), 'file')}"
                    if score
                    else "findings.json and case.json give different scores"
                ),
            )
            sound += [] if damage else [records[name]]
    _restored_case(folder, sound, data, run, device, verification)
    return verification


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((folder / "findings.json").read_text(encoding="utf-8"))["findings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Fault(
            "NOT_VERIFIABLE", "findings.json cannot be read", "run detect again", exit=SOME_FAILED
        ) from None


def _cases(folder: Path) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """Yield (case id, (folder, case.json)) of every readable case.json."""
    for path in sorted(folder.rglob("case.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            yield record["case_id"], (path.parent, record)
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _changed(root: Path, case: Path, record: dict[str, Any]) -> str:
    """Say what is wrong with the files of a case; empty where all agree."""
    outputs, home = record.get("outputs") or {}, root.resolve()
    for name, digest in (record.get("outputs_sha256") or {}).items():
        path = (case / str(outputs.get(name, ""))).resolve()
        if not path.is_relative_to(home) or not path.is_file():
            return f"{name} is gone"
        if hashing.sha256([path]) != digest:
            return f"{path.name} has another sha256"
    return ""


def _restored_case(
    root: Path,
    sound: list[tuple[Path, dict[str, Any]]],
    data: Path | str | None,
    run: Path | str | None,
    device: str,
    verification: Verification,
) -> None:
    """Detect one case of unchanged files again, whose input is among `data`, by `run`."""
    name = "one case again"
    if data is None or run is None:
        verification.add(name, None, "needs --data INPUT and --run RUN")
        return
    inputs = {input_sha256(source): source for source in io.discover([data])[0]}
    match = next(
        ((case, record) for case, record in sound if record.get("input_sha256") in inputs), None
    )
    if match is None:
        verification.add(
            name, None, "no input among --data has the hash of a case whose files agree"
        )
        return
    case, record = match
    origin, name = record["made"], f"{record['case_id']} again"
    opened = Run.open(run)
    if origin.get("noise_key") != NOISE_KEY:
        verification.add(name, None, "made by an older version, under other noise")
        return
    if reason := unlike(origin.get("precision"), pick_device(device)):
        verification.add(name, None, reason)
        return
    precision = "bf16" if origin["precision"] == "bfloat16" else "fp32"
    detector = Detector(
        opened,
        device=device,
        precision=precision,
        threshold="otsu",
        settings=origin.get("settings") or [],
    )
    if detector.weights_sha256 != origin.get("weights_sha256"):
        verification.add(name, None, f"'{opened.name}' has other weights than the run that made it")
        return
    finding = detector(io.read(inputs[record["input_sha256"]], plane=detector.canvas.plane))
    verification.add(
        name, *compared(finding.score, record["score"], detector.device, detector.precision)
    )
    if "anomaly_map" not in record["outputs"]:
        verification.add(f"{name}: map", None, "no map was written (kind volumes)")
        return
    source = only(case / record["outputs"]["anomaly_map"])
    stored_map = load_source(source, detector.canvas.plane, LARGEST).voxels[0]
    if stored_map.shape != finding.map.shape:
        verification.add(
            f"{name}: map", None, f"the file holds {stored_map.shape}, the map {finding.map.shape}"
        )
        return
    difference = float(np.abs(stored_map - finding.map).max())
    tolerance = tolerance_of(detector.precision, float(np.ptp(stored_map)))
    verification.add(
        f"{name}: map",
        difference <= tolerance,
        f"largest difference {difference:.2g}, tolerance {tolerance:.2g}",
    )
