"""cDDPM's figures 3 to 5 on methods whose answer is known, and once on runs."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.evaluation import conditioning as swapping
from pseudohealthy.evaluation.compare import OnCanvases
from pseudohealthy.evaluation.examples import examples, to_show
from pseudohealthy.evaluation.intensity import (
    CONTRASTS,
    Gathered,
    Planes,
    intensities,
    kl,
    markdown,
    of_kinds,
    with_contrast,
)
from pseudohealthy.evaluation.measure import Reading
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.report.page import Report, write_report
from pseudohealthy.restorers.apply import Applied
from pseudohealthy.restorers.conditioned import Conditioned
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.analyse import analyse_runs
from pseudohealthy.workflows.train import train

pytestmark = pytest.mark.usefixtures("few_resamples")

CANVAS = Canvas(size=8)
SMALL = {
    "name": "conditioned",
    "diffusion": {"levels": 50, "noise": "gaussian"},
    "walk": {"start_levels": [25]},
    "encoder": {"layers": [1], "width": 8, "outputs": 16},
    "network": {
        "width": 8,
        "multipliers": [1, 2],
        "blocks": 1,
        "block": {"scale_shift": True, "groups": 4},
    },
}


class Method:
    """A detector that makes twins by a function of planes (D, C, S, S)."""

    canvas = CANVAS

    def __init__(self, twin):
        self.twin, self.restorer = twin, SimpleNamespace(name="made up")

    def apply(self, stacks):
        found = []
        for stack in stacks:
            twin = self.twin(stack.planes)
            maps = (stack.planes - twin).abs().mean(1) * stack.foreground
            found.append(Applied(twin, maps, np.ones(len(twin), bool), np.zeros(len(twin)), 0.0))
        return found


def fitted(planes: int, lesion: bool, seed: int = 0) -> Fitted:
    """Noise from -.8 to .2; the lesion, in the corner of odd planes, is 1."""
    images = torch.rand(planes, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) - 0.8
    mask = torch.zeros(planes, 8, 8, dtype=torch.bool)
    mask[1::2, :3, :3] = lesion
    images[mask[:, None]] = 1.0
    images[..., -1, -1] = 0.0
    return Fitted(images, torch.ones_like(mask), None, mask)  # type: ignore[arg-type]


def read(
    number: int, label: int | None, planes: int = 8, lesion: bool = False, known: bool = True
) -> OnCanvases:
    one = fitted(planes, lesion, number)
    case = Case(f"c{number}", f"p{number}", "test", label, "x.png", mask="m.png" if lesion else "")
    reading = Reading(case, None, one, one.mask.numpy() if known else None)  # type: ignore[arg-type,union-attr]
    return OnCanvases(reading, {CANVAS: one}, one)


def gathered_of(items) -> Gathered:
    found = Gathered()
    for item in items:
        for kind, places in of_kinds(item, CANVAS):
            planes = found.planes.setdefault(kind, {}).setdefault(CANVAS, Planes())
            for place in places:
                planes.add(item.by_canvas[CANVAS], place, item.reading.case.patient_id)
    return found


def test_planes_are_of_a_kind_only_where_a_reference_or_health_says_so():
    assert dict(of_kinds(read(0, 0, known=False), CANVAS)) == {"without lesion": [2, 5]}
    assert dict(of_kinds(read(0, 1, known=False), CANVAS)) == {}
    found = dict(of_kinds(read(0, 1, lesion=True), CANVAS))
    assert [place % 2 for place in found["without lesion"]] == [0, 0]
    assert [place % 2 for place in found["with lesion"]] == [1, 1]
    assert dict(of_kinds(read(0, 0, planes=1), CANVAS)) == {"without lesion": [0]}
    other = np.zeros((8, 8, 8), bool)
    other[:5, 0, 0] = True  # another pathology, which the data set leaves out
    item = read(0, 0)
    item = item._replace(reading=item.reading._replace(ignored=other))
    assert dict(of_kinds(item, CANVAS)) == {"without lesion": [6]}


def test_a_copy_keeps_intensities_at_every_contrast_and_a_fixed_twin_only_its_own():
    items = [read(n, 1, lesion=True) for n in range(4)]

    def fixed(planes):
        """Brought back to the contrast it learnt, which the last pixel tells: it is half the range
        then."""
        contrast = torch.log((planes[:, 0, -1, -1] + 1) / 2) / np.log(0.5)
        return torch.cat(
            [
                with_contrast(plane[None], 1 / float(c))
                for plane, c in zip(planes, contrast, strict=True)
            ]
        )

    rows, kept = intensities(
        {"copy": Method(lambda x: x), "fixed": Method(fixed)}, gathered_of(items)
    )
    assert len(rows) == 2 * 3 * 2 and len(kept) == 12
    by = {(row["planes"], row["contrast"], row["run"]): row for row in rows}
    for (_, contrast, run), row in by.items():
        assert row["n_patients"] == 4 and row["n_planes"] == 8
        if run == "copy" or contrast == 1:
            assert (
                row["kl"] < 1e-3
                and row["l1"] < 1e-6
                and ("kl_less_copy" in row) == (run == "fixed")
            )
        else:
            assert row["kl_low"] > 0 and row["l1_low"] > 0
            assert (
                row["kl_less_copy"] == pytest.approx(row["kl"], abs=1e-9)
                and row["kl_less_copy_low"] > 0
            )
    x = torch.cat([p.flatten() for item in items for p in item.fitted.planes[[2, 4]]])
    assert by["without lesion", 2.0, "fixed"]["l1"] == pytest.approx(
        float((((x + 1) / 2) ** 2 - (x + 1) / 2).abs().mean()), rel=0.2
    )
    text = markdown(rows, "data")
    assert (
        "KL, less copy" in text
        and "8 planes with lesion of 4 patients" in text
        and text.count("\n| with lesion") == 6
    )


def test_what_happens_in_the_lesion_is_not_counted():
    erased = Method(lambda x: torch.where(x == 1, torch.zeros_like(x), x))
    rows, _ = intensities(
        {"erased": erased}, gathered_of([read(n, 1, lesion=True) for n in range(2)])
    )
    assert all(row["kl"] == row["l1"] == row["entropy_difference"] == 0 for row in rows)
    everywhere, _ = intensities({"darker": Method(lambda x: x - 0.1)}, gathered_of([read(0, 0)]))
    assert all(
        row["l1"] == pytest.approx(0.05, rel=1e-4) and row["kl"] > 0.01 for row in everywhere
    )
    # One patient says nothing of the spread.
    assert all(row["kl_low"] is None for row in everywhere)


def test_divergence_of_batches_is_that_of_each():
    counts = np.random.default_rng(0).integers(0, 50, (3, 2, 20)).astype(float)
    assert kl(counts[:, 0], counts[:, 1]) == pytest.approx([float(kl(a, b)) for a, b in counts])


# -- the conditioning image ------------------------------------------------------------------------
def conditioned(answer) -> SimpleNamespace:
    """A detector of a conditioned restorer whose vector is the image's mean and whose network is a
    function."""
    model = Conditioned(size=16, channels=1, **{k: v for k, v in SMALL.items() if k != "name"})
    model.model.context = lambda x: x.mean((1, 2, 3))[:, None]  # type: ignore[method-assign]
    model.model.denoiser.network = answer
    made = {"device": torch.device("cpu"), "precision": torch.float32, "batch": 4, "settings": ()}
    return SimpleNamespace(
        restorer=model.eval(), canvas=CANVAS, run=SimpleNamespace(seed=0), **made
    )


class Network(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, x, steps, vector):
        self.seen.append((x, int(steps[0])))
        return self.answer(x, vector)


def test_a_twin_as_bright_as_the_condition_follows_it_and_another_does_not():
    found = gathered_of([read(n, 0) for n in range(3)])
    obeys = Network(lambda x, vector: vector[:, :1, None, None].expand_as(x))
    half, full = swapping.conditioning({"a": conditioned(obeys)}, found)
    assert (half.noise, full.noise) == (0.5, 1.0)
    assert {steps for _, steps in obeys.seen} == {24, 49}
    assert (
        half.names == [f"contrast {c:g}" for c in CONTRASTS] + ["another patient"]
        and len(half.twins) == 6
    )
    for one in (half, full):
        assert one.row["follows"] == pytest.approx(1, abs=1e-4) and one.row["n_patients"] == 3
        assert all(
            row["brightness_twin"] == pytest.approx(row["brightness_condition"], abs=1e-5)
            for row in one.rows
        )
        assert one.rows[0]["brightness_condition"] > one.rows[-2]["brightness_condition"]
    deaf = swapping.conditioning({"b": conditioned(Network(lambda x, vector: x))}, found)
    assert all(one.row["follows"] == pytest.approx(0, abs=1e-6) for one in deaf)


def test_the_image_is_noised_alike_whatever_it_is_told_of():
    network = Network(lambda x, vector: x)
    half, _ = swapping.conditioning(
        {"a": conditioned(network)}, gathered_of([read(n, 0) for n in range(2)])
    )
    seen = [x for x, steps in network.seen if steps == 24]
    assert len(seen) == 6 and all(torch.equal(x, seen[0]) for x in seen)
    torch.testing.assert_close(half.noised, seen[0][0, 0])


def test_without_a_conditioned_run_there_is_no_experiment():
    assert swapping.conditioning({"copy": Method(lambda x: x)}, gathered_of([read(0, 0)])) == []


def test_a_run_of_too_many_calls_from_full_noise_is_left_out(tiny_run):
    run = Run.open(tiny_run)
    assert swapping.at_deepest(
        Detector(run, device="cpu", threshold=0.0)
    ).restorer.walk.start_levels == (50,)
    slow = Detector(run, device="cpu", threshold=0.0, settings=["restorer.walk.draws=100"])
    assert swapping.at_deepest(slow) is None


# -- cases -----------------------------------------------------------------------------------------
def test_the_mask_of_a_case_is_at_its_best_dice_and_says_oracle():
    item = read(0, 1, lesion=True)
    ((one,),) = examples(
        {"a": Method(lambda x: torch.where(x == 1, torch.zeros_like(x), x - 0.1))}, [item]
    )
    assert one.row["dice_oracle"] == 1 and 0.1 < one.row["threshold_oracle"] < 1
    assert torch.equal(one.mask, one.reference) and one.reference.sum() == 9
    assert one.row["l1"] == pytest.approx(0.05, rel=1e-4)
    assert one.images.sum() == 8 * 64 - 4 * 9  # healthy tissue of the whole case
    assert not any("dice" in key and "oracle" not in key for key in one.row)


def test_shown_cases_have_a_reference_and_are_of_different_patients():
    cases = [
        Case(f"c{n}", f"p{n // 2}", "test", n % 4 != 0, "x.png", mask="m.png" if n > 3 else "")
        for n in range(12)
    ]
    shown = to_show(cases)
    assert (
        len(shown) == 3
        and len({int(name[1:]) // 2 for name in shown}) == 3
        and all(int(n[1:]) > 4 for n in shown)
    )


def test_runs_side_by_side_are_written(tiny_run, pictures, tmp_path):
    recipe = {
        "canvas": {"size": 16, "normalise": "range", "value_range": [0, 255], "foreground": "all"}
    }
    training = {"steps": 2, "batch": 4, "precision": "fp32", "ema": 0.0}
    run = train(
        Recipe("told", restorer=SMALL, training=training, **recipe),
        pictures,
        tmp_path / "told",
        device="cpu",
    )
    out = tmp_path / "out"
    # As `compare --analyses` does.
    result = analyse_runs([run.folder, tiny_run], [pictures], out, device="cpu", limit=6)
    assert {path.name for path in out.iterdir()} == {
        "analyses.json",
        "analyses.html",
        "conditioning.png",
        "examples_oracle.png",
        "intensities.csv",
        "intensities.json",
        "intensities.md",
        "intensities.png",
    }
    stored = json.loads((out / "analyses.json").read_text())
    assert [(one["run"], one["noise"]) for one in stored["conditioning"]] == [
        ("told", 0.5),
        ("told", 1.0),
        ("tiny", 1.0),
    ]
    assert set(stored["made"]["runs"]) == {"told", "tiny"}
    table = list(csv.DictReader((out / "intensities.csv").open()))
    assert len(table) == len(result["intensities"]) == 2 * 3 * 2 and float(table[0]["kl"]) > 0
    (other,) = [
        e
        for e in json.loads((out / "intensities.json").read_text())
        if e["what"] == "blobs, with lesion, contrast 2, tiny"
    ]
    row = next(
        r for r in table if (r["planes"], r["contrast"], r["run"]) == ("with lesion", "2.0", "tiny")
    )
    assert other["kl"] == [float(row["kl"]), float(row["kl_low"]), float(row["kl_high"])]
    assert other["less"]["l1"][0] == float(row["l1_less_told"])
    assert {row["run"] for row in result["examples_oracle"]} == {"told", "tiny"}
    height = {
        name: Image.open(out / f"{name}.png").size[1] for name in ("intensities", "conditioning")
    }
    assert height["intensities"] > 500 and height["conditioning"] > 500
    text = (out / "analyses.html").read_text()
    assert "what the vector does" in text and "an oracle" in text and str(tmp_path) not in text


def test_a_picture_of_one_data_set_of_several_names_it(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "conditioning_lgg.png")
    page = write_report(tmp_path, Report("x", figures=[tmp_path / "conditioning_lgg.png"]))
    assert "what the vector does: lgg" in page.read_text()
