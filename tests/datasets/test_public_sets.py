"""Public volume sets: a miniature of every layout with its traps goes through `prepare`, `load` and
the readers."""

from __future__ import annotations

import json
from collections import Counter
from zlib import crc32

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pseudohealthy.data.checks import check
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.datasets import prepare
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image, read_mask

SHAPE = (12, 11, 4)


def volume(path, values=None, shift=0.0):
    """A NIfTI volume: noise, or a mask with one voxel of each value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        data = (
            np.random.default_rng(crc32(str(path).encode())).normal(size=SHAPE).astype(np.float32)
        )
    else:
        data = np.zeros(SHAPE, np.uint8)
        data.flat[1 : 1 + len(values)] = values
    affine = np.eye(4)
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(data, affine), path)


def read(case):
    """The image and the mask of a loaded case; the labels its manifest sets apart are not
    lesion."""
    apart = [
        int(v)
        for name in ("mask_ignore", "mask_background")
        for v in case.extra.get(name, "").split()
    ]
    scan = read_image(case.image, case.root)
    return scan, read_mask(case.mask, case.root, scan, ignore=apart)


def brats(root, name, kinds, values, join="_", end=".nii.gz"):
    for kind in kinds:
        seg = kind == "seg"
        volume(root / name / f"{name}{join}{kind}{end}", values if seg else None, shift=0)


OLD, NEW = ("flair", "t1", "t1ce", "t2", "seg"), ("t2f", "t1n", "t1c", "t2w", "seg")


def test_brats_2020_finds_the_misnamed_mask_and_keeps_all_for_test(tmp_path, capsys):
    train = tmp_path / "s" / "MICCAI_BraTS2020_TrainingData"
    brats(train, "BraTS20_Training_001", OLD, (1, 2, 4), end=".nii")
    brats(train, "BraTS20_Training_355", OLD[:4], (), end=".nii")
    volume(train / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii", (2, 2))
    volume(train / "BraTS20_Training_001" / "._BraTS20_Training_001_flair.nii")
    brats(tmp_path / "s" / "Validation", "BraTS20_Validation_001", OLD[:4], ())
    manifest = prepare("brats", tmp_path / "s", tmp_path / "out", modality="all")
    assert [(c.split, c.label) for c in manifest] == [("test", ANOMALOUS)] * 3
    said = capsys.readouterr().err
    assert "W39" in said and "1: 1, 2: 2, 4: 1" in said
    first, last, hidden = load(tmp_path / "out")
    assert [name.rsplit("_", 1)[1] for name in first.image.split("|")] == [
        "t1.nii",
        "t1ce.nii",
        "t2.nii",
        "flair.nii",
    ]
    assert last.mask.endswith("W39_1998.09.19_Segm.nii") and hidden.mask == ""
    scan, mask = read(first)
    assert scan.shape[0] == 4 and mask.sum() == 3
    divided = prepare("brats", tmp_path / "s", tmp_path / "two", fractions=(0.4, 0.3, 0.3))
    assert {c.split for c in divided} == {"train", "val", "test"}


def test_brats_counts_the_slices_that_wolleb_takes_where_all_sequences_are_divided(
    tmp_path, capsys
):
    for number in range(4):
        name = f"BraTS20_Training_{number:03d}"
        for kind in OLD:
            voxels = np.zeros((4, 4, 155), np.uint8)
            if kind == "seg":
                voxels[1, 1, 70:90] = 1  # 10 of them among the 49 slices that are taken
                voxels[1, 1, 120:140] = 2  # and 9 of these
            (tmp_path / "s" / name).mkdir(parents=True, exist_ok=True)
            nib.save(
                nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "s" / name / f"{name}_{kind}.nii.gz"
            )
    how = {"modality": "all", "fractions": (0.5, 0.25, 0.25)}
    prepare("brats", tmp_path / "s", tmp_path / "out", **how)
    said = capsys.readouterr().err
    assert (
        f"training slices, validation among them: 90 healthy (Wolleb 2022: 5,598; {90 - 5598:,}),"
        " 57 diseased" in said
    )
    assert (
        "test slices: 30 healthy (Wolleb 2022: 705; -675), 19 diseased (Wolleb 2022: 1,082; -1,063)"
        in said
    )
    prepare("brats", tmp_path / "s", tmp_path / "two", modality="all")
    assert "Wolleb" not in capsys.readouterr().err, (
        "all cases are test: nothing is learned from them"
    )


def test_brats_2023_visits_belong_to_one_patient(tmp_path):
    for visit in ("000", "001"):
        brats(tmp_path / "s", f"BraTS-GLI-00002-{visit}", NEW, (1, 2, 3), join="-")
    brats(tmp_path / "s", "BraTS-GLI-00003-000", NEW, (3,), join="-")
    cases = list(
        prepare("brats", tmp_path / "s", tmp_path / "out", fractions=(0.5, 0, 0.5), modality="t1ce")
    )
    assert [c.patient_id for c in cases] == [
        "BraTS-GLI-00002",
        "BraTS-GLI-00002",
        "BraTS-GLI-00003",
    ]
    assert cases[0].split == cases[1].split != cases[2].split and "-t1c." in cases[0].image


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda s: brats(s, "BraTS2021_00005", OLD, (3,)), "LABELS", "0, 1, 2, 4"),
        (lambda s: brats(s, "BraTS2021_00005", OLD[:4], ()), "LAYOUT", "without mask"),
        (lambda s: brats(s, "BraTS2021_00005", OLD[1:], (1,)), "LAYOUT", "no flair"),
        (lambda s: brats(s, "BraTS20_Training_001", OLD, (1,)), "LAYOUT", "2020, 2021"),
        (lambda s: brats(s / "copy", "BraTS2021_00000", OLD, (1,)), "DUPLICATE", "twice"),
    ],
)
def test_brats_refuses_what_it_does_not_know(tmp_path, spoil, code, words):
    brats(tmp_path / "s", "BraTS2021_00000", OLD, (1, 2, 4))
    spoil(tmp_path / "s")
    with pytest.raises(Fault, match=words) as caught:
        prepare("brats", tmp_path / "s", tmp_path / "out")
    assert caught.value.code == code


def test_brats_2021_takes_the_site_from_the_mapping_and_other_labels_on_request(tmp_path):
    brats(tmp_path / "s", "BraTS2021_00000", OLD, (1, 4))
    brats(tmp_path / "s", "BraTS2021_00007", OLD, (3,))
    table = "BraTS2021 ID,Site No (represents the originating institution)\nBraTS2021_00007,18\n"
    (tmp_path / "s" / "BraTS21-17_Mapping.csv").write_text(table)
    manifest = prepare("brats", tmp_path / "s", tmp_path / "out", labels=(0, 1, 2, 3, 4))
    assert [c.site for c in manifest] == ["", "18"]


def atlas(root, subject, session=1, values=(1,), mask=True):
    folder = root / f"sub-{subject}" / f"ses-{session}" / "anat"
    stem = f"sub-{subject}_ses-{session}_space-MNI152NLin2009aSym"
    volume(folder / f"{stem}_T1w.nii.gz")
    if mask:
        volume(folder / f"{stem}_label-L_desc-T1lesion_mask.nii.gz", values)


def test_atlas_takes_images_with_masks_by_subject_and_cohort(tmp_path, capsys):
    source = tmp_path / "s"
    for session in (1, 2):
        atlas(source / "derivatives/ATLAS", "r001s001", session)
    atlas(source / "derivatives/ATLAS", "r009s110", values=(1, 1, 1))
    atlas(source / "derivatives/ATLAS", "r005s003", mask=False)
    # raw: not the masks' grid.
    volume(source / "sub-r001s001/ses-1/anat/sub-r001s001_ses-1_T1w.nii.gz", shift=9)
    prepare("atlas", source, tmp_path / "out")
    cases = list(load(tmp_path / "out"))
    assert [c.case_id for c in cases[:2]] == ["sub-r001s001_ses-1", "sub-r001s001_ses-2"]
    assert len({c.patient_id for c in cases}) == 3 and [c.site for c in cases] == [
        "R001",
        "R001",
        "R005",
        "R009",
    ]
    assert {(c.split, c.label) for c in cases} == {("test", ANOMALOUS)} and cases[2].mask == ""
    assert "1 case without mask" in capsys.readouterr().err and read(cases[3])[1].sum() == 3


@pytest.mark.parametrize(
    ("values", "mask", "words"),
    [((), True, "empty"), ((7,), True, "holds 0, 7"), ((), False, "R001")],
)
def test_atlas_refuses_masks_that_cannot_be(tmp_path, values, mask, words):
    atlas(tmp_path / "Training/R001", "r001s001")
    atlas(tmp_path / "Training/R001", "r001s002", values=values, mask=mask)
    with pytest.raises(Fault, match=words):
        prepare("atlas", tmp_path, tmp_path / "out")


def test_mslub_never_takes_the_raw_image(tmp_path, capsys):
    for name in ("patient01", "patient2"):
        for kind in ("FLAIR", "T1W", "T1WKS", "brainmask", "consensus_gt"):
            volume(
                tmp_path / "s" / name / f"{name}_{kind}.nii.gz", (1, 1) if kind[0] in "bc" else None
            )
            volume(tmp_path / "s" / name / "raw" / f"{name}_{kind}.nii.gz", shift=5)
    (tmp_path / "s/patient2/patient2_FLAIR.nii.gz").unlink()
    (case,) = prepare("mslub", tmp_path / "s", tmp_path / "out")
    assert "patient02" in capsys.readouterr().err
    assert "raw" not in case.image + case.mask and case.brain_mask.endswith("brainmask.nii.gz")
    assert read(load(tmp_path / "out").cases[0])[1].sum() == 2
    both = prepare("mslub", tmp_path / "s", tmp_path / "both", modality="T1|T1POST")
    assert (
        both.patients == ["patient01", "patient02"] and "T1WKS" in both.cases[0].image.split("|")[1]
    )


def test_mslub_refuses_change_masks_and_raw_folders(tmp_path):
    volume(tmp_path / "a/patient01/gt.nii.gz", (1,))
    volume(tmp_path / "b/patient01/raw/FLAIR.nii.gz")
    for folder, words in (("a", "changes between two visits"), ("b", "only raw")):
        with pytest.raises(Fault, match=words):
            prepare("mslub", tmp_path / folder, tmp_path / "out")


def wmh(folder, values=(1, 1, 2)):
    for place, shift in (("pre", 0), ("orig", 3)):
        volume(folder / place / "FLAIR.nii.gz", shift=shift)
        volume(folder / place / "T1.nii.gz", shift=shift)
    volume(folder / "wmh.nii.gz", values)


def test_wmh_ignores_other_pathology_and_names_the_scanner(tmp_path, capsys):
    source = tmp_path / "s"
    wmh(source / "training/Utrecht/0")
    wmh(source / "training/Amsterdam/GE3T/0")
    wmh(source / "test/Amsterdam/Philips_VU .PETMR_01./0")
    volume(source / "additional_annotations/observer_o3/training/Utrecht/0/result.nii.gz", (1,))
    prepare("wmh", source, tmp_path / "out", modality="FLAIR|T1")
    cases = list(load(tmp_path / "out"))
    assert [c.case_id for c in cases] == [
        "Amsterdam-Philips_VU_PETMR_01-0",
        "Amsterdam-GE3T-0",
        "Utrecht-0",
    ]
    assert [c.extra["part"] for c in cases] == ["test", "training", "training"] and check(
        load(tmp_path / "out")
    ) == []
    assert {c.extra["mask_ignore"] for c in cases} == {
        "2"
    } and "2 is ignored" in capsys.readouterr().err
    for case in cases:
        scan, mask = read(case)
        assert scan.shape[0] == 2 and mask.sum() == 2
    wmh(source / "training/Utrecht/2", (3,))
    with pytest.raises(Fault, match="LABELS"):
        prepare("wmh", source, tmp_path / "out")


def nnunet(root, described, cases):
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps(described))
    for name, values in cases.items():
        for channel in range(2):
            volume(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", shift=0)
        volume(root / "labelsTr" / f"{name}.nii.gz", values)
    volume(root / "imagesTs" / "P9_b_0000.nii.gz")
    volume(root / "imagesTs" / "P9_b_0001.nii.gz")


def test_nnunet_takes_organs_for_background_and_keeps_visits_together(tmp_path):
    described = {
        "channel_names": {"0": "T1", "1": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
        "file_ending": ".nii.gz",
    }
    cases = {
        f"P{k}_{visit}": (1, 2, 3) if k > 7 else (1,)
        for k in range(10)
        for visit in "ab"[: 1 + (k < 9)]
    }
    nnunet(tmp_path / "s", described, cases)
    options = {"lesions": "tumour", "channels": "CT|T1", "patient": r"(P\d)_"}
    manifest = prepare("nnunet", tmp_path / "s", tmp_path / "out", **options)
    assert check(manifest) == []
    assert Counter(c.label for c in manifest) == {HEALTHY: 16, ANOMALOUS: 3, None: 1}
    assert {c.patient_id for c in manifest if c.split != "test"} < {f"P{k}" for k in range(8)}
    loaded = {c.case_id: c for c in load(tmp_path / "out")}
    assert "_0001" in loaded["P8_a"].image.split("|")[0]
    assert (
        loaded["P8_a"].extra["mask_background"] == "1"
        and loaded["P8_a"].extra["mask_ignore"] == "3"
    )
    assert (
        read(loaded["P8_a"])[1].sum() == 1
        and loaded["P9_b"].mask == ""
        and loaded["P9_b"].split == "test"
    )
    with pytest.raises(Fault, match="choose from background, liver"):
        prepare("nnunet", tmp_path / "s", tmp_path / "out", lesions="kidney")


def test_nnunet_without_healthy_cases_is_for_test_only(tmp_path):
    version_1 = {"modality": {"0": "MR", "1": "MR2"}, "labels": {"0": "background", "1": "lesion"}}
    nnunet(tmp_path / "s", version_1, {f"c{k}": (1,) for k in range(5)})
    assert {c.split for c in prepare("nnunet", tmp_path / "s", tmp_path / "out")} == {"test"}
    divided = prepare("nnunet", tmp_path / "s", tmp_path / "out", fractions=(0.6, 0.2, 0.2))
    assert Counter(c.split for c in divided) == {"train": 3, "val": 1, "test": 2}
    volume(tmp_path / "s/labelsTr/c1.nii.gz", (1, 2))
    with pytest.raises(Fault, match="LABELS"):
        prepare("nnunet", tmp_path / "s", tmp_path / "out")
    (tmp_path / "s/imagesTr/c2_0001.nii.gz").unlink()
    with pytest.raises(Fault, match="no channel 0001"):
        prepare("nnunet", tmp_path / "s", tmp_path / "out")


def picture(path, value, mask=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.full((12, 12), 0 if mask else value, np.uint8)
    grey[:2] = 255 if mask else value // 2
    Image.fromarray(grey).save(path)


@pytest.mark.parametrize("masks", ["label", "anomaly_mask"])
def test_bmad_slices_of_a_volume_stay_in_one_split(tmp_path, masks):
    root = tmp_path / "Brain_AD"
    for k in range(12):
        picture(root / "train/good" / f"BraTS2021_{k // 3:05d}_{k}.png", 20 + k)
    picture(root / "test/good/img/BraTS2021_00100_60.png", 90)
    for k in range(2):
        picture(root / "test/Ungood/img" / f"BraTS2021_00200_{k}.png", 100 + k)
        picture(root / "test/Ungood" / masks / f"BraTS2021_00200_{k}.png", 1, mask=True)
    manifest = prepare("bmad", tmp_path, tmp_path / "out")
    assert check(manifest) == [] and len(manifest.patients) == 6
    assert Counter(c.split for c in manifest) == {"train": 9, "val": 3, "test": 3}
    assert read(next(c for c in load(tmp_path / "out") if c.label))[1].sum() == 24
    (root / "test/Ungood" / masks / "BraTS2021_00200_1.png").unlink()
    with pytest.raises(Fault, match="1 of 2 anomalous"):
        prepare("bmad", tmp_path, tmp_path / "out")


def test_bmad_keeps_the_published_valid_and_tells_of_its_leaks(tmp_path, capsys):
    for place, name in (
        ("train/good", "1-a"),
        ("valid/good", "2-a"),
        ("valid/Ungood", "3-a"),
        ("test/good", "1-b"),
    ):
        picture(tmp_path / "s" / place / f"{name}.png", 40 + len(place) + ord(name[-1]))
    manifest = prepare("bmad", tmp_path / "s", tmp_path / "out", patient=r"(\d+)-")
    assert Counter((c.split, c.label) for c in manifest) == {
        ("train", 0): 1,
        ("val", 0): 1,
        ("val", 1): 1,
        ("test", 0): 1,
    }
    assert "in both train and test" in capsys.readouterr().err
    (tmp_path / "s/train/good/1-a.png").rename(tmp_path / "s/train/good/x.png")
    with pytest.raises(Fault, match="BAD_SETTING"):
        prepare("bmad", tmp_path / "s", tmp_path / "out", patient=r"(\d+)-")


def test_ixi_table_is_joined_by_number_and_its_doubled_rows_do_not_count_twice(tmp_path, capsys):
    for number in (2, 12, 13, 14):
        volume(tmp_path / "s/IXI-T1" / f"IXI{number:03d}-Guys-0828-T1.nii.gz", shift=number)
    (tmp_path / "s/IXI.csv").write_text(
        ',IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,AGE\n0,13,2,0,30.5\n1,13,2,0,30.5\n2,2,1,164,35.8\n'
        "3,12,1,175,38.78\n4,12,1,175,41.0\n5,700,1,170,20\n"
    )
    prepare("ixi", tmp_path / "s/IXI-T1", tmp_path / "out")
    told = {c.patient_id: (c.extra["age"], c.extra["sex"]) for c in load(tmp_path / "out")}
    assert told == {
        "IXI002": ("35.8", "M"),
        "IXI012": ("", "M"),
        "IXI013": ("30.5", "F"),
        "IXI014": ("", ""),
    }
    assert (
        "3 of 4 subjects are in the table, 2 of them more than once (1 with"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "folder", "options", "voxels"),
    [("brats", "brats2015", {}, 111_724), ("mslub", "mslub", {"modality": "T1"}, 49_769)],
)
def test_real_volumes(shared, tmp_path, name, folder, options, voxels):
    prepare(name, shared / "data" / folder, tmp_path, **options)
    manifest = load(tmp_path)
    assert check(manifest) == [] and {(c.split, c.label) for c in manifest} == {("test", ANOMALOUS)}
    assert read(manifest.cases[0])[1].sum() == voxels
