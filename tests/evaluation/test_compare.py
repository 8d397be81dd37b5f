"""`compare`: the same cases, the same voxels, paired differences, controls in every run's
setting."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.compare import (
    Comparison,
    against_best,
    distinct,
    known,
    on_common_voxels,
    training_seconds,
)
from pseudohealthy.evaluation.map_store import Spool
from pseudohealthy.evaluation.records import CONTROL, CaseResult, Place
from pseudohealthy.metrics.table import shown_in
from pseudohealthy.report import comparison_tables
from pseudohealthy.restorers.controls import Intensity
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.workflows.compare import compare
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.train import train

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


@pytest.fixture(scope="module")
def runs(
    tiny_run: Path, tiny, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The tiny run, a copy of it, and one on a larger canvas with another map."""
    folder = tmp_path_factory.mktemp("others")
    shutil.copytree(tiny_run, folder / "copy")
    other = tiny("canvas.size=24", "map.smooth=1.5", "training.steps=4", "training.validate=4")
    return [
        tiny_run,
        folder / "copy",
        train(other, pictures, folder / "large", device="cpu").folder,
    ]


@pytest.fixture(scope="module")
def compared(runs, pictures, tmp_path_factory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("compare") / "out"
    return compare(runs, pictures, out, device="cpu", resamples=60), out


def test_every_file_is_there_and_can_be_read(compared):
    result, out = compared
    assert {path.name for path in out.iterdir()} == {
        "comparison.csv",
        "comparison.json",
        "comparison.tex",
        "comparison.md",
        "comparison.png",
        "panel.png",
        "report.html",
    }
    table = list(csv.DictReader((out / "comparison.csv").open()))
    assert len(table) == len(result.facts)
    mine = next(row for row in table if row["method"] == "copy")
    wanted = {
        "image_auroc",
        "image_auroc_low",
        "image_auroc_minus_control",
        "image_auroc_control",
        "image_auroc_minus_best_run",
        "network_calls",
        "seconds_per_case",
        "parameters",
        "training_steps",
        "training_planes",
        "training_seconds",
    }
    # Empty where it is the best.
    assert wanted - {k for k, v in mine.items() if v} <= {"image_auroc_minus_best_run"}
    assert (
        int(mine["network_calls"]) == 6
        and int(mine["training_steps"]) == 12
        and int(mine["parameters"]) > 1000
    )
    stored = json.loads((out / "comparison.json").read_text())
    assert {record["protocol"] for record in stored["records"]} == {"strict"}
    assert str(out.parent) not in (out / "report.html").read_text()


def test_channels_and_the_best_of_validation_stand_beside_the_figures(compared, runs):
    _, out = compared
    table = {row["method"]: row for row in csv.DictReader((out / "comparison.csv").open())}
    history = json.loads((runs[0] / "training_history.json").read_text())
    assert table["tiny"]["input_channels"] == "1" and table["tiny"]["best_validation_auroc"] == ""
    assert float(table["tiny"]["best_validation_loss"]) == pytest.approx(
        min(e["validation_loss"] for e in history)
    )
    assert {
        row["best_validation_loss"] for name, row in table.items() if name.startswith(CONTROL)
    } == {""}
    entries = [
        {"validation_loss": float("nan")},
        {"validation_loss": None},
        {"validation_loss": 2.0},
        {"step": 3},
    ]
    assert known(entries, "validation_loss") == [2.0], (
        "without healthy validation planes a loss is not a number"
    )


def test_a_run_against_itself_differs_by_exactly_nothing(compared):
    result, _ = compared
    ((_, differences),) = result.against_best.items()
    names = {record.method for record in differences} | {record.against for record in differences}
    same = [r for r in differences if {r.method, r.against} == {"tiny", "copy"}]
    assert names == {"tiny", "copy", "large"} and len(same) >= 3
    assert all(r.value == 0 and r.ci95 == (0, 0) and r.p_value == 1 for r in same)


def test_differences_are_those_of_the_figures_and_the_best_run_leads(compared):
    result, _ = compared
    ((data, evaluation),) = result.evaluations.items()
    value = {(r.method, r.metric): r.value for r in evaluation.records if not r.against}
    for record in result.against_best[data]:
        metric = record.metric.removesuffix("_difference")
        assert record.value == pytest.approx(
            value[record.method, metric] - value[record.against, metric]
        )
        assert record.value <= 0 and shown_in(metric, "table")


def test_controls_stand_in_every_setting_once_and_the_best_of_all_is_the_rival(compared):
    result, _ = compared
    ((_, evaluation),) = result.evaluations.items()
    controls = {r.method for r in evaluation.records if r.is_control}
    assert {f"{CONTROL} intensity (tiny)", f"{CONTROL} intensity (large)"} <= controls
    assert not any(name.endswith("(copy)") for name in controls), (
        "the copy shares the first run's setting"
    )
    metric = "voxel_average_precision_pooled"
    best = max(r.value for r in evaluation.records if r.is_control and r.metric == metric)
    for method in ("tiny", "large"):
        mine = next(r for r in evaluation.records if (r.method, r.metric) == (method, metric))
        lead = next(
            r
            for r in evaluation.records
            if (r.method, r.metric) == (method, f"{metric}_difference")
        )
        assert lead.value == pytest.approx(mine.value - best)


def test_one_run_is_measured_as_evaluate_measures_it(tiny_run, pictures):
    alone = compare([tiny_run], pictures, device="cpu", resamples=20).evaluations["blobs"]
    plain = evaluate(tiny_run, pictures, device="cpu", controls=False)
    value = {(r.method, r.metric): r.value for r in alone.records}
    assert len(plain.records) > 10
    for record in plain.records:
        assert value[record.method, record.metric] == pytest.approx(record.value, abs=1e-9), (
            record.metric
        )


def test_all_methods_are_judged_on_the_voxels_of_any():
    def case(method: str, columns: slice, scores: float) -> CaseResult:
        seen = np.zeros((1, 2, 4), bool)
        seen[..., columns] = True
        lesion = np.zeros_like(seen)
        lesion[0, 0, 1] = True
        seen |= lesion
        return CaseResult(
            "c",
            "p",
            1,
            0.5,
            map=np.full(seen.sum(), scores, np.float32),
            truth=lesion[seen],
            method=method,
            place=Place(seen, seen),
        )

    left, right = on_common_voxels(
        [case("left", slice(0, 2), 1), case("right", slice(2, 4), 2)], Spool()
    )
    assert len(left.map) == len(right.map) == 8 and left.place is right.place
    assert np.array_equal(left.truth, right.truth) and left.truth.sum() == 1
    assert left.map.tolist() == [1, 1, 0, 0, 1, 1, 0, 0], "0 where a method did not look"
    assert right.map.tolist() == [0, 2, 2, 2, 0, 0, 2, 2]


def test_runs_are_paired_with_the_best_run_where_a_control_of_the_protocol_is_better_than_it():
    labels = np.tile([0, 0, 1, 1], 6)
    scores = {
        "good": labels + np.tile([0.0, 1.5, 0.0, 1.0], 6),
        "bad": np.tile([1.0, 0.0, 0.0, 1.0], 6),
    }
    results = [
        CaseResult(
            f"c{i}",
            f"p{i}",
            int(i < 6),
            float(values.max()),
            plane_scores=values[i : i + 4],
            plane_labels=labels[i : i + 4],
            method=method,
            facts={"tissue-area": labels[i : i + 4].astype(float)},
        )
        for method, values in scores.items()
        for i in range(12)
    ]
    evaluation = protocols.measure("ct", results, protocols.Setting(resamples=50))
    plane = {r.method: r.value for r in evaluation.records if r.metric == "plane_auroc"}
    assert plane["control: tissue-area"] == 1 > plane["good"] > plane["bad"]
    found = [
        r for r in against_best(evaluation, ["good", "bad"]) if r.metric == "plane_auroc_difference"
    ]
    assert [(r.method, r.against) for r in found] == [("bad", "good")]
    assert found[0].value == pytest.approx(plane["bad"] - plane["good"])


def test_the_protocol_measures_once_and_controls_under_two_maps_are_restored_once(
    tiny_run, pictures, tmp_path, monkeypatch
):
    shutil.copytree(tiny_run, tmp_path / "rough")
    text = (tmp_path / "rough" / "recipe.toml").read_text()
    (tmp_path / "rough" / "recipe.toml").write_text(text.replace("smooth = 0.7", "smooth = 0.0"))
    measured, restored = [], []
    measure, restore = protocols.measure, Intensity.restore
    monkeypatch.setattr(protocols, "measure", lambda *given: measured.append(1) or measure(*given))
    monkeypatch.setattr(Intensity, "restore", lambda *given: restored.append(1) or restore(*given))
    result = compare([tiny_run, tmp_path / "rough"], pictures, device="cpu", resamples=20)
    assert (len(measured), len(restored)) == (1, 1)
    ((_, evaluation),) = result.evaluations.items()
    values = {
        r.method: r.value
        for r in evaluation.records
        if r.metric == "voxel_average_precision_pooled"
    }
    assert values["control: intensity (tiny)"] != values["control: intensity (rough)"]
    alone = evaluate(tmp_path / "rough", pictures, device="cpu")
    own = {(r.method, r.metric): r.value for r in alone.records}
    assert (
        own["control: intensity", "voxel_average_precision_pooled"]
        == values["control: intensity (rough)"]
    )


def test_several_protocols_and_leaks_are_refused_before_anything_is_written(
    tiny_run, pictures, tmp_path
):
    for named in ("strict,wolleb", "strict thor", "lenient"):
        with pytest.raises(Fault) as caught:
            compare([tiny_run], pictures, tmp_path / "out", protocol=named)
        assert (caught.value.code, caught.value.exit) == ("PROTOCOL", 2)
    for place in ("test", "masks"):
        shutil.copytree(pictures / place, tmp_path / "data" / place)
    shutil.copy(next((pictures / "train" / "good").iterdir()), tmp_path / "data" / "test" / "good")
    with pytest.raises(Fault) as caught:
        compare([tiny_run], tmp_path / "data", tmp_path / "out")
    assert (caught.value.code, caught.value.exit) == ("LEAK", 2) and not (tmp_path / "out").exists()
    allowed = compare(
        [tiny_run], tmp_path / "data", device="cpu", allow_leak=True, limit=4, resamples=20
    )
    assert any("LEAK" in note and "tiny" not in note.split(":")[0] for note in allowed.notes)
    (mine,) = {r.caveat for r in allowed.evaluations["data"].records if r.method == "ddpm"}
    assert "LEAK" in mine and not any(
        r.caveat for r in allowed.evaluations["data"].records if r.is_control
    )
    table = {row["method"]: row for row in comparison_tables.rows(allowed)}
    assert "LEAK" in table["ddpm"]["caveat"] and table["control: identity"]["caveat"] == ""


def test_runs_that_take_different_images_are_named_with_what_each_takes(
    tiny_run, pictures, tmp_path
):
    for key, value, code, took in (
        ("channels", 2, "CHANNELS", "2 channels"),
        ("plane", "sagittal", "PLANE", "sagittal planes"),
    ):
        other = tmp_path / f"other-{key}"
        shutil.copytree(tiny_run, other)
        recipe = Recipe.load(other / "recipe.toml")
        recipe.canvas[key] = value
        (other / "recipe.toml").write_text(recipe.toml(), encoding="utf-8")
        with pytest.raises(Fault) as caught:
            compare([tiny_run, other], pictures, tmp_path / "deep" / "out", device="cpu")
        assert (caught.value.code, caught.value.exit) == (code, 2)
        assert f"'{other.name}'" in caught.value.message and took in caught.value.message
        assert f"'{tiny_run.name}'" in caught.value.message and not (tmp_path / "deep").exists()


def test_what_a_run_costs_is_said_where_no_figure_is_defined(tiny_run, pictures):
    result = compare([tiny_run], pictures, device="cpu", limit=4, resamples=20)
    result.evaluations["blobs"].records = []
    assert [
        row["network_calls"] for row in comparison_tables.rows(result) if row["method"] == "ddpm"
    ] == [6]


def test_several_data_sets_stand_apart(tiny_run, pictures, tmp_path):
    result = compare(
        [tiny_run], [pictures, pictures], tmp_path / "out", device="cpu", limit=6, resamples=20
    )
    assert list(result.evaluations) == ["blobs", "blobs (2)"]
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Metrics: blobs" in html and "Metrics: blobs (2)" in html


def test_a_case_that_one_run_cannot_take_is_left_out_for_all(tiny_run, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    broken = tmp_path / "data" / "test" / "bad" / "test-bad-3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    result = compare(
        [tiny_run, tiny_run], tmp_path / "data", device="cpu", resamples=20
    ).evaluations["data"]
    assert {r.n_cases for r in result.records if r.metric == "image_auroc"} == {15}
    assert any("TRUNCATED" in note for note in result.notes)


def test_equal_names_are_numbered():
    assert distinct(["a", "b", "a"]) == ["a", "b", "a (2)"]


def test_seconds_of_a_resumed_training_add_up():
    assert (
        training_seconds([{"seconds": 3.0}, {"seconds": 7.5}, {"seconds": 2.0}, {"seconds": 4.0}])
        == 11.5
    )
    assert training_seconds([]) == 0


def test_the_peak_is_that_of_the_work_inside():
    """In a process of its own, and larger than all that it held before: what the system takes back
    of it meanwhile cannot hide the work."""
    code = (
        "import numpy, torch; from pseudohealthy.evaluation.peak import Peak\n"
        "with Peak(torch.device('cpu')) as peak: held = numpy.ones(800_000_000 // 8)\n"
        "print(peak.seconds, peak.megabytes)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    seconds, megabytes = output.split()
    assert float(seconds) > 0
    if megabytes != "None":  # not on Linux
        assert 300 < float(megabytes) < 1000, megabytes
