"""What turns trained weights into a run that can detect: statistics of health, threshold, fingerprint, model card."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.detection.domain import Domain
from pseudohealthy.detection.ranks import p_value
from pseudohealthy.io import hashing
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers import restorer_class
from pseudohealthy.restorers.apply import NOISE_KEY, at_once
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.pseudonyms import namer
from pseudohealthy.runs.run import Run, now
from pseudohealthy.training import validation
from pseudohealthy.training.model_card import holdings
from pseudohealthy.training.plane_store import PlaneStore

if TYPE_CHECKING:
    from pseudohealthy.training.trainer import Trainer

FAULT = re.compile(r"error\[(\w+)\] case=(.*?): ")  # a line of `PlaneStore.faults`
PLANES = 20_000  # healthy planes that the statistics look at, evenly spread
HASHED = ("split.csv", "threshold.json", "fingerprint.json")
DOMAIN_PLANES = 4_000  # healthy planes, at most, that the domain check learns from, and as many that set its limit
VALUES = 40_000_000  # map values kept for the quantile


def healthy_statistics(store: PlaneStore) -> tuple[Tensor, Tensor]:
    """Mean and spread (C, S, S) of healthy training planes in [-1, 1]."""
    rows = validation.spread_out(store.select("train", HEALTHY), PLANES)
    total = square = torch.zeros(())
    for part in validation.chunks(rows, 256):
        images = store.images(part).double()
        total, square = total + images.sum(0), square + images.square().sum(0)
    mean = total / len(rows)
    return mean.float(), (square / len(rows) - mean.square()).clamp(min=0).sqrt().float()


def write_split(run: Run, manifest: Manifest, store: PlaneStore) -> None:
    """split.csv: which case of which patient was used for what, by id or by pseudonym.

    `planes_used`: to learn from or to validate on. `fault`: the code of a case that could not be read.
    """
    text, faults, called = io.StringIO(), failed_cases(store), namer(run)
    used = planes_used(store, uses_labels=restorer_class(run.recipe.restorer["name"]).uses_labels)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case_id", "patient_id", "split", "label", "planes_used", "fault"))
    for case in manifest:
        label, name = "" if case.label is None else case.label, case.case_id
        who = called("case", name), called("patient", case.patient_id)
        writer.writerow((*who, case.split, label, used.get(name, 0), faults.get(name, "")))
    write_text(run.folder / "split.csv", text.getvalue())


def planes_used(store: PlaneStore, *, uses_labels: bool) -> dict[str, int]:
    """Planes by case: of training cases those that are learnt from, of validation cases all."""
    rows = [store.select("train", None if uses_labels else HEALTHY), store.select("val")]
    return dict(Counter(store.index["case_id"].iloc[np.concatenate(rows)]))


def failed_cases(store: PlaneStore) -> dict[str, str]:
    """Code by case of those that could not be read."""
    found = (FAULT.match(line) for line in store.faults)
    return {match[2]: match[1] for match in found if match}


def finish(trainer: Trainer) -> None:
    """Threshold from healthy validation, fingerprint of the training planes, model card; then the run is done."""
    run = trainer.run
    model, sha256 = run.restorer()
    model.to(trainer.world.device)
    chosen, sha256_calibrated = calibrated(trainer, model, validation_cases(trainer.store, model))
    sha256 = sha256_calibrated or sha256
    threshold = healthy_threshold(trainer, model, chosen)
    kept = threshold.pop("kept", None)
    if kept:
        kept["case_id"] = namer(run)("case", kept["case_id"])
    write_json(run.folder / "threshold.json", threshold)
    write_json(run.folder / "fingerprint.json", fingerprint(trainer.store))
    run.note(status="finished", step=trainer.step, finished=now(), weights=run.weights().name, weights_sha256=sha256,
             network_calls=model.network_calls(), kept_case=kept, **scoring(run), files_sha256=file_hashes(run))  # fmt: skip
    write_text(run.folder / "MODEL_CARD.md", model_card(trainer, threshold))
    if threshold["value"] is not None:
        say(f"threshold {threshold['value']:.4g}: {threshold['quantile']:.4g} quantile of "
            f"{threshold['detail']['n_planes']} healthy validation planes of {threshold['n_patients']} patients")  # fmt: skip


def scoring(run: Run) -> dict[str, str]:
    """What thresholds and healthy scores rest on, so that a detector can tell whether its own are like them."""
    return {"noise_key": NOISE_KEY, "plane_set": run.recipe.make_canvas().plane_set}


def file_hashes(run: Run) -> dict[str, str]:
    """sha256 of the files that belong to the weights, by name: what `verify` recomputes."""
    return {name: hashing.sha256([run.folder / name]) for name in HASHED if (run.folder / name).is_file()}


def validation_cases(store: PlaneStore, model: Restorer) -> list[np.ndarray]:
    """Rows of healthy validation planes, case by case, as many as a few thousand network calls allow."""
    rows = store.select("val", HEALTHY)
    budget = max(64, min(4096, 4 * validation.CALLS // max(1, model.network_calls())))
    return whole_cases(store, rows, budget) if len(rows) else []


def calibrated(trainer: Trainer, model: Restorer, chosen: list[np.ndarray]) -> tuple[list[np.ndarray], str | None]:
    """Let the method learn from the healthy cases of every other patient, and save its weights again.

    Returns the cases that are left for the threshold (judged on what it has learnt from, a method looks better than it
    is) and the weights' new digest; all cases and None where the method has nothing to learn.
    """
    if not chosen:
        return chosen, None
    patients = trainer.store.index["patient_id"].to_numpy()
    half = set(sorted({patients[rows[0]] for rows in chosen})[::2])
    mine = [rows for rows in chosen if patients[rows[0]] in half]
    left = [rows for rows in chosen if patients[rows[0]] not in half]
    batches = (
        validation.detected_batch(trainer, part) for part in validation.chunks(np.concatenate(mine), at_once(model, 64))
    )
    with (
        torch.no_grad(),
        torch.autocast(trainer.world.device.type, torch.bfloat16, enabled=trainer.precision == torch.bfloat16),
    ):
        if not model.calibrate(batches, trainer.run.recipe.make_map()):
            return chosen, None
    path = trainer.run.weights()
    _, state, _ = checkpoint.load(path)
    return left or chosen, checkpoint.save(path, model.state_dict(), state)


def healthy_threshold(trainer: Trainer, model: Restorer, chosen: list[np.ndarray]) -> dict[str, Any]:
    """threshold.json: a quantile of map values inside the foreground of healthy validation planes, for the method and,
    on the same planes, for every trivial control; and the healthy case scores that give a new case its percentile."""
    run, store = trainer.run, trainer.store
    quantile = run.recipe.make_map().quantile
    empty = {"value": None, "source": "healthy-quantile", "quantile": quantile, "n_patients": 0}
    if not chosen:
        say("no healthy validation plane: no threshold stored; give one to detect with --threshold")
        return {**empty, "detail": {}, "controls": {}, "case_scores": []}
    used = np.concatenate(chosen)
    patients = store.index["patient_id"].to_numpy()[used]
    sick = store.index["patient_id"].to_numpy()[store.select("val", ANOMALOUS)]
    facts = {
        "quantile": quantile,
        "n_patients": len(set(patients)),
        "n_cases": len(chosen),
        "n_planes": len(used),
        "population": population(set(patients), set(sick)),
    }
    with Progress("healthy validation", len(used)) as bar:
        values, scores = healthy_values(trainer, model, chosen, bar)
    whole = whole_scores(store, chosen, scores)
    stored = {"value": quantile_of(values, quantile), "source": "healthy-quantile", "quantile": quantile,
              "n_patients": facts["n_patients"], "detail": facts, "case_scores": sorted(whole), **scoring(run)}  # fmt: skip
    stored["kept"] = kept_case(store, chosen[0], scores[0])
    stored["controls"] = {}
    for name, control in control_restorers(model.cpu()).items():
        value = quantile_of(healthy_values(trainer, control.to(trainer.world.device), chosen)[0], quantile)
        stored["controls"][name] = {"value": value, "source": "healthy-quantile", "detail": facts}
    return stored


def population(patients: set[str], sick: set[str]) -> str:
    """Whose planes a threshold is of; `sick`: patients with anomalous planes."""
    ill = "lesion-free planes of patients with disease"
    return "healthy" if not patients & sick else ill if patients <= sick else f"healthy patients and {ill}"


def whole_scores(store: PlaneStore, chosen: list[np.ndarray], scores: list[float]) -> list[float]:
    """The scores of cases all of whose planes are healthy, the like of which `detect` computes; where there is no such
    case, those of the lesion-free parts of cases."""
    planes = Counter(store.index["case_id"].iloc[store.select("val")])
    names = store.index["case_id"].to_numpy()
    pairs = zip(chosen, scores, strict=True)
    return [score for rows, score in pairs if len(rows) == planes[names[rows[0]]]] or scores


def kept_case(store: PlaneStore, rows: np.ndarray, score: float) -> dict[str, Any]:
    """The validation case that `verify` restores again, and its score."""
    return {"case_id": store.index["case_id"].iloc[rows[0]], "score": score, "planes": len(rows)}


def whole_cases(store: PlaneStore, rows: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows of evenly spread cases, each whole, so that its score here is what `detect` will compute."""
    names = store.index["case_id"].to_numpy()[rows]
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    cases = np.split(rows, starts[1:])
    per_case = max(1, len(rows) // len(cases))
    return [cases[i] for i in validation.spread_out(np.arange(len(cases)), max(1, budget // per_case))]


def healthy_values(
    trainer: Trainer, model: Restorer, chosen: list[np.ndarray], bar: Progress | None = None
) -> tuple[np.ndarray, list[float]]:
    """Map values inside the foreground, all cases together (thinned to 40 million), and one score per case."""
    amap, values, scores = trainer.run.recipe.make_map(), [], []
    share = max(1, sum(map(len, chosen)) * trainer.run.recipe.make_canvas().size ** 2 // VALUES)
    for group in grouped(chosen, 64):
        found = validation.applied(trainer, group, model)
        scores += [one.score for one in found]
        maps = torch.cat([one.maps for one in found])
        values.append(maps[amap.inside(trainer.store.foreground(np.concatenate(group))).bool()].numpy()[::share])
        if bar:
            bar.advance(sum(map(len, group)))
    return np.concatenate(values), scores


def quantile_of(values: np.ndarray, quantile: float) -> float | None:
    """The observed value that at most 1 - quantile of the values exceed."""
    return float(np.quantile(values, quantile, method="higher")) if len(values) else None


def grouped(items: list[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Consecutive cases together, until they fill a batch."""
    groups: list[list[np.ndarray]] = []
    room = 0
    for item in items:
        if not groups or room < len(item):
            groups.append([])
            room = size
        groups[-1].append(item)
        room -= len(item)
    return groups


def fingerprint(store: PlaneStore) -> dict:
    """What training planes look like, so that a scan of another kind can be told: foreground share, brightness."""
    rows = validation.spread_out(store.select("train", HEALTHY), 5_000)
    share, light = [], []
    for part in validation.chunks(rows, 256):
        images, inside = store.images(part), store.foreground(part)
        share += inside.float().flatten(1).mean(1).tolist()
        mean = (images.mean(1) * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
        light += mean.tolist()
    levels = [0.5, 5, 50, 95, 99.5]
    return {
        "planes": len(rows),
        "percentiles": levels,
        "foreground_share": np.percentile(share, levels).round(4).tolist(),
        "foreground_brightness": np.percentile(light, levels).round(4).tolist(),
        **({"domain": known.to_json()} if (known := domain(store)) else {}),
    }


def domain(store: PlaneStore) -> Domain | None:
    """What healthy training planes look like, and how unlike them healthy validation cases may be; None where none has
    any foreground."""
    rows = validation.spread_out(store.select("train", HEALTHY), DOMAIN_PLANES)
    seen = Domain.learned((store.images(part), store.foreground(part)) for part in validation.chunks(rows, 64))
    if seen is None:
        return None
    healthy = store.select("val", HEALTHY)
    cases = whole_cases(store, healthy, DOMAIN_PLANES) if len(healthy) else []
    return seen.calibrated((store.images(case), store.foreground(case)) for case in cases)


def left_out(run: Run) -> list[str]:
    """The line of the model card about cases that could not be read."""
    failed, cases = run.record.get("cases_failed", 0), run.record.get("cases", 0)
    return [f"- Left out: {failed} of {cases} cases, which could not be read (split.csv names them)"] if failed else []


def ranked(threshold: dict) -> list[str]:
    """The line of the model card about the healthy scans that scores are ranked among."""
    if not (count := len(threshold.get("case_scores") or ())):
        return ["- Ranks: none, no healthy validation scan was there"]
    scans = f"{count} healthy validation scan{'s' * (count != 1)}"
    return [f"- Ranks: a score is told beside those of {scans}, so its p is never below {p_value(count, count):.2g}"]


def model_card(trainer: Trainer, threshold: dict) -> str:
    """MODEL_CARD.md: what the model is, on what it was trained, how its threshold was set, what it must not be used for."""
    run, index = trainer.run, trainer.store.index
    counts = {
        s: (int((index["split"] == s).sum()), int(index.loc[index["split"] == s, "patient_id"].nunique()))
        for s in ("train", "val")
    }
    lines = [
        f"# {run.recipe.name}",
        "",
        "**Research use only. Not a medical device; not for diagnosis.**",
        "",
        f"- What it is: {run.recipe.summary or run.recipe.name}",
        f"- Source: {run.recipe.source or 'own recipe'}",
        f"- Method: `{run.recipe.restorer['name']}`, {run.record.get('parameters', 0):,} parameters, "
        f"{run.record.get('network_calls', 0)} network calls an image",
        f"- Trained on: {counts['train'][0]:,} planes of {counts['train'][1]:,} patients ({len(trainer.rows):,} used), "
        f"{trainer.step:,} step{'s' * (trainer.step != 1)} of {trainer.budget.batch}",
        *left_out(run),
        f"- Validated on: {counts['val'][0]:,} planes of {counts['val'][1]:,} patients",
        f"- Threshold: {threshold['value']} ({threshold['source']}, quantile {threshold['quantile']}, "
        f"{threshold['n_patients']} patients, {threshold['detail'].get('population', 'none')})",
        *ranked(threshold),
        f"- Weights: {run.record.get('weights')}, sha256 {run.record.get('weights_sha256')}",
        f"- Canvas: `{json.dumps(run.recipe.canvas, default=list)}`",
        "",
        "A map shows what differs from the training population: unusual anatomy, another scanner or another preparation",
        "light up like disease, and disease that resembles health does not. Generative models can memorise training",
        "images: do not share weights trained on private data without asking whoever is responsible for them.",
        "",
        *holdings(run),
    ]
    return "\n".join(lines) + "\n"
