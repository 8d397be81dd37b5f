"""Manifests: what a table or a folder says, what is refused, and how cases are split."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from manifest_tables import cases_of, table, touch

from pseudohealthy.data.checks import check, require_clean
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.errors import Fault


def fault(data: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        load(data)
    assert caught.value.cure
    return caught.value


def test_healthy_is_zero():
    assert (HEALTHY, ANOMALOUS) == (0, 1)


def test_a_table_is_read(tmp_path):
    table(
        tmp_path, "a,p1,train,0,x/a.png,", "b,p2,Valid,,x/b.png,x/b_mask.png", "c,,test,1,x/c.png,"
    )
    manifest = load(tmp_path)
    assert [(c.case_id, c.patient_id, c.split, c.label) for c in manifest] == [
        ("a", "p1", "train", 0),
        ("b", "p2", "val", None),
        ("c", "c", "test", 1),
    ]
    assert manifest.cases[1].mask == "x/b_mask.png" and manifest.cases[0].root == tmp_path
    assert (
        len(manifest.split("val")) == 1
        and load(tmp_path / "manifest.csv").sha256 == manifest.sha256
    )


def test_spreadsheet_habits_are_tolerated(tmp_path):
    """Byte order mark, semicolons, upper case, spaces, further columns, blank lines."""
    rows = (
        "\ufeffCase_ID;patient_id;Split;label;image;age\r\na;p; train"
        " ;0.0;a.png;63\r\n\r\n;;;;;\r\n"
    )
    (tmp_path / "manifest.csv").write_text(rows, encoding="utf-8")
    (case,) = load(tmp_path)
    assert (case.label, case.split, case.extra) == (0, "train", {"age": "63"})


@pytest.mark.parametrize(
    ("row", "code", "exit"),
    [
        ("a,p,train,0,../../etc/passwd,", "PATH_ESCAPE", 8),
        ("a,p,train,0,/etc/passwd,", "PATH_ESCAPE", 8),
        ("a,p,train,0,a.png|/etc/passwd,", "PATH_ESCAPE", 8),
        ("a,p,train,0,a.png| ../b.png,", "PATH_ESCAPE", 8),
        ("a,p,train,0,x\\..\\..\\b.png,", "PATH_ESCAPE", 8),
        ("a,p,train,0,C:\\b.png,", "PATH_ESCAPE", 8),
        ("a,p,train,0,a.png,../mask.png", "PATH_ESCAPE", 8),
        ("a,p,holdout,0,a.png,", "BAD_MANIFEST", 2),
        ("a,p,train,2,a.png,", "BAD_MANIFEST", 2),
        ("a,p,train,0,,", "BAD_MANIFEST", 2),
        ("a,p,train,0,a.png,,extra", "BAD_MANIFEST", 2),
        ("", "NO_INPUT", 3),
    ],
)
def test_a_bad_row_is_refused_by_number(tmp_path, row, code, exit):
    table(tmp_path, row)
    found = fault(tmp_path)
    assert (found.code, found.exit) == (code, exit) and (not row or "row 2" in found.message)


def test_a_path_that_stays_inside_is_kept(tmp_path):
    table(tmp_path, f"a,p,train,0,{tmp_path}/x/a.png,", "b,p,train,0,x/../b.png,")
    assert [case.image for case in load(tmp_path)] == ["x/a.png", "x/../b.png"]


def test_a_wrong_header_names_the_columns(tmp_path):
    table(tmp_path, "a,b", header="filename,diagnosis")
    found = fault(tmp_path)
    assert found.exit == 2 and "patient_id" in found.cure
    (tmp_path / "manifest.csv").write_bytes(b"\x89PNG\xff\xfe")
    assert fault(tmp_path).code == "BAD_MANIFEST"
    assert fault(tmp_path / "nothing").code == "NOT_FOUND"
    (tmp_path / "manifest.csv").unlink()
    assert fault(tmp_path).code == "NO_MANIFEST"


def test_saving_and_loading_changes_nothing(tmp_path):
    """Also for files outside the manifest's folder, which only a named root makes reachable."""
    out, data = tmp_path / "out", tmp_path / "data"
    cases = [
        Case("a", "p", "train", 0, "t.gz#3", root=data),
        Case(
            "b",
            "q",
            "test",
            1,
            "b1.png|b2.png",
            mask="m, 1.png",
            site="S",
            root=out / "made",
            extra={"age": "4"},
        ),
        Case("c", "q", "", None, "c.png", root=out),
    ]
    manifest = Manifest(cases, out)
    again = load(manifest.save(out / "manifest.csv"))
    assert [(c.root.resolve() / c.image.split("|")[0]) for c in again] == [
        data / "t.gz#3",
        out / "made/b1.png",
        out / "c.png",
    ]
    assert again.cases[1].image == "made/b1.png|made/b2.png" and again.cases[1].extra["age"] == "4"
    assert [(c.split, c.label, c.site) for c in again] == [
        ("train", 0, ""),
        ("test", 1, "S"),
        ("", None, ""),
    ]
    (out / "manifest.roots.json").unlink()
    assert fault(out).code == "BAD_MANIFEST"


def test_the_usual_folders(tmp_path):
    touch(
        tmp_path,
        *(f"train/good/t{i}.png" for i in range(20)),
        "test/good/g.png",
        "test/Ungood/u.nii.gz",
        "test/Ungood/v.png",
    )
    touch(
        tmp_path,
        "masks/u.nii.gz",
        "ground_truth/Ungood/v_mask.png",
        "train/good/.hidden.png",
        "train/good/notes.txt",
    )
    manifest = load(tmp_path)
    assert Counter((c.split, c.label) for c in manifest) == {
        ("train", 0): 17,
        ("val", 0): 3,
        ("test", 0): 1,
        ("test", 1): 2,
    }
    assert {c.case_id: c.mask for c in manifest if c.label} == {
        "u": "masks/u.nii.gz",
        "v": "ground_truth/Ungood/v_mask.png",
    }
    assert load(tmp_path).sha256 == manifest.sha256
    assert check(manifest) == []


@pytest.mark.parametrize(
    "names",
    [
        ("masks/bad/v.png", "masks/bad/v_mask.png"),
        ("masks/v.png", "masks/v.npy"),
        ("masks/v.png", "ground_truth/v.png"),
    ],
)
def test_two_masks_of_one_image_are_refused_by_name(tmp_path, names):
    touch(tmp_path, "train/good/a.png", "test/bad/v.png", *names)
    found = fault(tmp_path)
    assert (found.code, found.exit) == ("MASK_AMBIGUOUS", 2) and all(
        name in str(found) for name in names
    )


def test_a_mask_nearer_to_its_image_wins(tmp_path):
    touch(
        tmp_path,
        "train/good/a.png",
        "test/bad/v.png",
        "test/crack/v.png",
        "masks/v.png",
        "masks/bad/v_mask.png",
    )
    assert [c.mask for c in load(tmp_path) if c.label] == ["masks/bad/v_mask.png", "masks/v.png"]


def test_numbered_images_are_not_one_patient(tmp_path):
    """MVTec numbers every folder from 000: no leak. A patients.csv says who is who."""
    touch(
        tmp_path,
        "train/good/000.png",
        "train/good/001.png",
        "test/good/000.png",
        "test/bad/000.png",
        "valid/good/img/000.png",
    )
    touch(tmp_path, "valid/Ungood/img/000.png", "valid/Ungood/label/000.png")
    manifest = load(tmp_path)
    assert check(manifest) == [] and len({c.case_id for c in manifest}) == 6
    assert [c.mask for c in manifest if c.split == "val" and c.label] == [
        "valid/Ungood/label/000.png"
    ]
    places = [c.image for c in manifest]
    touch(
        tmp_path,
        "patients.csv",
        content="file,patient\n" + "\n".join(f"{place},one" for place in places),
    )
    with pytest.raises(Fault, match="LEAK"):
        require_clean(load(tmp_path))


def test_splits_follow_patients_sites_and_the_seed(tmp_path):
    manifest = cases_of(tmp_path, 200, label=lambda i: 0, site=lambda i: "ABBB"[i // 2 % 4])
    split = assign_splits(manifest, seed=3, fractions=(0.6, 0.2, 0.2))
    by_patient = {p: {c.split for c in split if c.patient_id == p} for p in split.patients}
    assert all(len(found) == 1 for found in by_patient.values())
    assert Counter(c.split for c in split) == {"train": 120, "val": 40, "test": 40}
    assert Counter((c.site, c.split) for c in split)["A", "val"] == 10
    again = assign_splits(
        Manifest(reversed(manifest.cases), tmp_path), seed=3, fractions=(0.6, 0.2, 0.2)
    )
    assert {c.case_id: c.split for c in again} == {c.case_id: c.split for c in split}
    assert assign_splits(manifest, seed=4).sha256 != assign_splits(manifest, seed=3).sha256


def test_only_the_healthy_train(tmp_path):
    """A patient with one anomalous or unknown case is a test patient; without a healthy one, all
    are divided."""
    label = {1: ANOMALOUS, 3: None}
    split = assign_splits(cases_of(tmp_path, 40, label=lambda i: label.get(i, HEALTHY)))
    assert {c.patient_id for c in split if c.split != "test"}.isdisjoint({"p0", "p1"})
    assert {c.split for c in split} == {"train", "val", "test"}
    ill = assign_splits(cases_of(tmp_path, 6, label=lambda i: ANOMALOUS))
    assert {c.split for c in ill} == {"train", "val", "test"}
    with pytest.raises(Fault, match="BAD_SETTING"):
        assign_splits(ill, fractions=(0.5, 0.5, 0.5))


def test_the_hash_knows_content_not_place(tmp_path):
    one, other = cases_of(tmp_path, 3), cases_of(tmp_path / "elsewhere", 3)
    assert one.sha256 == other.sha256
    assert one.sha256 != Manifest([replace(one.cases[0], label=1), *one.cases[1:]], tmp_path).sha256


def test_patients_with_an_anomaly_can_validate_beside_healthy_ones_and_never_train(tmp_path):
    # Of 40 patients twelve are ill, one is unlabelled.
    label = {**dict.fromkeys(range(0, 24, 2), ANOMALOUS), 25: None}
    manifest = cases_of(tmp_path, 80, label=lambda i: label.get(i, HEALTHY))
    plain = assign_splits(manifest, seed=5)
    split = assign_splits(manifest, seed=5, anomalous_in_val=True)
    ill = {f"p{i}" for i in range(12)}
    shares = Counter(c.split for c in split if c.patient_id in ill)
    assert shares == {"val": 12, "test": 12}  # two cases each
    assert {c.split for c in split if c.patient_id == "p12"} == {"test"}, (
        "nobody knows whether that one is ill"
    )
    assert check(split) == [
        f"80 files named in the manifest do not exist: {', '.join(f'{i}.png' for i in range(10))}"
        " and 70 more."
    ]
    assert [c.split for c in split if c.patient_id not in ill] == [
        c.split for c in plain if c.patient_id not in ill
    ]
    assert assign_splits(manifest, seed=6, anomalous_in_val=True).sha256 != split.sha256
    for fractions, wanted in (
        ((0.7, 0.1, 0.2), (4, 8)),
        ((0.8, 0.2, 0.0), (12, 0)),
        ((0.8, 0.0, 0.2), (0, 12)),
    ):
        found = assign_splits(manifest, fractions=fractions, anomalous_in_val=True)
        assert (
            tuple(len(set(found.split(name).patients) & ill) for name in ("val", "test")) == wanted
        )


@pytest.mark.parametrize("count, wanted", [(1, (0, 1)), (2, (1, 1)), (3, (2, 1))])
def test_a_single_patient_with_an_anomaly_is_for_the_test(tmp_path, count, wanted):
    manifest = cases_of(tmp_path, 40, label=lambda i: ANOMALOUS if i < 2 * count else HEALTHY)
    found = assign_splits(manifest, anomalous_in_val=True)
    ill = {f"p{i}" for i in range(count)}
    assert tuple(len(set(found.split(name).patients) & ill) for name in ("val", "test")) == wanted
    assert set(found.split("train").patients).isdisjoint(ill)
