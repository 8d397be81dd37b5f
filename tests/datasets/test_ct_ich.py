"""CT-ICH: a patient is a case, a slice has its own label, and no patient is in two splits."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.data.checks import check
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.datasets import prepare
from pseudohealthy.datasets.ct_ich import COLUMNS, SUBTYPES
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.training.plane_store import build_cache


def write(root, table):
    with (root / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(table)
    return root


@pytest.fixture
def table(tmp_path):
    """Twenty patients of eleven slices, eight of whom bleed on the tenth; each slice is as bright
    as its number."""
    folder = tmp_path / "ct-ich" / "images"
    folder.mkdir(parents=True)
    rows = []
    for patient in range(50, 70):
        for number in range(1, 12):
            bleeds = int(patient % 5 < 2 and number == 10)
            name = f"{patient:03d}_{number:02d}.jpg"
            image = np.full((24, 24), 10 * number, np.uint8)
            image[16:, 16:] = 3 * patient
            Image.fromarray(image).save(folder / name)
            row = dict.fromkeys(SUBTYPES, 0) | {
                "subdural": bleeds,
                "any_hemorrhage": bleeds,
                "fracture": number % 2,
            }
            rows.append({"file": name, "patient": patient, "slice": number} | row)
    rows.reverse()  # the order of the table says nothing
    write(folder.parent, rows)
    return rows


def test_planes_are_the_slices_by_number_with_their_labels(table, tmp_path):
    prepare("ct-ich", tmp_path / "ct-ich", tmp_path / "out")
    manifest = load(tmp_path / "out")
    assert check(manifest) == [] and len(manifest) == len(manifest.patients) == 20
    case = next(c for c in manifest if c.case_id == "ctich-050")
    scan = read_image(case.image, case.root)
    assert (
        np.allclose(scan.voxels[0, :, 5, 5], np.arange(10, 120, 10), atol=2) and scan.affine is None
    )
    assert case.extra["plane_labels"] == "0|0|0|0|0|0|0|0|0|1|0" and case.label == ANOMALOUS
    assert case.extra["plane_fractures"] == "1|0|1|0|1|0|1|0|1|0|1"


def test_by_slice_both_kinds_of_patient_are_in_every_split(table, tmp_path):
    manifest = prepare("ct-ich", tmp_path / "ct-ich", tmp_path / "out")
    counts = Counter((c.split, c.label) for c in manifest)
    assert counts["train", HEALTHY] == 7 and counts["train", ANOMALOUS] == 5
    assert all(counts[split, label] for split in ("val", "test") for label in (HEALTHY, ANOMALOUS))
    canvas = Canvas(size=24, normalise="range", value_range=(0, 255), foreground="all")
    store = build_cache(manifest, canvas, tmp_path / "cache")
    assert (
        len(store.select("train", HEALTHY)) == 12 * 11 - 5
        and len(store.select("train", ANOMALOUS)) == 5
    )


def test_by_patient_only_those_without_haemorrhage_train(table, tmp_path):
    manifest = prepare("ct-ich", tmp_path / "ct-ich", tmp_path / "out", healthy="patient")
    assert {c.label for c in manifest if c.split != "test"} == {HEALTHY}
    assert {c.label for c in manifest.split("test")} == {HEALTHY, ANOMALOUS}
    with pytest.raises(Fault, match="BAD_SETTING"):
        prepare("ct-ich", tmp_path / "ct-ich", tmp_path / "out", healthy="study")


def test_slices_of_another_size_are_named(table, tmp_path):
    Image.fromarray(np.zeros((24, 30), np.uint8)).save(tmp_path / "ct-ich/images/053_07.jpg")
    with pytest.raises(Fault, match=r"SIZES.*053_07.jpg has 30 x 24"):
        prepare("ct-ich", tmp_path / "ct-ich", tmp_path / "out")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda rows: rows[1:], "without label or the reverse, first 069_11.jpg"),
        (lambda rows: [*rows, rows[0]], "1 file twice"),
        (lambda rows: [rows[0] | {"any_hemorrhage": 1}, *rows[1:]], "contradict"),
        (lambda rows: [rows[0] | {"slice": 3}, *rows[1:]], "is not its patient_slice"),
        (lambda rows: [rows[0] | {"fracture": ""}, *rows[1:]], "contradict"),
    ],
)
def test_a_table_that_does_not_fit_stops_it(table, tmp_path, change, words):
    write(tmp_path / "ct-ich", change(table))
    with pytest.raises(Fault, match=words) as caught:
        prepare("ct-ich", tmp_path / "ct-ich", tmp_path / "out")
    assert (caught.value.code, caught.value.exit) == ("LAYOUT", 3)


def test_the_real_sample(shared, tmp_path, capsys):
    manifest = prepare("ct-ich", shared / "data" / "ct-ich", tmp_path)
    words = "845 slices of 28 patients: 114 with haemorrhage in 12 patients, 65 with a fracture"
    assert words in capsys.readouterr().err and check(load(tmp_path)) == []
    case = manifest.cases[0]
    assert read_image(case.image, case.root).shape == (1, 35, 650, 650)
    assert {c.label for c in manifest.split("test")} == {HEALTHY, ANOMALOUS}


@pytest.mark.parametrize(
    "options",
    [{"fold": 1}, {"folds": 1}, {"folds": 2, "fold": 2}, {"folds": 2, "healthy": "patient"}],
)
def test_folds_that_make_no_sense_are_refused(tmp_path, options):
    with pytest.raises(Fault, match="folds"):
        prepare("ct-ich", tmp_path, tmp_path / "out", **options)
