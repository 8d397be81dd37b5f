"""What a derived DICOM object takes over from its source: who, which study, which images, and where
they lie.

Nothing else of a source reaches an object: headers of real files hold commas in numbers, dates with
dots, wrong character sets and identifiers that are none, and one bad value would make the object
invalid, or its writer fail. Here each value that is needed is read from its bytes and checked; what
is malformed and clear is put right, what is not is left out, and both are said in `notes` (which
name attributes, never values).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import format_number_as_ds

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.dicom import LPS_TO_RAS
from pseudohealthy.io.dicom_frames import ENHANCED
from pseudohealthy.io.dicom_pixels import dataset, quiet
from pseudohealthy.io.dicom_text import charset, decode, writable
from pseudohealthy.io.dicom_values import plain, repaired
from pseudohealthy.io.origins import DicomOrigin
from pseudohealthy.io.scan import Scan
from pseudohealthy.io.turn import acquired

# Patient and study as every object of a study repeats them; the first nine must be there and may be
# empty (type 2)
NEEDED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
TAKEN = (
    *NEEDED,
    "IssuerOfPatientID",
    "PatientBirthTime",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDescription",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
)


@dataclass
class Reference:
    """One image of the source as an object names it."""

    series: str
    kind: str  # SOP class
    instance: str


@dataclass
class Source:
    """What is known of the source, valid.

    identity: a dataset of patient and study, character set included. references: one image for each
    plane; one image of many frames has `frames`, the frame number (from 1) of each plane.
    orientation: (2, 3) unit vectors along a row and down a column, LPS. cosines: the same six
    numbers as the source writes them, where it does.
    positions: (planes, 3) mm, LPS, of each plane's first pixel; all three None for a radiograph.
    spacing: mm between rows and between columns, None where unknown. between: mm from plane to
    plane along their normal.
    """

    identity: Any
    study: str
    frame_of_reference: str
    references: list[Reference]
    rows: int
    columns: int
    frames: list[int] = field(default_factory=list)
    orientation: np.ndarray | None = None
    cosines: list[str] | None = None
    positions: np.ndarray | None = None
    spacing: tuple[float, float] | None = None
    thickness: float | None = None
    between: float | None = None
    lossy: dict[str, Any] = field(default_factory=dict)
    # Laterality and PatientOrientation, None where unknown.
    image: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Header:
    """One header of the source, value by value; notes: what had to be repaired."""

    def __init__(self, ds: Any, notes: dict[str, None]):
        self.ds, self.notes = ds, notes
        self.terms: tuple[str, ...] = ()

    def raw(self, keyword: str) -> bytes:
        """The value as stored, without what pads it; empty where the attribute is absent or
        empty."""
        tag = tag_for_keyword(keyword)
        assert tag is not None
        element = self.ds.get_item(tag)
        value = None if element is None else element.value
        if value is None:
            return b""
        return (value if isinstance(value, bytes) else plain(value)).strip(b" \0\t\r\n")

    def stored(self, keyword: str) -> list[bytes]:
        """The values of an attribute that is no text, as bytes."""
        raw = self.raw(keyword)
        return [part.strip() for part in raw.split(b"\\")] if raw.strip(b"\\ ") else []

    def value(self, keyword: str) -> Any:
        """The value, valid; None where there is none. What was wrong with it is noted."""
        raw = self.raw(keyword)
        if not raw:
            return None
        try:
            text = decode(raw, self.terms)
        except (UnicodeError, LookupError):  # no text: the character set was chosen for what is
            text = raw.decode("latin-1")
        made, wrong = repaired(keyword, text)
        if wrong:
            self.notes[f"{keyword} {wrong}"] = None
        return made

    def numbers(self, keyword: str, count: int) -> np.ndarray | None:
        """`count` finite numbers, a comma read as the point; None where there are not as many."""
        try:
            values = [float(part.replace(b",", b".")) for part in self.stored(keyword)]
        except ValueError:
            return None
        return np.array(values) if len(values) == count and np.isfinite(values).all() else None

    def uid(self, keyword: str, otherwise: str) -> str:
        """The UID; one made from it where it is none, from `otherwise` where it is missing, the
        same every time."""
        stored = [part.decode("latin-1") for part in self.stored(keyword)]
        if len(stored) == 1 and UID(stored[0]).is_valid:
            return stored[0]
        missing = not stored
        found = "is missing" if missing else "is no valid UID"
        self.notes[f"{keyword} {found}, one was made"] = None
        return str(
            generate_uid(entropy_srcs=[otherwise, keyword] if missing else ["\\".join(stored)])
        )


def read(scan: Scan) -> Source:
    """What objects take over from the files of a DICOM scan.

    Raises Fault KIND (exit 2) where it is none, UNREADABLE where a file is gone.
    """
    require(scan)
    _, scan = acquired(scan.voxels, scan)
    with quiet():
        notes: dict[str, None] = {}
        headers = [Header(dataset(path, header_only=True), notes) for path in scan.origin.paths]
        first = headers[0]
        require_one(headers)
        identity = identified(first)
        series = first.uid("SeriesInstanceUID", scan.origin.paths[0].name)
        study = first.uid("StudyInstanceUID", series)
        references = [
            referred(header, series, path.name)
            for header, path in zip(headers, scan.origin.paths, strict=True)
        ]
        frame = "" if scan.affine is None else first.uid("FrameOfReferenceUID", series)
        made = Source(identity, study, frame, references, *scan.shape[2:])
        made.lossy, made.image = compressed(first), looking(first)
        place(made, headers, scan)
        made.notes = [f"SOURCE: {note}" for note in notes]
        return made


def require_one(headers: Sequence[Header]) -> None:
    """Fault PATIENTS where slices name several patients or studies: an object has the name of
    one."""
    for keyword, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies")):
        if len({header.raw(keyword) for header in headers}) > 1:
            found = f"its slices name several {what}"
            raise Fault("PATIENTS", found, "separate them, or leave out the dicom kinds")


def identified(header: Header) -> Any:
    """Patient and study, every value valid, in a character set that holds them."""
    stored = {keyword: header.raw(keyword) for keyword in TAKEN}
    declared = [part.decode("latin-1") for part in header.stored("SpecificCharacterSet")] or [""]
    header.terms, wrong = charset(declared, list(stored.values()))
    if wrong:
        header.notes[wrong] = None
    values = {keyword: header.value(keyword) for keyword in TAKEN if stored[keyword]}
    terms = writable({k: v for k, v in values.items() if isinstance(v, str)}, header.terms)
    identity = Dataset()
    if any(terms):
        identity.SpecificCharacterSet = list(terms) if len(terms) > 1 else terms[0]
    for keyword in TAKEN:
        if values.get(keyword) is not None or keyword in NEEDED:
            setattr(identity, keyword, values.get(keyword) or "")
    if "PatientIdentityRemoved" in identity and "DeidentificationMethod" not in identity:
        identity.DeidentificationMethod = "not said by the source"
    return identity


def referred(header: Header, series: str, name: str) -> Reference:
    """How an object names this file; what its dataset lacks is taken from the head of the file."""
    meta = getattr(header.ds, "file_meta", None)
    names = {
        "SOPInstanceUID": "MediaStorageSOPInstanceUID",
        "SOPClassUID": "MediaStorageSOPClassUID",
    }
    for keyword, other in names.items():
        if not header.stored(keyword) and meta is not None and meta.get(other):
            setattr(header.ds, keyword, str(meta[other].value))
            header.notes[f"{keyword} is missing, taken from the head of the file"] = None
    own = header.uid("SeriesInstanceUID", series)
    instance = header.uid("SOPInstanceUID", f"{series}|{name}")
    return Reference(own, header.uid("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"), instance)


def compressed(header: Header) -> dict[str, Any]:
    """What an object says of lossy compression in its source."""
    if header.stored("LossyImageCompression")[:1] != [b"01"]:
        return {"LossyImageCompression": "00"}
    said: dict[str, Any] = {"LossyImageCompression": "01"}
    ratio = header.numbers("LossyImageCompressionRatio", 1)
    method = header.value("LossyImageCompressionMethod")
    if ratio is not None and ratio[0] > 0 and method:
        said |= {
            "LossyImageCompressionRatio": f"{ratio[0]:.6g}",
            "LossyImageCompressionMethod": method,
        }
    return said


def looking(header: Header) -> dict[str, Any]:
    """The side and the directions of a radiograph, where they are among what the standard
    allows."""
    side = [part[:1].upper() for part in header.stored("Laterality")]
    ways = [part.decode("latin-1").strip() for part in header.stored("PatientOrientation")]
    usable = len(ways) == 2 and all(re.fullmatch(r"[APLRHF]{1,3}", way) for way in ways)
    return {
        "Laterality": side[0].decode() if side in ([b"L"], [b"R"]) else None,
        "PatientOrientation": ways if usable else None,
    }


def place(made: Source, headers: Sequence[Header], scan: Scan) -> None:
    """Where the planes lie: as the files say for single slices, as the scan says for an image of
    many frames."""
    first = headers[0]
    if scan.affine is None:
        spacing = first.numbers("PixelSpacing", 2)
        if spacing is not None and (spacing > 0).all():
            made.spacing = (float(spacing[0]), float(spacing[1]))
        return
    affine = LPS_TO_RAS @ scan.affine
    depth = scan.shape[1]
    made.spacing = (float(np.linalg.norm(affine[:3, 1])), float(np.linalg.norm(affine[:3, 2])))
    made.orientation = np.stack([affine[:3, 2] / made.spacing[1], affine[:3, 1] / made.spacing[0]])
    made.positions = affine[:3, 3] + np.arange(depth)[:, None] * affine[:3, 0]
    made.between = abs(float(affine[:3, 0] @ np.cross(*made.orientation)))
    measures = orientation = first
    if made.references[0].kind in ENHANCED:
        frame = scan.origin.frames[0] if scan.origin.frames else 1
        measures = group(first, "PixelMeasuresSequence", frame)
        orientation = group(first, "PlaneOrientationSequence", frame)
    made.thickness = thick(measures) or made.between
    made.cosines = cosines(orientation, made.orientation)
    if scan.origin.frames:
        made.frames = list(scan.origin.frames)
    elif len(headers) == depth:
        said = [header.numbers("ImagePositionPatient", 3) for header in headers]
        if all(position is not None for position in said):
            made.positions = np.array(said)


def thick(header: Header) -> float | None:
    """SliceThickness where it is one number above 0."""
    stored, value = header.stored("SliceThickness"), header.numbers("SliceThickness", 1)
    if stored and (value is None or value[0] < 0):
        header.notes["SliceThickness is no thickness, taken from the distance of the planes"] = None
    elif stored and b"," in stored[0]:
        header.notes["SliceThickness has a comma, read as the point"] = None
    return None if value is None or value[0] <= 0 else float(value[0])


def cosines(header: Header, orientation: np.ndarray) -> list[str] | None:
    """ImageOrientationPatient digit by digit, as OHIF takes a map with any other digits for
    oblique; of a number that is longer than the 16 characters allowed, as many digits as fit. None
    where it is not the orientation of these planes."""
    told = header.numbers("ImageOrientationPatient", 6)
    if told is None or np.abs(told - orientation.ravel()).max() > 1e-2:
        return None
    return [
        decimal(part.decode().replace(",", "."))
        for part in header.stored("ImageOrientationPatient")
    ]


def decimal(text: str) -> str:
    """A number in at most 16 characters, unchanged where it is."""
    short = re.sub(r"^([+\-]?)0(?=\.\d)", r"\1", text)  # 0.5 is .5
    return (
        text
        if len(text) <= 16
        else short
        if len(short) <= 16
        else str(format_number_as_ds(float(text)))
    )


def group(header: Header, keyword: str, frame: int) -> Header:
    """A functional group that all frames share, or else that of this frame (from 1); empty where
    there is none."""
    for kind, index in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", frame - 1),
    ):
        try:
            return Header(header.ds[kind].value[index][keyword].value[0], header.notes)
        except (KeyError, AttributeError, IndexError, TypeError):
            continue
    return Header(Dataset(), header.notes)


def require(scan: Scan) -> None:
    """Fault KIND (exit 2) where the scan is not a DICOM series whose files are at hand."""
    if not isinstance(scan.origin, DicomOrigin):
        found = f"DICOM output needs a DICOM series, this input is of kind {scan.kind}"
        raise Fault("KIND", found, "ask for volumes instead", exit=USAGE, case=scan.name)
    gone = [path.name for path in scan.origin.paths if not path.is_file()]
    if gone:
        raise Fault(
            "UNREADABLE",
            f"{gone[0]} of the source series is gone",
            "keep the series until it is saved",
        )
