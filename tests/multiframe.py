"""Enhanced multi-frame images as scanners write them: measures and orientation for every frame,
frames in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

UIDS = {
    name: generate_uid(entropy_srcs=["multi-frame", name]) for name in ("study", "series", "frame")
}


def enhanced(
    folder: Path, volume: np.ndarray, *, order: list[int] | None = None, per_frame: bool = True
) -> Path:
    """An enhanced CT image whose frames lie in this order; measures and orientation for each frame
    or shared."""

    def item(**values):
        ds = Dataset()
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        return ds

    order = list(range(len(volume))) if order is None else order
    kind = "1.2.840.10008.5.1.4.1.1.2.1"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = kind, meta.MediaStorageSOPInstanceUID, "CT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UIDS["study"], UIDS["series"]
    ds.FrameOfReferenceUID, ds.PatientName, ds.PatientID = UIDS["frame"], "A^B", "7"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.NumberOfFrames, ds.Rows, ds.Columns = len(order), *volume.shape[1:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    measures = item(PixelSpacing=[0.5, 0.75], SliceThickness=1.5)
    turned = item(ImageOrientationPatient=[0.8, 0.6, 0, -0.6, 0.8, 0])
    both = {"PixelMeasuresSequence": [measures], "PlaneOrientationSequence": [turned]}
    transform = item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    ds.SharedFunctionalGroupsSequence = [
        item(PixelValueTransformationSequence=[transform], **({} if per_frame else both))
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[
                item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
            ],
            PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, -30 + 2.0 * k])],
            **(both if per_frame else {}),
        )
        for k in order
    ]
    ds.PixelData = volume[order].astype("<i2").tobytes()
    folder.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(folder / "enhanced.dcm", ds, enforce_file_format=True)
    return folder / "enhanced.dcm"
