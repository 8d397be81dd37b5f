"""Headers as real files have them: legal values are taken over, clear faults put right, the rest
left out, and said."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, generate_uid

from multiframe import enhanced
from outside import dciodvfy, needs
from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io import dicom_source, dicom_write

LESION = (slice(2, 5), slice(3, 7), slice(10, 15))
VALID = {name: generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame")}


@pytest.fixture
def case(tmp_path, write_series, volume):
    """A series whose every header has these bytes (None: lacks the attribute), read."""

    def make(**stored: bytes | None):
        more = {"StudyInstanceUID": VALID["study"], "FrameOfReferenceUID": VALID["frame"]}
        paths = write_series(tmp_path / "in", volume, series=VALID["series"], **more)
        charset = {"SpecificCharacterSet": stored.pop("SpecificCharacterSet", None)}
        for path in paths:
            # first, or pydicom writes all text anew.
            if charset["SpecificCharacterSet"] is not None:
                overwrite(path, charset)
            overwrite(path, stored)
        return io.read(tmp_path / "in")

    return make


def overwrite(path, stored: dict[str, bytes | None]) -> None:
    """Write these bytes as they are."""
    ds = pydicom.dcmread(path)
    for keyword, value in stored.items():
        tag = Tag(tag_for_keyword(keyword))
        if value is None:
            del ds[tag]
            continue
        padded = value + b" " * (len(value) % 2)
        vr = dictionary_VR(tag)
        ds._dict[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)
    ds.save_as(path)


OBJECTS = ("seg.dcm", "map.dcm", "sc.dcm")


def written(scan, folder) -> tuple[list[pydicom.Dataset], list[str]]:
    """The three objects and what was said of the source."""
    mask = np.zeros(scan.shape[1:], bool)
    mask[LESION] = True
    source = dicom_source.read(scan)
    paths = [
        dicom_write.write_segmentation(mask, scan, folder / "seg.dcm", source),
        dicom_write.write_map(mask * np.float32(0.7), scan, folder / "map.dcm", source),
        dicom_write.write_capture(
            np.full((30, 40, 3), 9, np.uint8), scan, folder / "sc.dcm", source
        ),
    ]
    return [pydicom.dcmread(path) for path in paths], source.notes


LEGAL = {  # character set, name as stored, name
    "latin 1": (b"ISO_IR 100", b"M\xfcller^J\xfcrgen", "Müller^Jürgen"),
    "latin 2": (b"ISO_IR 101", b"\xa3ukasz^\xa6wi\xb1t", "Łukasz^Świąt"),
    "latin 9": (b"ISO_IR 203", b"\xa6\xbd\xa4^A", "Šœ€^A"),
    "cyrillic": (b"ISO_IR 144", b"\xbb\xee^A", "Лю^A"),
    "utf-8": (b"ISO_IR 192", "Wang^Xiao=王^小东=b".encode(), "Wang^Xiao=王^小东=b"),
    "gb18030": (b"GB18030", "Wang=王^小东".encode("gb18030"), "Wang=王^小东"),
    "gb18030, a character that ends in a backslash": (
        b"GB18030",
        "A=\u8a31".encode("gb18030"),
        "A=\u8a31",
    ),
    "japanese, first value empty": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "korean": (
        b"ISO 2022 IR 6\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "chinese with escapes": (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东",
    ),
    "none, ASCII": (b"", b"Doe^John", "Doe^John"),
}


@pytest.mark.parametrize("what", LEGAL)
def test_a_name_in_a_legal_character_set_is_kept_and_nothing_is_said(case, tmp_path, what):
    charset, stored, name = LEGAL[what]
    objects, notes = written(case(SpecificCharacterSet=charset, PatientName=stored), tmp_path)
    assert [str(ds.PatientName).rstrip("=") for ds in objects] == [name] * 3 and notes == []


REPAIRED = {  # character set that is none, or not the text's; name as stored; name
    "junk, ASCII": (b"JUNK", b"Doe^John", "Doe^John"),
    "ISO_IR 6": (b"ISO_IR 6", b"Doe^John", "Doe^John"),
    "a dash": (b"ISO-IR 100", b"M\xfcller", "Müller"),
    "its everyday name": (b"UTF8", "王^小东".encode(), "王^小东"),
    "korean alone": (b"ISO_IR 149", b"H=\x1b$)C\xfb\xf3", "H=洪"),
    "missing, utf-8": (None, "王^小东".encode(), "王^小东"),
    "missing, latin 1": (None, b"N\xfa\xf1ez^Jos\xe9", "Núñez^José"),
    "missing, japanese escapes": (None, b"Y=\x1b$B;3ED\x1b(B", "Y=山田"),
    "utf-8 said, latin 1 stored": (b"ISO_IR 192", b"M\xfcller", "Müller"),
    "junk, latin 1": (b"JUNK", b"M\xfcller", "Müller"),
}


@pytest.mark.parametrize("what", REPAIRED)
def test_a_wrong_character_set_is_put_right_and_said(case, tmp_path, what):
    charset, stored, name = REPAIRED[what]
    header = {"PatientName": stored} | (
        {} if charset is None else {"SpecificCharacterSet": charset}
    )
    objects, notes = written(case(**header), tmp_path)
    assert [str(ds.PatientName) for ds in objects] == [name] * 3
    assert len(notes) == 1 and notes[0].startswith("SOURCE: its ")


LONG = b"x" * 80
VALUES = {  # attribute, stored, what an object says (None: empty or absent), words that say so
    "old date": ("StudyDate", b"2020.01.31", "20200131", "rewritten"),
    "iso date": ("PatientBirthDate", b"1970-02-03", "19700203", "rewritten"),
    "no such day": ("StudyDate", b"20200231", None, "left out"),
    "days first": ("PatientBirthDate", b"01.02.1970", None, "left out"),
    "old time": ("StudyTime", b"12:30", "1230", "rewritten"),
    "legal time": ("StudyTime", b"123059.123456", "123059.123456", ""),
    "no time": ("StudyTime", b"noon", None, "left out"),
    "age": ("PatientAge", b"42y", "042Y", "rewritten"),
    "age without unit": ("PatientAge", b"42", None, "left out"),
    "comma": ("PatientWeight", b"70,5", 70.5, "rewritten"),
    "long number": ("PatientSize", b"1.71000000000000000001", 1.71, "rewritten"),
    "no number": ("PatientWeight", b"heavy", None, "left out"),
    "sex in words": ("PatientSex", b"female", "F", "rewritten"),
    "sex": ("PatientSex", b"1", None, "left out"),
    "long name": ("PatientName", LONG, "x" * 64, "cut"),
    "four groups": ("PatientName", b"a=b=c=d", "a=b=c", "cut"),
    "long description": ("StudyDescription", LONG, "x" * 64, "cut"),
    "two descriptions": ("StudyDescription", b"head\\neck", "head", "first"),
    "line break": ("StudyDescription", b"head\nneck", "head neck", "control"),
    "long accession number": ("AccessionNumber", LONG, None, "left out"),
    "empty id": ("PatientID", b"", None, ""),
}


@pytest.mark.parametrize("what", VALUES)
def test_values_of_patient_and_study_are_valid_in_every_object(case, tmp_path, what):
    keyword, stored, expected, words = VALUES[what]
    objects, notes = written(case(**{keyword: stored}), tmp_path)
    for ds in objects:
        value = ds.get(keyword)
        assert (
            (value or None) == expected
            if not isinstance(expected, float)
            else float(value) == expected
        )
    assert len(notes) == bool(words) and all(keyword in note and words in note for note in notes)


def test_an_id_that_is_too_long_is_never_cut_to_be_somebody_elses(case, tmp_path):
    scan = case(PatientID=LONG)
    source = dicom_source.read(scan)
    path = dicom_write.write_capture(
        np.zeros((9, 9, 3), np.uint8), scan, tmp_path / "sc.dcm", source
    )
    assert pydicom.dcmread(path).PatientID == LONG.decode() and "kept" in source.notes[0]


THICKNESSES = (b"2,0", b"2.0\\3.0", b"-2", b"thin", b"0", None)


@pytest.mark.parametrize("stored", THICKNESSES)
def test_a_thickness_that_is_none_does_not_stop_the_writing(
    case, tmp_path, write_series, volume, stored
):
    scan = case(
        **({} if stored is None else {"SliceThickness": stored, "SpacingBetweenSlices": stored})
    )
    (seg, *_), notes = written(scan, tmp_path)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == 2 and float(measures.SpacingBetweenSlices) == 2
    said = notes + [warning for warning in scan.warnings if warning.startswith("DECIMAL_COMMA")]
    assert len(said) == (stored not in (b"0", None))


UIDS = ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
NO_UIDS = (None, b"1.02.3", b"ID_5f84", b"1.2.3\\1.2.4")


@pytest.mark.parametrize("keyword", UIDS)
@pytest.mark.parametrize("stored", NO_UIDS)
def test_identifiers_that_are_none_get_one_the_same_every_time(case, tmp_path, keyword, stored):
    scan = case(**{keyword: stored})
    first, again = dicom_source.read(scan), dicom_source.read(scan)
    assert first.references == again.references and first.study == again.study
    objects, notes = written(scan, tmp_path)
    assert len(notes) == 1 and keyword in notes[0]
    assert {ds.StudyInstanceUID for ds in objects} == {first.study}


def test_one_instance_uid_for_all_slices_is_named_once(case, tmp_path):
    (seg, *_), _ = written(case(SOPInstanceUID=b"1.2.3.4.5"), tmp_path)
    assert [item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence] == ["1.2.3.4.5"]


MISSING = dict.fromkeys(("PatientName", "PatientID", "StudyID", "StudyDate", "AccessionNumber"))


def test_patient_and_study_may_be_missing_altogether(case, tmp_path):
    objects, notes = written(case(**MISSING), tmp_path)
    assert all(ds.PatientName == "" and ds.PatientID == "" for ds in objects) and notes == []


STRANGE = {
    "SeriesNumber": b"3.5",
    "InstanceNumber": b"one",
    "ContentDate": b"x",
    "KVP": b"1,2",
    "Laterality": b"LEFT",
    "OtherPatientIDsSequence": b"no sequence",
    "SeriesDescription": b"\xff\xfe",
}


def test_what_is_not_needed_is_not_looked_at(case, tmp_path):
    """Values that would stop whoever parses them: nothing of them reaches an object."""
    _, notes = written(case(**STRANGE), tmp_path)
    assert notes == []


# Every header above, by what is wrong with it.
HEADERS = (
    {
        name: {"SpecificCharacterSet": charset, "PatientName": stored}
        for name, (charset, stored, _) in (LEGAL | REPAIRED).items()
    }
    | {name: {keyword: stored} for name, (keyword, stored, *_) in VALUES.items()}
    | {f"{keyword} {stored}": {keyword: stored} for keyword in UIDS for stored in NO_UIDS}
    | {
        f"thickness {stored}": dict.fromkeys(("SliceThickness", "SpacingBetweenSlices"), stored)
        for stored in THICKNESSES
        if stored
    }
    | {
        "nothing of the patient": MISSING,
        "one identifier": {"SOPInstanceUID": b"1.2.3.4.5"},
        "strange": STRANGE,
    }
)


@needs("dciodvfy")
@pytest.mark.parametrize("what", HEADERS)
def test_dciodvfy_finds_no_error_whatever_the_source_says(case, tmp_path, what):
    stored = {
        keyword: value
        for keyword, value in HEADERS[what].items()
        if value is not None or what not in REPAIRED
    }
    written(case(**stored), tmp_path)
    assert {path.name: dciodvfy(path) for path in tmp_path.glob("*.dcm")} == {
        name: [] for name in OBJECTS
    }


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_slices_of_two_patients_never_get_the_name_of_one(tmp_path, write_series, volume, keyword):
    both = ["1.2.7", "1.2.8"] * (len(volume) // 2)
    paths = write_series(tmp_path / "in", volume, **{keyword: both})
    scan = io.dicom.read(paths) if hasattr(io, "dicom") else io.read(tmp_path / "in")
    with pytest.raises(Fault) as caught:
        dicom_source.read(scan)
    assert caught.value.code == "PATIENTS"


# -- multi-frame images ----------------------------------------------------------------------------
ORDERS = {
    "as they lie": None,
    "from above": [*range(9, -1, -1)],
    "mixed": [3, 1, 4, 0, 5, 9, 2, 6, 8, 7],
    "a part": [7, 5, 6, 4],
}


@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("name", ORDERS)
def test_objects_of_a_multi_frame_image_lie_on_its_own_frames(tmp_path, volume, name, per_frame):
    path = enhanced(tmp_path / "in", volume, order=ORDERS[name], per_frame=per_frame)
    scan = io.read(path)
    # The map is the image, so that each frame tells where it belongs.
    values = scan.voxels[0] / 1000
    made = pydicom.dcmread(dicom_write.write_map(values, scan, tmp_path / "map.dcm"))
    source, frames = pydicom.dcmread(path), np.frombuffer(made.FloatPixelData, "<f4")
    frames = frames.reshape(-1, made.Rows, made.Columns)
    measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == [0.5, 0.75] and float(
        measures.SliceThickness
    ) == 1.5
    for frame, group in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        named = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (
            source.SOPClassUID,
            source.SOPInstanceUID,
        )
        number = int(named.ReferencedFrameNumber) - 1
        assert np.allclose(frame, (source.pixel_array[number] - 1024.0) / 1000, atol=1e-4)
        there = source.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0]
        here = group.PlanePositionSequence[0]
        assert np.allclose(here.ImagePositionPatient, there.ImagePositionPatient, atol=1e-6)


@needs("dciodvfy")
@pytest.mark.parametrize("per_frame", [True, False])
@pytest.mark.parametrize("name", ORDERS)
def test_dciodvfy_finds_no_error_on_the_frames_of_a_multi_frame_image(
    tmp_path, volume, name, per_frame
):
    scan = io.read(enhanced(tmp_path / "in", volume, order=ORDERS[name], per_frame=per_frame))
    written(scan, tmp_path)
    assert {path.name: dciodvfy(path) for path in tmp_path.glob("*.dcm")} == {
        name: [] for name in OBJECTS
    }


def test_a_real_enhanced_image_with_measures_for_each_frame(shared, tmp_path):
    import highdicom

    path = shared / "cases" / "corpora" / "enhanced-perframe" / "6_1.dcm"
    if not path.is_file():
        pytest.skip("no cases in the shared folder")
    scan = io.read(path)
    (_, made, _), notes = written(scan, tmp_path)
    assert notes == [] and made.PatientName == pydicom.dcmread(path).PatientName
    read = highdicom.imread(tmp_path / "map.dcm").get_volume(dtype=np.float32)
    affine = np.diag([-1, -1, 1, 1]) @ read.affine
    if affine[:3, 0] @ scan.affine[:3, 0] < 0:  # the other end first
        affine[:3, 3] += affine[:3, 0] * (len(read.array) - 1)
        affine[:3, 0] *= -1
    np.testing.assert_allclose(affine, scan.affine, atol=1e-3)


def test_the_class_of_the_source_is_named_as_it_is(case, tmp_path):
    (seg, *_), _ = written(case(SOPClassUID=b"1.2.840.10008.5.1.4.1.1.128"), tmp_path)
    assert {item.ReferencedSOPClassUID for item in seg.SourceImageSequence} == {
        "1.2.840.10008.5.1.4.1.1.128"
    }
    assert CTImageStorage not in str(seg.PerFrameFunctionalGroupsSequence)
