"""Manifests: what a table or a folder says, what is refused, and what a leak looks like."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pseudohealthy.data.checks import check, require_clean
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.errors import Fault


def touch(folder: Path, *names: str, content: str | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name if content is None else content)


def table(
    folder: Path, *rows: str, header: str = "case_id,patient_id,split,label,image,mask"
) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def cases_of(folder: Path, count: int, label=lambda i: None, site=lambda i: "") -> Manifest:
    return Manifest(
        [
            Case(f"c{i}", f"p{i // 2}", "", label(i), f"{i}.png", site=site(i), root=folder)
            for i in range(count)
        ],
        folder,
    )


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


def test_leaks_are_told_in_sentences(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    touch(tmp_path, "copy.png", content="a.png")
    rows = [
        ("a", "p1", "train", "a.png"),
        ("a", "p2", "test", "a.png"),
        ("b", "p1", "test", "b.png"),
        ("c", "p3", "val", "copy.png"),
    ]
    manifest = Manifest([Case(i, p, s, 0, f, root=tmp_path) for i, p, s, f in rows], tmp_path)
    found = check(manifest)
    assert found == [
        "1 case id occurs more than once: a.",
        "2 images occur more than once, 2 of them in different splits: a, a = c.",
        "1 patient is in both train and test: p1.",
    ]
    with pytest.raises(Fault) as caught:
        require_clean(manifest)
    assert (caught.value.code, caught.value.exit) == ("LEAK", 2)
    assert check(Manifest(manifest.cases[2:], tmp_path)) == []


def test_copies_are_left_out_only_where_split_and_label_agree(tmp_path, capsys):
    touch(tmp_path, "a.png", "b.png", "d.png")
    touch(tmp_path, "copy.png", "other.png", content="a.png")
    touch(tmp_path, "b2.png", content="b.png")
    touch(tmp_path, "d2.png", content="d.png")
    rows = [
        ("a", "train", HEALTHY, "a.png"),
        ("a2", "train", HEALTHY, "a.png"),
        ("a3", "train", HEALTHY, "copy.png"),
        ("b", "train", HEALTHY, "b.png"),
        ("b2", "test", HEALTHY, "b2.png"),
        ("d", "test", HEALTHY, "d.png"),
        ("d2", "test", ANOMALOUS, "d2.png"),
    ]
    text = [f"{i},{i},{s},{label},{f}," for i, s, label, f in rows]
    kept = load(table(tmp_path, *text), dedupe=True)
    assert [case.case_id for case in kept] == ["a", "b", "b2", "d", "d2"]
    assert "left out as copies of other cases (2): a2, a3" in capsys.readouterr().err
    with pytest.raises(Fault, match="LEAK"):
        require_clean(kept)
    assert (
        load(table(tmp_path, text[0], text[3]), dedupe=True).sha256
        == load(table(tmp_path, text[0], text[3])).sha256
    )


def test_missing_files_are_counted_and_the_first_named(tmp_path):
    manifest = cases_of(tmp_path, 14)
    assert check(manifest)[0].startswith("14 files") and check(manifest)[0].endswith(
        "9.png and 4 more."
    )
    with pytest.raises(Fault) as caught:
        require_clean(manifest)
    assert (caught.value.code, caught.value.exit) == ("MISSING", 3)
    touch(tmp_path, *(f"{i}.png" for i in range(14)))
    require_clean(manifest)
    pattern = Manifest(
        [Case("s", "s", "test", 1, "?.png#1", mask="z*.png", root=tmp_path)], tmp_path
    )
    assert check(pattern) == ["1 file named in the manifest does not exist: z*.png."]


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


def test_published_splits_leak_and_are_caught(shared):
    """The patch-diffusion IXI lists share scans between train and test (duplicate rows in
    IXI.xls)."""
    import csv

    lists, cases = shared / "data" / "published-splits" / "behrendt", []
    for split, name in (("train", "IXI_train_fold0.csv"), ("test", "IXI_test.csv")):
        with (lists / name).open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream)):
                cases.append(
                    Case(
                        f"{split}{number}",
                        row["img_name"],
                        split,
                        0,
                        row["img_path"][1:],
                        root=lists,
                    )
                )
    report = check(Manifest(cases, lists))
    assert report[1].startswith("9 patients are in both train and test: IXI")


def test_equal_names_in_two_splits_are_told_how_to_be_two_patients(tmp_path):
    for place in ("train/good/p1.png", "train/good/p2.png", "train/good/p3.png", "test/bad/p1.png"):
        touch(tmp_path, place, content=place)
    with pytest.raises(Fault, match="LEAK") as caught:
        require_clean(load(tmp_path))
    assert "patients.csv" in caught.value.cure and not caught.value.message.endswith(".")
    rows = [
        "train/good/p1.png,a",
        "train/good/p2.png,b",
        "train/good/p3.png,c",
        "test/bad/p1.png,d",
    ]
    touch(tmp_path, "patients.csv", content="file,patient\n" + "\n".join(rows))
    require_clean(load(tmp_path))
