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
    """Every case's files against the hashes of its case.json; then one case, restored again from
    its input."""
    found = Verification(damaged=SOME_FAILED)
    said, sound = dict(_cases(folder)), []
    for row in _rows(folder):
        name = row.get("case_id")
        if row.get("status") not in ("ok", "warn"):
            found.add(
                f"case {name}", None, f"status: {row.get('status')}; nothing was written for it"
            )
        elif name not in said:
            found.add(f"case {name}", None, "no case.json (kind json): no hash was kept")
        else:
            wrong = _changed(folder, *said[name])
            files = said[name][1].get("outputs_sha256") or {}
            score = row.get("score") == said[name][1].get("score")
            found.add(
                f"case {name}",
                not wrong and score,
                wrong
                or (
                    f"{many(len(files), 'file')}"
                    if score
                    else "findings.json and case.json give different scores"
                ),
            )
            sound += [] if wrong else [said[name]]
    _restored_case(folder, sound, data, run, device, found)
    return found


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((folder / "findings.json").read_text(encoding="utf-8"))["findings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Fault(
            "NOT_VERIFIABLE", "findings.json cannot be read", "run detect again", exit=SOME_FAILED
        ) from None


def _cases(folder: Path) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """(case id, (folder, case.json)) of every readable case.json."""
    for path in sorted(folder.rglob("case.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            yield said["case_id"], (path.parent, said)
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _changed(root: Path, case: Path, said: dict[str, Any]) -> str:
    """What is wrong with the files of a case, in words; empty where all agree."""
    places, home = said.get("outputs") or {}, root.resolve()
    for name, digest in (said.get("outputs_sha256") or {}).items():
        path = (case / str(places.get(name, ""))).resolve()
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
    found: Verification,
) -> None:
    """One case of unchanged files whose input is among `data`, detected again by `run`."""
    what = "one case again"
    if data is None or run is None:
        found.add(what, None, "needs --data INPUT and --run RUN")
        return
    inputs = {input_sha256(source): source for source in io.discover([data])[0]}
    pair = next(((case, said) for case, said in sound if said.get("input_sha256") in inputs), None)
    if pair is None:
        found.add(what, None, "no input among --data has the hash of a case whose files agree")
        return
    case, said = pair
    made, what = said["made"], f"{said['case_id']} again"
    opened = Run.open(run)
    if made.get("noise_key") != NOISE_KEY:
        found.add(what, None, "made by an older version, under other noise")
        return
    if why := unlike(made.get("precision"), pick_device(device)):
        found.add(what, None, why)
        return
    precision = "bf16" if made["precision"] == "bfloat16" else "fp32"
    detector = Detector(
        opened,
        device=device,
        precision=precision,
        threshold="otsu",
        settings=made.get("settings") or [],
    )
    if detector.weights_sha256 != made.get("weights_sha256"):
        found.add(what, None, f"'{opened.name}' has other weights than the run that made it")
        return
    finding = detector(io.read(inputs[said["input_sha256"]], plane=detector.canvas.plane))
    found.add(what, *compared(finding.score, said["score"], detector.device, detector.precision))
    if "anomaly_map" not in said["outputs"]:
        found.add(f"{what}: map", None, "no map was written (kind volumes)")
        return
    source = only(case / said["outputs"]["anomaly_map"])
    kept = load_source(source, detector.canvas.plane, LARGEST).voxels[0]
    if kept.shape != finding.map.shape:
        found.add(f"{what}: map", None, f"the file holds {kept.shape}, the map {finding.map.shape}")
        return
    apart = float(np.abs(kept - finding.map).max())
    tolerance = tolerance_of(detector.precision, float(np.ptp(kept)))
    found.add(
        f"{what}: map",
        apart <= tolerance,
        f"largest difference {apart:.2g}, tolerance {tolerance:.2g}",
    )
