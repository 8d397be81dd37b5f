from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy.anomalies.phantoms import dicom_series, head, nifti
from pseudohealthy.errors import Fault
from pseudohealthy.workflows.inspect import MOST_TILES, inspect


def pngs(folder, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(np.random.default_rng(number))[0]).save(
            folder / f"p{number:03d}.png"
        )


def test_it_says_what_each_input_is(tmp_path):
    volume, _, affine = head(np.random.default_rng(0), shape=(4, 24, 32))
    nifti(tmp_path / "in.nii.gz", volume, affine)
    dicom_series(tmp_path / "series", volume, spacing=(5.0, 0.5, 0.75))
    pngs(tmp_path / "pictures", 1)
    (tmp_path / "notes.txt").write_text("x")
    found = inspect(tmp_path)
    by_kind = {row["kind"]: row for row in found.rows}
    assert by_kind.keys() == {"nifti", "dicom", "raster"} and found.exit == 0
    assert by_kind["nifti"]["shape"] == [1, 4, 24, 32]
    assert by_kind["dicom"]["spacing_mm"] == [5.0, 0.5, 0.75] and by_kind["dicom"]["units"] == "HU"
    assert by_kind["raster"]["spacing_mm"] is None
    text = found.text()
    assert (
        "3 inputs, 0 skipped" in text
        and "texts and sidecars (1)" in text
        and "5 x 0.5 x 0.75 mm" in text
        and "no geometry" in text
    )
    assert "PHANTOM" not in json.dumps(found.as_dict()) + text and str(tmp_path.parent) not in text


def test_what_cannot_be_read_is_named_and_counted_in_the_exit_code(tmp_path):
    pngs(tmp_path, 2)
    (tmp_path / "p001.png").write_bytes((tmp_path / "p001.png").read_bytes()[:60])
    assert inspect(tmp_path).exit == 4
    assert "p001: TRUNCATED" in inspect(tmp_path).text()
    (tmp_path / "p000.png").write_bytes(b"")
    assert inspect(tmp_path).exit == 3
    with pytest.raises(Fault) as caught:
        inspect(tmp_path / "absent")
    assert caught.value.exit == 3


def test_a_data_set_is_told_from_plain_pictures(pictures, tmp_path):
    notes = inspect(pictures).notes
    assert "a data set of 44 cases of 44 patients" in notes[0]
    assert {
        "  train, healthy: 20",
        "  val, healthy: 8",
        "  test, healthy: 8",
        "  test, anomalous: 8",
    } <= set(notes)
    pngs(tmp_path, 3)
    assert "3 inputs" in inspect(tmp_path).notes[0]


def test_a_leak_in_a_data_set_is_a_warning(pictures, tmp_path):
    import shutil

    shutil.copytree(pictures, tmp_path / "data")
    shutil.copy(
        next((pictures / "train" / "good").iterdir()),
        tmp_path / "data" / "test" / "good" / "copy.png",
    )
    assert any(
        note.startswith("warning: ") and "more than once" in note
        for note in inspect(tmp_path / "data").notes
    )


def test_with_out_it_leaves_a_contact_sheet_and_the_same_as_json(tmp_path):
    pngs(tmp_path / "in", 5)
    found = inspect(tmp_path / "in", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "inspect.json").read_text()) == json.loads(
        json.dumps(found.as_dict())
    )
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > sheet.height > 100


def test_many_inputs_give_a_sheet_and_a_text_that_end(tmp_path):
    pngs(tmp_path / "in", MOST_TILES + 2)
    found = inspect(tmp_path / "in", tmp_path / "out")
    assert len(found.rows) == MOST_TILES + 2
    assert f"... and {MOST_TILES + 2 - 40} more" in found.text()
