"""How files break: bytes flipped, lost, doubled or replaced by extreme numbers; fields of headers
set to what no one meant."""

from __future__ import annotations

import gzip
import io
import math
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

from fuzz.seeds import headed, joined, nifti, seed

WHOLE = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
REAL = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e-45, 1e30, 3.4e38, math.inf, -math.inf, math.nan)
WORDS = (
    b"\0",
    b"\n",
    b'"',
    b"'",
    b"..",
    b"/",
    b"\\",
    b"|",
    b"#",
    b"**",
    b"[",
    b"[" * 500,
    b"{",
    b"=",
    b",",
    b";",
    b"\t",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[31m",
    "é‮".encode(),
    b"x" * 300,
    b"false",
    b"null",
    b"[[]]",
    b"{}",
)
DICOM = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "Modality",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "WindowCenter",
    "WindowWidth",
    "PixelPaddingValue",
    "SOPClassUID",
    "SeriesInstanceUID",
    "ImageType",
)
TEXTS = (
    "",
    "0",
    "-1",
    "1",
    "2",
    "16384",
    "65535",
    "1e30",
    "-1e300",
    "1e308",
    "nan",
    "inf",
    "CT",
    "MR",
    "DX",
    "SEG",
    "x",
    "MONOCHROME1",
    "RGB",
    "PALETTE COLOR",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1\\2",
    "0\\0",
    "1e-30\\1e-30",
    "1e200\\1e200",
    "1\\0\\0\\0\\1\\0",
    "0\\0\\0\\0\\0\\0",
    "nan\\0\\0",
    "1e308\\1e308\\1e308",
)

NAMES = (
    "a.png",
    "a",
    "a/b.png",
    "a.png/b.png",
    "b.npy",
    "c.dcm",
    "d.nii",
    "x" * 300 + ".png",
    "../a.png",
    "/a.png",
    "C:\\a.png",
    "..\\a.png",
    "\x1b[31m.png",
    "a\nb.png",
    "\u202e.png",
    "é.png",
    ".hidden.png",
    "__MACOSX/a.png",
    "a_mask.png",
    "/".join("d" * 200 for _ in range(30)) + "/a.png",
    "con.png",
    " .png",
    "a.zip",
)


def bytewise(data: bytes, rng: random.Random) -> bytes:
    """One to four changes anywhere, more often near the start, where headers are."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = min(len(out), int(len(out) * rng.random() ** rng.choice((1, 3))))
        act = rng.randrange(7)
        if act == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif act == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif act == 2:
            del out[at:]
        elif act == 3:
            del out[at : at + rng.choice((1, 2, 4, 16))]
        elif act == 4:
            out[at:at] = out[at : at + rng.choice((1, 4, 64))]
        elif act == 5:
            form = rng.choice(("<H", ">H", "<I", ">I", "<Q", "<f", ">f", "<d"))
            value = (
                rng.choice(REAL)
                if form[1] in "fd"
                else rng.choice(WHOLE) % 2 ** (8 * struct.calcsize(form))
            )
            out[at : at + struct.calcsize(form)] = struct.pack(form, value)
        else:
            out[at : at + rng.choice((0, 0, 1, 5))] = rng.choice(WORDS)
    return bytes(out)


def nifti_field(data: bytes, rng: random.Random) -> bytes:
    import nibabel as nib

    header = nib.Nifti1Header(data[:348], check=False)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(list(header.keys()))
        field = header.structarr[key]
        values: tuple = (
            WHOLE if field.dtype.kind in "iu" else REAL if field.dtype.kind == "f" else WORDS
        )
        value = rng.choice(values)
        if field.dtype.kind in "iu":
            value = struct.unpack("<q", struct.pack("<Q", value))[0]
            value = (value + 2**15) % 2**16 - 2**15 if field.dtype.itemsize == 2 else value % 128
        if field.ndim:
            header.structarr[key][rng.randrange(len(field))] = value
        else:
            header.structarr[key] = (
                value[: field.dtype.itemsize] if field.dtype.kind == "S" else value
            )
    return header.binaryblock + data[348:]


def zipped(data: bytes, rng: random.Random) -> bytes:
    """A volume that was broken before it was compressed."""
    return gzip.compress(rng.choice((nifti_field, bytewise))(nifti(), rng), mtime=0)


def dicom_field(data: bytes, rng: random.Random) -> bytes:
    import pydicom
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement

    ds = pydicom.dcmread(io.BytesIO(data))
    for key in rng.sample(DICOM, rng.randint(1, 3)):
        tag = pydicom.tag.Tag(tag_for_keyword(key))
        vr = dictionary_VR(tag)[:2]
        if vr == "US":
            raw = struct.pack("<H", rng.choice(WHOLE) % 65536) * rng.choice((1, 1, 1, 0, 2))
        else:
            raw = rng.choice(TEXTS).encode()
            raw += b" " * (len(raw) % 2)
        if rng.random() < 0.15:
            ds.pop(tag, None)
        else:
            ds[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds)
    return stream.getvalue()


def png_field(data: bytes, rng: random.Random) -> bytes:
    """IHDR with other numbers and the checksum that belongs to them."""
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    fields = [width, height, depth, colour]
    fields[rng.randrange(2)] = rng.choice(WHOLE) % 2**32
    if rng.random() < 0.5:
        fields[2:] = rng.choice(((16, 0), (16, 2), (8, 6), (1, 0), (8, 3), (4, 4), (0, 0)))
    chunk = b"IHDR" + struct.pack(">IIBB", *fields) + data[26:29]
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def header_field(data: bytes, rng: random.Random) -> bytes:
    """The header of a safetensors file with another entry."""
    header, body = headed(data)
    name = rng.choice(list(header))
    if name == "__metadata__":
        header[name][rng.choice(("state", "sha256"))] = rng.choice(
            ("", "{", "[]", "null", "NaN", "[" * 5000, '{"a": 1', 3)
        )
        return joined(header, body)
    key = rng.choice(("dtype", "shape", "data_offsets"))
    header[name][key] = rng.choice(
        (
            ("BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "U16", "C64", "F64", "X"),
            ([], [-1], [2**40, 2**40], [0], [6], "x"),
            ([0, 0], [0, 2**62], [8, 4], [0]),
        )[("dtype", "shape", "data_offsets").index(key)]
    )
    return joined(header, body)


def archived(data: bytes, rng: random.Random) -> bytes:
    """An archive of odd names, packed in every way, sometimes broken afterwards."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as file:
        warnings.simplefilter("ignore")  # of a name that occurs twice
        for _ in range(rng.randint(1, 3)):
            method = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            )
            file.writestr(
                rng.choice(NAMES), seed(rng.choice(("png", "npy", "dicom", "nifti"))), method
            )
    return stream.getvalue() if rng.random() < 0.5 else bytewise(stream.getvalue(), rng)


FIELDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "nifti": nifti_field,
    "nifti-gz": zipped,
    "dicom": dicom_field,
    "png": png_field,
    "checkpoint": header_field,
    "zip": archived,
}


def broken(kind: str, data: bytes, rng: random.Random) -> bytes:
    """The file with fields changed where the format is known, or with bytes changed, or both."""
    if kind in FIELDS and rng.random() < 0.6:
        data = FIELDS[kind](data, rng)
        if rng.random() < 0.8:
            return data
    return bytewise(data, rng)
