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
from pseudohealthy.restorers.apply import (
    NOISE_KEY,
    Applied,
    How,
    Stack,
    apply,
    jackknife,
    keys,
    read,
    restorations,
)
from pseudohealthy.restorers.base import HealthyResiduals, Restoration, Restorer
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


# -- the spread of a score -------------------------------------------------------------------------
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


class OwnScores(Restorer):
    """Scores a plane by its first pixel, and changes nothing."""

    def restore(self, images, draw):
        return Restoration(
            images, map=torch.zeros_like(images[:, 0]), score=images[:, 0, 0, 0].float()
        )


def test_a_methods_own_score_of_a_volume_is_the_mean_over_its_counted_planes():
    planes, inside = torch.zeros(4, 1, 8, 8), torch.ones(4, 8, 8, dtype=torch.bool)
    planes[:, 0, 0, 0] = torch.tensor([0.1, 0.5, -0.9, 0.8])
    case = Stack(planes, inside, range(4), torch.tensor([True, True, False, True]))
    (found,) = apply(
        OwnScores(size=8, channels=1), AnomalyMap(), [case], How(seed=0, device=torch.device("cpu"))
    )
    assert found.score == pytest.approx((0.1 + 0.5 + 0.8) / 3)
    assert found.plane_scores == pytest.approx([0.1, 0.5, -0.9, 0.8])


def volumes_of(*numbers: int) -> list[Stack]:
    """Noisy volumes of so many planes, of which the first has no foreground."""
    random = torch.Generator().manual_seed(0)
    found = []
    for number in numbers:
        inside = torch.ones(number, 16, 16, dtype=torch.bool)
        inside[0] = False
        found.append(
            Stack.whole(
                torch.randn(number, 1, 16, 16, generator=random).clamp(-1, 1), inside, range(number)
            )
        )
    return found


def same(one: Applied, other: Applied) -> bool:
    parts = [
        torch.equal(one.healthy, other.healthy),
        torch.equal(one.maps, other.maps),
        one.score == other.score,
    ]
    return (
        all(parts)
        and np.array_equal(one.plane_scores, other.plane_scores)
        and one.score_sd == other.score_sd
    )


def test_what_was_restored_once_is_read_in_many_ways_to_the_last_bit(monkeypatch):
    restorer = small_recipe("ddpm").set(["restorer.walk.draws=3"]).make_restorer().eval()
    cases = volumes_of(5, 2)
    how = How(seed=4, device=CPU, batch=3)
    ways = [AnomalyMap(), AnomalyMap(smooth=2.0), AnomalyMap(kind="positive", erode=2)]
    apart = [apply(restorer, amap, cases, how) for amap in ways]
    parts = [part.kept() for part in restorations(restorer, cases, how)]
    monkeypatch.setattr(type(restorer), "restore", lambda *_: pytest.fail("restored again"))
    for amap, wanted in zip((*ways, *reversed(ways)), (*apart, *reversed(apart)), strict=True):
        assert all(map(same, read(restorer, amap, cases, parts), wanted))
    assert not all(map(same, apart[0], apart[1])), "the ways differ"
    assert all(
        torch.equal(case.planes, other.planes)
        for case, other in zip(cases, volumes_of(5, 2), strict=True)
    )


def test_draws_are_left_out_of_what_was_restored_and_of_nothing_that_is_kept():
    restorer = small_recipe("ddpm").set(["restorer.walk.draws=3"]).make_restorer().eval()
    cases = volumes_of(4)
    how = How(seed=4, device=CPU, spread=True)
    (wanted,) = apply(restorer, AnomalyMap(), cases, how)
    parts = list(restorations(restorer, cases, how))
    (found,) = read(restorer, AnomalyMap(), cases, parts, spread=True)
    assert same(found, wanted) and wanted.score_sd > 0
    (plain,) = read(restorer, AnomalyMap(), cases, [part.kept() for part in parts], spread=True)
    assert plain.score_sd is None and plain.score == found.score, (
        "the estimates of single draws take too much memory"
    )


def test_a_case_without_foreground_is_read_without_anything_restored(monkeypatch):
    restorer = OwnScores(size=16, channels=1)
    monkeypatch.setattr(restorer, "restore", lambda *_: pytest.fail("restored"))
    (case,) = volumes_of(1)
    (found,) = apply(restorer, AnomalyMap(), [case], How(seed=0, device=CPU))
    assert (
        torch.equal(found.healthy, case.planes)
        and found.score == 0
        and not found.maps.any()
        and not found.judged.any()
    )


def test_a_long_volume_is_read_while_it_is_restored():
    """One batch at a time is in memory."""
    order: list[str] = []

    class Heard(OwnScores):
        def restore(self, images, draw):
            order.append("restored")
            return super().restore(images, draw)

    class Read(AnomalyMap):
        def finish(self, *given):
            order.append("read")
            return super().finish(*given)

    apply(Heard(size=16, channels=1), Read(), volumes_of(7), How(seed=0, device=CPU, batch=3))
    assert order == ["restored", "read"] * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_healthy_spreads_do_not_grow_with_the_number_of_channels(channels):
    residuals = 0.2 * torch.randn(40, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    healthy = HealthyResiduals()
    healthy.add(residuals, torch.ones(40, 16, 16, dtype=torch.bool))
    for by in ("level", "pixel"):
        restorer = OwnScores(size=16, channels=channels)
        assert healthy.fill(restorer, by)
        assert restorer.residual_spread.mean().item() == pytest.approx(0.2, rel=0.15)
