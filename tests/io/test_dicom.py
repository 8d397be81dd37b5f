"""DICOM: slices lie where their headers say; irregular series are refused by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from dicom_files import change
from told import fault, warned

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io.names import series_id


def test_d1_order_comes_from_positions_not_from_names_or_instance_numbers(
    tmp_path, write_series, volume
):
    paths = write_series(tmp_path / "head", volume)
    scan = io.read(tmp_path / "head")
    np.testing.assert_array_equal(scan.voxels[0], volume - 1024.0)
    assert (
        [p.name for p in scan.origin.paths]
        == [p.name for p in paths]
        != sorted(p.name for p in paths)
    )
    assert (scan.kind, scan.units, scan.name, scan.warnings) == (
        "dicom",
        "HU",
        series_id("1.2.3.4"),
        [],
    )
    assert scan.spacing == pytest.approx((2, 0.5, 0.75))


def test_slices_that_descend_are_read_ascending(tmp_path, write_series, volume):
    write_series(tmp_path, volume, step=(0, 0, -2.0))
    scan = io.read(tmp_path)
    np.testing.assert_array_equal(scan.voxels[0], volume[::-1] - 1024.0)
    assert scan.affine[2, 0] == 2


@pytest.mark.parametrize(
    "orientation, step",
    [
        ((1, 0, 0, 0, 1, 0), (0, 0, 2)),
        ((0, 1, 0, 0, 0, -1), (3, 0, 0)),
        ((1, 0, 0, 0, 0, -1), (0, 2.5, 0)),
        ((-1, 0, 0, 0, -1, 0), (0, 0, -2)),
        ((0.8, 0.6, 0, -0.6, 0.8, 0), (0, 0, 1.5)),
    ],
)
def test_the_affine_is_the_standards_in_ras_and_highdicoms(
    tmp_path, write_series, volume, orientation, step
):
    import highdicom
    import pydicom

    paths = write_series(tmp_path, volume, orientation=orientation, step=step)
    scan = io.read(tmp_path, plane="native")
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    for path in paths:
        ds = pydicom.dcmread(path)
        plane = scan.origin.paths.index(path)
        for row, column in ((0, 0), (3, 11)):
            lps = np.array(ds.ImagePositionPatient) + across * 0.75 * column + down * 0.5 * row
            np.testing.assert_allclose(
                scan.affine @ [plane, row, column, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6
            )
            assert scan.voxels[0, plane, row, column] == ds.pixel_array[row, column] - 1024
    theirs = highdicom.get_volume_from_series([pydicom.dcmread(p) for p in paths])
    to_ras = np.diag([-1, -1, 1, 1]) @ theirs.affine
    if to_ras[:3, 0] @ scan.affine[:3, 0] < 0:  # the other end first
        np.testing.assert_array_equal(theirs.array[::-1], scan.voxels[0])
    else:
        np.testing.assert_allclose(to_ras, scan.affine, atol=1e-6)
        np.testing.assert_array_equal(theirs.array, scan.voxels[0])


def test_results_are_written_by_world_position(tmp_path, write_series, volume):
    write_series(tmp_path / "head", volume, orientation=(0.8, 0.6, 0, -0.6, 0.8, 0))
    scan = io.read(tmp_path / "head")
    image = nib.load(io.write_volume(scan.voxels[0], scan, tmp_path, "out", dtype=np.float32))
    again = io.read(tmp_path / "out.nii.gz", plane="native")
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    for index in ((0, 0, 0), (9, 3, 11), (4, 15, 19)):
        place = scan.affine @ [*index, 1]
        there = np.round(np.linalg.solve(again.affine, place)[:3]).astype(int)
        np.testing.assert_allclose(again.affine @ [*there, 1], place, atol=1e-4)
        assert again.voxels[(0, *there)] == scan.voxels[(0, *index)]


def test_a_nifti_mask_fits_its_dicom_series(tmp_path, write_series, volume):
    write_series(tmp_path / "head", volume)
    scan = io.read(tmp_path / "head")
    mask = scan.voxels[0] > 500
    io.write_volume(mask, scan, tmp_path, "mask", dtype=np.uint8)
    np.testing.assert_array_equal(io.read_mask("mask.nii.gz", tmp_path, scan), mask)


@pytest.mark.parametrize("missing, where", [(4, "z=-22.0"), (8, "z=-14.0"), (1, "z=-28.0")])
def test_d2_a_missing_slice_is_named(tmp_path, write_series, volume, missing, where):
    write_series(tmp_path, volume)[missing].unlink()
    assert fault(tmp_path).code == "GAP" and where in str(fault(tmp_path))


def test_d3_copies_of_a_slice_are_used_once_and_contradictions_refused(
    tmp_path, write_series, volume
):
    paths = write_series(tmp_path, volume)
    (tmp_path / "copy.dcm").write_bytes(paths[3].read_bytes())
    scan = io.read(tmp_path)
    assert scan.shape[1] == 10 and warned(scan, "DUPLICATE n=1")
    np.testing.assert_array_equal(scan.voxels[0], volume - 1024.0)
    change(tmp_path / "copy.dcm", RescaleIntercept=0)
    assert fault(tmp_path).code == "DUPLICATE_SLICE" and "copy.dcm" not in str(fault(tmp_path))
    assert "file 11" in str(fault(tmp_path))  # the names of an archive's files may be patients'


def test_d4_varying_distances_are_refused(tmp_path, write_series, volume):
    z = np.cumsum([0, 2, 2, 2, 2.6, 2, 2, 3.1, 2, 2])
    write_series(tmp_path, volume, positions=[(0, 0, v) for v in z])
    assert fault(tmp_path).code == "IRREGULAR" and "2 to 3.1 mm" in str(fault(tmp_path))


def test_a_slice_shifted_sideways_is_refused(tmp_path, write_series, volume):
    positions = [(0.0, 0.0, 2.0 * k) for k in range(10)]
    positions[5] = (4.0, 0.0, 10.0)
    write_series(tmp_path, volume, positions=positions)
    assert fault(tmp_path).code == "IRREGULAR"


def test_rounded_positions_are_regular(tmp_path, write_series, volume):
    write_series(tmp_path, volume, positions=[(0, 0, round(0.625 * k, 1)) for k in range(10)])
    assert io.read(tmp_path).spacing[0] == pytest.approx(0.625, rel=0.01)


def test_d5_a_gantry_tilt_stays_in_the_affine(tmp_path, write_series, volume):
    c, s = np.cos(np.radians(15)), np.sin(np.radians(15))
    write_series(tmp_path / "head", volume, orientation=(1, 0, 0, 0, c, s), step=(0, 0, 2))
    scan = io.read(tmp_path / "head")
    assert warned(scan, "TILT: gantry tilt of 15.0 degrees")
    np.testing.assert_allclose(scan.affine[:3, 0], [0, 0, 2], atol=1e-6)
    assert scan.voxel_ml == pytest.approx(2 * c * 0.5 * 0.75 / 1000, rel=1e-4)
    out = nib.load(io.write_volume(scan.voxels[0], scan, tmp_path, "out", dtype=np.float32))
    assert out.header["qform_code"] == 0 and out.header["sform_code"] == 1
    np.testing.assert_allclose(out.affine[:3, 2], [0, 0, 2], atol=1e-6)


def test_d6_d7_a_stray_orientation_or_matrix_is_left_out_and_reported(
    tmp_path, write_series, volume
):
    write_series(tmp_path, volume)
    write_series(tmp_path, volume[:1], orientation=(0, 1, 0, 0, 0, -1), names=["scout.dcm"])
    write_series(tmp_path, volume[:1, :12], names=["small.dcm"], first=(0, 0, 50))
    sources, skipped = io.discover([tmp_path])
    assert len(sources) == 1 and {s.path.name for s in skipped} == {"scout.dcm", "small.dcm"}
    scan = io.read(sources[0])
    np.testing.assert_array_equal(scan.voxels[0], volume - 1024.0)
    assert warned(scan, "STRAY_SLICES n=2")


def test_d8_two_series_in_a_folder_are_two_cases(tmp_path, write_series, volume):
    write_series(tmp_path / "head", volume, series="1.2.3.4", names=[f"a{k}" for k in range(10)])
    write_series(
        tmp_path / "head", volume[:5] + 1, series="1.2.3.5", names=[f"b{k}" for k in range(5)]
    )
    sources, _ = io.discover([tmp_path])
    assert len(sources) == 2 == len({s.case_id for s in sources})
    assert all(s.case_id.startswith("series-") and "1.2.3" not in s.case_id for s in sources)
    assert [io.read(s).shape[1] for s in sources] == [10, 5]
    assert fault(tmp_path / "head").code == "SEVERAL" and sources[0].case_id in str(
        fault(tmp_path / "head")
    )


def test_echoes_of_one_series_are_separate_volumes(tmp_path, write_series, volume):
    for echo in (1, 2):
        names = [f"{echo}-{k}" for k in range(10)]
        write_series(
            tmp_path, volume + echo, modality="MR", intercept=None, names=names, EchoNumbers=echo
        )
    sources, _ = io.discover([tmp_path])
    assert [io.read(s).voxels[0].min() for s in sources] == [volume.min() + 1, volume.min() + 2]


def test_a_series_spread_over_folders_is_one_and_the_same_series_twice_is_two(
    tmp_path, write_series, volume
):
    write_series(tmp_path / "one" / "a", volume[:5])
    write_series(tmp_path / "one" / "b", volume[5:], first=(-10, -20, -20))
    assert io.read(tmp_path / "one").shape[1] == 10
    write_series(tmp_path / "two" / "a", volume)
    write_series(tmp_path / "two" / "b", volume + 7)
    assert sorted(s.case_id for s in io.discover([tmp_path / "two"])[0]) == [
        f"{series_id('1.2.3.4')}-{k}" for k in (1, 2)
    ]


def test_d14_other_files_in_the_folder_are_counted(tmp_path, write_series, volume):
    write_series(tmp_path, volume)
    for name in ("readme.txt", ".DS_Store", "garbage.dcm", "Thumbs.db", "._0001.dcm"):
        (tmp_path / name).write_bytes(b"garbage" * 100)
    (tmp_path / "DICOMDIR").write_bytes(b"")
    found = io.survey([tmp_path])
    sources = found.sources
    assert len(sources) == 1 and [item.path.name for item in found.skipped] == ["garbage.dcm"]
    assert sum(found.beside.values()) == 5
    np.testing.assert_array_equal(io.read(sources[0]).voxels[0], volume - 1024.0)


def test_d16_a_single_slice_has_a_place_and_an_assumed_thickness(tmp_path, write_series, volume):
    path = write_series(tmp_path, volume[:1], names=["x.dcm"])[0]
    scan = io.read(path)
    assert (
        scan.shape == (1, 1, 16, 20)
        and scan.name == series_id("1.2.3.4")
        and warned(scan, "THICKNESS")
    )
    change(path, SliceThickness=5)
    assert io.read(path).spacing == pytest.approx((5, 0.5, 0.75))


def test_d17_enhanced_multi_frame_equals_its_series(tmp_path, write_series, volume):
    import pydicom
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    slopes = [1 + 0.5 * k for k in range(10)]
    paths = write_series(
        tmp_path / "single", volume, orientation=(0.8, 0.6, 0, -0.6, 0.8, 0), slope=slopes
    )
    datasets = [pydicom.dcmread(p) for p in paths]
    for ds in datasets:
        ds.FrameOfReferenceUID = "1.2.5"
        ds.PositionReferenceIndicator = ""
        ds.BurnedInAnnotation = "NO"
        ds.VolumetricProperties, ds.AcquisitionDateTime, ds.RescaleType = "VOLUME", "20200101", "HU"
    made = LegacyConvertedEnhancedCTImage(datasets, "1.2.9", 2, "1.2.9.1", 1)
    (tmp_path / "multi").mkdir()
    made.save_as(tmp_path / "multi" / "all.dcm")
    scan, reference = io.read(tmp_path / "multi"), io.read(tmp_path / "single")
    np.testing.assert_allclose(scan.voxels, reference.voxels, rtol=1e-6)
    np.testing.assert_allclose(scan.affine, reference.affine, atol=1e-5)
    assert scan.units == "HU"


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"Modality": "SR"}, "no image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "Modality": "OT"}, "no image"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"NumberOfFrames": 4}, "multi-frame"),
    ],
)
def test_d18_what_is_no_slice_is_skipped_with_its_reason(
    tmp_path, write_series, volume, values, reason
):
    change(write_series(tmp_path, volume[:1], names=["x.dcm"], series="1.9")[0], **values)
    write_series(tmp_path, volume)
    sources, skipped = io.discover([tmp_path])
    assert (
        len(sources) == 1
        and [s.path.name for s in skipped] == ["x.dcm"]
        and reason in skipped[0].reason
    )


def test_d20_names_hold_nothing_of_headers_and_folders(tmp_path, write_series, volume):
    evil = "../../../evil"
    write_series(
        tmp_path / "a b<script>", volume, SeriesDescription=evil, series=evil, SOPInstanceUID=evil
    )
    scan = io.read(tmp_path)
    assert (
        scan.name == series_id(evil)
        and "evil" not in scan.name
        and "SENTINEL" not in repr(scan.origin) + str(scan.warnings)
    )


def test_the_acquired_plane_is_compared_with_the_one_asked_for(tmp_path, write_series, volume):
    write_series(tmp_path, volume, orientation=(0, 1, 0, 0, 0, -1), step=(3, 0, 0))
    assert warned(io.read(tmp_path), "PLANE: the planes were acquired sagittal, not axial")
    assert not io.read(tmp_path, plane="sagittal").warnings


def test_the_first_of_several_windows_is_for_display(tmp_path, write_series, volume):
    write_series(tmp_path, volume, WindowCenter=[[40, 600]] * 10, WindowWidth=[[80, 2800]] * 10)
    assert io.read(tmp_path).display == (0, 80)


def test_too_many_voxels_are_refused_before_reading_pixels(tmp_path, write_series, volume):
    write_series(tmp_path, volume)
    with pytest.raises(Fault) as caught:
        io.read(tmp_path, max_voxels=1000)
    assert (caught.value.code, caught.value.exit) == ("TOO_LARGE", 7)


def test_compressed_slices_are_decoded(tmp_path, write_series, volume):
    import pydicom
    from pydicom.uid import RLELossless

    for path in write_series(tmp_path, volume):
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(path)
    np.testing.assert_array_equal(io.read(tmp_path).voxels[0], volume - 1024.0)


def test_real_series_have_the_geometry_of_their_headers(shared):
    ct = io.read(shared / "data" / "rsna-dicom" / "series")
    assert (
        ct.shape == (1, 36, 512, 512)
        and ct.units == "HU"
        and warned(ct, "TILT: gantry tilt of 8.0")
    )
    assert np.median(ct.voxels[0, 18, 200:300, 200:300]) == pytest.approx(30, abs=20)  # brain
    mr = io.read(shared / "data" / "mr-dicom" / "dicoms")
    assert mr.shape[2:] == (384, 274) and mr.spacing == pytest.approx((2 / 3, 2 / 3, 0.7), abs=1e-3)
