"""The end of a training: calibration, threshold, fingerprint and model card."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.io import hashing
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.progress import say
from pseudohealthy.restorers import restorer_class
from pseudohealthy.runs.pseudonyms import namer
from pseudohealthy.runs.run import Run, now
from pseudohealthy.training.fingerprint import fingerprint
from pseudohealthy.training.model_card import model_card
from pseudohealthy.training.plane_store import PlaneStore
from pseudohealthy.training.threshold import (
    calibrated,
    healthy_threshold,
    scoring,
    validation_cases,
)

if TYPE_CHECKING:
    from pseudohealthy.training.trainer import Trainer

FAULT = re.compile(r"error\[(\w+)\] case=(.*?): ")  # a line of `PlaneStore.faults`
HASHED = ("split.csv", "threshold.json", "fingerprint.json")


def write_split(run: Run, manifest: Manifest, store: PlaneStore) -> None:
    """Write split.csv: which case of which patient was used for what, by id or by pseudonym.

    Its column `planes_used` counts planes to learn from or to validate on; `fault` is the code of a
    case that could not be read.
    """
    text, faults, pseudonym = io.StringIO(), failed_cases(store), namer(run)
    counts = planes_used(store, uses_labels=restorer_class(run.recipe.restorer["name"]).uses_labels)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case_id", "patient_id", "split", "label", "planes_used", "fault"))
    for case in manifest:
        label, name = "" if case.label is None else case.label, case.case_id
        ids = pseudonym("case", name), pseudonym("patient", case.patient_id)
        writer.writerow((*ids, case.split, label, counts.get(name, 0), faults.get(name, "")))
    write_text(run.folder / "split.csv", text.getvalue())


def planes_used(store: PlaneStore, *, uses_labels: bool) -> dict[str, int]:
    """Number of planes by case: of training cases those learnt from, of validation cases all."""
    rows = [store.select("train", None if uses_labels else HEALTHY), store.select("val")]
    return dict(Counter(store.index["case_id"].iloc[np.concatenate(rows)]))


def failed_cases(store: PlaneStore) -> dict[str, str]:
    """Fault code by case of the cases that could not be read."""
    matches = (FAULT.match(line) for line in store.faults)
    return {match[2]: match[1] for match in matches if match}


def finish(trainer: Trainer) -> None:
    """Write threshold, fingerprint and model card, and mark the run as finished."""
    run = trainer.run
    model, sha256 = run.restorer()
    model.to(trainer.world.device)
    cases, sha256_calibrated = calibrated(trainer, model, validation_cases(trainer.store, model))
    sha256 = sha256_calibrated or sha256
    threshold = healthy_threshold(trainer, model, cases)
    record = threshold.pop("kept", None)
    if record:
        record["case_id"] = namer(run)("case", record["case_id"])
    write_json(run.folder / "threshold.json", threshold)
    write_json(run.folder / "fingerprint.json", fingerprint(trainer.store))
    run.note(
        status="finished",
        step=trainer.step,
        finished=now(),
        weights=run.weights().name,
        weights_sha256=sha256,
        network_calls=model.network_calls(),
        kept_case=record,
        **scoring(run),
        files_sha256=file_hashes(run),
    )
    write_text(run.folder / "MODEL_CARD.md", model_card(trainer, threshold))
    if threshold["value"] is not None:
        say(
            f"threshold {threshold['value']:.4g}: {threshold['quantile']:.4g} quantile of"
            f" {many(threshold['detail']['n_planes'], 'healthy validation plane')} of"
            f" {many(threshold['n_patients'], 'patient')}"
        )


def file_hashes(run: Run) -> dict[str, str]:
    """sha256, by name, of the files that belong to the weights; `verify` recomputes them."""
    return {
        name: hashing.sha256([run.folder / name])
        for name in HASHED
        if (run.folder / name).is_file()
    }
