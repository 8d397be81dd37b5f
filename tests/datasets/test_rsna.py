"""RSNA haemorrhage CT: studies by header, order by position, labels by slice, every trap of the
published set."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from pseudohealthy.data.checks import check
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.datasets import prepare
from pseudohealthy.datasets.rsna import SUBTYPES
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.training.plane_store import build_cache
from rsna_slices import rsna_slice

SIDE = 16


def rows(image: str, bleeds: int) -> list[str]:
    return [f"{image}_{name},{bleeds if name in ('subdural', 'any') else 0}" for name in SUBTYPES]


class Source:
    """A folder like the published one, filled study by study."""

    def __init__(self, root):
        self.root, self.lines, self.count = root, ["ID,Label"], 0

    def study(self, patient: int, labels, *, name: int = 0, z=None, **options) -> list[str]:
        """One slice per label (None: without), slice values 10, 20, ... upwards; file names run
        against position."""
        images = [f"ID_{self.count + len(labels) - k:09x}" for k in range(len(labels))]
        self.count += len(labels)
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            hu = np.full((SIDE, SIDE), 10.0 * (place + 1))
            hu[0] = -1000
            height = z[place] if z else 5.0 * place
            ids = {"patient": f"ID_{patient:08x}", "study": f"ID_{name or patient:010x}"}
            rsna_slice(self.root / "stage_2_train", hu, image, z=height, **ids | options)
            self.lines += [] if label is None else rows(image, label)
        return images

    def save(self):
        (self.root / "stage_2_train.csv").write_text("\n".join(self.lines) + "\n")
        return self.root


@pytest.fixture
def source(tmp_path) -> Source:
    """Ten healthy patients of three slices, four who bleed on the third of four, one with a healthy
    and a bleeding study."""
    source = Source(tmp_path / "rsna")
    for patient in range(1, 11):
        source.study(patient, [0, 0, 0])
    for patient in range(11, 15):
        source.study(patient, [0, 0, 1, 0], wrapped=patient % 2 == 0)
    source.study(15, [0, 0])
    source.study(15, [0, 1], name=99)
    return source


def test_slices_are_in_order_of_position_with_their_labels_and_hu(source, tmp_path):
    prepare("rsna", source.save(), tmp_path / "out")
    manifest = load(tmp_path / "out")
    assert check(manifest) == [] and len(manifest) == 16
    for case in manifest:
        if case.extra["plane_labels"] == "0|0|1|0":
            scan = read_image(case.image, case.root)
            assert (
                scan.voxels[0, :, 5, 5].tolist() == [10, 20, 30, 40] and scan.voxels.min() == -1000
            )
            assert scan.units == "HU" and scan.spacing == pytest.approx((5, 0.5, 0.5))
            assert case.label == ANOMALOUS


def test_by_study_nobody_who_bleeds_anywhere_trains(source, tmp_path):
    manifest = prepare("rsna", source.save(), tmp_path / "out")
    bleeding = {f"ID_{patient:08x}" for patient in range(11, 16)}
    assert (
        set(manifest.split("train").patients).isdisjoint(bleeding)
        and len(manifest.split("train")) == 6
    )
    assert not any("1" in c.extra["plane_labels"] for c in manifest.split("train"))
    assert {c.split for c in manifest} == {"train", "val", "test"} and check(manifest) == []


def test_patients_who_bleed_are_in_validation_and_in_test_and_the_counts_are_said(
    source, tmp_path, capsys
):
    """A training needs both kinds to have a ROC-AUC; the healthy patients are divided as they were
    without it."""
    manifest = prepare("rsna", source.save(), tmp_path / "out")
    bleeding = {f"ID_{patient:08x}" for patient in range(11, 16)}
    shares = {
        name: len(set(manifest.split(name).patients) & bleeding)
        for name in ("train", "val", "test")
    }
    assert shares == {"train": 0, "val": 2, "test": 3}
    said = capsys.readouterr().err
    assert (
        "train: 6 patients, 0 with haemorrhage; slices: 18 without, 0 with haemorrhage, 0"
        " unlabelled" in said
    )
    assert (
        "val: 4 patients, 2 with haemorrhage" in said
        and "test: 5 patients, 3 with haemorrhage" in said
    )
    assert "warning" not in said
    before = prepare("rsna", source.root, tmp_path / "before", haemorrhage_in_val=False)
    assert set(before.split("val").patients).isdisjoint(bleeding)
    assert {c.case_id: c.split for c in before if c.patient_id not in bleeding} == {
        c.case_id: c.split for c in manifest if c.patient_id not in bleeding
    }
    assert (
        "the split val does not hold slices of both classes: the training will have no ROC-AUC"
        in capsys.readouterr().err
    )


def test_by_slice_the_negative_planes_of_bleeding_patients_train(source, tmp_path):
    prepare("rsna", source.save(), tmp_path / "out", healthy="slice", fractions=(0.6, 0.2, 0.2))
    manifest = load(tmp_path / "out")
    assert check(manifest) == []
    shares = Counter((c.split, c.label) for c in manifest if c.patient_id != f"ID_{15:08x}")
    assert all(
        shares[split, label] for split in ("train", "val", "test") for label in (HEALTHY, ANOMALOUS)
    )
    canvas = Canvas(size=SIDE, normalise="range", value_range=(-1000, 100), foreground="all")
    store = build_cache(manifest, canvas, tmp_path / "cache")
    train = store.index.iloc[store.select("train", HEALTHY)]
    stated = {c.case_id: c.extra["plane_labels"].split("|") for c in manifest}
    assert [stated[c][p] for c, p in zip(train["case_id"], train["plane"], strict=True)] == [
        "0"
    ] * len(train)
    assert set(train["case_id"]) & {c.case_id for c in manifest if c.label == ANOMALOUS}


def test_changed_plane_labels_make_a_new_cache(source, tmp_path):
    manifest = prepare("rsna", source.save(), tmp_path / "out", healthy="slice")
    canvas = Canvas(size=SIDE, normalise="range", value_range=(-1000, 100), foreground="all")
    before = len(build_cache(manifest, canvas, tmp_path / "cache").select(label=ANOMALOUS))
    for case in manifest:
        case.extra["plane_labels"] = case.extra["plane_labels"].replace("1", "0")
    assert (
        before == 5
        and len(build_cache(manifest, canvas, tmp_path / "cache").select(label=ANOMALOUS)) == 0
    )


def test_plane_labels_that_do_not_fit_are_refused(source, tmp_path):
    manifest = prepare("rsna", source.save(), tmp_path / "out")
    manifest.cases[0].extra["plane_labels"] += "|0"
    canvas = Canvas(size=SIDE, normalise="range", value_range=(-1000, 100), foreground="all")
    faults = build_cache(manifest, canvas, tmp_path / "cache").faults
    assert (
        len(faults) == 1 and "PLANE_LABELS" in faults[0] and manifest.cases[0].case_id in faults[0]
    )


def test_num_samples_are_single_healthy_slices_of_training_patients(source, tmp_path):
    whole = prepare("rsna", source.save(), tmp_path / "whole")
    manifest = prepare("rsna", source.root, tmp_path / "out", num_samples=7)
    train = list(manifest.split("train"))
    assert len(train) == 7 and {c.label for c in train} == {HEALTHY}
    assert {c.patient_id for c in train} <= set(whole.split("train").patients)
    assert [c.case_id for c in manifest.split("test")] == [c.case_id for c in whole.split("test")]
    assert all(
        read_image(c.image, c.root).shape == (1, 1, SIDE, SIDE)
        for c in load(tmp_path / "out").split("train")
    )
    assert prepare("rsna", source.root, tmp_path / "again", num_samples=7).sha256 == manifest.sha256
    other = prepare("rsna", source.root, tmp_path / "other", num_samples=7, sample_seed=1)
    assert other.sha256 != manifest.sha256
    with pytest.raises(Fault, match="BAD_SETTING"):
        prepare("rsna", source.root, tmp_path / "out", num_samples=0)


def test_where_fewer_healthy_slices_exist_than_are_asked_for_all_are_taken_and_it_is_said(
    source, tmp_path, capsys
):
    manifest = prepare("rsna", source.save(), tmp_path / "out", num_samples=2000)
    assert len(manifest.split("train")) == 18
    assert (
        "num_samples is 2000, and the training patients have 18 healthy slices: all are taken"
        in capsys.readouterr().err
    )


def test_short_and_constant_slices_are_named_counted_and_never_replaced(source, tmp_path, capsys):
    source.study(20, [0, 0, 1, 0], name=20)
    short, constant = source.study(21, [1], kept=0.3)[0], source.study(21, [0, 0])[0]
    path = source.root / "stage_2_train" / f"{constant}.dcm"
    path.unlink()
    rsna_slice(
        path.parent, np.zeros((SIDE, SIDE)), constant, patient=f"ID_{21:08x}", study=f"ID_{21:010x}"
    )
    manifest = prepare("rsna", source.save(), tmp_path / "out")
    said = capsys.readouterr().err
    assert (
        f"{short}.dcm left out: fewer pixels" in said
        and f"{constant}.dcm left out: constant" in said
    )
    assert "left out: 1 with constant pixels, 1 with fewer pixels" in said
    case = next(c for c in manifest if c.patient_id == f"ID_{21:08x}")
    # The study bleeds on the slice that is broken.
    assert case.extra["plane_labels"] == "0" and case.label == ANOMALOUS
    assert not any(name in str(c.image) for c in manifest for name in (short, constant))


def test_missing_surplus_and_unlabelled_files_are_counted(source, tmp_path, capsys):
    source.study(30, [0, None, 0])
    source.lines += rows("ID_fffffffff", 0)
    manifest = prepare("rsna", source.save(), tmp_path / "out")
    said = capsys.readouterr().err
    assert "1 without file" in said and "1 file without label" in said and "1 unlabelled" in said
    case = next(c for c in manifest if c.patient_id == f"ID_{30:08x}")
    assert (case.label, case.split, case.extra["plane_labels"]) == (None, "test", "0||0")


def test_images_listed_twice_alike_are_dropped_with_a_note(source, tmp_path, capsys):
    source.lines += source.lines[1:7]
    assert len(prepare("rsna", source.save(), tmp_path / "out")) == 16
    assert "6 surplus rows of 1 image" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda lines: [*lines, lines[1].replace(",0", ",1")], "contradicts"),
        (lambda lines: [*lines, "ID_000000001_chronic,0"], "row 50"),
        (lambda lines: [*lines, "ID_000000001,0"], "is not ID_"),
        (lambda lines: [*lines[:-1], lines[-1][:-1] + "2"], "is not ID_"),
        (lambda lines: lines[:-1], "5 of 6 labels"),
        (lambda lines: [*lines[:6], lines[6][:-1] + "1", *lines[7:]], "union"),
        (lambda lines: ["image,Label", *lines[1:]], "header"),
    ],
)
def test_surprises_of_the_table_stop_it(tmp_path, change, words):
    source = Source(tmp_path / "rsna")
    source.study(1, [0, 0, 0, 0, 1, 0, 0, 0])
    source.lines = change(source.lines)
    with pytest.raises(Fault, match=words) as caught:
        prepare("rsna", source.save(), tmp_path / "out")
    assert (caught.value.code, caught.value.exit) == ("LABELS", 3)


def test_a_series_with_a_gap_becomes_a_stack_without_geometry(source, tmp_path, capsys):
    source.study(40, [0, 1, 0, 0], z=[0, 5, 15, 20])
    prepare("rsna", source.save(), tmp_path / "out")
    assert "1 of them without regular slice distances" in capsys.readouterr().err
    case = next(c for c in load(tmp_path / "out") if c.patient_id == f"ID_{40:08x}")
    scan = read_image(case.image, case.root)
    assert scan.voxels[0, :, 5, 5].tolist() == [10, 20, 30, 40] and scan.affine is None
    assert case.extra["plane_labels"] == "0|1|0|0"


def test_headers_that_contradict_stop_it(source, tmp_path):
    other = source.study(50, [0], name=1)[0]
    with pytest.raises(Fault, match="several patients"):
        prepare("rsna", source.save(), tmp_path / "out")
    path = source.root / "stage_2_train" / f"{other}.dcm"
    os.rename(path, path.with_name("ID_abcdefabc.dcm"))
    with pytest.raises(Fault, match="CT image of its name"):
        prepare("rsna", source.root, tmp_path / "out")


def test_without_a_healthy_patient_only_slices_can_train(tmp_path):
    source = Source(tmp_path / "rsna")
    for patient in range(1, 9):
        source.study(patient, [0, 1, 0])
    with pytest.raises(Fault, match="NO_HEALTHY"):
        prepare("rsna", source.save(), tmp_path / "out")
    assert len(prepare("rsna", source.root, tmp_path / "out", healthy="slice").split("train")) > 0
    with pytest.raises(Fault, match="BAD_SETTING"):
        prepare("rsna", source.root, tmp_path / "out", healthy="patient")


def test_the_real_sample(shared, tmp_path, capsys):
    prepare("rsna", shared / "data" / "rsna-dicom", tmp_path)
    manifest = load(tmp_path)
    assert len(manifest) == len(manifest.patients) == 21 and check(manifest) == []
    assert (
        "56 files, 15 labelled images: 0 without file, 41 files without label"
        in capsys.readouterr().err
    )
    case = next(c for c in manifest if "|" in c.extra["plane_labels"])
    scan = read_image(case.image, case.root)
    assert scan.shape == (1, 36, 512, 512) and scan.spacing[1] == pytest.approx(0.488281)
    assert case.label is None and case.split == "test"
