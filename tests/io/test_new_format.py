"""A new file format is one row of the table: everything that finds, reads, tells of and writes
files follows."""

from __future__ import annotations

import json
import sys

import nibabel as nib
import numpy as np
import pytest

from pseudohealthy import formats, io
from pseudohealthy.commands.finding import Detect
from pseudohealthy.commands.words import _read_off
from pseudohealthy.data.folders import read_folders
from pseudohealthy.detection.finished import remove_case
from pseudohealthy.errors import Fault
from pseudohealthy.io.discover import kind_of
from pseudohealthy.io.scan import Scan
from pseudohealthy.lazy import lazy
from pseudohealthy.workflows.detect import detect
from pseudohealthy.workflows.inspect import inspect

TABLE, VOLUME = ".fake.txt", "#volume\n"


def load(source, **asked) -> Scan:
    """A text file of numbers; after the line "#volume" it is one plane of 1 mm voxels."""
    assert set(asked) == {"plane", "max_voxels", "mask", "assume_spacing"}
    text = source.paths[0].read_text()
    affine = np.eye(4)[[2, 1, 0, 3]] if text.startswith("#") else None
    return Scan.from_array(np.loadtxt(text.splitlines(), np.float32), affine=affine)


def save(array, scan, folder, stem):
    path = folder / f"{stem}{TABLE}"
    with io.atomic(path) as part:
        np.savetxt(part, array.reshape(-1, array.shape[-1]))
    return path


def numbers(path, seed=0, head=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (32, 32))
    path.write_text(head + "\n".join(" ".join(map(str, line)) for line in values))
    return path


@pytest.fixture
def register(monkeypatch):
    """Adds the made-up format to the table."""
    monkeypatch.setitem(sys.modules, "pseudohealthy.made_up", sys.modules[__name__])

    def register(**more):
        row = formats.Format("Fake", (TABLE,), "made_up:load", **more)
        monkeypatch.setitem(formats.FORMATS.added, "fake", row)

    return register


OWN = {"writer": "made_up:save", "written": (TABLE,)}


def test_files_of_a_new_format_are_found_and_read(register, tmp_path):
    with pytest.raises(Fault, match="nothing readable"):
        io.discover([numbers(tmp_path / f"a{TABLE}").parent])
    register(**OWN)
    numbers(tmp_path / f"a_mask{TABLE}")
    numbers(tmp_path / "deeper" / "B.FAKE.TXT", 1)
    found, left = io.discover([tmp_path])
    assert [(source.case_id, source.kind) for source in found] == [("a", "fake"), ("B", "fake")]
    assert [item.reason for item in left] == ["named as a mask"]
    scan = io.read(found[0])
    assert (scan.kind, scan.name, scan.shape) == ("fake", "a", (1, 1, 32, 32))
    joined = io.read(io.discover([f"{found[0].paths[0]}|{found[1].paths[0]}"])[0][0])
    assert joined.shape == (2, 1, 32, 32)
    assert [row["kind"] for row in inspect(tmp_path / "deeper").rows] == ["fake"]


def test_first_bytes_tell_a_new_format_where_no_ending_does(register, tmp_path):
    path = numbers(tmp_path / "scan", head=VOLUME)
    assert kind_of(path) == ""
    register(magic=((0, b"#volume"),))
    assert kind_of(path) == "fake" and io.read(path).affine is not None


def test_folders_and_manifests_take_a_new_format(register, tmp_path):
    register()
    for place in ("train/good/1", "val/good/2", "test/bad/3", "masks/3_mask"):
        numbers(tmp_path / f"{place}{TABLE}")
    cases = {case.case_id: case for case in read_folders(tmp_path)}
    assert sorted(cases) == ["test-bad-3", "train-good-1", "val-good-2"]
    assert cases["test-bad-3"].mask == f"masks/3_mask{TABLE}"
    assert io.read_image(cases["test-bad-3"].image, tmp_path).kind == "fake"


def test_results_go_back_through_the_writer_of_the_format(register, tiny_run, tmp_path):
    register(**OWN)
    numbers(tmp_path / "in" / f"a{TABLE}")
    detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    case = tmp_path / "out" / "a"
    names = {path.name for path in case.iterdir()}
    images = {f"{name}{TABLE}" for name in ("pseudo_healthy", "anomaly_map", "anomaly_mask")}
    assert images <= names and not any(name.endswith((".tiff", ".nii.gz")) for name in names)
    assert set(np.unique(np.loadtxt(case / f"anomaly_mask{TABLE}"))) <= {0, 1}
    assert np.loadtxt(case / f"anomaly_map{TABLE}").shape == (32, 32)
    assert json.loads((case / "case.json").read_text())["kind"] == "fake"
    remove_case(case)
    assert not case.exists()


def test_without_a_writer_results_are_pictures_or_nifti(register, tiny_run, tmp_path):
    register()
    numbers(tmp_path / "in" / f"flat{TABLE}")
    numbers(tmp_path / "in" / f"placed{TABLE}", head=VOLUME)
    kinds = ["volumes"]
    detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu", kinds=kinds)
    left = {path.name for path in (tmp_path / "out" / "flat").iterdir()}
    assert {"anomaly_map.tiff", "anomaly_mask.png"} <= left
    mask = nib.load(tmp_path / "out" / "placed" / "anomaly_mask.nii.gz")
    assert sorted(mask.shape) == [1, 32, 32]


def test_nifti_stands_beside_results_in_a_volume_format_of_its_own(register, tiny_run, tmp_path):
    register(**OWN, volume=True)
    numbers(tmp_path / f"a{TABLE}", head=VOLUME)
    how = {"device": "cpu", "kinds": ["volumes", "nifti", "json"]}
    detect(tiny_run, [tmp_path / f"a{TABLE}"], tmp_path / "out", **how)
    said = json.loads((tmp_path / "out" / "a" / "case.json").read_text())["outputs"]
    assert said["anomaly_map"] == f"anomaly_map{TABLE}"
    assert said["anomaly_map_nifti"] == "anomaly_map.nii.gz"


def test_help_and_messages_tell_of_a_new_format(register, tmp_path):
    told = "NIfTI, DICOM, PNG, JPEG, TIFF, .npy or idx"
    assert formats.told() == told and formats.told_files() == "NIfTI files, pictures or .npy files"
    register()
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(Fault) as caught:
        io.discover([tmp_path / "a.bin"])
    assert caught.value.cure == f"give {told.replace(' or', ',')} or Fake"
    (inputs,) = (word for word in _read_off(Detect) if word.field == "inputs")
    assert inputs.help.startswith(f"{told.replace(' or', ',')}, Fake or zip files")


def test_class_folders_take_every_ending_of_the_table(tmp_path):
    names = [f"{kind}.{kind}" for kind in ("hdr", "npy", "bmp")]
    for name in names:
        (tmp_path / "train" / "good").mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / "good" / name).write_bytes(b"")
    assert sorted(case.case_id for case in read_folders(tmp_path)) == ["bmp", "hdr", "npy"]


@pytest.mark.parametrize("kind", formats.FORMATS)
def test_every_reader_and_writer_of_the_table_is_there(kind):
    row = formats.FORMATS[kind]
    for named in filter(None, (row.reader, row.writer, row.finder, row.identity)):
        assert callable(lazy(named))
    assert bool(row.writer) == bool(row.written)
