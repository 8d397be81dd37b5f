"""Synthetic DICOM series and NIfTI files, built for each test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import each
from nifti_files import SHAPE

CT, MR, DX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.1.1"


@pytest.fixture
def volume() -> np.ndarray:
    """Stored values (planes, rows, columns), no two planes alike."""
    return np.random.default_rng(5).integers(0, 2000, (10, 16, 20)).astype(np.int16)


@pytest.fixture
def write_series():
    """Write a series; every keyword may be a list with one value a slice. Returns paths in the
    order of the planes."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def write(
        folder: Path,
        volume: np.ndarray,
        *,
        step=(0.0, 0.0, 2.0),
        first=(-10.0, -20.0, -30.0),
        orientation=(1.0, 0, 0, 0, 1.0, 0),
        names=None,
        series="1.2.3.4",
        modality="CT",
        signed=True,
        slope=None,
        intercept=-1024,
        photometric="MONOCHROME2",
        positions=None,
        **extra,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        # Names and InstanceNumbers say nothing.
        order = np.random.default_rng(1).permutation(len(volume))
        paths = []
        for k, plane in enumerate(volume):
            one = {
                key: value[k] if isinstance(value, list) else value for key, value in extra.items()
            }
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID = {"CT": CT, "MR": MR}.get(modality, DX)
            meta.MediaStorageSOPInstanceUID = generate_uid()
            ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            ds.SOPClassUID = meta.MediaStorageSOPClassUID
            ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
            ds.PatientName, ds.PatientID, ds.Modality = "SENTINEL^NAME", "SENTINEL-ID", modality
            ds.PatientBirthDate, ds.PatientSex, ds.StudyID, ds.AccessionNumber = "", "", "", ""
            ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName, ds.Manufacturer = "", "", "", ""
            ds.StudyInstanceUID = "1.2.3"
            ds.SeriesInstanceUID = series
            ds.FrameOfReferenceUID = "1.2.5"
            ds.SeriesNumber, ds.InstanceNumber = 1, int(order[k]) + 1
            if positions is not None or step is not None:
                where = (
                    positions[k] if positions is not None else np.add(first, np.multiply(step, k))
                )
                ds.ImagePositionPatient = [round(float(v), 6) for v in where]
                ds.ImageOrientationPatient = [float(v) for v in orientation]
                ds.PixelSpacing = [0.5, 0.75]
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
            ds.Rows, ds.Columns = plane.shape
            ds.BitsAllocated = 16
            ds.BitsStored = 16
            ds.HighBit = 15
            ds.PixelRepresentation = int(signed)
            if (value := slope[k] if isinstance(slope, list) else slope) is not None:
                ds.RescaleSlope = value
            if intercept is not None:
                ds.RescaleIntercept = intercept
            ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            for key, value in one.items():
                if value is not None:
                    setattr(ds, key, value)
            ds.PixelData = plane.astype("<i2" if signed else "<u2").tobytes()
            path = folder / (names[k] if names else f"{order[k]:04d}.dcm")
            pydicom.dcmwrite(path, ds, enforce_file_format=True)
            paths.append(path)
        return paths

    return write


@pytest.fixture
def data() -> np.ndarray:
    """Voxels of a NIfTI file."""
    return np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)


@pytest.fixture
def both(tmp_path, write_series, volume):
    """Two volumes written under one series UID: the keywords are those of the first and of the
    second."""

    def write(one: dict, other: dict, *, shift=(0.0, 0.0, 0.0), count=10, **how):
        base, few = np.array((-10.0, -20.0, -30.0)), volume[:count]
        write_series(
            tmp_path / "s", few, names=[f"a{k}" for k in range(count)], **how, **each(one, count)
        )
        names = [f"b{k}" for k in range(count)]
        write_series(
            tmp_path / "s", few + 1, names=names, first=base + shift, **how, **each(other, count)
        )
        return tmp_path / "s"

    return write
