"""`sweep`: every setting measured as if the run had been made with it, restored once, chosen on
validation."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation import sweep as sweeping
from pseudohealthy.evaluation.sweep import Sweep, parsed
from pseudohealthy.report import sweep_tables
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.sweep import sweep
from pseudohealthy.workflows.train import train

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


@pytest.fixture(scope="module")
def labelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures with the test cases as validation cases: both labels, masks, none of them
    trained on."""
    root = tmp_path_factory.mktemp("labelled") / "blobs"
    for place in ("train", "masks"):
        shutil.copytree(pictures / place, root / place)
    shutil.copytree(pictures / "test", root / "val")
    return root


@pytest.fixture(scope="module")
def swept(tiny_run, labelled, tmp_path_factory) -> tuple[Sweep, Path]:
    out = tmp_path_factory.mktemp("sweep") / "out"
    over = ["map.smooth=0,2", "restorer.walk.start_levels=[5],[15]"]
    return sweep(tiny_run, labelled, over, out, device="cpu", resamples=50), out


def test_every_file_is_there_and_can_be_read(swept):
    result, out = swept
    assert {path.name for path in out.iterdir()} == {
        "sweep.csv",
        "sweep.json",
        "sweep.png",
        "strip.png",
        "report.html",
    }
    table = list(csv.DictReader((out / "sweep.csv").open()))
    assert [(row["map.smooth"], row["restorer.walk.start_levels"]) for row in table] == [
        ("0", "[5]"),
        ("0", "[15]"),
        ("2", "[5]"),
        ("2", "[15]"),
    ]
    assert [row["best"] for row in table].count("True") == 1
    stored = json.loads((out / "sweep.json").read_text())
    assert stored["best"]["settings"] == result.settings(result.best)
    values = {place: result.value(place, result.metric).value for place in result.records}
    assert values[result.best] == max(values.values()) and len(set(values.values())) > 1


@pytest.mark.parametrize("smooth", [0, 2])
def test_a_setting_gives_what_evaluate_gives_for_a_run_with_it(
    swept, tiny_run, pictures, tmp_path, smooth
):
    result, _ = swept
    shutil.copytree(tiny_run, tmp_path / "run")
    text = (
        (tmp_path / "run" / "recipe.toml").read_text().replace("smooth = 0.7", f"smooth = {smooth}")
    )
    (tmp_path / "run" / "recipe.toml").write_text(text)
    plain = evaluate(tmp_path / "run", pictures, device="cpu", controls=False)
    place = next(
        p
        for p in result.records
        if result.settings(p) == [f"map.smooth={smooth}", "restorer.walk.start_levels=[15]"]
    )
    for metric in (
        "image_auroc",
        "voxel_auroc_pooled",
        "voxel_average_precision_pooled",
        "dice_oracle_pooled",
    ):
        wanted = next(r for r in plain.records if r.metric == metric)
        found = result.value(place, metric)
        assert found.value == pytest.approx(wanted.value, abs=1e-6)


def test_map_settings_share_one_restoration(tiny_run, pictures, monkeypatch):
    model = type(Run.open(tiny_run).restorer()[0])
    restore, calls = model.restore, []
    monkeypatch.setattr(model, "restore", lambda self, *a: calls.append(1) or restore(self, *a))
    sweep(tiny_run, pictures, ["map.smooth=0,1,2,3"], device="cpu", resamples=20)
    assert len(calls) == 1


def test_the_depth_of_thor_is_swept_below_its_harmonised_levels(tiny, pictures, labelled, tmp_path):
    """THOR's sensitivity analysis over T, as the page of the method shows it: the list stays as it
    is."""
    recipe = tiny()
    network = {
        "width": 8,
        "multipliers": [1, 2],
        "blocks": 1,
        "block": {"scale_shift": True, "groups": 4},
    }
    recipe.restorer = {
        "name": "thor",
        "walk": {"calls": 2, "eta": 0.0},
        "perceptual": {"trunk": "none"},
        "network": network,
    }
    run = train(recipe, pictures, tmp_path / "run", steps=1, device="cpu")
    result = sweep(
        run,
        labelled,
        ["restorer.walk.start_levels=100,200,300,350"],
        device="cpu",
        limit=4,
        resamples=20,
    )
    assert {result.settings(place)[0]: calls for place, calls in result.network_calls.items()} == {
        "restorer.walk.start_levels=100": 3,
        "restorer.walk.start_levels=200": 6,
        "restorer.walk.start_levels=300": 5,
        "restorer.walk.start_levels=350": 8,
    }
    words = [next(iter(records)).postprocessing for records in result.records.values()]
    levels = [re.search(r"harmonic mean over levels ?([\d, ]*\d)?", text)[1] for text in words]
    assert levels == ["50", "150, 50", "150, 50", None], "the default list is not spelt out"
    with pytest.raises(Fault, match=r"give at least one below restorer\.walk\.start_levels = 50"):
        sweep(run, labelled, ["restorer.walk.start_levels=50"], device="cpu")


def test_without_anomalies_the_figures_are_of_health_and_it_says_why(tiny_run, pictures, tmp_path):
    result = sweep(
        tiny_run, pictures, ["map.smooth=0,3"], tmp_path / "out", device="cpu", resamples=20
    )
    assert result.metric == "healthy_false_positive_share"
    assert any("AUROC needs both labels" in note for note in result.notes)
    values = {p: result.value(p, result.metric).value for p in result.records}
    assert values[result.best] == min(values.values())
    quiet = [result.value(p, "healthy_residual_mean").value for p in ((0,), (1,))]
    assert quiet[1] < quiet[0], "smoothing a signed residual leaves less of it"


def test_a_choice_on_test_says_so(tiny_run, pictures):
    result = sweep(tiny_run, pictures, ["map.smooth=0,3"], device="cpu", split="test", resamples=20)
    assert any("chosen on test" in note and "oracle" in note for note in result.notes)
    assert (
        "chosen on test" in sweep_tables.text(result)
        and "on test" in sweep_tables.text(result).splitlines()[-1]
    )


def test_patients_trained_on_are_refused(tiny_run, pictures, tmp_path):
    for place in ("test", "masks"):
        shutil.copytree(pictures / place, tmp_path / place)
    shutil.copytree(pictures / "train" / "good", tmp_path / "val" / "good")
    with pytest.raises(Fault) as caught:
        sweep(tiny_run, tmp_path, ["map.smooth=0,3"], device="cpu")
    assert (caught.value.code, caught.value.exit) == ("LEAK", 2)


@pytest.mark.parametrize(
    "over, word",
    [
        (["restorer.network.width=8,16"], "changes the network"),
        (["restorer.diffusion.levels=10"], "changes the network"),
        (["restorer.name=ddim"], "changes the network"),
        (["canvas.size=32"], "new training"),
        (["map.smooth"], "no axis"),
        ([], "--over"),
        (["map.smooth=1", "map.smooth=2"], "twice"),
        (["map.smoth=1"], "smooth"),
        (["map.smooth=" + ",".join(map(str, range(500)))], "500 settings"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line(tiny_run, pictures, tmp_path, over, word):
    with pytest.raises(Fault) as caught:
        sweep(tiny_run, pictures, over, tmp_path / "out")
    assert caught.value.exit == 2 and word in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def as_wolleb(tiny_run, labelled, tmp_path_factory) -> tuple[Sweep, Path]:
    out = tmp_path_factory.mktemp("wolleb") / "out"
    over = ["restorer.walk.start_levels=[5],[15],[25]", "map.smooth=0,2"]
    return sweep(tiny_run, labelled, over, out, device="cpu", protocol="wolleb", resamples=20), out


def test_another_protocol_measures_what_evaluate_measures_under_it(
    as_wolleb, tiny_run, pictures, tmp_path
):
    result, out = as_wolleb
    assert result.metric == "dice_otsu_per_slice_mean"
    shutil.copytree(tiny_run, tmp_path / "run")
    text = (tmp_path / "run" / "recipe.toml").read_text().replace("smooth = 0.7", "smooth = 2")
    (tmp_path / "run" / "recipe.toml").write_text(text)
    plain = evaluate(tmp_path / "run", pictures, device="cpu", controls=False, protocol="wolleb")
    place = next(
        p
        for p in result.records
        if result.settings(p) == ["restorer.walk.start_levels=[15]", "map.smooth=2"]
    )
    for metric in ("dice_otsu_per_slice_mean", "voxel_auroc_per_slice_mean"):
        wanted = next(r for r in plain.records if r.metric == metric)
        assert result.value(place, metric).value == pytest.approx(wanted.value, abs=1e-6)
    assert any("only diseased slices count" in note for note in result.notes)
    row = next(csv.DictReader((out / "sweep.csv").open()))
    assert {
        "dice_otsu_per_slice_mean@otsu",
        "voxel_auroc_per_slice_mean",
        "healthy_residual_mean",
    } <= row.keys()
    stored = json.loads((out / "sweep.json").read_text())
    assert (
        stored["made"]["protocol"] == "wolleb"
        and stored["best"]["metric"] == "dice_otsu_per_slice_mean"
    )


def test_wolleb_is_drawn_as_lines_of_its_two_figures_unless_asked_otherwise(
    as_wolleb, tmp_path, monkeypatch
):
    from pseudohealthy.report import sweep_plots

    result, _ = as_wolleb
    drawn: list[tuple] = []
    real = sweep_plots.sweep
    monkeypatch.setattr(
        sweep_plots,
        "sweep",
        lambda p, a, f, t, **k: drawn.append((list(f), k["lines"])) or real(p, a, f, t, **k),
    )
    for plot in ("auto", "heat", "lines"):
        sweep_tables.save(replace(result, plot=plot), tmp_path / plot, {})
    names = ["Dice, mean per diseased slice @ otsu", "voxel AUROC, mean per diseased slice"]
    assert drawn == [(names, True), (names, False), (names, True)]
    assert (
        not replace(result, protocol="strict").lines
        and replace(result, protocol="strict", plot="lines").lines
    )


def test_a_protocol_without_a_diseased_case_says_so_and_an_unknown_one_is_refused(
    tiny_run, pictures, tmp_path
):
    result = sweep(
        tiny_run, pictures, ["map.smooth=0,3"], device="cpu", protocol="wolleb", resamples=20
    )
    assert result.metric == "healthy_false_positive_share"
    assert any("no val case has what the protocol wolleb measures" in note for note in result.notes)
    with pytest.raises(Fault, match="did you mean 'wolleb'"):
        sweep(tiny_run, pictures, ["map.smooth=0,3"], tmp_path / "out", protocol="woleb")
    assert not (tmp_path / "out").exists()


def test_a_threshold_tuned_on_the_measured_cases_is_named(tiny_run, labelled):
    result = sweep(
        tiny_run, labelled, ["map.smooth=0,3"], device="cpu", protocol="behrendt", resamples=20
    )
    assert any("which flatters" in note for note in result.notes)


def test_a_metric_that_is_not_there_is_refused_after_the_first_settings_and_leaves_no_folder(
    tiny_run, pictures, tmp_path, monkeypatch
):
    seen = []
    measured = sweeping.measured
    monkeypatch.setattr(
        "pseudohealthy.workflows.sweep.measured", lambda *given: seen.append(1) or measured(*given)
    )
    given = {"metric": "dicee", "device": "cpu", "resamples": 10}
    for out in (tmp_path / "deep" / "out", None):
        with pytest.raises(Fault, match="'dicee' was not measured here"):
            sweep(tiny_run, pictures, ["restorer.walk.draws=1,2,3", "map.smooth=0,1"], out, **given)
    assert len(seen) == 2 and not (tmp_path / "deep").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(Fault, match="'dicee' was not measured here"):
        sweep(tiny_run, pictures, ["map.smooth=0"], tmp_path / "mine", overwrite=True, **given)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_values_are_toml_and_bare_words_are_text():
    assert parsed(
        ["map.smooth=0, 1.5", "map.kind=absolute,positive", "restorer.walk.start_levels=[5],[5, 9]"]
    ) == [
        ("map.smooth", ["0", "1.5"]),
        ("map.kind", ['"absolute"', '"positive"']),
        ("restorer.walk.start_levels", ["[5]", "[5, 9]"]),
    ]


def test_three_axes_fill_the_grid(tiny_run, labelled, tmp_path):
    over = ["map.smooth=0,2", "map.erode=0,1", "map.kind=absolute"]
    result = sweep(
        tiny_run,
        labelled,
        over,
        tmp_path / "out",
        device="cpu",
        metric="image_auroc",
        limit=8,
        resamples=20,
    )
    assert len(result.records) == 4 and (tmp_path / "out" / "sweep.png").is_file()
    assert np.isfinite([result.value(p, "image_auroc").value for p in result.records]).all()


def test_cases_and_weights_are_read_once_for_all_settings(tiny_run, pictures, monkeypatch):
    from pseudohealthy import io

    read, weights = [], []
    image, restorer = io.read_image, Run.restorer
    monkeypatch.setattr(io, "read_image", lambda *a, **k: read.append(a[0]) or image(*a, **k))
    monkeypatch.setattr(Run, "restorer", lambda self: weights.append(1) or restorer(self))
    result = sweep(
        tiny_run, pictures, ["restorer.walk.start_levels=[5],[10],[15]"], device="cpu", resamples=20
    )
    assert len(weights) == 1 and len(read) == len(set(read)) > 1
    assert (
        len({result.value(place, "healthy_residual_mean").value for place in result.records}) == 3
    )
