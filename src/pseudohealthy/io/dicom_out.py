"""Findings as DICOM objects beside the series they were made from: segmentation, parametric map, secondary capture.

Segmentation (PS3.3 A.51), Parametric Map (A.75) and Secondary Capture (A.8.1) of highdicom, in the study of the source
and its frame of reference, each a series of its own with new UIDs. Patient and study are copied from the source, as they
must be in every derived object: these files are the one output that identifies whom the source identifies. A source
whose identifiers are no UIDs (as in the RSNA 2019 set) is named by UIDs made from them, the same every time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy import __version__
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.atomic import atomic
from pseudohealthy.io.dicom import LPS_TO_RAS, DicomOrigin
from pseudohealthy.io.pixels import dataset, quiet
from pseudohealthy.scan import Scan

DESCRIPTION = "pseudohealthy anomaly (research use only)"
SERIES_NUMBERS = {"seg": 9001, "map": 9002, "sc": 9003}
# Type 2 of patient and study: must be there, may be empty. Some public series lack them.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
CHECKED = ("AS", "CS", "DA", "DS", "IS", "LO", "SH", "TM")  # of patient and study, as the standard writes them


def write_segmentation(mask: np.ndarray, scan: Scan, path: Path) -> Path:
    """mask (D, H, W) bool as a binary Segmentation with one segment "anomaly", frame for frame on the source's planes.

    Empty planes are left out, as the standard allows, unless all are empty. Faults: see `require`.
    """
    return _segmentation(mask.astype(np.uint8), scan, path, "BINARY", "voxels of the anomaly map above the threshold")


def write_map(values: np.ndarray, scan: Scan, path: Path) -> Path:
    """values (D, H, W) as a float32 Parametric Map; of a radiograph, which has no frame of reference, as a fractional
    Segmentation of values / max(1, largest value) in 255 steps. Faults: see `require`."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    require(scan)
    values = np.ascontiguousarray(values, np.float32)
    high = float(values.max(initial=0)) or 1.0
    if scan.affine is None:
        scale = max(1.0, high)
        told = f"anomaly map divided by {scale:.6g}; no probability"
        return _segmentation(np.clip(values / scale, 0, 1), scan, path, "FRACTIONAL", told)
    low = min(0.0, float(values.min()))
    with quiet():
        sources = _sources(scan)
        mapping = hd.pm.RealWorldValueMapping(
            lut_label="ANOMALY", lut_explanation="anomaly map", unit=codes.UCUM.NoUnits,
            value_range=(low, high), slope=1.0, intercept=0.0,
        )  # fmt: skip
        made = hd.pm.ParametricMap(
            sources,
            _on_source(values, scan, sources),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[hd.VOILUTTransformation((low + high) / 2, high - low, None, "LINEAR_EXACT")],
            content_label="ANOMALY",
            **_new("map"),
        )
        made.Laterality = sources[0].get("Laterality")
        return _save(made, path)


def write_capture(picture: np.ndarray, scan: Scan, path: Path) -> Path:
    """picture (rows, columns, 3) uint8 as an RGB Secondary Capture. Faults: see `require`."""
    import highdicom as hd
    from pydicom.dataset import Dataset

    require(scan)
    with quiet():
        sources = _sources(scan)
        new = _new("sc")
        made: Any = hd.sc.SCImage.from_ref_dataset(
            sources[0],
            np.ascontiguousarray(picture),
            "RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            **{k: new[k] for k in ("series_instance_uid", "series_number", "sop_instance_uid", "instance_number",
                                   "manufacturer", "series_description")},
        )  # fmt: skip
        made.Laterality = sources[0].get("Laterality")
        made.PatientOrientation = None  # several views on one picture
        made.BurnedInAnnotation = "YES"  # the case id stands on it
        made.ManufacturerModelName, made.SoftwareVersions = new["manufacturer_model_name"], __version__
        made.SourceImageSequence = []
        for source in sources:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
            made.SourceImageSequence.append(item)
        return _save(made, path)


def require(scan: Scan, kind: str = "DICOM output") -> None:
    """Fault KIND (exit 2) where the scan is not a DICOM series whose files are at hand."""
    if not isinstance(scan.origin, DicomOrigin):
        found = f"{kind} needs a DICOM series, this input is of kind {scan.kind}"
        raise Fault("KIND", found, "ask for volumes instead", exit=USAGE, case=scan.name)
    gone = [path.name for path in scan.origin.paths if not path.is_file()]
    if gone:
        raise Fault("UNREADABLE", f"{gone[0]} of the source series is gone", "keep the series until it is saved")


def _segmentation(pixels: np.ndarray, scan: Scan, path: Path, kind: str, told: str) -> Path:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    require(scan)
    with quiet():
        sources = _sources(scan)
        segment = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label="anomaly",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="pseudohealthy", version=__version__, family=codes.cid7162.ArtificialIntelligence
            ),
            tracking_uid=hd.UID(),
            tracking_id="pseudohealthy anomaly",
        )
        segment.SegmentDescription = told
        made = hd.seg.Segmentation(
            sources, _on_source(pixels, scan, sources), kind, [segment],
            content_label="ANOMALY", content_description="Research use only", **_new("seg"),
        )  # fmt: skip
        if scan.affine is None:  # a radiograph: which way it lies is said by the image, if at all
            made.PatientOrientation = sources[0].get("PatientOrientation")
        for measures in made.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence", []):
            if scan.affine is not None and "SliceThickness" not in measures:  # a multi-frame source that does not say
                measures.SliceThickness = f"{(scan.spacing or (1.0,))[0]:.6g}"
        return _save(made, path)


def _new(what: str) -> dict[str, Any]:
    """What every object of this program says about itself."""
    import highdicom as hd

    return {
        "series_instance_uid": hd.UID(),
        "series_number": SERIES_NUMBERS[what],
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "pseudohealthy",
        "manufacturer_model_name": "pseudohealthy",
        "software_versions": __version__,
        "device_serial_number": "0",
        "series_description": DESCRIPTION,
    }


def _sources(scan: Scan) -> list[Any]:
    """Headers of the source in the order of the planes, with what public series leave out filled in empty."""
    from pydicom.uid import generate_uid

    sources = []
    for path in scan.origin.paths:
        ds = dataset(path, header_only=True)
        _repair(ds)
        for key in MAY_BE_EMPTY:
            if key not in ds:
                setattr(ds, key, "")
        if ds.PatientSex not in ("M", "F", "O"):
            ds.PatientSex = ""
        if "SOPClassUID" not in ds:
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
        if scan.affine is not None and not ds.get("FrameOfReferenceUID"):  # one for the series, the same every time
            ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[str(ds.SeriesInstanceUID), "frame of reference"])
        if scan.affine is not None and not ds.get("SliceThickness"):
            ds.SliceThickness = f"{(scan.spacing or (1.0,))[0]:.6g}"
        sources.append(ds)
    return sources


def _repair(ds: Any) -> None:
    """What would make the copy invalid: identifiers that are no UIDs get one, malformed facts about the patient go."""
    from pydicom import config
    from pydicom.uid import generate_uid
    from pydicom.valuerep import validate_value

    for element in [
        e for e in ds if e.VR == "UI" or (e.VR in CHECKED and (e.tag.group == 0x10 or e.keyword in MAY_BE_EMPTY))
    ]:
        values = element.value if element.VM > 1 else [element.value]
        try:
            for value in values:
                validate_value(element.VR, str(value), config.RAISE)
        except ValueError:
            if element.VR == "UI" and element.VM == 1:
                element.value = generate_uid(entropy_srcs=[str(element.value)])
            else:
                del ds[element.tag]


def _on_source(pixels: np.ndarray, scan: Scan, sources: list[Any]) -> Any:
    """(D, H, W) as highdicom takes it: planes of single-frame files as they stand, one volume for a multi-frame image."""
    import highdicom as hd

    if scan.affine is None or len(sources) > 1 or int(sources[0].get("NumberOfFrames") or 1) == 1:
        return pixels
    return hd.Volume(
        pixels,
        affine=LPS_TO_RAS @ scan.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=sources[0].FrameOfReferenceUID,
    )


def _save(made: Any, path: Path) -> Path:
    with atomic(path) as tmp:
        made.save_as(tmp, enforce_file_format=True)
    return path
