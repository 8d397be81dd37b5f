from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pseudohealthy import io
from pseudohealthy.detection.finding import MOST_REGIONS, Finding
from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan


def finding(scan: Scan, anomaly: np.ndarray, *, threshold: float | None = 0.5, **more) -> Finding:
    return Finding(
        scan=scan,
        healthy=scan.voxels - 3,
        map=anomaly.astype(np.float32),
        foreground=np.ones(anomaly.shape, bool),
        score=0.25,
        plane_scores=anomaly.max((1, 2)),
        threshold=threshold,
        threshold_source="given",
        **more,
    )


@pytest.fixture
def blank() -> Finding:
    """A finding whose map is all zero, on a grid of 2 x 1 x 0.5 mm voxels = 0.001 ml."""
    affine = np.array([[0, 0, -0.5, 10.0], [0, -1, 0, 20], [2, 0, 0, 30], [0, 0, 0, 1]])
    scan = Scan.from_array(np.random.default_rng(0).random((6, 20, 24)) * 100, affine=affine)
    return finding(scan, np.zeros((6, 20, 24)))


# -- mask, volume, regions -------------------------------------------------------------------------
def test_the_mask_is_what_lies_above_the_threshold_and_its_volume_is_in_ml(blank):
    blank.map[1, 2:4, 3:6] = 0.6
    blank.map[4, 0, 0] = 0.5  # at the threshold is not above it
    assert blank.mask.sum() == 6 and blank.mask.dtype == bool
    assert blank.volume_ml_above == pytest.approx(6 * 2 * 1 * 0.5 / 1000)


def test_mask_and_regions_are_computed_once(blank):
    blank.map[1, 2:4, 3:6] = 0.6
    assert blank.mask is blank.mask and blank.regions is blank.regions


def test_without_a_threshold_the_mask_is_empty_and_without_geometry_there_are_no_ml(blank):
    blank.map[:] = 9
    blank.threshold = None
    assert not blank.mask.any() and blank.regions == [] and blank.row()["n_regions"] == 0
    flat = finding(Scan.from_array(np.eye(12)), np.ones((1, 12, 12)))
    assert flat.volume_ml_above is None and flat.row()["volume_ml_above"] is None
    assert "volume_ml" not in flat.regions[0] and "peak_mm" not in flat.regions[0]


def test_regions_are_the_connected_parts_the_most_conspicuous_first(blank):
    blank.map[0, 0:8, 0:8] = 0.6  # sum 38.4, of which 6.4 lie above the threshold
    # Touch at a corner: one region, sum 9.7, 8.7 above.
    blank.map[3, 10, 10], blank.map[4, 11, 11] = (9.0, 0.7)
    first, second = blank.regions
    assert first["voxels"] == 2 and first["peak"] == 9.0
    assert (first["plane"], first["row"], first["column"]) == (3, 10, 10)
    assert first["peak_mm"] == [10 - 0.5 * 10, 20 - 10, 30 + 2 * 3]
    assert first["volume_ml"] == pytest.approx(0.002) and second["voxels"] == 64
    assert [first["excess"], second["excess"]] == pytest.approx([8.7, 6.4], abs=1e-4)
    assert "conspicuous" in blank.describe()["regions_order"]


def test_a_thousand_specks_are_not_all_listed():
    specks = np.zeros((1, 80, 80))
    specks[0, ::2, ::2] = 1
    speckled = finding(Scan.from_array(np.random.default_rng(0).random((80, 80))), specks)
    assert len(speckled.regions) == MOST_REGIONS and speckled.n_regions == 1600
    assert speckled.row()["n_regions"] == 1600 and "1,600 regions above" in str(speckled), (
        "all are counted, as by the viewer"
    )


# -- for people ------------------------------------------------------------------------------------
def test_printed_it_is_three_lines(blank):
    blank.map[1, 2:4, 3:6] = 0.6
    blank.healthy_percentile, blank.healthy_cases = 100 * 26 / 27, 26
    assert str(blank).splitlines() == [
        "array: score 0.25, above all 26 healthy scans (p <= 0.037)",
        "1 region above the threshold 0.5 (given), 0.006 ml in all",
        "no warnings",
    ]
    assert repr(blank) == "<Finding array: score 0.25, no warnings>"
    blank.warnings += ["EMPTY: no foreground\nfound", "WINDOWED: a picture"]
    blank.left_out = {"dicom-seg": "a DICOM series"}
    assert len(str(blank).splitlines()) == 3
    assert str(blank).endswith(
        "warnings: EMPTY: no foreground found; WINDOWED: a picture; LEFT_OUT: dicom-seg needs a"
        " DICOM series"
    )


@pytest.mark.parametrize(
    "below, count, words",
    [
        (26, 26, "above all 26 healthy scans (p <= 0.037)"),
        (25, 26, "above 25 of 26 healthy scans (p = 0.074)"),
        (0, 26, "above none of 26 healthy scans (p = 1)"),
        (1, 1, "above the one healthy scan (p <= 0.5)"),
    ],
)
def test_the_rank_is_told_in_words(blank, below, count, words):
    blank.healthy_percentile, blank.healthy_cases = 100 * below / (count + 1), count
    assert str(blank).splitlines()[0] == f"array: score 0.25, {words}"


def test_what_is_not_known_is_not_told(blank):
    blank.threshold = None
    assert str(blank).splitlines()[:2] == [
        "array: score 0.25",
        "no threshold, so nothing is marked",
    ]
    flat = finding(Scan.from_array(np.eye(12)), np.eye(12)[None])
    assert str(flat).splitlines()[1] == "1 region above the threshold 0.5 (given), 12 voxels in all"
    flat.map[:] = 0
    flat = finding(flat.scan, flat.map)
    assert str(flat).splitlines()[1] == "nothing above the threshold 0.5 (given)"


# -- the row of findings.csv -----------------------------------------------------------------------
def test_the_row_has_the_columns_of_the_contract(blank):
    assert list(blank.row()) == [
        "case_id",
        "score",
        "score_sd",
        "healthy_percentile",
        "healthy_cases",
        "volume_ml_above",
        "n_regions",
        "threshold",
        "threshold_source",
        "status",
        "warnings",
        "seconds",
    ]
    assert blank.row()["status"] == "ok"
    blank.warnings.append("OOD_INTENSITY: looks strange")
    assert blank.row()["status"] == "warn" and "OOD_INTENSITY" in blank.row()["warnings"]


def test_the_number_of_healthy_cases_stands_beside_the_percentile(blank):
    assert blank.row()["healthy_cases"] is None
    blank.healthy_percentile, blank.healthy_cases = 80.0, 4
    assert (
        blank.row()["healthy_cases"] == 4 and blank.rank == "above all 4 healthy scans (p <= 0.2)"
    )


def test_beside_a_reference_case_json_says_what_was_marked_and_another_grid_is_refused(
    blank, tmp_path
):
    truth = np.zeros(blank.map.shape, bool)
    truth[2, 5:10, 5:10] = True
    blank.map[2, 5:10, 5:8] = 1
    said = json.loads(blank.save(tmp_path, ["json"], truth=truth)["case"].read_text())["truth"]
    assert (
        said["lesions"] == said["found"] == 1
        and said["marked"] == 0.6
        and said["twin_still_shows_it"]
    )
    with pytest.raises(Fault, match="TRUTH") as caught:
        blank.save(tmp_path, ["json"], truth=truth[:2])
    assert caught.value.exit == 2


# -- on disk ---------------------------------------------------------------------------------------
def test_nifti_outputs_lie_on_the_grid_of_the_input_with_its_header(tmp_path):
    rng = np.random.default_rng(1)
    # sagittal, slightly oblique.
    affine = np.array([[0.0, 0, 3, -7], [-1.5, 0, 0, 40], [0, 0.9, 0.1, 5], [0, 0, 0, 1]])
    image = nib.Nifti1Image(rng.integers(-1000, 1000, (14, 18, 11, 1)).astype(np.int16), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=2)
    image.set_sform(affine, code=4)
    nib.save(image, tmp_path / "in.nii.gz")
    scan = io.read(tmp_path / "in.nii.gz")
    anomaly = rng.random(scan.shape[1:]).astype(np.float32)
    paths = finding(scan, anomaly).save(tmp_path / "out")
    stored = {
        key: nib.load(paths[key]) for key in ("pseudo_healthy", "anomaly_map", "anomaly_mask")
    }
    for written in stored.values():
        assert written.shape == image.shape
        assert np.array_equal(written.affine, image.affine)
        for code in ("qform_code", "sform_code", "xyzt_units"):
            assert written.header[code] == image.header[code]
    assert np.array_equal(stored["pseudo_healthy"].get_fdata(), image.get_fdata() - 3)
    assert stored["anomaly_mask"].get_data_dtype() == np.uint8
    assert np.array_equal(np.unique(stored["anomaly_mask"].dataobj), [0, 1])
    again = io.read(paths["anomaly_map"])
    assert np.array_equal(again.voxels[0], anomaly), (
        "the map comes back to the voxels it was made for"
    )


@pytest.mark.parametrize("depth, top", [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures_keep_their_bit_depth_and_the_mask_is_0_and_255(tmp_path, depth, top):
    pixels = np.random.default_rng(2).integers(3, top, (20, 30)).astype(depth)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    scan = io.read(tmp_path / "in.png")
    anomaly = np.linspace(0, 1, 600).reshape(1, 20, 30)
    paths = finding(scan, anomaly).save(tmp_path / "out")
    healthy, mask = (np.array(Image.open(paths[key])) for key in ("pseudo_healthy", "anomaly_mask"))
    assert paths["pseudo_healthy"].name == "pseudo_healthy.png"
    assert healthy.dtype == depth and np.array_equal(healthy, pixels - 3)
    assert mask.dtype == np.uint8 and np.array_equal(mask, np.where(anomaly[0] > 0.5, 255, 0))
    values = np.array(Image.open(paths["anomaly_map"]))
    assert values.dtype == np.float32 and np.allclose(values, anomaly[0])


def test_case_json_says_everything_but_where_it_lies(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 255, (20, 30)).astype(np.uint8)
    (tmp_path / "Mueller^Hans").mkdir()
    Image.fromarray(pixels).save(tmp_path / "Mueller^Hans" / "in.png")
    scan = io.read(tmp_path / "Mueller^Hans" / "in.png")
    anomaly = np.zeros((1, 20, 30))
    anomaly[0, 4:7, 4:7] = 1
    paths = finding(scan, anomaly, made={"run": "r", "seed": 3}).save(tmp_path / "out")
    text = paths["case"].read_text()
    assert str(tmp_path) not in text and "Mueller" not in text
    said = json.loads(text)
    assert (
        said["research_use_only"] is True
        and said["case_id"] == "in"
        and said["made"] == {"run": "r", "seed": 3}
    )
    assert (
        said["regions"][0]["voxels"] == 9
        and "truth" not in said
        and said["shape"] == [1, 1, 20, 30]
    )
    assert set(said["outputs"]) == {
        "pseudo_healthy",
        "anomaly_map",
        "anomaly_mask",
        "panel",
        "html",
    }
    for name in said["outputs"].values():
        assert (tmp_path / "out" / "in" / name).is_file()


def test_only_the_kinds_asked_for_are_written(tmp_path, blank):
    assert set(blank.save(tmp_path, kinds=["json"])) == {"case", "slices"}
    assert sorted(path.name for path in (tmp_path / "array").iterdir()) == [
        "case.json",
        "slices.csv",
    ]
    with pytest.raises(Fault) as caught:
        blank.save(tmp_path, kinds=["json", "vtk"])
    assert caught.value.exit == 2 and "vtk" in str(caught.value)


def test_every_plane_has_a_line_with_its_place_score_and_areas(blank):
    blank.map[4, 2:4, 3:6] = 0.6
    blank.plane_scores = blank.map.max((1, 2))
    lines = blank.slices().splitlines()
    assert lines[0].split(",") == [
        "plane",
        "x_mm",
        "y_mm",
        "z_mm",
        "score",
        "foreground_area",
        "area_above",
    ]
    # 10 - 11.5 / 2, 20 - 9.5, 30 + 4 * 2; 6 px of 0.5 mm2.
    assert lines[5] == "4,4.25,10.50,38.00,0.600000,240.00,3.00"
    assert len(lines) == 7 and lines[1].endswith(",0.00")
    flat = finding(Scan.from_array(np.zeros((3, 8, 8)) + np.eye(8)), np.ones((3, 8, 8)))
    assert flat.slices().splitlines()[1] == "0,,,,1.000000,64.00,64.00"


def test_the_panel_is_drawn_in_the_window_of_the_canvas(tmp_path, blank, monkeypatch):
    from pseudohealthy.report import panel

    windows = []
    draw = panel.mosaic
    monkeypatch.setattr(
        panel,
        "mosaic",
        lambda path, pictures, view, facts: (
            windows.append(view.window) or draw(path, pictures, view, facts)
        ),
    )
    blank.window = (0.0, 80.0)
    blank.save(tmp_path, kinds=["panel"])
    assert windows == [(0.0, 80.0)]
    with Image.open(tmp_path / "array" / "panel.png") as shown:
        assert shown.width > 600


def test_a_folder_that_cannot_be_written_ends_with_exit_6(tmp_path, blank):
    (tmp_path / "array").write_text("in the way")
    with pytest.raises(Fault) as caught:
        blank.save(tmp_path)
    assert caught.value.exit == 6 and str(tmp_path) not in str(caught.value)
