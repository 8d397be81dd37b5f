"""`evaluate` from a run and a folder of pictures to records: what is measured, against what, and
what is refused."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pseudohealthy import io
from pseudohealthy.data.load import load
from pseudohealthy.detection.detector import load as detector
from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import Record, covered, number
from pseudohealthy.report import evaluation_tables
from pseudohealthy.restorers.controls import CONTROLS
from pseudohealthy.workflows.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


@pytest.fixture(scope="module")
def measured(
    tiny_run: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    return evaluate(tiny_run, pictures, out, device="cpu"), out


def value(result: Evaluation, metric: str, method: str):
    (record,) = (
        r for r in result.records if r.metric == metric and r.method == method and r.against is None
    )
    return record


def test_the_folder_holds_the_files_of_the_contract(measured):
    result, out = measured
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "cases.csv",
        "roc.png",
        "precision_recall.png",
        "scores.png",
        "report.html",
    }
    stored = json.loads((out / "metrics.json").read_text())
    assert len(stored) == len(result.records)
    wanted = {
        "metric",
        "value",
        "ci95",
        "unit",
        "protocol",
        "threshold_source",
        "mask",
        "grid",
        "postprocessing",
        "n_patients",
        "n_cases",
        "prevalence",
    }
    assert all(wanted <= record.keys() and np.isfinite(record["value"]) for record in stored)
    assert str(out.parent) not in (out / "report.html").read_text()


def test_every_trivial_control_stands_beside_the_method(measured):
    result, _ = measured
    controls = set(CONTROLS)
    methods = {record.method for record in result.records}
    assert methods == {"ddpm"} | {f"control: {name}" for name in controls}
    for method in methods:
        auroc = value(result, "image_auroc", method)
        assert (
            0 <= auroc.value <= 1
            and auroc.n_cases == 16
            and auroc.n_patients == 16
            and auroc.prevalence == 0.5
        )
    assert value(result, "image_auroc", "control: identity").value == 0.5, (
        "an empty map tells nothing"
    )
    assert value(result, "image_auroc", "control: bright-area").value == 1.0, (
        "white squares on grey blobs"
    )


def test_dice_uses_the_stored_healthy_quantile_and_is_that_of_the_detectors_own_masks(
    measured, tiny_run, pictures
):
    result, _ = measured
    stored = json.loads((tiny_run / "threshold.json").read_text())
    dice = value(result, "dice_pooled", "ddpm")
    assert dice.threshold_source == "healthy-quantile" and dice.threshold == stored["value"]
    control = value(result, "dice_pooled", "control: intensity")
    assert control.threshold == stored["controls"]["intensity"]["value"] != dice.threshold
    detect = detector(tiny_run, device="cpu")
    both = found = true = 0
    for case in load(pictures).split("test"):
        scan = io.read_image(case.image, case.root)
        mask = detect(scan).mask
        truth = io.read_mask(case.mask, case.root, scan) if case.mask else np.zeros_like(mask)
        both, found, true = both + (mask & truth).sum(), found + mask.sum(), true + truth.sum()
    assert true > 0 and dice.value == pytest.approx(2 * both / (found + true), abs=2e-3)


def test_the_rows_are_cases_by_method(measured):
    _, out = measured
    table = pd.read_csv(out / "cases.csv")
    assert set(table.columns) >= {"case_id", "patient_id", "label", "score", "method"}
    assert (table.groupby("method").size() == 16).all()
    assert (
        table[table["method"] == "ddpm"]["label"]
        == table["case_id"][:16].str.contains("bad").astype(int)
    ).all()


def test_batch_size_changes_nothing(measured, tiny_run, pictures):
    result, _ = measured
    other = evaluate(tiny_run, pictures, device="cpu", batch=5, controls=False)
    for metric in ("image_auroc", "voxel_auroc_pooled"):
        assert value(other, metric, "ddpm").value == pytest.approx(
            value(result, metric, "ddpm").value, abs=2e-3
        )


def test_patients_the_run_was_trained_on_are_refused(tiny_run, pictures, tmp_path):
    data = tmp_path / "data"
    for place in ("test", "masks"):
        shutil.copytree(pictures / place, data / place)
    trained = next((pictures / "train" / "good").iterdir())
    shutil.copy(trained, data / "test" / "good")
    with pytest.raises(Fault) as caught:
        evaluate(tiny_run, data, tmp_path / "out", device="cpu")
    assert (caught.value.code, caught.value.exit) == ("LEAK", 2) and not (tmp_path / "out").exists()
    allowed = evaluate(tiny_run, data, device="cpu", controls=False, allow_leak=True)
    assert value(allowed, "image_auroc", "ddpm").n_cases == 17
    assert any(note.startswith("LEAK: 1 test patient") for note in allowed.notes), (
        "the result itself says so"
    )
    assert all(r.as_dict()["caveat"].startswith("LEAK: 1 test patient") for r in allowed.records), (
        "and every figure"
    )


def test_a_case_that_cannot_be_read_is_left_out_and_named(tiny_run, pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "data")
    broken = tmp_path / "data" / "test" / "bad" / "test-bad-3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    result = evaluate(tiny_run, tmp_path / "data", device="cpu", controls=False)
    assert value(result, "image_auroc", "ddpm").n_cases == 15
    assert any("TRUNCATED" in note and "test-bad-3" in note for note in result.notes)
    assert "error[TRUNCATED] case=" in capsys.readouterr().err


def test_all_unreadable_no_test_split_and_a_limit(tiny_run, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    limited = evaluate(tiny_run, tmp_path / "data", device="cpu", controls=False, limit=6)
    assert value(limited, "image_auroc", "ddpm").n_cases == 6
    for path in (tmp_path / "data" / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(Fault) as caught:
        evaluate(tiny_run, tmp_path / "data", device="cpu", controls=False)
    assert (caught.value.code, caught.value.exit) == ("NO_INPUT", 3)
    shutil.rmtree(tmp_path / "data" / "test")
    with pytest.raises(Fault) as caught:
        evaluate(tiny_run, tmp_path / "data", device="cpu")
    assert caught.value.code == "NO_TEST"


def test_one_class_only_gives_no_auroc_and_says_why(tiny_run, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "test" / "good")
    result = evaluate(tiny_run, tmp_path / "data", tmp_path / "out", device="cpu", controls=False)
    assert not any(record.metric == "image_auroc" for record in result.records)
    assert result.notes and (tmp_path / "out" / "report.html").is_file()


def test_without_a_stored_threshold_there_is_no_dice_at_one(tiny_run, pictures, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "threshold.json").write_text('{"value": null, "controls": {}}')
    result = evaluate(tmp_path / "run", pictures, device="cpu", controls=False)
    assert not any(
        r.metric.startswith("dice") and r.threshold_source == "healthy-quantile"
        for r in result.records
    )
    assert value(result, "dice_oracle_pooled", "ddpm").threshold_source == "oracle"


def test_an_unknown_protocol_is_refused(tiny_run, pictures):
    with pytest.raises(Fault) as caught:
        evaluate(tiny_run, pictures, protocol="lenient")
    assert caught.value.exit == 2


def test_a_volume_gives_plane_metrics_and_native_voxels(ct_run, tmp_path):
    from pseudohealthy.anomalies.phantoms import head, nifti

    rng = np.random.default_rng(11)
    for place, lesion in (("test/good/c", None), ("test/bad/d", 0.25)):
        volume, mask, affine = head(rng, shape=(6, 40, 40), lesion=lesion)
        (tmp_path / place).parent.mkdir(parents=True)
        nifti(tmp_path / f"{place}.nii.gz", volume, affine)
        if lesion:
            (tmp_path / "masks").mkdir()
            nifti(tmp_path / "masks" / "d.nii.gz", mask.astype(np.uint8), affine)
    result = evaluate(ct_run, tmp_path, device="cpu")
    bright = value(result, "voxel_auroc_pooled", "control: intensity")
    assert 0.6 < bright.value < 1 and bright.grid == "native"
    planes = value(result, "plane_auroc", "control: intensity")
    assert planes.unit == "plane" and 0 < planes.prevalence < 0.5


def test_figures_over_fewer_cases_say_so_on_screen_and_in_the_report(tiny_run, pictures, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(pictures / "test", data / "test")
    (data / "masks").mkdir()
    masks = sorted((pictures / "masks").rglob("*.png"))
    shutil.copy(masks[0], data / "masks" / masks[0].name)
    result = evaluate(tiny_run, data, out, device="cpu", controls=False)
    total = len({row["case_id"] for row in result.rows})
    known = total - len(masks) + 1
    said = f"{known} of {total} cases have voxel figures"
    console = Console(width=200, file=StringIO())
    console.print(evaluation_tables.table(result))
    assert said in console.file.getvalue() and "no reference mask" in console.file.getvalue()
    page = (out / "report.html").read_text()
    assert page.count(said) == 2 and "no reference mask" in page
    stored = {
        record["metric"]: record["n_cases"]
        for record in json.loads((out / "metrics.json").read_text())
    }
    assert stored["image_auroc"] == total and stored["voxel_auroc_pooled"] == known
    whole = evaluate(tiny_run, pictures, device="cpu", controls=False)
    assert not whole.unmarked() and not covered(whole.records)


@pytest.mark.parametrize(
    "value, ci95, said",
    [
        (0.873, (0.81, 0.92), "0.873 [0.81, 0.92]"),
        (0.9992, (0.9964, 1.0), "0.999 [0.996, 1.000]"),
        (0.0041, (0.0002, 0.0044), "0.004 [0.000, 0.004]"),
        (0.5, None, "0.500"),
    ],
)
def test_a_figure_never_lies_outside_of_its_own_interval(value, ci95, said):
    words = dict.fromkeys(("unit", "protocol", "mask", "grid", "postprocessing", "method"), "")
    counts = {"n_patients": 4, "n_cases": 4, "prevalence": 0.5, "threshold_source": None}
    assert number(Record(metric="image_auroc", value=value, ci95=ci95, **words, **counts)) == said
