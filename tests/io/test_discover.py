"""Every file under a path is either a scan with a unique, harmless id or is left out with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io.discover import natural, safe


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16)).astype(np.uint8)).save(path)
    return path


def ids(*inputs) -> list[str]:
    return [s.case_id for s in io.discover(inputs)[0]]


def test_folders_are_searched_in_natural_order_and_everything_is_accounted_for(tmp_path):
    for name in ("s10.png", "s9.png", "deep/er/x.jpg", ".hidden.png", "._s9.png", "s9_mask.png", "anomaly_mask.png"):
        picture(tmp_path / name)
    for name in ("README.md", "Thumbs.db", "run.csv"):
        (tmp_path / name).write_text("text")
    np.save(tmp_path / "z.npy", np.zeros((16, 16)))
    sources, skipped = io.discover([tmp_path])
    assert [s.case_id for s in sources] == ["s9", "s10", "z", "x"]
    assert {s.path.name: s.reason for s in skipped} == {
        ".hidden.png": "hidden or system file",
        "._s9.png": "hidden or system file",
        "Thumbs.db": "hidden or system file",
        "s9_mask.png": "named as a mask",
        "anomaly_mask.png": "an output of this program",
        "README.md": "not an image this program reads",
        "run.csv": "not an image this program reads",
    }


def test_a_mask_given_by_name_is_read(tmp_path):
    assert ids(picture(tmp_path / "s9_mask.png")) == ["s9_mask"]


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
    for name in ("site1/p1/t1.png", "site2/p1/t1.png", "site2/p2/t1.png"):
        picture(tmp_path / name)
    found = ids(tmp_path)
    assert len(set(found)) == 3 and all(name.endswith("t1") for name in found)
    assert "site1-p1-t1" in found and "site2-p1-t1" in found


def test_the_same_id_twice_is_refused_before_any_work(tmp_path):
    path = picture(tmp_path / "a.png")
    picture(tmp_path / "a.jpg")
    for inputs in ([path, path], [tmp_path]):
        with pytest.raises(Fault) as caught:
            io.discover(inputs)
        assert (caught.value.code, caught.value.exit) == ("ID_COLLISION", 2)


def test_missing_and_empty_inputs_are_exit_3(tmp_path):
    with pytest.raises(Fault) as caught:
        io.discover([tmp_path / "nowhere"])
    assert (caught.value.code, caught.value.exit) == ("NOT_FOUND", 3)
    (tmp_path / "readme.txt").write_text("text")
    with pytest.raises(Fault) as caught:
        io.discover([tmp_path])
    assert (caught.value.code, caught.value.exit) == ("NO_INPUT", 3) and "readme.txt" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a b", "-rf", "..", "x" * 300, "größe", "new\nline", 'q"><script>', "dot.", "../../e", ""]
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
    assert sorted(ids(tmp_path)) == ["head", "scan"]


def make_zip(path: Path, members: dict[str, bytes], **kw) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_of_dicom_is_read_and_leaves_nothing_behind(tmp_path, write_series, volume):
    write_series(tmp_path / "head", volume)
    make_zip(tmp_path / "case7.zip", {p.name: p.read_bytes() for p in (tmp_path / "head").iterdir()})
    script = (
        "import sys; from pseudohealthy import io; scan = io.read(sys.argv[1]);"
        "print(scan.name, scan.shape, scan.origin.paths[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "case7.zip"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(io.__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.startswith("case7 (1, 10, 16, 20)")
    assert not Path(done.stdout.split()[-1]).exists()


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"])
def test_zips_that_leave_their_folder_are_refused(tmp_path, name):
    assert refused(make_zip(tmp_path / "x.zip", {name: b"x"}))


def test_zips_with_links_bombs_repeats_or_passwords_are_refused(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert refused(tmp_path / "link.zip")
    assert refused(make_zip(tmp_path / "bomb.zip", {"x.png": bytes(50_000_000)}))
    assert refused(make_zip(tmp_path / "case.zip", {"a.png": b"1", "A.png": b"2"}))
    raw = bytearray(make_zip(tmp_path / "locked.zip", {"a.png": b"1"}).read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    assert refused(tmp_path / "locked.zip")
    monkeypatch.setattr("pseudohealthy.io.archive.MAX_MEMBERS", 5)
    assert refused(make_zip(tmp_path / "many.zip", {f"{k}.png": b"" for k in range(6)}))


def test_a_zip_that_understates_its_size_is_refused_while_inflating(tmp_path, monkeypatch):
    monkeypatch.setattr("pseudohealthy.io.archive.FREE", 1000)
    path = make_zip(tmp_path / "liar.zip", {"x.png": bytes(1_000_000)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2") + 24
    raw[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(Fault) as caught:
        io.discover([path])
    assert caught.value.code in ("ARCHIVE", "TRUNCATED")


def refused(path: Path) -> bool:
    before = set(Path(tempfile.gettempdir()).glob("pseudohealthy-*"))
    with pytest.raises(Fault) as caught:
        io.discover([path])
    left = set(Path(tempfile.gettempdir()).glob("pseudohealthy-*")) - before
    return (caught.value.code, caught.value.exit) == ("ARCHIVE", 8) and not left


def test_importing_the_package_opens_no_format_library():
    script = (
        "import sys, pseudohealthy.io; print([m for m in ('nibabel', 'pydicom', 'PIL', 'torch') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(io.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"


def test_files_appear_whole_or_not_at_all(tmp_path):
    io.write_json(tmp_path / "deep" / "a.json", {"x": np.float32(1.5), "y": np.arange(2), "z": float("nan")})
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
    assert next(s for s in sources if len(s.paths) == 36).case_id == "series"
