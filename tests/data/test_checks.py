"""What a check of a manifest finds: leaks, copies and missing files, told in sentences."""

from __future__ import annotations

import pytest
from manifest_tables import cases_of, table, touch

from pseudohealthy.data.checks import check, require_clean
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import Fault


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
