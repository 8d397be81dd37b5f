"""MODEL_CARD.md: what a run is, and whose images and ids go with its folder when it is handed
on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pseudohealthy.counts import many
from pseudohealthy.detection.ranks import p_value
from pseudohealthy.runs.pseudonyms import RECORD
from pseudohealthy.runs.run import Run

if TYPE_CHECKING:
    from pseudohealthy.training.trainer import Trainer

PICTURES = "diagnostics_epoch_*.png"


def holdings(run: Run) -> list[str]:
    """Lines of MODEL_CARD.md about images, ids and names in the run folder."""
    pseudonyms = bool(run.record.get(RECORD))
    ids = (
        "pseudonyms, which only the salt beside this folder can tell"
        if pseudonyms
        else "ids as they stand in the data"
    )
    planes = any((run.folder / "planes").glob("*/planes.npy"))
    pictures = any(run.folder.glob(PICTURES))
    return [
        "## What this folder holds",
        "",
        "- Images: "
        + (
            "**`planes/` holds every image it was trained and tested on (made by version 0.1):"
            " remove it.**"
            if planes
            else "those it was trained on do not lie here."
        )
        + (f" `{PICTURES}` show a few validation images." if pictures else ""),
        (
            "- Patients: `split.csv` lists cases and patients of training, validation and test:"
            f" {ids}. `run.json` names one case and the folder of the data."
        ),
        (
            "- `fingerprint.json` has blurred thumbnails of 32 px, means of training planes, to"
            " tell scans of another kind."
        ),
        (
            "- Everything else is numbers: weights, thresholds, statistics. Weights can hold what"
            " they were trained on."
        ),
    ]


def left_out(run: Run) -> list[str]:
    """The line of the model card about cases that could not be read."""
    failed, cases = run.record.get("cases_failed", 0), run.record.get("cases", 0)
    return (
        [
            f"- Left out: {failed} of {many(cases, 'case')}, which could not be read (split.csv"
            " names them)"
        ]
        if failed
        else []
    )


def ranked(threshold: dict) -> list[str]:
    """The line of the model card about the healthy scans that scores are ranked among."""
    if not (count := len(threshold.get("case_scores") or ())):
        return ["- Ranks: none, no healthy validation scan was there"]
    scans = many(count, "healthy validation scan")
    return [
        f"- Ranks: a score is told beside those of {scans}, so its p is never below"
        f" {p_value(count, count):.2g}"
    ]


def model_card(trainer: Trainer, threshold: dict) -> str:
    """The text of MODEL_CARD.md: the model, its training, its threshold and what it must not be
    used for."""
    run, index = trainer.run, trainer.store.index
    counts = {
        s: (
            int((index["split"] == s).sum()),
            int(index.loc[index["split"] == s, "patient_id"].nunique()),
        )
        for s in ("train", "val")
    }
    lines = [
        f"# {run.recipe.name}",
        "",
        "**Research use only. Not a medical device; not for diagnosis.**",
        "",
        f"- What it is: {run.recipe.summary or run.recipe.name}",
        f"- Source: {run.recipe.source or 'own recipe'}",
        (
            f"- Method: `{run.recipe.restorer['name']}`, {run.record.get('parameters', 0):,}"
            f" parameters, {run.record.get('network_calls', 0)} network calls an image"
        ),
        (
            f"- Trained on: {many(counts['train'][0], 'plane')} of"
            f" {many(counts['train'][1], 'patient')} ({len(trainer.rows):,} used),"
            f" {many(trainer.step, 'step')} of {trainer.budget.batch}"
        ),
        *left_out(run),
        f"- Validated on: {many(counts['val'][0], 'plane')} of {many(counts['val'][1], 'patient')}",
        (
            f"- Threshold: {threshold['value']} ({threshold['source']}, quantile"
            f" {threshold['quantile']}, {many(threshold['n_patients'], 'patient')},"
            f" {threshold['detail'].get('population', 'none')})"
        ),
        *ranked(threshold),
        f"- Weights: {run.record.get('weights')}, sha256 {run.record.get('weights_sha256')}",
        f"- Canvas: `{json.dumps(run.recipe.canvas, default=list)}`",
        "",
        (
            "A map shows what differs from the training population: unusual anatomy, another"
            " scanner or another preparation"
        ),
        (
            "light up like disease, and disease that resembles health does not. Generative models"
            " can memorise training"
        ),
        (
            "images: do not share weights trained on private data without asking whoever is"
            " responsible for them."
        ),
        "",
        *holdings(run),
    ]
    return "\n".join(lines) + "\n"
