"""Slices as the RSNA 2019 haemorrhage set has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def rsna_slice(
    folder: Path,
    hu: np.ndarray,
    image: str,
    *,
    patient: str = "ID_00000001",
    study: str = "ID_0000000001",
    series: str | None = None,
    z: float = 0.0,
    wrapped: bool = False,
    kept: float = 1.0,
) -> Path:
    """Write one slice (H, W) in HU, named ``image`` (``ID_`` and nine digits), as the RSNA 2019
    haemorrhage set does.

    Identifiers are "ID_..." words, not UIDs; no series description, no thickness. z: mm, LPS.
    wrapped: 12 bits unsigned, HU modulo 4096, intercept 0 (the header error of that set) instead of
    16 bits signed, intercept -1024.
    kept: share of PixelData in the file, below 1 for a slice cut short.
    """
    from pydicom import config
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = Dataset()
    with config.disable_value_validation():
        data.SOPInstanceUID, data.Modality, data.PatientID = image, "CT", patient
        data.StudyInstanceUID = study
        data.SeriesInstanceUID = series or f"ID_5{study[4:]}"
        data.StudyID = ""
        data.ImagePositionPatient = [-125.0, -125.0, float(z)]
        data.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        data.PixelSpacing = [0.5, 0.5]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = hu.shape
        data.BitsAllocated, data.BitsStored = 16, 12 if wrapped else 16
        data.HighBit, data.PixelRepresentation = int(data.BitsStored) - 1, int(not wrapped)
        data.WindowCenter, data.WindowWidth = [40, 40], [80, 80]
        data.RescaleSlope, data.RescaleIntercept = 1, 0 if wrapped else -1024
        values = np.rint(np.asarray(hu)).astype(np.int32)
        stored = (values % 4096).astype("<u2") if wrapped else (values + 1024).astype("<i2")
        data.PixelData = stored.tobytes()[: 2 * int(kept * stored.size)]
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[image])
        path = folder / f"{image}.dcm"
        data.save_as(path, enforce_file_format=True)
    return path
