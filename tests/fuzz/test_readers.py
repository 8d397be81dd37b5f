"""Whatever lies in a file: it is read, or refused by one clear line; and it costs no more than the
file is large."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fuzz.mutate import broken
from fuzz.seeds import headed, joined, seed
from fuzz.targets import TARGETS, attempt
from pseudohealthy.errors import Fault

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
# Bytes for a file of some 1000: a block of 16 MB that grows, a picture that deflate could have
# made.
MEMORY = 80 * 2**20
SECONDS = 20.0
# Without shrinking: a smaller seed number makes no smaller file.
FAST = settings(
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@pytest.mark.parametrize("kind", TARGETS)
def test_the_sound_file_is_read(kind, tmp_path):
    fault = attempt(kind, tmp_path, seed(kind))
    # A key without its planes.
    assert fault is None or (kind == "planes" and fault.code == "NO_CACHE")


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_reader_no_longer_does(path, tmp_path):
    attempt(path.parent.name, tmp_path, path.read_bytes())


@pytest.mark.parametrize("kind", TARGETS)
def test_a_broken_file_is_read_or_refused_by_one_clear_line(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)

    @FAST
    @given(st.integers(0, 2**32))
    def check(number: int):
        attempt(kind, folder, broken(kind, seed(kind), random.Random(number)))

    check()


@pytest.mark.parametrize(
    "kind", ["nifti", "dicom", "png", "npy", "idx", "zip", "checkpoint", "recipe", "manifest"]
)
def test_any_bytes_at_all_are_refused(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)

    @FAST
    @given(st.binary(max_size=200))
    def check(data: bytes):
        assert attempt(kind, folder, data) is not None

    check()


@pytest.mark.parametrize("state", ["{", "[]", "null", "3", "[" * 5000])
def test_a_state_that_is_no_table_is_refused(state, tmp_path):
    header, body = headed(seed("checkpoint"))
    header["__metadata__"]["state"] = state
    fault = attempt("checkpoint", tmp_path, joined(header, body))
    assert fault is not None and fault.code == "CHECKPOINT_CORRUPT" and "state" in fault.message


def test_weights_that_cannot_be_searched_for_nan_are_refused(tmp_path):
    import torch

    from pseudohealthy.runs import checkpoint

    checkpoint.save(
        tmp_path / "w.safetensors", {"weight": torch.ones(4).to(torch.float8_e4m3fn)}, {}
    )
    with pytest.raises(Fault, match=r"CHECKPOINT_MISMATCH.*float8"):
        checkpoint.load(tmp_path / "w.safetensors")


def nifti(shape: tuple[int, int, int], zipped: bool) -> bytes:
    import gzip

    data = bytearray(seed("nifti"))
    data[42:48] = struct.pack("<3h", *shape)
    return gzip.compress(bytes(data), mtime=0) if zipped else bytes(data)


def png(width: int, height: int) -> bytes:
    data, chunk = seed("png"), b"IHDR" + struct.pack(">II", width, height) + seed("png")[24:29]
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def dicom(rows: int, columns: int, more: dict | None = None, pixels: int | None = None) -> bytes:
    import io

    import pydicom

    ds = pydicom.dcmread(io.BytesIO(seed("dicom")))
    ds.Rows, ds.Columns = rows, columns
    for key, value in (more or {}).items():
        setattr(ds, key, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds)
    data = out.getvalue()
    # The length of the pixels as declared, OW: two bytes are reserved before it.
    if pixels is not None:
        at = data.rindex(b"\xe0\x7f\x10\x00OW") + 8
        data = data[:at] + struct.pack("<I", pixels) + data[at + 4 :]
    return data


def tiff(*sizes: tuple[int, int]) -> bytes:
    """Uncompressed grey pages (width, height) that share 100 bytes of pixels."""
    out = b"II*\0" + struct.pack("<I", 108) + bytes(range(100))
    for number, (width, height) in enumerate(sizes, start=1):
        tags = [
            (256, 4, width),
            (257, 4, height),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 8),
            (278, 4, height),
            (279, 4, width * height),
        ]
        entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
        after = len(out) + 2 + len(entries) + 4
        out += (
            struct.pack("<H", len(tags))
            + entries
            + struct.pack("<I", after if number < len(sizes) else 0)
        )
    return out


def npy(header: int) -> bytes:
    return (
        b"\x93NUMPY\x02\x00"
        + struct.pack("<I", header)
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9,)}"
    )


LIARS = {
    "a volume of 400 MB": ("nifti", lambda: nifti((600, 600, 600), False)),
    "a compressed volume of 250 MB": ("nifti-gz", lambda: nifti((500, 500, 500), True)),
    "a picture of 90 million pixels": ("png", lambda: png(9000, 10000)),
    "a TIFF of 90 million pixels": ("tiff", lambda: tiff((9000, 10000))),
    "a second page of 90 million pixels": ("tiff", lambda: tiff((10, 10), (9000, 10000))),
    "a second page of 4 thousand million pixels": ("tiff", lambda: tiff((10, 10), (65000, 65000))),
    "a slice of 16384 x 16384": ("dicom", lambda: dicom(16384, 16384)),
    "a radiograph of 16384 x 16384": ("dicom", lambda: dicom(16384, 16384, {"Modality": "DX"})),
    "two thousand million frames": (
        "dicom",
        lambda: dicom(12, 13, {"Modality": "DX", "NumberOfFrames": 2**31 - 1}),
    ),
    "an enhanced image of 400 million voxels": (
        "dicom",
        lambda: dicom(
            1000, 1000, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "NumberOfFrames": 400}
        ),
    ),
    "pixels of 4 GB": ("dicom", lambda: dicom(24, 13, pixels=2**32 - 2)),
    "an array header of 4 GB": ("npy", lambda: npy(2**32 - 1)),
    "2 GB of digits": ("idx", lambda: struct.pack(">I3I", 0x803, 70000, 160, 180) + bytes(1000)),
    "a thousand million digits": (
        "idx",
        lambda: struct.pack(">I3I", 0x803, 2**30, 1, 1) + bytes(1000),
    ),
    "weights of 4 GB": (
        "checkpoint",
        lambda: seed("checkpoint").replace(b'"shape":[3,2]', b'"shape":[9999,99999]'),
    ),
    "a header of weights of 1 TB": (
        "checkpoint",
        lambda: struct.pack("<Q", 2**40) + seed("checkpoint")[8:],
    ),
}


@pytest.mark.parametrize("claim", LIARS)
def test_a_header_that_claims_much_gets_no_memory_for_it(claim, tmp_path):
    kind, make = LIARS[claim]
    data = make()
    assert len(data) < 10_000
    attempt(kind, tmp_path, seed(kind))  # what is imported on the way is not the file's
    begun = time.process_time()
    tracemalloc.start()
    try:
        fault = attempt(kind, tmp_path, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fault is not None
    assert peak < MEMORY, f"{peak / 2**20:.0f} MB"
    assert time.process_time() - begun < SECONDS


def test_the_measure_sees_memory_that_is_reserved_and_not_touched():
    import numpy as np

    tracemalloc.start()
    try:
        np.empty(2 * MEMORY, np.uint8)
        assert tracemalloc.get_traced_memory()[1] > MEMORY
    finally:
        tracemalloc.stop()
