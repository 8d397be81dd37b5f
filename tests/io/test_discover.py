"""Every file under a path is either a scan with a unique, harmless id or is left out with a
reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import ids, make_zip, picture, series
from PIL import Image

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io.names import natural, safe


def test_folders_are_searched_in_natural_order_and_everything_is_accounted_for(tmp_path):
    for name in (
        "s10.png",
        "s9.png",
        "deep/er/x.jpg",
        ".hidden.png",
        "._s9.png",
        "s9_mask.png",
        "anomaly_mask.png",
    ):
        picture(tmp_path / name)
    for name in ("README.md", "Thumbs.db", "run.csv"):
        (tmp_path / name).write_text("text")
    np.save(tmp_path / "z.npy", np.zeros((16, 16)))
    found = io.survey([tmp_path])
    assert [s.case_id for s in found.sources] == ["s9", "s10", "z", "x"]
    assert dict(found.left_out()) == {
        "s9_mask.png": "named as a mask",
        "anomaly_mask.png": "an output of this program",
    }
    assert found.beside == {"hidden or system files": 3, "tables, texts and sidecars": 2}


def test_what_goes_with_images_is_counted_and_what_may_be_meant_as_one_is_said(tmp_path):
    """The root of a BIDS set beside files of other programs."""
    picture(tmp_path / "sub-01/anat/sub-01_T1w.png")
    beside = [
        "README",
        "README.md",
        "LICENSE",
        "CHANGES",
        "dataset_description.json",
        "participants.tsv",
        "a.bval",
        "a.bvec",
        "DICOMDIR",
        "sub-01/anat/sub-01_T1w.json",
        "events.tsv.gz",
        ".bidsignore",
        ".DS_Store",
    ]
    for name in beside:
        (tmp_path / name).write_text("text")
    meant = {
        "a.mgz": "mri_convert",
        "b.nrrd": "NIfTI",
        "c.mha": "NIfTI",
        "d.rec": "dcm2niix",
        "unknown": "not an image",
    }
    for name in meant:
        (tmp_path / name).write_bytes(bytes(range(200)))
    found = io.survey([tmp_path])
    assert len(found.sources) == 1 and found.beside.total() == len(beside)
    said = dict(found.left_out())
    assert said.keys() == meant.keys() and all(word in said[name] for name, word in meant.items())


def test_a_dicom_file_is_one_whatever_it_is_called(tmp_path, write_series, volume):
    write_series(
        tmp_path,
        volume,
        names=[f"MILLER.{end}" for end in ("M", "txt", "R", "json", "1", "2", "3", "4", "5", "6")],
    )
    assert [len(s.paths) for s in io.discover([tmp_path])[0]] == [10]


def test_a_mask_given_by_name_is_read(tmp_path):
    assert ids(picture(tmp_path / "s9_mask.png")) == ["s9_mask"]


def test_files_joined_by_a_bar_are_the_channels_of_one_case_in_that_order(tmp_path):
    one, two = picture(tmp_path / "p_t1.png", 1), picture(tmp_path / "p_t2.png", 2)
    (source,), _ = io.discover([f"{two}|{one}"])
    scan = io.read(f"{two} | {one}")
    assert (source.case_id, source.paths) == ("p_t2", (two, one)) and scan.shape == (2, 1, 16, 16)
    for channel, path in zip(scan.voxels, (two, one), strict=True):
        assert np.array_equal(channel, io.read(path).voxels[0])
    assert len(set(ids(one, f"{one}|{two}"))) == 2
    with pytest.raises(Fault, match="given twice"):
        io.discover([f"{one}|{two}", f"{one}|{two}"])
    larger = tmp_path / "large.png"
    Image.fromarray(np.zeros((20, 16), np.uint8)).save(larger)
    (tmp_path / "notes.txt").write_text("x")
    for second, code in (
        ("gone.png", "NOT_FOUND"),
        ("notes.txt", "CHANNELS"),
        ("large.png", "GRID_MISMATCH"),
    ):
        with pytest.raises(Fault) as caught:
            io.read(f"{one}|{tmp_path / second}")
        assert caught.value.code == code
    odd = tmp_path / "a|b.png"
    picture(odd)
    assert ids(odd) == [safe("a|b")], "a file that is called so is itself"


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    for name in ("site1/p1/t1.png", "site2/p1/t1.png", "site2/p2/t1.png"):
        picture(tmp_path / name)
    found = ids(tmp_path)
    assert len(set(found)) == 3 and all(name.endswith("t1") for name in found)
    assert "site1-p1-t1" in found and "site2-p1-t1" in found


def test_a_file_given_twice_is_refused_before_any_work(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(Fault) as caught:
        io.discover([path, path])
    assert (caught.value.code, caught.value.exit) == ("ID_COLLISION", 2)


def test_files_of_one_stem_are_cases_of_their_own(tmp_path, capsys):
    for name in (
        "a.png",
        "a.jpg",
        "b/x y.png",
        "b/x_y.png",
        "c/T1.png",
        "d/p.png",
        "e/p.png",
        "f/q.tif",
        "f/q.TIFF",
    ):
        picture(tmp_path / name)
    for name in ("v.nii", "v.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    found = io.discover([tmp_path])[0]
    made = {str(s.paths[0].relative_to(tmp_path)): s.case_id for s in found}
    assert len({name.casefold() for name in made.values()}) == len(made) == 11
    assert (made["a.png"], made["a.jpg"], made["v.nii"], made["v.nii.gz"]) == (
        "a-png",
        "a-jpg",
        "v-nii",
        "v-nii-gz",
    )
    assert (made["c/T1.png"], made["d/p.png"], made["f/q.TIFF"]) == ("T1", "d-p", "q-tiff")
    said = [line for line in capsys.readouterr().err.splitlines() if "share a name" in line]
    assert len(said) == 1 and said[0].startswith("8 inputs")


def test_names_that_differ_in_letter_case_alone_stay_apart(tmp_path):
    picture(tmp_path / "A.png")
    if (tmp_path / "a.png").exists():
        pytest.skip("this file system knows no letter case")
    picture(tmp_path / "a.png")
    assert len({name.casefold() for name in ids(tmp_path)}) == 2


def test_an_id_made_up_may_be_there_already(tmp_path):
    for name in ("a.png", "a.jpg", "a-png.tif", "a-jpg.png"):
        picture(tmp_path / name)
    assert len({name.casefold() for name in ids(tmp_path)}) == 4


def test_missing_and_empty_inputs_are_exit_3(tmp_path):
    with pytest.raises(Fault) as caught:
        io.discover([tmp_path / "nowhere"])
    assert (caught.value.code, caught.value.exit) == ("NOT_FOUND", 3)
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(Fault) as caught:
        io.discover([tmp_path])
    assert (caught.value.code, caught.value.exit) == (
        "NO_INPUT",
        3,
    ) and "texts and sidecars (1)" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["a b", "-rf", "..", "x" * 300, "größe", "new\nline", 'q"><script>', "dot.", "../../e", ""],
)
def test_case_ids_are_harmless_file_names(name):
    made = safe(name)
    assert made == os.path.basename(made) and 0 < len(made.encode()) <= 100
    assert made[0] not in "-." and made[-1] not in ". " and not set(made) & set(' \n"<>/\\:*?|')


def test_long_names_stay_apart():
    assert safe("x" * 300 + "1") != safe("x" * 300 + "2")


def test_natural_order_survives_odd_digits():
    assert len(sorted(["a10", "a²", "", "9", "a", "٣"], key=natural)) == 6
    assert sorted(["s10", "s2", "s1"], key=natural) == ["s1", "s2", "s10"]


def test_files_without_a_known_name_are_known_by_content(tmp_path, write_series, volume):
    write_series(tmp_path / "head", volume, names=[f"IM{k}" for k in range(10)])
    picture(tmp_path / "x.png").rename(tmp_path / "scan")
    assert sorted(ids(tmp_path)) == ["scan", series("1.2.3.4")]
    assert sorted(ids(tmp_path, named="path")) == ["head", "scan"]


def test_archives_in_a_folder_are_counted(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("SURNAME.zip", "SURNAME2.zip"):
        make_zip(tmp_path / name, {"x": b"x"})
    assert [(name, text[:18]) for name, text in io.survey([tmp_path]).left_out()] == [
        ("left-out-1", "2 files: an archiv")
    ]


def test_importing_the_package_opens_no_format_library():
    script = (
        "import sys, pseudohealthy.io; print([m for m in ('nibabel', 'pydicom', 'PIL', 'torch') if"
        " m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(io.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.strip() == "[]"


def test_files_appear_whole_or_not_at_all(tmp_path):
    io.write_json(
        tmp_path / "deep" / "a.json", {"x": np.float32(1.5), "y": np.arange(2), "z": float("nan")}
    )
    assert (
        tmp_path / "deep" / "a.json"
    ).read_text() == '{\n  "x": 1.5,\n  "y": [\n    0,\n    1\n  ],\n  "z": null\n}\n'
    with pytest.raises(RuntimeError), io.atomic(tmp_path / "deep" / "a.json") as tmp:
        tmp.write_text("half")
        assert tmp.suffix == ".json" and tmp.parent == tmp_path / "deep"
        raise RuntimeError
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.json"]
    assert "1.5" in (tmp_path / "deep" / "a.json").read_text()
    with pytest.raises(Fault) as caught:
        io.write_text(tmp_path / "deep" / "a.json" / "b.txt", "x")
    assert caught.value.exit == 6


def test_real_folders_are_listed(shared):
    sources, _ = io.discover([shared / "data" / "rsna-dicom"])
    sizes = sorted(len(s.paths) for s in sources)
    assert sizes[-1] == 36 and set(sizes[:-1]) == {1}
    assert re.fullmatch(
        r"series-[0-9a-f]{8}", next(s for s in sources if len(s.paths) == 36).case_id
    )


@pytest.mark.parametrize(
    "given, said",
    [
        ("a.nii.gz|", "a channel of 'a.nii.gz|' is empty"),
        ("here|here", "here is a folder and cannot"),
    ],
)
def test_an_empty_channel_and_a_folder_are_named_as_what_they_are(
    tmp_path, monkeypatch, given, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "a.nii.gz").write_bytes(b"")
    with pytest.raises(Fault, match=re.escape(said)):
        io.discover([given])
