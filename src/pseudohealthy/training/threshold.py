"""The threshold of a run: a quantile of map values over healthy validation cases."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.metrics.thresholds import observed_quantile
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers.apply import NOISE_KEY, at_once
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run
from pseudohealthy.training import validation
from pseudohealthy.training.plane_store import PlaneStore, chunks, spread_out

if TYPE_CHECKING:
    from pseudohealthy.training.trainer import Trainer

VALUES = 40_000_000  # map values kept for the quantile


def scoring(run: Run) -> dict[str, str]:
    """What thresholds and healthy scores rest on, so that a detector can tell whether its own are
    like them."""
    return {"noise_key": NOISE_KEY, "plane_set": run.recipe.make_canvas().plane_set}


def validation_cases(store: PlaneStore, model: Restorer) -> list[np.ndarray]:
    """Rows of healthy validation planes, case by case, as many as a few thousand network calls
    allow."""
    rows = store.select("val", HEALTHY)
    budget = max(64, min(4096, 4 * validation.CALLS // max(1, model.network_calls())))
    return whole_cases(store, rows, budget) if len(rows) else []


def calibrated(
    trainer: Trainer, model: Restorer, chosen: list[np.ndarray]
) -> tuple[list[np.ndarray], str | None]:
    """Let the method learn from the healthy cases of every other patient, and save its weights
    again.

    Returns the cases that are left for the threshold (judged on what it has learnt from, a method
    looks better than it is) and the weights' new digest; all cases and None where the method has
    nothing to learn.
    """
    if not chosen:
        return chosen, None
    patients = trainer.store.index["patient_id"].to_numpy()
    half = set(sorted({patients[rows[0]] for rows in chosen})[::2])
    mine = [rows for rows in chosen if patients[rows[0]] in half]
    left = [rows for rows in chosen if patients[rows[0]] not in half]
    batches = (
        validation.detected_batch(trainer, part)
        for part in chunks(np.concatenate(mine), at_once(model, 64))
    )
    with (
        torch.no_grad(),
        torch.autocast(
            trainer.world.device.type, torch.bfloat16, enabled=trainer.precision == torch.bfloat16
        ),
    ):
        if not model.calibrate(batches, trainer.run.recipe.make_map()):
            return chosen, None
    path = trainer.run.weights()
    _, state, _ = checkpoint.load(path)
    return left or chosen, checkpoint.save(path, model.state_dict(), state)


def healthy_threshold(
    trainer: Trainer, model: Restorer, chosen: list[np.ndarray]
) -> dict[str, Any]:
    """threshold.json: a quantile of map values inside the foreground of healthy validation planes,
    for the method and, on the same planes, for every trivial control; and the healthy case scores
    that give a new case its percentile."""
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
    stored = {
        "value": quantile_of(values, quantile),
        "source": "healthy-quantile",
        "quantile": quantile,
        "n_patients": facts["n_patients"],
        "detail": facts,
        "case_scores": sorted(whole),
        **scoring(run),
    }
    stored["kept"] = kept_case(store, chosen[0], scores[0])
    stored["controls"] = {}
    for name, control in control_restorers(model.cpu()).items():
        value = quantile_of(
            healthy_values(trainer, control.to(trainer.world.device), chosen)[0], quantile
        )
        stored["controls"][name] = {"value": value, "source": "healthy-quantile", "detail": facts}
    return stored


def population(patients: set[str], sick: set[str]) -> str:
    """Whose planes a threshold is of; `sick`: patients with anomalous planes."""
    ill = "lesion-free planes of patients with disease"
    return (
        "healthy"
        if not patients & sick
        else ill
        if patients <= sick
        else f"healthy patients and {ill}"
    )


def whole_scores(store: PlaneStore, chosen: list[np.ndarray], scores: list[float]) -> list[float]:
    """The scores of cases all of whose planes are healthy, the like of which `detect` computes;
    where there is no such case, those of the lesion-free parts of cases."""
    planes = Counter(store.index["case_id"].iloc[store.select("val")])
    names = store.index["case_id"].to_numpy()
    pairs = zip(chosen, scores, strict=True)
    return [score for rows, score in pairs if len(rows) == planes[names[rows[0]]]] or scores


def kept_case(store: PlaneStore, rows: np.ndarray, score: float) -> dict[str, Any]:
    """The validation case that `verify` restores again, and its score."""
    return {"case_id": store.index["case_id"].iloc[rows[0]], "score": score, "planes": len(rows)}


def whole_cases(store: PlaneStore, rows: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows of evenly spread cases, each whole, so that its score here is what `detect` will
    compute."""
    names = store.index["case_id"].to_numpy()[rows]
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    cases = np.split(rows, starts[1:])
    per_case = max(1, len(rows) // len(cases))
    return [cases[i] for i in spread_out(np.arange(len(cases)), max(1, budget // per_case))]


def healthy_values(
    trainer: Trainer, model: Restorer, chosen: list[np.ndarray], bar: Progress | None = None
) -> tuple[np.ndarray, list[float]]:
    """Map values inside the foreground, all cases together (thinned to 40 million), and one score
    per case."""
    amap, values, scores = trainer.run.recipe.make_map(), [], []
    share = max(1, sum(map(len, chosen)) * trainer.run.recipe.make_canvas().size ** 2 // VALUES)
    for group in grouped(chosen, 64):
        found = validation.applied(trainer, group, model)
        scores += [one.score for one in found]
        maps = torch.cat([one.maps for one in found])
        inside = amap.inside(trainer.store.foreground(np.concatenate(group))).bool()
        values.append(maps[inside].numpy()[::share])
        if bar:
            bar.advance(sum(map(len, group)))
    return np.concatenate(values), scores


def quantile_of(values: np.ndarray, quantile: float) -> float | None:
    """`observed_quantile` of healthy values; None where there is none."""
    return observed_quantile(values, quantile) if len(values) else None


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
