"""Findings as DICOM objects beside the series they were made from: segmentation, parametric map,
secondary capture.

Segmentation (PS3.3 A.51), Parametric Map (A.75) and Secondary Capture (A.8.1) of highdicom, in the
study of the source and its frame of reference, each a series of its own with new UIDs. Patient and
study are copied from the source, as they must be in every derived object: these files are the one
output that identifies whom the source identifies. highdicom never sees a header of the source: it
is given places and names that `dicom_source` has checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DS

from pseudohealthy.io.atomic import atomic
from pseudohealthy.io.dicom_pixels import quiet
from pseudohealthy.io.dicom_source import NEEDED, Source, read
from pseudohealthy.io.scan import Scan
from pseudohealthy.io.turn import acquired
from pseudohealthy.version import __version__

BODY = ("38266002", "SCT", "Entire body")  # where in the body a scan was taken is not known
DESCRIPTION = "Anomaly {} - pseudohealthy, research use only"
SERIES = {"mask": 9001, "map": 9002, "panel": 9003}  # numbers
# SOP classes that stand in for the source's while highdicom builds an object: it knows them, and
# what they lack
SLICE, FRAMES, RADIOGRAPH = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "2.1", "1"))


def write_segmentation(
    mask: np.ndarray, scan: Scan, path: Path, source: Source | None = None
) -> Path:
    """mask (D, H, W) bool as a binary Segmentation with one segment "anomaly", frame for frame on
    the source's planes.

    Empty planes are left out, as the standard allows, unless all are empty. source: of this scan,
    where it is known already. Faults: see `dicom_source.read`.
    """
    told = "voxels of the anomaly map above the threshold"
    mask, _ = acquired(mask, scan)
    return _segmentation(mask.astype(np.uint8), source or read(scan), path, "BINARY", told)


def write_map(values: np.ndarray, scan: Scan, path: Path, source: Source | None = None) -> Path:
    """values (D, H, W) as a float32 Parametric Map; of a radiograph, which has no frame of
    reference, as a fractional Segmentation of values / max(1, largest value) in 255 steps. Faults:
    see `dicom_source.read`."""
    source = source or read(scan)
    values = np.ascontiguousarray(acquired(values, scan)[0], np.float32)
    high = float(values.max(initial=0)) or 1.0
    if source.orientation is None:
        scale = max(1.0, high)
        told = f"anomaly map divided by {scale:.6g}; no probability"
        return _segmentation(np.clip(values / scale, 0, 1), source, path, "FRACTIONAL", told)
    low = min(0.0, float(values.min()))
    with quiet():
        mapping = hd.pm.RealWorldValueMapping(
            lut_label="ANOMALY",
            lut_explanation="anomaly map",
            unit=codes.UCUM.NoUnits,
            value_range=(low, high),
            slope=1.0,
            intercept=0.0,
        )
        shown = hd.VOILUTTransformation((low + high) / 2, high - low, None, "LINEAR_EXACT")
        made = hd.pm.ParametricMap(
            _images(source),
            values,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[shown],
            content_label="ANOMALY",
            **_new("map"),
        )
        # Readers (dcmqi) want it, and it stands in for the Laterality of the series.
        anatomy = Dataset()
        anatomy.FrameLaterality = source.image["Laterality"] or "U"
        anatomy.AnatomicRegionSequence = [hd.sr.CodedConcept(*BODY)]
        made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
        _ascend(made, source.orientation)
        return _save(made, source, path)


def _ascend(made: Any, orientation: np.ndarray) -> None:
    """The frames of a map from one end of the slice normal to the other: highdicom writes them the
    other way round, and dcmqi stacks them along the normal as they come."""
    groups = made.PerFrameFunctionalGroupsSequence
    normal = np.cross(*np.reshape(orientation, (2, 3)))
    places = np.array(
        [group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float
    )
    order = np.argsort(places @ normal, kind="stable")
    pixels = np.frombuffer(made.FloatPixelData, "<f4").reshape(len(groups), -1)
    made.FloatPixelData = pixels[order].tobytes()
    made.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]
    for index, group in enumerate(made.PerFrameFunctionalGroupsSequence, 1):
        group.FrameContentSequence[0].DimensionIndexValues = index


def write_capture(
    picture: np.ndarray, scan: Scan, path: Path, source: Source | None = None
) -> Path:
    """picture (rows, columns, 3) uint8 as an RGB Secondary Capture. Faults: see
    `dicom_source.read`."""
    source = source or read(scan)
    with quiet():
        new = _new("panel")
        taken = (
            "series_instance_uid",
            "series_number",
            "sop_instance_uid",
            "instance_number",
            "manufacturer",
            "series_description",
        )
        made: Any = hd.sc.SCImage(
            np.ascontiguousarray(picture),
            "RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            study_instance_uid=source.study,
            patient_orientation=("L", "P"),
            **{k: new[k] for k in taken},
        )
        made.Laterality = source.image["Laterality"]
        made.PatientOrientation = None  # several views on one picture
        made.BurnedInAnnotation = "YES"  # the case id stands on it
        made.ManufacturerModelName = new["manufacturer_model_name"]
        made.SoftwareVersions = __version__
        return _save(made, source, path)


def _segmentation(pixels: np.ndarray, source: Source, path: Path, kind: str, told: str) -> Path:
    with quiet():
        segment = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label="anomaly",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="pseudohealthy",
                version=__version__,
                family=codes.cid7162.ArtificialIntelligence,
            ),
            tracking_uid=hd.UID(),
            tracking_id="pseudohealthy anomaly",
        )
        segment.SegmentDescription = told
        made = hd.seg.Segmentation(
            _images(source),
            pixels,
            kind,
            [segment],
            content_label="ANOMALY",
            content_description="Research use only",
            omit_empty_frames=bool(pixels.any()),
            **_new("mask" if kind == "BINARY" else "map"),
        )
        # A radiograph: which way it lies is said by the image, if at all.
        if source.orientation is None:
            made.PatientOrientation = source.image["PatientOrientation"]
        return _save(made, source, path)


def _new(what: str) -> dict[str, Any]:
    """What every object of this program says about itself."""
    return {
        "series_instance_uid": hd.UID(),
        "series_number": SERIES[what],
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "pseudohealthy",
        "manufacturer_model_name": "pseudohealthy",
        "software_versions": __version__,
        "device_serial_number": "0",
        "series_description": DESCRIPTION.format(what),
    }


def _images(source: Source) -> list[Any]:
    """Images as highdicom wants its sources, with places and names alone; one for each plane, or
    one of many frames."""
    images = []
    for number in range(len(source.references)):
        ds = _image(source, number)
        if source.orientation is not None and source.positions is not None and not source.frames:
            ds.ImageOrientationPatient = _numbers(source.orientation.ravel())
            ds.ImagePositionPatient = _numbers(source.positions[number])
            ds.SliceThickness = _numbers([source.thickness])[0]
        if source.spacing is not None:
            ds.PixelSpacing = _numbers(source.spacing)
        images.append(ds)
    if source.frames:
        _fill_frames(images[0], source)
    return images


def _image(source: Source, number: int) -> Any:
    ds = Dataset()
    for keyword in NEEDED:
        setattr(ds, keyword, "")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = source.study, source.references[0].series
    # Sources may share one, see `_refer`.
    ds.SOPInstanceUID, ds.Modality = (f"2.25.{number + 1}", "OT")
    ds.SOPClassUID = (
        RADIOGRAPH if source.orientation is None else FRAMES if source.frames else SLICE
    )
    ds.Rows, ds.Columns = source.rows, source.columns
    if source.frame_of_reference:
        ds.FrameOfReferenceUID = source.frame_of_reference
    for keyword, value in source.lossy.items():
        setattr(ds, keyword, value)
    return ds


def _fill_frames(ds: Any, source: Source) -> None:
    """Geometry as the planes have it: shared measures and orientation, a place for each."""
    assert source.positions is not None and source.orientation is not None
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = ds.PixelSpacing
    measures.SliceThickness = _numbers([source.thickness])[0]
    orientation.ImageOrientationPatient = _numbers(source.orientation.ravel())
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    groups = []
    for position in source.positions:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = _numbers(position)
        group.PlanePositionSequence = [place]
        groups.append(group)
    ds.NumberOfFrames = len(groups)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], groups


def _numbers(values: Any) -> list[Any]:
    """Decimal strings of at most 16 characters."""
    return [DS(float(value) + 0.0, auto_format=True) for value in values]


def _refer(made: Any, source: Source) -> None:
    """Name the images of the source as they are: each once, by its own class, series and frame."""
    named: dict[str, dict[str, Any]] = {}
    for reference in source.references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.kind
        item.ReferencedSOPInstanceUID = reference.instance
        named.setdefault(reference.series, {})[reference.instance] = item
    made.SourceImageSequence = [item for items in named.values() for item in items.values()]
    if "ReferencedSeriesSequence" in made:
        made.ReferencedSeriesSequence = []
        for series, items in named.items():
            one = Dataset()
            one.SeriesInstanceUID, one.ReferencedInstanceSequence = series, list(items.values())
            made.ReferencedSeriesSequence.append(one)
    for group in made.get("PerFrameFunctionalGroupsSequence") or []:
        for derivation in group.get("DerivationImageSequence") or []:
            for item in derivation.SourceImageSequence:
                number = int(item.ReferencedSOPInstanceUID.rpartition(".")[2])
                reference = source.references[number - 1]
                item.ReferencedSOPClassUID = reference.kind
                item.ReferencedSOPInstanceUID = reference.instance
                if source.frames:
                    item.ReferencedFrameNumber = source.frames[int(item.ReferencedFrameNumber) - 1]


def _measure(made: Any, source: Source) -> None:
    """Orientation as the source writes it, and the distance of the planes, which highdicom leaves
    out of a sheared grid."""
    if source.orientation is None or "SharedFunctionalGroupsSequence" not in made:
        return
    shared = made.SharedFunctionalGroupsSequence[0]
    if source.cosines is not None:
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = source.cosines
    if source.between is not None and source.positions is not None and len(source.positions) > 1:
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = _numbers([source.between])[0]


def _save(made: Any, source: Source, path: Path) -> Path:
    for element in source.identity:
        made[element.tag] = element
    _refer(made, source)
    _measure(made, source)
    with atomic(path) as tmp:
        made.save_as(tmp, enforce_file_format=True)
    return path
