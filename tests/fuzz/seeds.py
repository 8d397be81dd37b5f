"""Small valid files of every kind the program reads, from which broken ones are made."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

PLANE = np.random.default_rng(0).integers(0, 2000, (12, 13)).astype(np.int16)
MANIFEST = b"""case_id,patient_id,split,label,image,mask,site,plane_labels
a,p1,train,0,a.png,,here,
b,p2,val,0,b/???.png,,there,0|0|1
c,p3,test,1,c.nii.gz|d.nii.gz,c-mask.nii.gz,there,
d,p4,test,,digits-idx3-ubyte.gz#12,,,
"""
RECIPE = b"""name = "small"
summary = "for tests"
[canvas]
size = 32
normalise = "percentile"
percentiles = [1, 99.5]
crop = true
[restorer]
name = "ddpm"
levels = 50
depths = [15, 20]
[restorer.network]
width = 8
multipliers = [1, 2]
groups = 4
[training]
steps = 12
rate = 2e-3
betas = [0.9, 0.999]
[map]
smooth = 0.7
score = "region"
"""


def nifti() -> bytes:
    import nibabel as nib

    image = nib.Nifti1Image(
        np.stack([PLANE, PLANE[::-1], PLANE // 2], -1), np.diag([2.0, 1.0, 3.0, 1.0])
    )
    image.header.set_slope_inter(2.0, -10.0)
    return image.to_bytes()


def dicom() -> bytes:
    """One CT slice, explicit little endian."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = meta.MediaStorageSOPClassUID, "1.2.3.4.5", "CT"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [1.0, 2.0, 3.0], [1.0, 0, 0, 0, 1.0, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.NumberOfFrames = [0.5, 0.75], 2, 1
    ds.WindowCenter, ds.WindowWidth, ds.PixelPaddingValue = 40, 80, -2000
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = PLANE.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = PLANE.tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def picture(format: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    if format == "TIFF":
        pages = [
            Image.fromarray(page)
            for page in (PLANE.astype(np.uint16), PLANE.astype(np.uint16) // 2)
        ]
        pages[0].save(
            stream, format, compression="tiff_deflate", save_all=True, append_images=pages[1:]
        )
    else:
        Image.fromarray((PLANE % 256).astype(np.uint8)).save(stream, format)
    return stream.getvalue()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, PLANE)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("one/a.png", picture("PNG"))
        file.writestr("readme.txt", "hello")
    return stream.getvalue()


def checkpoint() -> bytes:
    import tempfile

    import torch

    from pseudohealthy.runs import checkpoint

    with tempfile.TemporaryDirectory() as folder:
        tensors = {"weight": torch.ones(3, 2), "bias": torch.zeros(3), "count": torch.tensor(4)}
        checkpoint.save(Path(folder) / "w.safetensors", tensors, {"step": 3, "seed": 0})
        return (Path(folder) / "w.safetensors").read_bytes()


def headed(data: bytes) -> tuple[dict, bytes]:
    """The JSON header and the body of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


# kind of file -> a sound one; the name under which `targets` stores it decides how it is read
SEEDS: dict[str, Callable[[], bytes]] = {
    "nifti": nifti,
    "nifti-gz": lambda: gzip.compress(nifti(), mtime=0),
    "dicom": dicom,
    "png": lambda: picture("PNG"),
    "tiff": lambda: picture("TIFF"),
    "jpeg": lambda: picture("JPEG"),
    "bmp": lambda: picture("BMP"),
    "npy": npy,
    "idx": lambda: (
        struct.pack(">I3I", 0x00000803, 1, 12, 13) + (PLANE % 256).astype(np.uint8).tobytes()
    ),
    "zip": archive,
    "manifest": lambda: MANIFEST,
    "roots": lambda: b'{"source": "/tmp/data", "source1": "more"}',
    "patients": lambda: b"file,patient\na.png,p1\nb.png,p1\nc.png,p2\n",
    "recipe": lambda: RECIPE,
    "checkpoint": checkpoint,
    "run": lambda: b'{"status": "finished", "recipe": "small", "weights_sha256": "00"}',
    "planes": lambda: b'{"key": "00", "manifest": "00", "canvas": {}, "faults": []}',
}


@cache
def seed(kind: str) -> bytes:
    return SEEDS[kind]()
