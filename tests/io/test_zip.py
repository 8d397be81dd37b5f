"""Archives: what keeps one from being read is named, and none leaves anything behind."""

from __future__ import annotations

import gzip
import io as bytes_io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from folders import make_zip, series
from PIL import Image

from pseudohealthy import io
from pseudohealthy.errors import Fault


@pytest.fixture
def packed() -> bytes:
    """A sound archive of one picture."""
    picture, file = bytes_io.BytesIO(), bytes_io.BytesIO()
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(picture, "PNG")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", picture.getvalue())
    return file.getvalue()


def changed(packed: bytes, method: int, flag: int = 0) -> bytes:
    """The same with another method and flag in both of its headers."""
    raw = bytearray(packed)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = raw.find(magic) + at
        raw[place : place + 4] = struct.pack("<HH", flag, method)
    return bytes(raw)


def fault(path: Path, content: bytes) -> Fault:
    path.write_bytes(content)
    with pytest.raises(Fault) as caught:
        io.read(path)
    return caught.value


@pytest.mark.parametrize(
    "method, name", [(9, "Deflate64"), (98, "PPMd"), (6, "Implode"), (77, "number 77")]
)
def test_a_compression_that_is_not_unpacked_is_named(tmp_path, packed, method, name):
    refused = fault(tmp_path / "a.zip", changed(packed, method))
    assert (
        refused.code == "METHOD" and f"method {name}" in str(refused) and "Deflate" in refused.cure
    )


def test_encrypted_other_and_damaged_archives_are_told_apart(tmp_path, packed):
    path = tmp_path / "a.zip"
    for content in (changed(packed, 8, 1), changed(packed, 99, 1)):
        assert fault(path, content).code == "ARCHIVE" and "encrypted" in str(fault(path, content))
    for content, word in (
        (b"Rar!\x1a\x07\x00" + bytes(99), "RAR"),
        (gzip.compress(packed), "gzip"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    ):
        assert fault(path, content).code == "NOT_ZIP" and word in str(fault(path, content))
    assert fault(path, b"").code == "EMPTY_FILE"
    assert fault(path, packed[: len(packed) // 2]).code == "TRUNCATED"


def test_names_that_differ_in_case_only(tmp_path):
    file = bytes_io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("A/x.png", b"1")
        archive.writestr("a/X.PNG", b"2")
    assert "upper and lower case" in str(fault(tmp_path / "a.zip", file.getvalue()))


def test_a_sound_archive_is_read_also_behind_a_program(tmp_path, packed):
    for content in (packed, b"MZ" + bytes(500) + packed):
        (tmp_path / "a.zip").write_bytes(content)
        assert io.read(tmp_path / "a.zip").voxels.max() == 399


def test_a_zip_of_dicom_is_read_and_leaves_nothing_behind(tmp_path, write_series, volume):
    write_series(tmp_path / "head", volume)
    make_zip(
        tmp_path / "case7.zip", {p.name: p.read_bytes() for p in (tmp_path / "head").iterdir()}
    )
    script = (
        "import sys; from pseudohealthy import io; scan = io.read(sys.argv[1]);"
        "print(scan.name, scan.shape, scan.origin.paths[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "case7.zip"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(io.__file__).parents[2])},
    )
    assert done.stdout.startswith(f"{series('1.2.3.4')} (1, 10, 16, 20)")
    assert not Path(done.stdout.split()[-1]).exists()


@pytest.mark.parametrize(
    "name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"]
)
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
    monkeypatch.setattr("pseudohealthy.io.unzip.MAX_MEMBERS", 5)
    assert refused(make_zip(tmp_path / "many.zip", {f"{k}.png": b"" for k in range(6)}))


def test_a_zip_that_understates_its_size_is_refused_while_inflating(tmp_path, monkeypatch):
    monkeypatch.setattr("pseudohealthy.io.unzip.FREE", 1000)
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
