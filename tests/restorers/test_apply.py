"""One road to a score: what training stores of a volume is what `detect` and `evaluate` say of its
file."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from pseudohealthy.anomalies.phantoms import nifti
from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.io.scan import Scan
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers.apply import NOISE_KEY, How, Stack, apply, jackknife, keys
from pseudohealthy.restorers.base import Restoration, Restorer
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.workflows.compare import compare
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.train import train
from pseudohealthy.workflows.verification import AGREES, UNCHECKED
from pseudohealthy.workflows.verify import verify
from small import small_recipe

pytestmark = pytest.mark.usefixtures("unpainted")

SIDE, DEPTH = 32, 7
CPU = torch.device("cpu")


def volume(rng: np.random.Generator) -> np.ndarray:
    """Of seven planes the first shows nothing, the last a speck of 9 of 1,024 pixels: below 2 %."""
    values = np.zeros((DEPTH, SIDE, SIDE), np.float32)
    values[1:-1, 6:26, 6:26] = 100 + 40 * rng.random((DEPTH - 2, 20, 20))
    values[-1, 10:13, 10:13] = 250
    return values


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Volumes with an empty and a thin plane: six to train on, two of validation, two healthy test
    volumes."""
    root, rng = tmp_path_factory.mktemp("thin"), np.random.default_rng(3)
    names = [f"train/good/t{i}" for i in range(6)] + [f"val/good/v{i}" for i in range(2)]
    for name in [*names, "test/good/h0", "test/good/h1"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nifti(
            root / f"{name}.nii.gz",
            volume(rng),
            np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]]),
        )
    return root


def recipe(**more) -> Recipe:
    made = {
        "canvas": {
            "size": SIDE,
            "normalise": "range",
            "value_range": [0, 255],
            "foreground": "nonzero",
        },
        "restorer": {
            "name": "ddpm",
            "diffusion": {"levels": 10},
            "walk": {"start_levels": [4], "calls": 2, "draws": 3},
            "network": {
                "width": 8,
                "multipliers": [1],
                "blocks": 1,
                "attention": {"at": [], "middle": False},
                "block": {"groups": 4},
            },
        },
        "training": {"steps": 3, "batch": 4, "precision": "fp32"},
        "map": {"share": 0.1},
    }
    for section, values in more.items():
        made[section] = made[section] | values
    return Recipe("thin", **made)


@pytest.fixture(scope="module")
def run(heads, tmp_path_factory):
    return train(recipe(), heads, tmp_path_factory.mktemp("runs") / "thin", device="cpu")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"map": {"across": 1.0, "erode": 1}},
        {"canvas": {"slices": [2, 3]}},
        {"canvas": {"slices": [2, 3], "judge": "slices"}},
        {"canvas": {"min_foreground": 0.0}},
    ],
    ids=lambda more: "-".join(f"{k}" for part in more.values() for k in part) or "plain",
)
def test_training_detection_and_evaluation_give_a_volume_one_score(more, heads, tmp_path):
    made = train(recipe(**more), heads, tmp_path / "run", device="cpu")
    stored = made.read_json("threshold.json")["case_scores"]
    detected = [
        Detector(made, device="cpu")(heads / f"val/good/v{i}.nii.gz").score for i in range(2)
    ]
    assert sorted(detected) == pytest.approx(stored, abs=1e-5) and len(set(stored)) == 2
    rows = [
        {
            "case_id": f"v{i}",
            "patient_id": f"v{i}",
            "split": "test",
            "label": 0,
            "image": f"val/good/v{i}.nii.gz",
        }
        for i in range(2)
    ]
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            row | {"image": str(heads / row["image"])[len(str(heads)) + 1 :]} for row in rows
        )
    (heads / "manifest-val.csv").write_bytes((tmp_path / "manifest.csv").read_bytes())
    evaluated = evaluate(
        made, heads / "manifest-val.csv", device="cpu", controls=False, allow_leak=True
    ).rows
    assert [row["score"] for row in evaluated] == pytest.approx(detected, abs=1e-5)
    checks = {
        check.what: check.result for check in verify(made.folder, data=heads, device="cpu").checks
    }
    assert checks["validation case"] == AGREES


def test_a_thin_plane_is_mapped_but_moves_no_score(run):
    detect, rng = Detector(run, device="cpu"), np.random.default_rng(7)
    clean = volume(rng)
    loud = clean.copy()
    loud[-1] = 0
    loud[-1, 10:13, 10:13] = 1
    first, second = (detect(Scan.from_array(v)) for v in (clean, loud))
    assert first.score == pytest.approx(second.score, abs=1e-6)
    assert first.map[-1].max() > 0 and first.plane_scores[-1] > 0, "what is there is shown"
    assert first.plane_scores[0] == 0 and not first.foreground[0].any()


def test_the_rule_of_the_planes_that_count():
    canvas = Canvas(size=SIDE, normalise="range", foreground="nonzero")
    fitted = canvas.fit(Scan.from_array(volume(np.random.default_rng(0))))
    assert canvas.counted(fitted).tolist() == [False] + 5 * [True] + [False]
    thin = canvas.fit(Scan.from_array(volume(np.random.default_rng(0))[[0, -1]]))
    assert canvas.counted(thin).tolist() == [False, True], (
        "where no plane has enough, those with any"
    )
    single = canvas.fit(Scan.from_array(volume(np.random.default_rng(0))[-1]))
    assert canvas.counted(single).tolist() == [True]
    assert "2 % foreground" in canvas.plane_set


def test_noise_is_that_of_the_place_whatever_the_image_and_its_company(run):
    seen: list[list] = []

    class Listening(Restorer):
        name = "listening"

        def restore(self, images, draw):
            seen.append(draw.keys)
            return Restoration(healthy=images)

    volumes = [
        Stack.whole(torch.zeros(n, 1, 8, 8), torch.ones(n, 8, 8, dtype=torch.bool), range(n))
        for n in (2, 3)
    ]
    apply(Listening(size=8, channels=1), AnomalyMap(), volumes, How(seed=1, device=CPU, batch=8))
    assert seen == [[(NOISE_KEY, place) for place in (0, 1, 0, 1, 2)]]
    assert torch.equal(
        Draw(1, keys([3])).noise(torch.zeros(1, 1, 8, 8)),
        Draw(1, keys(np.array([3]))).noise(torch.zeros(1, 1, 8, 8)),
    )


def test_a_run_and_its_records_say_what_their_scores_rest_on(run, heads, tmp_path):
    expected = {"noise_key": "plane", "plane_set": "planes with at least 2 % foreground"}
    for said in (run.record, run.read_json("threshold.json"), Detector(run, device="cpu").made()):
        assert {key: said[key] for key in expected} == expected
    evaluate(run, heads, tmp_path / "out", device="cpu", controls=False)
    for record in json.loads((tmp_path / "out" / "metrics.json").read_text()):
        assert {key: record[key] for key in expected} == expected


def test_a_run_of_an_older_version_detects_and_says_how_its_percentile_was_computed(
    run, heads, tmp_path
):
    import shutil

    shutil.copytree(run.folder, tmp_path / "old")
    stored = json.loads((tmp_path / "old" / "threshold.json").read_text())
    for path in ("threshold.json", "run.json"):
        said = json.loads((tmp_path / "old" / path).read_text())
        del said["noise_key"], said["plane_set"]
        said.pop("files_sha256", None)
        (tmp_path / "old" / path).write_text(json.dumps(said))
    finding = Detector(type(run).open(tmp_path / "old"), device="cpu")(heads / "val/good/v0.nii.gz")
    (warning,) = [w for w in finding.warnings if w.startswith("OLD_SCORES")]
    assert (
        "the old way" in warning and "\n" not in warning and finding.healthy_percentile is not None
    )
    assert min(abs(finding.score - score) for score in stored["case_scores"]) < 1e-5
    measured = evaluate(
        tmp_path / "old", heads, tmp_path / "measured", device="cpu", controls=False
    )
    assert sum(note.startswith("OLD_SCORES") for note in measured.notes) == 1
    compared = compare([tmp_path / "old", run.folder], heads, device="cpu", resamples=10)
    (said,) = [note for note in compared.notes if "OLD_SCORES" in note]
    assert said.startswith("old: ")
    checks = {
        check.what: check for check in verify(tmp_path / "old", data=heads, device="cpu").checks
    }
    assert (
        checks["validation case"].result == UNCHECKED
        and "older version" in checks["validation case"].detail
    )


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=9)
    without = [np.delete(values, i).mean() for i in range(9)]
    assert jackknife(without) == pytest.approx(values.std(ddof=1) / 3)
    assert jackknife([]) is None and jackknife([1.0]) is None


def test_the_spread_is_of_the_size_that_other_seeds_show(run):
    """Of a volume's score, from the draws of one detection, against the spread over twelve run
    seeds."""
    scan = Scan.from_array(volume(np.random.default_rng(7)))
    found = []
    for seed in range(12):
        detect = Detector(run, device="cpu")
        detect.run.recipe.training["seed"] = seed
        found.append(detect(scan))
    detect.run.recipe.training["seed"] = 0
    measured = np.std([f.score for f in found], ddof=1)
    stated = np.mean([f.score_sd for f in found])
    assert 0.4 < stated / measured < 2.5
    assert found[0].row()["score_sd"] == pytest.approx(found[0].score_sd, abs=1e-6)


def test_one_draw_or_no_noise_has_no_spread(run):
    finding = Detector(run, device="cpu", settings=["restorer.walk.draws=1"])(
        Scan.from_array(volume(np.random.default_rng(7)))
    )
    assert finding.score_sd is None and finding.row()["score_sd"] is None


def test_fewer_planes_go_together_where_each_is_drawn_many_times():
    from pseudohealthy.restorers.apply import COPIES, at_once

    assert [
        at_once(small_recipe("ddpm").set([f"restorer.walk.draws={n}"]).make_restorer(), 32)
        for n in (1, 32, 100, 1000)
    ] == [32, 32, COPIES // 100, 1]
    assert at_once(small_recipe("identity").make_restorer(), 32) == 32
