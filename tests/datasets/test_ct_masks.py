"""CT slices with masks: any colour is lesion, copies are left out, patients are those of CT-ICH."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.data.checks import check, leaks
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.datasets import prepare
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image, read_mask

SIDE = 32


def picture(seed: int) -> np.ndarray:
    return np.kron(
        np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8),
        np.ones((4, 4), np.uint8),
    )


def pair(folder, name, seed, colours, suffix="png"):
    """A picture and its mask with one 4 x 4 block per colour."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(folder / "images" / f"{name}.{suffix}", quality=95)
    mask = np.zeros((SIDE, SIDE, 3), np.uint8)
    for number, colour in enumerate(colours):
        mask[4 * number : 4 * number + 4, :4] = colour
    Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


@pytest.fixture
def source(tmp_path):
    """Two BHSD volumes; of ctich_mini two slices of CT-ICH, 10199 is nearly one, 10300 is of a
    patient who is not there."""
    bhsd, mini = tmp_path / "ct-masks" / "bhsd_mini", tmp_path / "ct-masks" / "ctich_mini"
    pair(bhsd, "165017", 1, [(0, 0, 255), (255, 255, 0)])
    pair(bhsd, "165018", 2, [(0, 255, 0)])
    pair(bhsd, "168007", 3, [])
    for name, seed in (("10198", 4), ("10199", 5), ("10201", 6), ("10300", 9)):
        pair(mini, name, seed, [(210, 80, 0)], "jpg")
    (tmp_path / "ct-ich" / "images").mkdir(parents=True)
    for name, seed in (("079_14", 4), ("080_11", 5), ("080_12", 6)):
        image = picture(seed) if seed != 5 else np.roll(picture(seed), 1, axis=1)
        Image.fromarray(image).save(tmp_path / "ct-ich" / "images" / f"{name}.jpg", quality=95)
    return tmp_path / "ct-masks"


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_case_is_test_with_its_mask_and_subtypes(source, tmp_path):
    before = files(source)
    prepare("ct-masks", source, tmp_path / "out")
    manifest = load(tmp_path / "out")
    assert (
        check(manifest) == []
        and {c.split for c in manifest} == {"test"}
        and files(source) == before
    )
    cases = {c.case_id: c for c in manifest}
    both = cases["bhsd-165017"]
    assert (
        both.extra["subtypes"] == "intraparenchymal|intraventricular"
        and both.patient_id == "bhsd-165"
    )
    scan = read_image(both.image, both.root)
    assert read_mask(both.mask, both.root, scan).sum() == 32  # both colours count, luminance or not
    assert (
        cases["bhsd-165018"].extra["subtypes"] == "subdural"
        and cases["bhsd-168007"].label == HEALTHY
    )
    other = cases["ctich-10198"]
    assert read_mask(other.mask, other.root, read_image(other.image, other.root)).sum() == 16


def test_patients_are_found_by_picture_and_copies_left_out(source, tmp_path, capsys):
    manifest = prepare("ct-masks", source, tmp_path / "out")
    found = {
        c.case_id: (c.patient_id, c.extra["original"])
        for c in manifest
        if c.case_id.startswith("ctich")
    }
    assert found == {"ctich-10198": ("ctich-079", "079_14"), "ctich-10201": ("ctich-080", "080_12")}
    assert "2 of 4 slices are slices of CT-ICH patients 079, 080" in capsys.readouterr().err


def test_the_table_names_them_where_it_came_along(source, tmp_path):
    (source / "ctich_mini" / "nearest_ctich.csv").write_text(
        "file,nearest,corr\n10198.jpg,079_14.jpg,1.0\n10199.jpg,080_11.jpg,0.92\n10201.jpg,080_12.jpg,0.999\n"
        "10300.jpg,077_20.jpg,0.9999\n"
    )
    manifest = prepare("ct-masks", source, tmp_path / "out", ct_ich=tmp_path / "nowhere")
    names = {c.case_id: c.patient_id for c in manifest if c.case_id.startswith("ctich")}
    assert names == {
        "ctich-10198": "ctich-079",
        "ctich-10201": "ctich-080",
        "ctich-10300": "ctich-077",
    }


def test_without_table_and_originals_no_patient_is_guessed(source, tmp_path, capsys):
    manifest = prepare("ct-masks", source, tmp_path / "out", ct_ich=tmp_path / "nowhere")
    assert {c.patient_id for c in manifest} == {
        "bhsd-165",
        "bhsd-168",
    } and "0 of 4" in capsys.readouterr().err


def test_a_foreign_colour_or_a_lost_mask_stops_it(source, tmp_path):
    pair(source / "bhsd_mini", "165017", 1, [(0, 0, 254)])
    with pytest.raises(Fault, match=r"MASK_COLOUR.*165017.png"):
        prepare("ct-masks", source, tmp_path / "out")
    (source / "bhsd_mini" / "masks" / "165017.png").unlink()
    with pytest.raises(Fault, match="without mask or the reverse, first 165017"):
        prepare("ct-masks", source, tmp_path / "out")


def test_the_leak_check_sees_patients_of_both_adapters(shared, tmp_path):
    trained = prepare(
        "ct-ich", shared / "data" / "ct-ich", tmp_path / "a", fractions=(1.0, 0.0, 0.0)
    )
    masks = prepare("ct-masks", shared / "data" / "ct-masks", tmp_path / "b")
    found = leaks(Manifest([*trained, *masks], tmp_path))
    assert "3 patients are in both train and test: ctich-079, ctich-080, ctich-081." in found
    assert (
        len(masks) == 49
        and "ctich-10199" not in {c.case_id for c in masks}
        and check(load(tmp_path / "b")) == []
    )
