"""Every data set adapter: its layout is found, its patients do not leak, its traps are handled."""

from __future__ import annotations

import gzip
import struct
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.data.checks import check
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.datasets import REGISTRY, prepare
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image, read_mask


def write_idx(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    source = tmp_path / "mnist"
    write_idx(
        source / "train-images-idx3-ubyte.gz", rng.integers(0, 255, (60, 28, 28), dtype=np.uint8)
    )
    write_idx(source / "t10k-images.idx3-ubyte", rng.integers(0, 200, (30, 28, 28), dtype=np.uint8))
    return source


# Those two read nothing.
@pytest.mark.parametrize("name", sorted(REGISTRY.keys() - {"digits", "heads"}))
def test_a_wrong_folder_is_named(name, tmp_path):
    with pytest.raises(Fault) as caught:
        prepare(name, tmp_path, tmp_path / "out")
    assert (caught.value.code, caught.value.exit) == ("LAYOUT", 3)
    with pytest.raises(Fault, match="NOT_FOUND"):
        prepare(name, tmp_path / "nothing", tmp_path / "out")


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(Fault) as caught:
        prepare("imagenet", tmp_path, tmp_path)
    assert caught.value.exit == 2 and "mnist-splotch" in caught.value.cure


def test_clean_mnist(mnist, tmp_path):
    manifest = prepare("mnist", mnist, tmp_path / "out", limit=40, val=10)
    assert Counter((c.split, c.label) for c in manifest) == {
        ("train", 0): 30,
        ("val", 0): 10,
        ("test", 0): 30,
    }
    assert load(tmp_path / "out").sha256 == manifest.sha256 and check(manifest) == []
    case = manifest.cases[3]
    assert read_image(case.image, case.root).voxels.shape == (1, 1, 28, 28)


def test_splotched_mnist_uses_other_digits_than_the_clean_test(mnist, tmp_path):
    options = {"limit": 40, "val": 10, "clean": 12, "splotched": 15}
    manifest = prepare("mnist-splotch", mnist, tmp_path / "out", **options)
    test = manifest.split("test")
    assert (
        Counter(c.label for c in test) == {HEALTHY: 12, ANOMALOUS: 15} and len(test.patients) == 27
    )
    assert all(c.image.startswith("train-images") for c in manifest if c.split != "test")
    assert check(load(tmp_path / "out")) == []
    for case in [c for c in load(tmp_path / "out") if c.label][:5]:
        scan = read_image(case.image, case.root)
        mask = read_mask(case.mask, case.root, scan)
        original = read_image(f"t10k-images.idx3-ubyte#{int(case.patient_id[-5:])}", mnist).voxels
        assert mask.any() and (scan.voxels[0][mask] == 255).all()
        assert np.array_equal(scan.voxels[0][~mask], original[0][~mask])
    again = prepare("mnist-splotch", mnist, tmp_path / "again", **options)
    assert again.sha256 == manifest.sha256
    for case in again.split("test"):
        if case.label:
            assert (tmp_path / "again" / case.image).read_bytes() == (
                tmp_path / "out" / case.image
            ).read_bytes()
    assert (
        prepare("mnist-splotch", mnist, tmp_path / "other", seed=1, **options).sha256
        != manifest.sha256
    )


def test_more_digits_than_there_are(mnist, tmp_path):
    for options in ({"limit": 61}, {"limit": 20, "val": 20}):
        with pytest.raises(Fault, match="BAD_SETTING"):
            prepare("mnist", mnist, tmp_path / "out", **options)
    with pytest.raises(Fault, match="BAD_SETTING"):
        prepare("mnist-splotch", mnist, tmp_path / "out", limit=20, val=2, clean=20, splotched=20)


def test_the_whole_of_mnist(shared, tmp_path):
    manifest = prepare("mnist-splotch", shared / "data" / "mnist", tmp_path)
    assert Counter((c.split, c.label) for c in manifest) == {
        ("train", 0): 55_000,
        ("val", 0): 5_000,
        ("test", 0): 2_000,
        ("test", 1): 2_000,
    }
    assert len(manifest.split("test").patients) == 4_000


def test_digits_need_no_source(tmp_path):
    manifest = prepare("digits", tmp_path, tmp_path / "out", val=100, clean=50, splotched=60)
    assert Counter((c.split, c.label) for c in manifest) == {
        ("train", 0): 1587,
        ("val", 0): 100,
        ("test", 0): 50,
        ("test", 1): 60,
    }
    assert [
        line for line in check(load(tmp_path / "out")) if "patient" in line or "exist" in line
    ] == []
    case = next(c for c in manifest if c.label)
    assert read_image(case.image, case.root).voxels.shape == (1, 1, 32, 32)


def lgg_folder(root, name, count, colour):
    folder = root / name
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        grey = np.full((16, 16), number, np.uint8)
        grey[:4] = int(name.split("_")[2]) % 200 + number
        image = np.stack([grey * 0, grey, grey * 0 + 7], axis=-1) if colour else grey
        stem = f"{name}_{number}" if colour else f"{number:03d}"
        mask = np.zeros((16, 16), np.uint8)
        mask[: number % 3] = 255
        suffix = "tif" if colour else "png"
        Image.fromarray(image).save(folder / f"{stem}.{suffix}")
        Image.fromarray(mask).save(folder / f"{stem}_mask.{suffix}")


@pytest.mark.parametrize("colour", [True, False])
def test_lgg_takes_flair_in_natural_order_with_its_masks(tmp_path, colour):
    source = tmp_path / "lgg"
    for patient in range(12):
        lgg_folder(
            source / "kaggle_3m" if colour else source,
            f"TCGA_{'CS' if patient % 2 else 'HT'}_{4900 + patient}_1999",
            11,
            colour,
        )
    manifest = prepare("lgg", source, tmp_path / "out")
    assert {c.label for c in manifest} == {ANOMALOUS} and {c.site for c in manifest} == {"CS", "HT"}
    assert {c.split for c in manifest} == {"train", "val", "test"} and check(manifest) == []
    case = load(tmp_path / "out").cases[0]
    assert case.patient_id == "TCGA_CS_4901"
    scan = read_image(case.image, case.root)
    assert scan.voxels.shape == (1, 11, 16, 16) and scan.voxels[0, :, 15, 0].tolist() == list(
        range(1, 12)
    )
    assert read_mask(case.mask, case.root, scan)[:, 0, 0].tolist() == [
        n % 3 > 0 for n in range(1, 12)
    ]


def test_lgg_notices_a_mask_that_is_gone(tmp_path):
    lgg_folder(tmp_path / "lgg", "TCGA_CS_4900_1999", 3, True)
    (tmp_path / "lgg/TCGA_CS_4900_1999/TCGA_CS_4900_1999_2_mask.tif").unlink()
    with pytest.raises(Fault, match="1 slice"):
        prepare("lgg", tmp_path / "lgg", tmp_path / "out")


def test_real_lgg(shared, tmp_path):
    """Slices and labels agree with the list that came with the images."""
    import pandas as pd

    source = shared / "data" / "lgg-flair"
    listed = pd.read_csv(source / "slices.csv")
    manifest = prepare("lgg", source, tmp_path)
    assert {c.case_id for c in manifest} == set(listed["patient"])
    assert check(manifest) == []
    case = manifest.cases[5]
    scan = read_image(case.image, case.root)
    labels = read_mask(case.mask, case.root, scan).any(axis=(1, 2)).astype(int)
    assert (
        labels.tolist()
        == listed[listed["patient"] == case.case_id].sort_values("slice")["label"].tolist()
    )


def test_ixi_volumes_of_one_modality_by_patient(tmp_path):
    for number in range(20):
        for name in (
            f"IXI{number:03d}-Guys-0828-T1.nii.gz",
            f"IXI{number:03d}-Guys-0828-T2.nii.gz",
        ):
            (tmp_path / "ixi").mkdir(exist_ok=True)
            (tmp_path / "ixi" / name).touch()
    (tmp_path / "ixi" / "IXI019-HH-0900_t1.nii.gz").touch()
    manifest = prepare("ixi", tmp_path / "ixi", tmp_path / "out")
    assert (
        len(manifest) == 21
        and len(manifest.patients) == 20
        and {c.label for c in manifest} == {HEALTHY}
    )
    assert len({c.split for c in manifest if c.patient_id == "IXI019"}) == 1
    assert Counter(c.site for c in manifest) == {"Guys": 20, "HH": 1}


def test_ixi_slices_keep_the_published_split(shared, tmp_path):
    manifest = prepare("ixi", shared / "data" / "ixi-t1-slices", tmp_path)
    assert Counter(c.split for c in manifest)["train"] == 466 and check(manifest) == []
    assert all(c.patient_id.startswith("IXI") and len(c.patient_id) == 6 for c in manifest)
