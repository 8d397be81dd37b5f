"""Public radiograph sets: label policies, boxes, patients; a miniature of every layout with its
traps."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.data.checks import check
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case
from pseudohealthy.datasets import prepare
from pseudohealthy.datasets.chexpert import COLUMNS
from pseudohealthy.datasets.grazpedwri import counted
from pseudohealthy.datasets.nih_chest import FINDINGS
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image


def picture(path, depth=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = np.iinfo(depth).max
    grey = np.random.default_rng(crc32(str(path).encode())).integers(
        0, limit, (20, 40), dtype=depth
    )
    grey[0, 0] = limit
    Image.fromarray(grey).save(path)


def chexpert(root, table, rows, prefix="CheXpert-v1.0-small/"):
    """rows: patient, view, {column: cell}."""
    lines = [",".join(COLUMNS)]
    for patient, view, cells in rows:
        path = f"{table}/patient{patient:05d}/study1/view1_{view}.jpg"
        picture(root / path)
        given = {
            "Path": prefix + path,
            "Sex": "Female",
            "Age": "68",
            "Frontal/Lateral": view.capitalize(),
            "AP/PA": "AP",
        }
        lines.append(",".join((given | cells).get(name, "") for name in COLUMNS))
    (root / f"{table}.csv").write_text("\n".join(lines) + "\n")


CLEAR, EFFUSION = {"No Finding": "1.0"}, {"Pleural Effusion": "1.0"}


@pytest.fixture
def stanford(tmp_path):
    root = tmp_path / "s" / "CheXpert-v1.0-small"
    rows = [(k, "frontal", CLEAR) for k in range(20)]
    rows += [
        (1, "lateral", CLEAR),
        (30, "frontal", EFFUSION),
        (31, "frontal", {"Pleural Effusion": "-1.0"}),
        (32, "frontal", {"Pleural Effusion": "0.0", "Edema": "1.0"}),
        (33, "frontal", CLEAR | {"Support Devices": "1.0"}),
        (34, "frontal", CLEAR | {"Fracture": "1.0"}),
        (35, "frontal", {}),  # nothing mentioned is not healthy
    ]
    chexpert(root, "train", rows)
    chexpert(
        root,
        "valid",
        [
            (64541, "frontal", dict.fromkeys(COLUMNS[5:], "0.0") | CLEAR),
            (64542, "frontal", EFFUSION),
        ],
    )
    return root.parent


def test_chexpert_takes_blank_for_unknown_and_says_what_it_left_out(stanford, tmp_path, capsys):
    manifest = prepare("chexpert", stanford, tmp_path / "out")
    labels = {int(c.patient_id.removeprefix("patient")): c.label for c in manifest}
    assert labels == {
        **dict.fromkeys([*range(20), 33, 64541], HEALTHY),
        30: ANOMALOUS,
        64542: ANOMALOUS,
    }
    assert {c.split for c in manifest if c.label or c.patient_id > "patient6"} == {
        "test"
    } and check(manifest) == []
    assert {c.split for c in manifest if not c.label} == {"train", "val", "test"}
    said = capsys.readouterr().err
    for words in (
        "2 other findings",
        "1 another view",
        "1 uncertain",
        "1 No Finding beside a finding",
    ):
        assert words in said
    case = load(tmp_path / "out").cases[0]
    assert case.extra["view"] == "AP" and read_image(case.image, case.root).shape == (1, 1, 20, 40)


@pytest.mark.parametrize(
    ("options", "healthy", "anomalous"),
    [
        ({"healthy": "no-devices"}, 21, 2),
        ({"uncertain": "positive"}, 22, 3),
        ({"anomaly": "any"}, 22, 3),
        ({"view": "all"}, 23, 2),
        ({"anomaly": "Edema"}, 22, 1),
    ],
)
def test_chexpert_policies(stanford, tmp_path, options, healthy, anomalous):
    manifest = prepare("chexpert", stanford / "CheXpert-v1.0-small", tmp_path / "out", **options)
    assert Counter(c.label for c in manifest) == {HEALTHY: healthy, ANOMALOUS: anomalous}


def test_chexpert_divides_the_anomalous_too_for_methods_that_learn_from_labels(tmp_path, capsys):
    rows = [(k, "frontal", EFFUSION if k % 2 else CLEAR) for k in range(40)]
    chexpert(tmp_path / "s", "train", rows, prefix="CheXpert-v1.0/")
    manifest = prepare("chexpert", tmp_path / "s", tmp_path / "out", weak=True)
    counts = Counter((c.split, c.label) for c in manifest)
    assert counts["train", ANOMALOUS] == 16 and check(manifest) == []
    said = capsys.readouterr().err
    here = counts["train", HEALTHY] + counts["val", HEALTHY]
    assert (
        f"training radiographs, validation among them: {here} healthy (Wolleb 2022: 14,179;"
        f" {here - 14179:,})" in said
    )
    prepare("chexpert", tmp_path / "s", tmp_path / "two")
    assert "Wolleb" not in capsys.readouterr().err, "only of a split that learns from labels"


@pytest.mark.parametrize(
    ("find", "put", "code"),
    [
        ("CheXpert-v1.0-small/train/patient00003", "../../patient00003", "PATH_ESCAPE"),
        ("CheXpert-v1.0-small/train/patient00003", "/patient00003", "PATH_ESCAPE"),
        ("train/patient00003", "train/somebody", "LAYOUT"),
        ("Lateral,AP", "Frontal,AP", "LAYOUT"),
        ("No Finding", "Nothing", "LAYOUT"),
        ("-1.0", "2.0", "LAYOUT"),
        ("train/patient00003", "train/patient00333", "MISSING"),
    ],
)
def test_chexpert_refuses_a_table_that_is_not_as_published(stanford, tmp_path, find, put, code):
    table = stanford / "CheXpert-v1.0-small" / "train.csv"
    text = table.read_text()
    assert find in text
    table.write_text(text.replace(find, put))
    with pytest.raises(Fault) as caught:
        prepare("chexpert", stanford, tmp_path / "out")
    assert caught.value.code == code
    if code == "MISSING":
        assert len(prepare("chexpert", stanford, tmp_path / "out", partial=True)) == 23


FLAGS = (
    "ao_classification",
    "cast",
    "diagnosis_uncertain",
    "osteopenia",
    "fracture_visible",
    "metal",
)


def wrist(root, rows):
    """rows: stem, {flag}, [(class, x0, y0, x1, y1)] or None, on images of 40 x 20."""
    names = (
        "boneanomaly",
        "bonelesion",
        "foreignbody",
        "fracture",
        "metal",
        "periostealreaction",
        "pronatorsign",
        "softtissue",
        "text",
    )
    table = ["filestem,patient_id,projection," + ",".join(FLAGS)]
    for stem, flags, boxes in rows:
        picture(root / "images_part1" / f"{stem}.png", np.uint16)
        table.append(
            f"{stem},{int(stem[:4])},1,"
            + ",".join("1.0" if name in flags else "" for name in FLAGS)
        )
        if boxes is not None:
            lines = [
                f"{names.index(kind)} {(x0 + x1) / 80} {(y0 + y1) / 40} {(x1 - x0) / 40}"
                f" {(y1 - y0) / 20}"
                for kind, x0, y0, x1, y1 in boxes
            ]
            labels = root / "folder_structure/yolov5/labels"
            labels.mkdir(parents=True, exist_ok=True)
            (labels / f"{stem}.txt").write_text("\n".join(lines))
    (labels.parent / "meta.yaml").write_text(f"nc: 9\nnames: {list(names)}\n")
    (root / "dataset.csv").write_text("\ufeff" + "\n".join(table) + "\n")


LETTER = ("text", 0, 0, 4, 3)
WRISTS = [(f"{k:04d}_129786039{k}_01_WRI-L1_M014", (), [LETTER]) for k in range(1, 10)] + [
    (
        "0009_2000000000_02_WRI-L2_M014",
        ("fracture_visible",),
        [LETTER, ("fracture", 10, 5, 22, 15)],
    ),
    (
        "0010_2000000000_01_WRI-R1_F004",
        (),
        [("softtissue", 30, 0, 40, 20), ("fracture", 1, 2, 3, 4)],
    ),
    ("0011_2000000000_01_WRI-R1_F004", ("cast",), [LETTER]),
    ("0012_2000000000_01_WRI-R1_F004", ("diagnosis_uncertain",), [LETTER]),
    ("0013_2000000000_01_WRI-R1_F004", (), None),
]


def test_grazpedwri_boxes_in_pixels_and_letters_are_no_pathology(tmp_path, capsys):
    wrist(tmp_path / "s", WRISTS)
    prepare("grazpedwri", tmp_path / "s", tmp_path / "out")
    loaded = load(tmp_path / "out")
    cases = {c.case_id[:15]: c for c in loaded}
    assert Counter(c.label for c in loaded) == {HEALTHY: 9, ANOMALOUS: 2} and check(loaded) == []
    assert {c.split for c in loaded if c.patient_id in ("0009", "0010")} == {"test"}
    assert cases["0009_2000000000"].extra["boxes"] == "10 5 22 15 fracture"
    assert cases["0010_2000000000"].extra["boxes"] == "30 0 40 20 softtissue;1 2 3 4 fracture"
    assert "1 cast" in (said := capsys.readouterr().err) and "1 without annotation" in said
    scan = read_image(loaded.cases[0].image, loaded.cases[0].root)
    assert scan.voxels.max() == 65535  # 16 bits survive
    assert (
        "the table lists 14 images of 14 studies of 13 patients (published: 20,327, 10,643 and"
        " 6,091" in said
    )
    flagged = prepare("grazpedwri", tmp_path / "s", tmp_path / "flags", flags=True)
    assert next(c for c in flagged if c.patient_id == "0011").label == ANOMALOUS


def test_grazpedwri_counts_studies_as_thor_counts_x_rays():
    """Two projections of one visit are one study; the table's column says so, else the third part
    of the name."""
    stems = (
        "0001_1297860395_01_WRI-L1_M014",
        "0001_1297860435_01_WRI-L2_M014",
        "0001_1297970153_02_WRI-L1_M014",
        "0002_5_01_WRI-R1_F004",
    )
    cases = [Case(stem, stem[:4], "", None, f"{stem}.png") for stem in stems]
    assert "4 images of 3 studies of 2 patients" in counted(cases)
    numbered = [replace(case, extra={"study_number": "1"}) for case in cases]
    assert "4 images of 2 studies of 2 patients" in counted(numbered)


def test_grazpedwri_supervisely_says_the_same_as_yolo(tmp_path):
    wrist(tmp_path / "s", WRISTS[:10])
    expected = [
        (c.case_id, c.label, c.split, c.extra)
        for c in prepare("grazpedwri", tmp_path / "s", tmp_path / "yolo")
    ]
    for path in (tmp_path / "s/folder_structure").rglob("*"):
        if path.is_file():
            path.unlink()
    (tmp_path / "s/folder_structure/yolov5/labels").rmdir()
    marked = tmp_path / "s/folder_structure/supervisely/wrist/ann"
    marked.mkdir(parents=True)
    for stem, _, boxes in WRISTS[:10]:
        things = [
            {"classTitle": kind, "points": {"exterior": [[x0, y0], [x1 - 1, y1 - 1]]}}
            for kind, x0, y0, x1, y1 in boxes
        ] + [{"classTitle": "axis", "points": {"exterior": [[3, 3], [3, 18]]}}]
        (marked / f"{stem}.json").write_text(json.dumps({"objects": things}))
    found = [
        (c.case_id, c.label, c.split, c.extra)
        for c in prepare("grazpedwri", tmp_path / "s", tmp_path / "ann")
    ]
    assert found == expected


def test_grazpedwri_refuses_strange_boxes_and_patients(tmp_path):
    wrist(tmp_path / "s", [("0001_1_01_WRI-L1_M014", (), [("fracture", 50, 5, 60, 9)])])
    with pytest.raises(Fault, match="outside its image"):
        prepare("grazpedwri", tmp_path / "s", tmp_path / "out")
    table = tmp_path / "s/dataset.csv"
    table.write_text(table.read_text().replace(",1,1,", ",2,1,"))
    with pytest.raises(Fault, match="patient_id disagree"):
        prepare("grazpedwri", tmp_path / "s", tmp_path / "out")


def nih(root, rows):
    lines = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    ]
    for name, findings, view, age in rows:
        picture(root / "images_001/images" / name)
        lines.append(f"{name},{findings},0,{int(name[:8])},{age},M,{view}")
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")


def test_nih_keeps_patients_together_and_the_published_test_list(tmp_path):
    rows = [(f"{k:08d}_000.png", "No Finding", "PA", "058Y") for k in range(1, 15)]
    rows += [
        ("00000003_001.png", "Edema|Effusion", "AP", "411Y"),
        ("00000020_000.png", "Hernia", "PA", "60"),
    ]
    nih(tmp_path / "s", rows)
    (tmp_path / "s/test_list.txt").write_text("\n".join(f"{k:08d}_000.png" for k in range(5, 11)))
    manifest = prepare("nih-chest", tmp_path / "s", tmp_path / "out")
    assert (
        Counter(c.label for c in manifest) == {HEALTHY: 14, ANOMALOUS: 1} and check(manifest) == []
    )
    assert {c.split for c in manifest if int(c.patient_id) in (3, *range(5, 11))} == {"test"}
    loaded = {c.case_id: c for c in load(tmp_path / "out")}
    assert (loaded["00000003_001"].extra["age"], loaded["00000001_000"].extra["age"]) == ("", "58")
    assert {
        c.label
        for c in prepare("nih-chest", tmp_path / "s", tmp_path / "pa", view="PA", anomaly="any")
    } == {0, 1}
    with pytest.raises(Fault, match="choose from 'any', 'Atelectasis'"):
        prepare("nih-chest", tmp_path / "s", tmp_path / "out", anomaly="effusion")


@pytest.mark.parametrize(
    ("old", "new"),
    [("No Finding", "Ghost"), (",1,058Y", ",2,058Y"), ("00000001_000", "00000001_007")],
)
def test_nih_refuses_a_table_that_does_not_fit_the_images(tmp_path, old, new):
    nih(tmp_path / "s", [(f"{k:08d}_000.png", "No Finding", "PA", "058Y") for k in range(1, 5)])
    table = tmp_path / "s/Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(Fault, match=r"LAYOUT|MISSING"):
        prepare("nih-chest", tmp_path / "s", tmp_path / "out")


def test_real_nih(shared, tmp_path, capsys):
    manifest = prepare("nih-chest", shared / "data" / "chest-xray", tmp_path)
    assert (
        Counter(c.label for c in manifest) == {HEALTHY: 240, ANOMALOUS: 73}
        and len(manifest.patients) == 209
    )
    assert not [line for line in check(load(tmp_path)) if "patient" in line]
    assert (
        all("Effusion" in c.extra["findings"].split() for c in manifest if c.label)
        and len(FINDINGS) == 14
    )
    assert {c.split for c in manifest if c.label} == {"test"}
