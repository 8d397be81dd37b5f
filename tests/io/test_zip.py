"""Archives: what keeps one from being read is named."""

from __future__ import annotations

import gzip
import io as bytes_io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
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
