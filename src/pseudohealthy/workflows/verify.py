"""Is a run, or what `detect` wrote, still what it was when it was made?

Every line says agrees, DIFFERS or not checked. Hashes are compared with those in run.json or
case.json, and one case is restored again and compared with what was kept. This finds damage and
mistakes; it is no signature: who can change a file can change the record of its hash as well.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pseudohealthy import models
from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.devices import pick_device
from pseudohealthy.errors import NO_INPUT, Fault
from pseudohealthy.io import hashing
from pseudohealthy.restorers.apply import NOISE_KEY, How, Stack, apply
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs.pseudonyms import namer
from pseudohealthy.runs.run import Run
from pseudohealthy.training.finish import HASHED
from pseudohealthy.training.plane_store import build_cache
from pseudohealthy.workflows.verification import PRECISIONS, Verification, compared, unlike
from pseudohealthy.workflows.verify_outputs import verify_outputs


def verify(
    folder: Path | str,
    *,
    data: Path | str | None = None,
    run: Path | str | None = None,
    device: str = "auto",
) -> Verification:
    """Check a run, or an output folder of `detect`; the command ``verify``. Nothing in either is
    written.

    Args:
        folder: of the run or the outputs.
        data: of a run, its data (default: where they lay in training); of outputs, the inputs they
            were made from.
        run: the run that made the outputs; without it and `data` only hashes are compared.
        device: "auto", "cpu" or "cuda".

    Raises:
        Fault: NOT_VERIFIABLE (exit 3) for a folder that is neither.
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
    """Check recipe, weights, split list, threshold and fingerprint against run.json.

    Then one validation case is restored again.
    """
    verification = Verification()
    status = run.record.get("status")
    verification.add(
        "run.json", None if status not in ("finished", "imported") else True, f"status: {status}"
    )
    recorded = run.record.get("recipe_sha256")
    verification.add(
        "recipe.toml",
        None if recorded is None else not run.changed,
        "run.json records no hash" if recorded is None else f"sha256 {run.recipe_sha256[:12]}",
    )
    restorer = _weights(run, verification)
    hashes = run.record.get("files_sha256") or {}
    for name in HASHED:
        path = run.folder / name
        if name not in hashes:
            verification.add(
                name,
                None,
                "run.json records no hash of it" if path.is_file() else "the run has none",
            )
        elif not path.is_file():
            verification.add(name, False, "it is gone")
        else:
            digest = hashing.sha256([path])
            verification.add(name, digest == hashes[name], f"sha256 {digest[:12]}")
    manifest = _manifest(run, data, verification)
    _validation_case(run, restorer, manifest, device, verification)
    return verification


def _weights(run: Run, verification: Verification) -> Restorer | None:
    """Return the model as `detect` would load it, or None where it is refused."""
    recorded = run.record.get("weights_sha256")
    try:
        path = run.weights()
        restorer, sha256 = run.restorer(path)
    except Fault as fault:
        verification.add("weights", False, f"{fault.code}: {fault.message}")
        return None
    if recorded is None:
        verification.add(
            "weights", None, f"{path.name} loads, but run.json records no hash of it yet"
        )
    else:
        verification.add(
            "weights",
            recorded == sha256,
            f"{path.name}, sha256 {sha256[:12]}, loads into the recipe's network",
        )
    return restorer if recorded in (None, sha256) else None


def _manifest(run: Run, data: Path | str | None, verification: Verification) -> Manifest | None:
    """Return the list of cases the run was trained on, where it can be reached and is the same."""
    recorded, recorded_path = run.record.get("manifest_sha256"), run.record.get("data")
    if recorded is None or (data is None and recorded_path is None):
        verification.add("list of cases", None, "the run was not trained here on data")
        return None
    try:
        place = Path(data) if data is not None else run.folder / str(recorded_path)
        options = {
            "dedupe": bool(run.record.get("dedupe")),
            "names": run.record.get("names", "path"),
        }
        manifest = load(place, **options)
    except Fault as fault:
        verification.add(
            "list of cases",
            None,
            f"{fault.code}: the data are not where they were; name them with --data",
        )
        return None
    agrees = manifest.sha256 == recorded
    verification.add(
        "list of cases", agrees, f"{many(len(manifest), 'case')}, sha256 {manifest.sha256[:12]}"
    )
    return manifest if agrees else None


def _validation_case(
    run: Run,
    restorer: Restorer | None,
    manifest: Manifest | None,
    device: str,
    verification: Verification,
) -> None:
    """Check the score of the case that training kept, computed again from its file."""
    name, recorded = "validation case", run.record.get("kept_case")
    if restorer is None or manifest is None:
        verification.add(
            name,
            None,
            "needs weights that agree" if restorer is None else "needs the data of the run",
        )
        return
    if not recorded:
        verification.add(name, None, "run.json keeps no validation score")
        return
    if run.record.get("noise_key") != NOISE_KEY:
        verification.add(
            name,
            None,
            "its score was made by an older version, under other noise; train --resume makes it"
            " anew",
        )
        return
    try:
        pseudonym = namer(run)
    except Fault as fault:
        verification.add(name, None, fault.message)
        return
    cases = [case for case in manifest if pseudonym("case", case.case_id) == recorded["case_id"]]
    place = pick_device(device)
    if reason := unlike(run.record.get("precision"), place):
        verification.add(name, None, reason)
        return
    precision = PRECISIONS[run.record["precision"]]
    with tempfile.TemporaryDirectory() as folder:
        try:
            store = build_cache(
                Manifest(cases, manifest.root), run.recipe.make_canvas(), Path(folder)
            )
        except Fault as fault:
            verification.add(name, False, f"it cannot be read: {fault.code}")
            return
        rows = store.select("val", HEALTHY)
        if len(rows) != recorded["planes"]:
            verification.add(
                name,
                False,
                f"{many(len(rows), 'plane')} instead of {recorded['planes']}: its file has changed",
            )
            return
        places = store.index["plane"].to_numpy()[rows].tolist()
        stack = Stack.whole(store.images(rows), store.foreground(rows), places)
        options = How(seed=run.seed, device=place, precision=precision)
        score = apply(restorer.to(place), run.recipe.make_map(), [stack], options)[0].score
    verification.add(name, *compared(score, recorded["score"], place, precision))


# -- what detect wrote -----------------------------------------------------------------------------
