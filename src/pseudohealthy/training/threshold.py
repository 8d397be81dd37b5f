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
    """Noise key and plane set of thresholds and healthy scores, which a detector compares with its
    own."""
    return {"noise_key": NOISE_KEY, "plane_set": run.recipe.make_canvas().plane_set}


def validation_cases(store: PlaneStore, model: Restorer) -> list[np.ndarray]:
    """Rows of healthy validation planes by case, as many as a few thousand network calls allow."""
    rows = store.select("val", HEALTHY)
    budget = max(64, min(4096, 4 * validation.CALLS // max(1, model.network_calls())))
    return whole_cases(store, rows, budget) if len(rows) else []


def calibrated(
    trainer: Trainer, model: Restorer, cases: list[np.ndarray]
) -> tuple[list[np.ndarray], str | None]:
    """Calibrate the method on the healthy cases of every other patient, and save its weights again.

    Returns:
        The cases that remain for the threshold (judged on what it has learnt from, a method looks
        better than it is) and the weights' new digest; all cases and None where the method has
        nothing to calibrate.
    """
    if not cases:
        return cases, None
    patients = trainer.store.index["patient_id"].to_numpy()
    half = set(sorted({patients[rows[0]] for rows in cases})[::2])
    calibration = [rows for rows in cases if patients[rows[0]] in half]
    held_out = [rows for rows in cases if patients[rows[0]] not in half]
    batches = (
        validation.detected_batch(trainer, part)
        for part in chunks(np.concatenate(calibration), at_once(model, 64))
    )
    with (
        torch.no_grad(),
        torch.autocast(
            trainer.world.device.type, torch.bfloat16, enabled=trainer.precision == torch.bfloat16
        ),
    ):
        if not model.calibrate(batches, trainer.run.recipe.make_map()):
            return cases, None
    path = trainer.run.weights()
    _, state, _ = checkpoint.load(path)
    return held_out or cases, checkpoint.save(path, model.state_dict(), state)


def healthy_threshold(trainer: Trainer, model: Restorer, cases: list[np.ndarray]) -> dict[str, Any]:
    """The content of threshold.json: thresholds of the method and of every trivial control.

    A threshold is a quantile of map values inside the foreground of healthy validation planes, the
    same for all. Beside them stand the healthy case scores that give a new case its percentile.

    Args:
        cases: Rows of healthy validation planes, case by case.
    """
    run, store = trainer.run, trainer.store
    quantile = run.recipe.make_map().quantile
    empty = {"value": None, "source": "healthy-quantile", "quantile": quantile, "n_patients": 0}
    if not cases:
        say("no healthy validation plane: no threshold stored; give one to detect with --threshold")
        return {**empty, "detail": {}, "controls": {}, "case_scores": []}
    rows = np.concatenate(cases)
    patients = store.index["patient_id"].to_numpy()[rows]
    sick = store.index["patient_id"].to_numpy()[store.select("val", ANOMALOUS)]
    facts = {
        "quantile": quantile,
        "n_patients": len(set(patients)),
        "n_cases": len(cases),
        "n_planes": len(rows),
        "population": population(set(patients), set(sick)),
    }
    with Progress("healthy validation", len(rows)) as bar:
        values, scores = healthy_values(trainer, model, cases, bar)
    case_scores = whole_scores(store, cases, scores)
    record = {
        "value": quantile_of(values, quantile),
        "source": "healthy-quantile",
        "quantile": quantile,
        "n_patients": facts["n_patients"],
        "detail": facts,
        "case_scores": sorted(case_scores),
        **scoring(run),
    }
    record["kept"] = kept_case(store, cases[0], scores[0])
    record["controls"] = {}
    for name, control in control_restorers(model.cpu()).items():
        value = quantile_of(
            healthy_values(trainer, control.to(trainer.world.device), cases)[0], quantile
        )
        record["controls"][name] = {"value": value, "source": "healthy-quantile", "detail": facts}
    return record


def population(patients: set[str], sick: set[str]) -> str:
    """Whose planes a threshold is of, in words.

    Args:
        patients: Those whose planes are used.
        sick: Patients with anomalous planes.
    """
    ill = "lesion-free planes of patients with disease"
    return (
        "healthy"
        if not patients & sick
        else ill
        if patients <= sick
        else f"healthy patients and {ill}"
    )


def whole_scores(store: PlaneStore, cases: list[np.ndarray], scores: list[float]) -> list[float]:
    """The scores of cases all of whose planes are healthy, as `detect` scores whole cases.

    Where there is no such case, those of the lesion-free parts of cases.
    """
    planes = Counter(store.index["case_id"].iloc[store.select("val")])
    names = store.index["case_id"].to_numpy()
    pairs = zip(cases, scores, strict=True)
    return [score for rows, score in pairs if len(rows) == planes[names[rows[0]]]] or scores


def kept_case(store: PlaneStore, rows: np.ndarray, score: float) -> dict[str, Any]:
    """The validation case that `verify` restores again, and its score."""
    return {"case_id": store.index["case_id"].iloc[rows[0]], "score": score, "planes": len(rows)}


def whole_cases(store: PlaneStore, rows: np.ndarray, budget: int) -> list[np.ndarray]:
    """Rows of evenly spread cases, each whole, so that its score equals that of `detect`."""
    names = store.index["case_id"].to_numpy()[rows]
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    cases = np.split(rows, starts[1:])
    per_case = max(1, len(rows) // len(cases))
    return [cases[i] for i in spread_out(np.arange(len(cases)), max(1, budget // per_case))]


def healthy_values(
    trainer: Trainer, model: Restorer, cases: list[np.ndarray], bar: Progress | None = None
) -> tuple[np.ndarray, list[float]]:
    """Map values inside the foreground of all cases, thinned to about VALUES, and their scores."""
    amap, values, scores = trainer.run.recipe.make_map(), [], []
    share = max(1, sum(map(len, cases)) * trainer.run.recipe.make_canvas().size ** 2 // VALUES)
    for group in grouped(cases, 64):
        results = validation.applied(trainer, group, model)
        scores += [result.score for result in results]
        maps = torch.cat([result.maps for result in results])
        inside = amap.inside(trainer.store.foreground(np.concatenate(group))).bool()
        values.append(maps[inside].numpy()[::share])
        if bar:
            bar.advance(sum(map(len, group)))
    return np.concatenate(values), scores


def quantile_of(values: np.ndarray, quantile: float) -> float | None:
    """`observed_quantile` of healthy values; None where there is none."""
    return observed_quantile(values, quantile) if len(values) else None


def grouped(items: list[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Consecutive cases in groups of about `size` planes."""
    groups: list[list[np.ndarray]] = []
    room = 0
    for item in items:
        if not groups or room < len(item):
            groups.append([])
            room = size
        groups[-1].append(item)
        room -= len(item)
    return groups
