"""The model that comes with the package: whole, small, found by its name, and of use on the slices
it comes with."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from PIL import Image

from pseudohealthy import models
from pseudohealthy.detection.detector import load
from pseudohealthy.metrics.curves import curve
from pseudohealthy.runs.run import Run

NAME = "brain-t1"
FOLDER = models.FOLDER / NAME


@pytest.fixture(scope="module")
def findings():
    """(finding, reference or None) of every example."""
    detect, found = load(NAME, device="cpu"), []
    for path in sorted((models.examples(NAME) / "test").rglob("*.png")):
        mask = models.examples(NAME) / "masks" / "bad" / path.name
        found.append(
            (detect(path), np.asarray(Image.open(mask)) > 0 if path.parent.name == "bad" else None)
        )
    return found


def test_every_file_is_the_one_that_the_notice_lists():
    listed = dict(
        re.findall(r"([0-9a-f]{64})  (\S+)", (FOLDER / "NOTICE.md").read_text(encoding="utf-8"))
    )
    there = {
        p.relative_to(FOLDER).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in FOLDER.rglob("*")
        if p.is_file()
    }
    there.pop("NOTICE.md")
    assert {name: digest for digest, name in listed.items()} == there
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 8_000_000
    assert "Attribution-ShareAlike" in (FOLDER / "NOTICE.md").read_text(encoding="utf-8")


def test_it_is_a_run_by_its_name_and_a_folder_of_that_name_comes_first(
    tmp_path, monkeypatch, tiny_run
):
    run = Run.open(NAME)
    assert run.folder == FOLDER and run.restorer()[1] == run.record["weights_sha256"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).symlink_to(tiny_run)
    assert Run.open(NAME).folder.resolve() == tiny_run.resolve() != run.folder.resolve()


def test_examples_are_of_subjects_that_it_was_not_trained_on():
    import csv

    with (FOLDER / "split.csv").open(newline="", encoding="utf-8") as file:
        seen = {row["patient_id"] for row in csv.DictReader(file) if row["split"] != "test"}
    shown = {path.stem for path in models.examples(NAME).rglob("*.png")}
    assert len(shown) == 8 and not shown & seen


def test_lesions_of_its_examples_stand_out_of_the_map(findings):
    """Pooled over the examples with a lesion: far beyond the share of lesion voxels, and half the
    peaks lie on a lesion."""
    sick = [(np.squeeze(finding.map), truth) for finding, truth in findings if truth is not None]
    pooled = curve(
        np.concatenate([m.ravel() for m, _ in sick]), np.concatenate([t.ravel() for _, t in sick])
    )
    assert len(sick) == 4 and pooled.average_precision > 20 * pooled.prevalence
    assert sum(bool(truth.flat[anomaly.argmax()]) for anomaly, truth in sick) >= 2


def test_healthy_examples_are_not_flagged_as_another_kind_of_image(findings):
    assert not any(
        "OUT_OF_DOMAIN" in warning for finding, _ in findings for warning in finding.warnings
    )


def test_other_noise_would_move_no_example_across_the_healthy_range(findings):
    """The standard error of each score is below half the distance from the median healthy score to
    the 95th percentile."""
    healthy = Run.open(NAME).read_json("threshold.json")["case_scores"]
    half = (np.percentile(healthy, 95) - np.median(healthy)) / 2
    assert all(0 < finding.score_sd < half for finding, _ in findings)


def test_it_was_calibrated_under_the_noise_that_detection_draws(findings):
    assert not any(
        "OLD_SCORES" in warning for finding, _ in findings for warning in finding.warnings
    )
