"""Is a run, or what `detect` wrote, still what it was when it was made? Every line says agrees,
DIFFERS or not checked.

Hashes are compared with those in run.json or case.json, and one case is restored again and compared
with what was kept. This finds damage and mistakes; it is no signature: who can change a file can
change the record of its hash as well.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudohealthy import io, models
from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.detection.detector import Detector
from pseudohealthy.detection.worker import input_sha256
from pseudohealthy.devices import computes_bf16, pick_device
from pseudohealthy.errors import BAD_MODEL, NO_INPUT, SOME_FAILED, Fault
from pseudohealthy.io import hashing
from pseudohealthy.io.read import load_source, only
from pseudohealthy.restorers.apply import NOISE_KEY, How, Stack, apply
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs.pseudonyms import namer
from pseudohealthy.runs.run import Run
from pseudohealthy.training.finish import HASHED
from pseudohealthy.training.plane_store import build_cache

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
AGREES, DIFFERS, UNCHECKED = "agrees", "DIFFERS", "not checked"
# Largest difference of a map or score that counts as the same, as a share of the map's range (of a
# score: of itself; of either, where it is below 1, of 1): other processors and numbers of threads
# round otherwise, and a walk of many steps adds that up. Only results of the same precision are
# compared.
FLOAT32, BFLOAT16 = 1e-3, 5e-2
LARGEST = 512_000_000  # voxels


@dataclass(frozen=True)
class Check:
    """what: was looked at; result: `AGREES`, `DIFFERS` or `UNCHECKED`; detail: with which figure,
    or why not."""

    what: str
    result: str
    detail: str = ""


@dataclass
class Verification:
    """All checks, and the exit code they mean: 0 when none differs, else `damaged` (5 for a run, 4
    for outputs)."""

    checks: list[Check] = field(default_factory=list)
    damaged: int = BAD_MODEL

    def add(self, what: str, same: bool | None, detail: str = "") -> bool:
        self.checks.append(
            Check(what, UNCHECKED if same is None else AGREES if same else DIFFERS, detail)
        )
        return bool(same)

    def count(self, result: str) -> int:
        return sum(check.result == result for check in self.checks)

    @property
    def exit(self) -> int:
        return self.damaged if self.count(DIFFERS) else 0

    def as_dict(self) -> dict[str, Any]:
        counts = {result: self.count(result) for result in (AGREES, DIFFERS, UNCHECKED)}
        return {
            "checks": [asdict(check) for check in self.checks],
            "counts": counts,
            "exit": self.exit,
        }

    def text(self) -> str:
        """A table, and the three counts."""
        width = max(len(check.what) for check in self.checks)
        lines = [f"{c.what:{width}}  {c.result:11}  {c.detail}".rstrip() for c in self.checks]
        return "\n".join(
            [*lines, ", ".join(f"{self.count(r)} {r}" for r in (AGREES, DIFFERS, UNCHECKED))]
        )


def verify(
    folder: Path | str,
    *,
    data: Path | str | None = None,
    run: Path | str | None = None,
    device: str = "auto",
) -> Verification:
    """Check a run, or an output folder of `detect`; the command ``verify``. Nothing in either is
    written.

    data: of a run, its data (default: where they lay in training); of outputs, the inputs they were
    made from. run: the run that made the outputs; without it and `data` only hashes are compared.
    Fault NOT_VERIFIABLE (exit 3) for a folder that is neither.
    """
    folder = models.folder_of(folder)
    if (folder / "recipe.toml").is_file():
        return verify_run(Run.open(folder), data, device)
    if (folder / "findings.json").is_file():
        return verify_outputs(folder, data, run, device)
    raise Fault(
        "NOT_VERIFIABLE",
        f"'{folder.name}' is neither a run nor an output folder of detect",
        "name a folder with recipe.toml or findings.json",
        exit=NO_INPUT,
    )


# -- a run -----------------------------------------------------------------------------------------
def verify_run(run: Run, data: Path | str | None, device: str) -> Verification:
    """Recipe, weights, split list, threshold, fingerprint against run.json; then one validation
    case, restored again."""
    found = Verification()
    status = run.record.get("status")
    found.add(
        "run.json", None if status not in ("finished", "imported") else True, f"status: {status}"
    )
    recorded = run.record.get("recipe_sha256")
    found.add(
        "recipe.toml",
        None if recorded is None else not run.changed,
        "run.json records no hash" if recorded is None else f"sha256 {run.recipe_sha256[:12]}",
    )
    restorer = _weights(run, found)
    hashes = run.record.get("files_sha256") or {}
    for name in HASHED:
        path = run.folder / name
        if name not in hashes:
            found.add(
                name,
                None,
                "run.json records no hash of it" if path.is_file() else "the run has none",
            )
        elif not path.is_file():
            found.add(name, False, "it is gone")
        else:
            digest = hashing.sha256([path])
            found.add(name, digest == hashes[name], f"sha256 {digest[:12]}")
    manifest = _manifest(run, data, found)
    _validation_case(run, restorer, manifest, device, found)
    return found


def _weights(run: Run, found: Verification) -> Restorer | None:
    """The model as `detect` would load it, or None where it is refused."""
    recorded = run.record.get("weights_sha256")
    try:
        path = run.weights()
        restorer, sha256 = run.restorer(path)
    except Fault as fault:
        found.add("weights", False, f"{fault.code}: {fault.message}")
        return None
    if recorded is None:
        found.add("weights", None, f"{path.name} loads, but run.json records no hash of it yet")
    else:
        found.add(
            "weights",
            recorded == sha256,
            f"{path.name}, sha256 {sha256[:12]}, loads into the recipe's network",
        )
    return restorer if recorded in (None, sha256) else None


def _manifest(run: Run, data: Path | str | None, found: Verification) -> Manifest | None:
    """The list of cases the run was trained on, where it can be reached and is the same."""
    recorded, where = run.record.get("manifest_sha256"), run.record.get("data")
    if recorded is None or (data is None and where is None):
        found.add("list of cases", None, "the run was not trained here on data")
        return None
    try:
        place = Path(data) if data is not None else run.folder / str(where)
        how = {"dedupe": bool(run.record.get("dedupe")), "names": run.record.get("names", "path")}
        manifest = load(place, **how)
    except Fault as fault:
        found.add(
            "list of cases",
            None,
            f"{fault.code}: the data are not where they were; name them with --data",
        )
        return None
    same = manifest.sha256 == recorded
    found.add(
        "list of cases", same, f"{many(len(manifest), 'case')}, sha256 {manifest.sha256[:12]}"
    )
    return manifest if same else None


def _validation_case(
    run: Run, restorer: Restorer | None, manifest: Manifest | None, device: str, found: Verification
) -> None:
    """The score of the case that training kept, computed again from its file."""
    what, kept = "validation case", run.record.get("kept_case")
    if restorer is None or manifest is None:
        found.add(
            what,
            None,
            "needs weights that agree" if restorer is None else "needs the data of the run",
        )
        return
    if not kept:
        found.add(what, None, "run.json keeps no validation score")
        return
    if run.record.get("noise_key") != NOISE_KEY:
        found.add(
            what,
            None,
            "its score was made by an older version, under other noise; train --resume makes it"
            " anew",
        )
        return
    try:
        called = namer(run)
    except Fault as fault:
        found.add(what, None, fault.message)
        return
    chosen = [case for case in manifest if called("case", case.case_id) == kept["case_id"]]
    place = pick_device(device)
    if why := unlike(run.record.get("precision"), place):
        found.add(what, None, why)
        return
    precision = PRECISIONS[run.record["precision"]]
    with tempfile.TemporaryDirectory() as folder:
        try:
            store = build_cache(
                Manifest(chosen, manifest.root), run.recipe.make_canvas(), Path(folder)
            )
        except Fault as fault:
            found.add(what, False, f"it cannot be read: {fault.code}")
            return
        rows = store.select("val", HEALTHY)
        if len(rows) != kept["planes"]:
            found.add(
                what,
                False,
                f"{many(len(rows), 'plane')} instead of {kept['planes']}: its file has changed",
            )
            return
        places = store.index["plane"].to_numpy()[rows].tolist()
        stack = Stack.whole(store.images(rows), store.foreground(rows), places)
        how = How(seed=run.seed, device=place, precision=precision)
        score = apply(restorer.to(place), run.recipe.make_map(), [stack], how)[0].score
    found.add(what, *compared(score, kept["score"], place, precision))


def unlike(made: str | None, place: torch.device) -> str:
    """Why a result made in this precision cannot be compared with one of this device; empty where
    it can."""
    if made not in PRECISIONS:
        return "it does not say in which precision it was made"
    if made == "bfloat16" and not computes_bf16(place):
        return (
            f"made in bfloat16, which this {place.type} does not compute in; precisions are not"
            " compared with each other"
        )
    return ""


def compared(
    value: float, kept: float, place: torch.device, precision: torch.dtype
) -> tuple[bool, str]:
    """(whether two scores are the same, the sentence that says by how much they may differ)."""
    tolerance = tolerance_of(precision, abs(kept))
    words = (
        f"score {value:.6g}, kept {kept:.6g}, tolerance {tolerance:.2g} ({place.type},"
        f" {str(precision)[6:]})"
    )
    return abs(value - kept) <= tolerance, words


def tolerance_of(precision: torch.dtype, size: float) -> float:
    return (BFLOAT16 if precision == torch.bfloat16 else FLOAT32) * max(1.0, size)


# -- what detect wrote -----------------------------------------------------------------------------
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
