from __future__ import annotations

import json
import shutil
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

import pseudohealthy as ph
from blobs import SIDE, picture
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.runs.run import Run


def scans(count: int, *, bright: bool = False, seed: int = 5) -> list[Scan]:
    rng = np.random.default_rng(seed)
    return [Scan.from_array(picture(rng, bright=bright)[0], name=f"case-{i}") for i in range(count)]


def detector(run, **options) -> Detector:
    return ph.load(run, **{"device": "cpu", "precision": "fp32"} | options)


# -- what a result depends on ----------------------------------------------------------------------
def test_a_case_gets_the_same_map_at_any_batch_size_in_any_order_and_company(tiny_run):
    alone = {f.case_id: f for f in detector(tiny_run, batch=16).stream(scans(16))}
    order = np.random.default_rng(0).permutation(16)
    for batch in (1, 7, 16):
        for chosen in (range(16), order, order[:5]):
            given = scans(16)
            for finding in detector(tiny_run, batch=batch).stream(given[i] for i in chosen):
                same = alone[finding.case_id]
                np.testing.assert_allclose(finding.map, same.map, atol=1e-5)
                np.testing.assert_allclose(finding.healthy, same.healthy, atol=1e-5 * 255)
                assert finding.score == pytest.approx(same.score, abs=1e-5)
                assert finding.threshold == same.threshold


def test_the_planes_of_a_volume_may_be_split_over_batches(tiny_run):
    rng = np.random.default_rng(1)
    volume = np.stack([picture(rng)[0] for _ in range(9)])
    maps = [detector(tiny_run, batch=batch)(volume).map for batch in (1, 4, 32)]
    np.testing.assert_allclose(maps[0], maps[2], atol=1e-5)
    np.testing.assert_allclose(maps[1], maps[2], atol=1e-5)


def test_bf16_moves_the_map_by_less_than_a_fiftieth_of_the_range(tiny_run):
    exact, fast = ([*detector(tiny_run, precision=p).stream(scans(8))] for p in ("fp32", "bf16"))
    difference = np.stack([a.map - b.map for a, b in zip(exact, fast, strict=True)])
    # Of a range of 2.
    assert 0 < np.abs(difference).max() < 0.04 and np.abs(difference).mean() < 0.004
    assert fast[0].made["precision"] == "bfloat16" and exact[0].made["precision"] == "float32"


def test_the_same_call_twice_says_the_same(tiny_run):
    detect, scan = detector(tiny_run), scans(1)[0]
    first, second = detect(scan), detect(scan)
    assert np.array_equal(first.map, second.map) and first.score == second.score


def test_the_name_of_a_case_changes_nothing(tiny_run):
    detect, (scan,) = detector(tiny_run), scans(1)
    first = detect(scan)
    scan.name = "another"
    assert np.array_equal(first.map, detect(scan).map)


# -- what it takes ---------------------------------------------------------------------------------
def test_a_path_an_array_a_tensor_and_a_scan_say_the_same(tiny_run, tmp_path):
    image, _ = picture(np.random.default_rng(9))
    Image.fromarray(image).save(tmp_path / "a.png")
    detect = detector(tiny_run)
    found = [
        detect(x)
        for x in (tmp_path / "a.png", str(tmp_path / "a.png"), image, torch.from_numpy(image))
    ]
    found.append(detect(Scan.from_array(image)))
    assert all(np.array_equal(f.map, found[0].map) for f in found)
    assert (
        found[0].case_id == "a"
        and found[0].map.shape == (1, SIDE, SIDE)
        and found[0].map.dtype == np.float32
    )


def test_another_size_than_the_models_comes_back_on_its_own_grid(tiny_run):
    image = np.array(Image.fromarray(picture(np.random.default_rng(9))[0]).resize((40, 27)))
    finding = detector(tiny_run)(image)
    assert finding.map.shape == finding.mask.shape == finding.foreground.shape == (1, 27, 40)
    assert finding.healthy.shape == (1, 1, 27, 40)


def test_a_white_square_scores_above_the_same_picture_without_it(tiny_run):
    rng = np.random.default_rng(2)
    image, _ = picture(rng)
    marked = image.copy()
    marked[4:9, 4:9] = 250
    usual = detector(tiny_run)
    template = control_restorers(usual.restorer)["healthy-mean"]
    detect = detector(tiny_run, threshold=0.3, restorer=template)
    clean, found = detect(image), detect(marked)
    assert found.score > clean.score
    assert found.mask[0, 5:8, 5:8].all() and not found.mask[0, 11:].any()


# -- identity --------------------------------------------------------------------------------------
def test_the_identity_restoration_returns_the_scan_bit_for_bit(ct_run):
    from pseudohealthy.anomalies.phantoms import head

    volume, _, affine = head(np.random.default_rng(8), shape=(5, 45, 37), lesion=0.2)
    finding = detector(ct_run)(Scan.from_array(volume, affine=affine))
    assert np.array_equal(finding.healthy, volume[None]), "values inside and outside the window"
    assert finding.map.max() == 0 and not finding.mask.any() and finding.score == 0
    assert finding.regions == [] and finding.volume_ml_above == 0


def test_nothing_changes_outside_the_foreground(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(
        text.replace('foreground = "all"', 'foreground = "nonzero"')
    )
    image, _ = picture(np.random.default_rng(9))
    image = np.maximum(image, 1)
    image[:, :5] = 0
    finding = detector(folder)(image)
    assert np.array_equal(finding.healthy[0, 0, :, :5], image[:, :5])
    assert not np.array_equal(finding.healthy[0, 0], image)
    assert finding.map[0, :, :5].max() == 0
    assert not finding.foreground[0, :, :5].any() and finding.foreground[0, :, 5:].all()


# -- score, percentile, threshold ------------------------------------------------------------------
def test_the_percentile_counts_the_case_itself_and_never_reads_100(tiny_run):
    detect = detector(tiny_run)
    detect.stored = detect.stored | {"case_scores": [0.1, 0.2, 0.3]}
    assert [detect.percentile(s) for s in (0.0, 0.1, 0.15, 9.0)] == [0, 0, 25, 75]
    detect.stored["case_scores"] = []
    assert detect.percentile(1.0) is None


def test_where_the_threshold_comes_from(tiny_run):
    stored = json.loads((tiny_run / "threshold.json").read_text())["value"]
    (scan,) = scans(1, bright=True)
    for choice, value, source in (
        (0.25, 0.25, "given"),
        ("0.25", 0.25, "given"),
        ("stored", stored, "healthy-quantile"),
    ):
        finding = detector(tiny_run, threshold=choice)(scan)
        assert (finding.threshold, finding.threshold_source) == (value, source)
        assert np.array_equal(finding.mask, finding.map > value)
    finding = detector(tiny_run, threshold="otsu")(scan)
    assert finding.threshold_source == "otsu" and 0 < finding.threshold < finding.map.max()


def test_a_threshold_that_is_none_or_not_stored_is_refused(tiny_run, tmp_path):
    with pytest.raises(Fault) as caught:
        detector(tiny_run, threshold="best")
    assert caught.value.exit == 2
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "threshold.json").write_text('{"value": null}')
    with pytest.raises(Fault) as caught:
        detector(tmp_path / "run")
    assert caught.value.exit == 5 and "--threshold" in str(caught.value)
    assert detector(tmp_path / "run", threshold=1.0)(scans(1)[0]).healthy_percentile is None


def test_damaged_side_files_are_refused(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "threshold.json").write_text("{")
    with pytest.raises(Fault) as caught:
        detector(tmp_path / "run")
    assert (caught.value.code, caught.value.exit) == ("RUN_CORRUPT", 5)


def test_the_case_score_of_a_volume_is_taken_over_all_its_planes(tiny_run):
    rng = np.random.default_rng(1)
    volume = np.stack([picture(rng)[0] for _ in range(4)])
    finding = detector(tiny_run)(volume)
    detect = detector(tiny_run)
    everywhere = torch.ones(finding.map.shape)
    assert finding.score == pytest.approx(
        detect.amap.score_of(torch.from_numpy(finding.map), everywhere)
    )
    one = [detect.amap.score_of(torch.from_numpy(m)[None], everywhere[:1]) for m in finding.map]
    np.testing.assert_allclose(finding.plane_scores, one, rtol=1e-6)


# -- settings --------------------------------------------------------------------------------------
def test_settings_change_this_detector_only_and_are_recorded(tiny_run):
    usual, quick = detector(tiny_run), detector(tiny_run, settings=["restorer.walk.calls=1"])
    assert usual.restorer.network_calls() == 6 and quick.restorer.network_calls() == 2
    assert (
        quick.made()["settings"] == ["restorer.walk.calls=1"] and quick.made()["network_calls"] == 2
    )
    assert Run.open(tiny_run).recipe.restorer["walk"]["calls"] == 3
    with pytest.raises(Fault) as caught:
        detector(tiny_run, settings=["restorer.stepps=1"])
    assert caught.value.exit == 2


def test_how_it_was_made_names_run_weights_and_seed_but_no_folder(tiny_run):
    made = detector(tiny_run)(scans(1)[0]).made
    assert made["run"] == "tiny" and made["restorer"] == "ddpm" and made["seed"] == 0
    assert (
        made["weights_sha256"] == json.loads((tiny_run / "run.json").read_text())["weights_sha256"]
    )
    assert made["threshold_detail"]["n_patients"] == 8
    assert str(tiny_run.parent) not in json.dumps(made)


# -- warnings --------------------------------------------------------------------------------------
def test_a_picture_like_the_training_pictures_raises_no_warning(tiny_run):
    assert [f.warnings for f in detector(tiny_run).stream(scans(8, seed=77))] == [[]] * 8


def test_a_picture_of_another_brightness_is_named(tiny_run):
    image, _ = picture(np.random.default_rng(0))
    finding = detector(tiny_run)(255 - image)
    assert any(w.startswith("OOD_INTENSITY: 100 % of planes") for w in finding.warnings)
    assert finding.row()["status"] == "warn"


def test_the_coarse_check_has_a_tenth_of_the_healthy_range_as_margin(tiny_run):
    watching = detector(tiny_run)
    fitted = watching.canvas.fit(scans(1)[0])
    share = fitted.foreground.float().mean().item()
    # How far below its range, in widths of the range.
    for width, told in ((0.5, True), (0.2, True), (0.05, False)):
        low = share + (0.1 + width - 0.1) * 0.4
        watching.fingerprint = {
            "foreground_share": [low, low + 0.4],
            "foreground_brightness": [-10.0, 10.0],
        }
        assert bool(watching.unlike(fitted)) is told, width


def test_another_field_of_view_and_an_empty_scan_are_named(ct_run):
    from pseudohealthy.anomalies.phantoms import head

    volume, _, _ = head(np.random.default_rng(3), shape=(6, 32, 32))
    assert detector(ct_run)(volume).warnings == []
    close = np.kron(volume[:, 12:20, 12:20], np.ones((1, 4, 4), np.float32))
    assert any(w.startswith("OOD_FOREGROUND") for w in detector(ct_run)(close).warnings)
    air = np.random.default_rng(0).normal(-1000, 5, (3, 32, 32))
    finding = detector(ct_run)(air)
    assert any(w.startswith("EMPTY") for w in finding.warnings)
    assert finding.score == 0 and np.array_equal(finding.healthy[0], air.astype(np.float32))


def test_the_readers_warnings_are_passed_on(tiny_run):
    image = picture(np.random.default_rng(0))[0].astype(np.float32)
    image[0, 0] = np.nan
    assert any(w.startswith("NONFINITE n=1") for w in detector(tiny_run)(image).warnings)


def test_a_wrong_number_of_channels_is_refused(tiny_run):
    with pytest.raises(Fault) as caught:
        detector(tiny_run)(np.random.default_rng(0).random((3, 1, SIDE, SIDE)))
    assert (caught.value.code, caught.value.exit) == ("CHANNELS", 2)


def test_a_restoration_that_is_not_finite_is_refused(tiny_run, monkeypatch):
    detect = detector(tiny_run)
    parameter = next(detect.restorer.parameters())
    parameter.fill_(float("nan"))
    with pytest.raises(Fault) as caught:
        detect(scans(1)[0])
    assert (caught.value.code, caught.value.exit) == ("NONFINITE_MAP", 5)


# -- window for pictures ---------------------------------------------------------------------------
def test_the_canvas_window_goes_to_the_pictures(ct_run, tiny_run):
    from pseudohealthy.anomalies.phantoms import head

    volume, _, _ = head(np.random.default_rng(3), shape=(2, 32, 32))
    assert detector(ct_run)(volume).window == (0.0, 80.0)
    assert detector(tiny_run)(scans(1)[0]).window is None


# -- memory ----------------------------------------------------------------------------------------
def test_a_stream_reads_one_group_ahead_and_lets_go_of_it(tiny_run):
    alive: list[weakref.ref] = []

    def source():
        rng = np.random.default_rng(0)
        for _ in range(12):
            scan = Scan.from_array(picture(rng)[0])
            alive.append(weakref.ref(scan))
            yield scan

    stream = detector(tiny_run, batch=4).stream(source())
    assert alive == [], "nothing is read before it is asked for"
    for number, _ in enumerate(stream, start=1):
        del _
        assert len(alive) == 4 * -(-number // 4)
        assert sum(ref() is not None for ref in alive) <= 5
    assert number == 12
