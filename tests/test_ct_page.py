"""docs/ct.md does what it says: its commands are run as they stand on made-up studies, in the order
of the page.

Only the trainings are made short: two steps of small networks on small images, see `SHORT`.
Everything else is what a user types: data sets, recipes, protocols, outputs, flags.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from pseudohealthy import cli
from pseudohealthy.__main__ import main
from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.data.load import load
from pseudohealthy.datasets.rsna import SUBTYPES
from pseudohealthy.interop import diffusers
from pseudohealthy.runs.budget import Budget
from pseudohealthy.runs.migration import leaves
from pseudohealthy.runs.recipe import Recipe
from rsna_slices import rsna_slice
from test_howto import names_what_exists, typed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # twelve commands in one fixture
PAGE = Path(__file__).resolve().parents[1] / "docs" / "ct.md"
LINES = list(typed(PAGE))
# A small network of the face model's kind.
VECTOR = Path(__file__).parent / "interop" / "vectors" / "unet2d_ddpm.npz"
SHAPE = (3, 32, 32)  # slices, rows and columns of a made-up study
SMALL = ["canvas.size=32", "training.precision=fp32"]
ONCE = ["training.validate=2"]
PATCHES = ["restorer.windows.side=16", "restorer.windows.stride=16"]
FACES = json.loads(str(np.load(VECTOR)["config"]))
FACES_NETWORK = [
    f"{'.'.join(path)}={json.dumps(value)}"
    for path, value in leaves(diffusers.unet_settings(FACES))
    if path != ("channels",)
]
SCRATCH_NETWORK = ["width=16", "multipliers=[1,2]", "blocks=1", "dropout=0.0"]
# What is put behind a training's line, by recipe: a budget, and images and networks of a size that
# tests can train.
SHORT = {
    "ct-pddpm": [*SMALL, *PATCHES, *(f"restorer.network.ct.{text}" for text in SCRATCH_NETWORK)],
    "ct-pddpm-pretrained": [
        *SMALL,
        *ONCE,
        *PATCHES,
        *(f"restorer.network.unet.{text}" for text in FACES_NETWORK),
    ],
    "ct-ddpm-poster": [
        *SMALL,
        *ONCE,
        "restorer.walk.calls=2",
        *(
            f"restorer.network.{t}"
            for t in [*SCRATCH_NETWORK[:-1], "block.dropout=0.0", "block.groups=8"]
        ),
    ],
    "ct-ddpm-poster-pretrained": [
        *SMALL,
        *ONCE,
        "restorer.walk.calls=2",
        *(f"restorer.network.{text}" for text in FACES_NETWORK),
    ],
}


class Page(NamedTuple):
    """What running the page's lines gave: exit code and what was said, by line; and the folder they
    were run in."""

    folder: Path
    codes: dict[str, int]
    said: dict[str, str]

    def of(self, words: str) -> str:
        """What the one line with these words said."""
        (text,) = [said for line, said in self.said.items() if words in line]
        return text


def made(rng: np.random.Generator, bleeds: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head (D, H, W) in HU, where it bleeds (in the middle slice), and its affine."""
    volume, mask, affine = head(rng, shape=SHAPE)
    if bleeds:
        row, column = rng.integers(SHAPE[1] // 3, SHAPE[1] // 2, 2)
        mask[1, row : row + 6, column : column + 6] = True
        volume[mask] = 70
    return volume, mask, affine


def study(folder: Path, number: int, rng: np.random.Generator, bleeds: bool) -> list[str]:
    """Slices of one patient as the RSNA set has them; rows of the table."""
    volume, mask, _ = made(rng, bleeds)
    rows = []
    for place, (hu, lesion) in enumerate(zip(volume, mask, strict=True)):
        image = f"ID_{16 * number + place:09x}"
        rsna_slice(
            folder, hu, image, patient=f"ID_{number:08x}", study=f"ID_{number:010x}", z=5.0 * place
        )
        rows += [
            f"{image}_{name},{int(lesion.any() and name in ('subdural', 'any'))}"
            for name in SUBTYPES
        ]
    return rows


def material(folder: Path) -> None:
    """What the page's lines are given: RSNA_FOLDER, SERIES, MASKED and FOLDER, the face model."""
    rng, rows = np.random.default_rng(0), ["ID,Label"]
    for number in range(1, 19):
        rows += study(folder / "RSNA_FOLDER" / "stage_2_train", number, rng, bleeds=number > 10)
    (folder / "RSNA_FOLDER" / "stage_2_train.csv").write_text("\n".join(rows) + "\n")
    study(folder / "SERIES", 40, rng, bleeds=True)
    for name, bleeds in (("a", False), ("b", False), ("c", True), ("d", True)):
        volume, mask, affine = made(rng, bleeds)
        path = folder / "MASKED" / "test" / ("bad" if bleeds else "good") / f"{name}.nii.gz"
        for parent in (path.parent, folder / "MASKED" / "masks"):
            parent.mkdir(parents=True, exist_ok=True)
        nifti(path, volume, affine)
        if bleeds:
            nifti(folder / "MASKED" / "masks" / f"{name}.nii.gz", mask.astype(np.uint8), affine)
    faces, arrays = folder / "FOLDER", np.load(VECTOR)
    faces.mkdir()
    (faces / "config.json").write_text(json.dumps(FACES))
    weights = {
        k.removeprefix("weights."): arrays[k].astype(np.float32)
        for k in arrays
        if k.startswith("weights.")
    }
    save_file(weights, faces / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder, before = tmp_path_factory.mktemp("ct"), Path.cwd()
    material(folder)
    found = Page(folder, {}, {})
    os.chdir(folder)
    try:
        for line in LINES:
            words = shlex.split(line, comments=True)[1:]
            if words[0] == "train":
                words += ["--steps", "2", "--batch", "2", "--set", *SHORT[words[1]]]
            with (
                contextlib.redirect_stderr(io.StringIO()) as said,
                contextlib.redirect_stdout(said),
            ):
                found.codes[line] = main(
                    [*words, "--device", "cpu"] if words[0] != "prepare" else words
                )
            found.said[line] = said.getvalue()
    finally:
        os.chdir(before)
    yield found


def test_every_line_ends_well(page):
    assert len(LINES) == 12
    assert {line: page.said[line] for line, code in page.codes.items() if code} == {}


@pytest.mark.parametrize("line", LINES)
def test_every_line_names_what_exists_at_its_full_size(line):
    names_what_exists(cli.parse(shlex.split(line, comments=True)[1:]))


def test_prepare_puts_patients_who_bleed_into_validation_and_test_and_says_how_many(page):
    manifest = load(page.folder / "data" / "ct")
    bleeding = {f"ID_{number:08x}" for number in range(11, 19)}
    shares = {
        name: len(set(manifest.split(name).patients) & bleeding)
        for name in ("train", "val", "test")
    }
    assert shares == {"train": 0, "val": 4, "test": 4}
    said = page.of("prepare rsna")
    assert re.search(
        r"val: \d+ patients, 4 with haemorrhage; slices: \d+ without, \d+ with haemorrhage", said
    )
    assert "all are taken" in said, "num_samples=2000 of fewer slices"


@pytest.mark.parametrize("run", ["scratch", "pretrained", "poster-scratch", "poster-pretrained"])
def test_a_training_has_a_roc_auc_a_best_model_by_it_and_pictures_of_it(page, run):
    folder = page.folder / "runs" / run
    history = json.loads((folder / "training_history.json").read_text())
    assert history and all(0 <= entry["validation_auroc"] <= 1 for entry in history)
    names = {path.name for path in folder.iterdir()}
    assert {"best_model.safetensors", "best_model_loss.safetensors", "training_curves.png"} <= names
    assert any(re.fullmatch(r"eval_scores_epoch_\d+\.png", name) for name in names)
    assert any(re.fullmatch(r"diagnostics_epoch_\d+\.png", name) for name in names)


def test_fifty_of_each_label_are_asked_for_and_the_smaller_number_is_said_with_its_reason(page):
    for recipe in ("ct-pddpm", "ct-pddpm-pretrained"):
        assert Recipe.load(recipe).make_budget().eval_samples == 50
        assert Recipe.load(recipe).make_budget().seed == 42
    pattern = (
        r"validation ROC-AUC: \d+ healthy and \d+ anomalous planes instead of 50 of each: the"
        r" validation split has no more"
    )
    assert len(re.findall(pattern, page.of("train ct-pddpm --data"))) == 1


def test_compare_writes_the_readme_s_table_and_pictures(page):
    folder = page.folder / "compared"
    assert {"comparison.png", "curves.png", "report.html"} <= {
        path.name for path in folder.iterdir()
    }
    rows = {row["method"]: row for row in csv.DictReader((folder / "comparison.csv").open())}
    assert (rows["scratch"]["input_channels"], rows["pretrained"]["input_channels"]) == ("1", "3")
    for name in ("scratch", "pretrained"):
        history = json.loads((page.folder / "runs" / name / "training_history.json").read_text())
        best = max(entry["validation_auroc"] for entry in history)
        assert float(rows[name]["best_validation_auroc"]) == pytest.approx(best)
        assert float(rows[name]["best_validation_loss"]) == pytest.approx(
            min(e["validation_loss"] for e in history)
        )
        assert int(rows[name]["parameters"]) > 1000 and rows[name]["plane_auroc"]
    assert "channels" in page.of("--out compared --")


def test_evaluate_says_which_weights_it_measured(page):
    shas = {}
    for name in ("scores", "scores-loss", "scores-last"):
        records = json.loads((page.folder / name / "metrics.json").read_text())
        (shas[name],) = {record["weights_sha256"] for record in records}
        assert any(record["metric"] == "plane_auroc" for record in records)
    assert (
        shas["scores"]
        == json.loads((page.folder / "runs" / "scratch" / "run.json").read_text())["weights_sha256"]
    )
    assert f"weights: last.safetensors, sha256 {shas['scores-last'][:12]}" in page.of("scores-last")
    assert f"weights: best_model_loss.safetensors, sha256 {shas['scores-loss'][:12]}" in page.of(
        "scores-loss"
    )


def test_the_poster_s_table_has_images_pixels_and_the_validation_error_of_both_columns(page):
    both = {"poster-scratch": "1", "poster-pretrained": "3"}
    for name, wanted in (
        ("compared-slices", "plane_auroc"),
        ("compared-pixels", "voxel_auroc_pooled"),
    ):
        rows = {
            row["method"]: row
            for row in csv.DictReader((page.folder / name / "comparison.csv").open())
        }
        for run, channels in both.items():
            assert rows[run][wanted] and float(rows[run]["best_validation_loss"]) > 0
            assert rows[run]["input_channels"] == channels and rows[run]["image_auroc"]
    recipe = Recipe.load("ct-ddpm-poster-pretrained").resolved()
    assert recipe.canvas["windows"] == ("brain",) * 3 or recipe.canvas["windows"] == ["brain"] * 3
    budget = recipe.make_budget()
    assert (budget.rate, budget.epochs, recipe.restorer["name"]) == (1e-4, 10, "ddpm")
    assert "starts from 'FOLDER'" in page.of("train ct-ddpm-poster-pretrained")


def test_detect_writes_maps_and_a_score_per_slice(page):
    (case,) = (page.folder / "found").rglob("case.json")
    assert len(json.loads(case.read_text())["plane_scores"]) == SHAPE[0]
    assert (page.folder / "found" / "report.html").is_file()


def test_the_page_s_epochs_are_those_of_ten_validations():
    """2,000 slices in batches of 8, 15 epochs: a validation every epoch and a half, or every epoch
    with its setting."""
    text = PAGE.read_text(encoding="utf-8")
    budget = Recipe.load("ct-pddpm").make_budget()
    total = budget.total(2000)
    steps = range(budget.every(total), total + 1, budget.every(total))
    assert f"N = {', '.join(str(round(step * budget.batch / 2000)) for step in steps)}" in text
    assert "training.validate=250" in text and 250 * budget.batch == 2000
    assert Budget().seed == 0 and "0 in all others" in text


@pytest.mark.parametrize(
    "which, found",
    [
        ("best_model_los", "no file named best_model_los"),
        ("nowhere/best.safetensors", "no file named nowhere"),
        ("best_model_loss", "has no best_model_loss.safetensors"),
    ],
)
def test_weights_that_are_not_there_are_one_line_and_nothing_is_written(
    tiny_run, pictures, tmp_path, capsys, which, found
):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.toml", "run.json", "best_model.safetensors", "threshold.json"):
        (run / name).write_bytes((tiny_run / name).read_bytes())
    code = main(
        [
            "evaluate",
            str(run),
            "--data",
            str(pictures),
            "--out",
            str(tmp_path / "out"),
            "--weights",
            which,
        ]
    )
    said = capsys.readouterr().err
    assert code == 5 and found in said and "give best_model, best_model_loss, last" in said
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_best_model_is_never_another_file_and_the_default_takes_what_is_there(
    tiny_run, pictures, tmp_path, capsys
):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.toml", "run.json", "last.safetensors", "threshold.json"):
        (run / name).write_bytes((tiny_run / name).read_bytes())
    words = [
        "evaluate",
        str(run),
        "--data",
        str(pictures),
        "--out",
        str(tmp_path / "out"),
        "--limit",
        "2",
    ]
    assert main([*words, "--weights", "best_model"]) == 5
    said = capsys.readouterr().err
    assert "run 'run' has no best_model.safetensors" in said and not (tmp_path / "out").exists()
    assert main(words) == 0 and (tmp_path / "out" / "metrics.json").is_file()


def test_other_weights_have_no_stored_threshold_and_their_own_figures(tiny_run, pictures, tmp_path):
    from pseudohealthy.runs import checkpoint
    from pseudohealthy.workflows.evaluate import evaluate

    tensors, state, _ = checkpoint.load(tiny_run / "best_model.safetensors")
    other = tmp_path / "other.safetensors"
    sha256 = checkpoint.save(
        other, {k: v * 0.5 if v.is_floating_point() else v for k, v in tensors.items()}, state
    )
    own = evaluate(tiny_run, pictures, device="cpu", controls=False)
    found = evaluate(tiny_run, pictures, device="cpu", controls=False, weights=other)
    assert {record.weights_sha256 for record in found.records} == {sha256}
    value = {r.metric: r.value for r in own.records}
    assert any(
        r.metric == "voxel_average_precision_pooled" and r.value != value[r.metric]
        for r in found.records
    )
    assert any(r.threshold_source == "healthy-quantile" for r in own.records)
    assert not any(r.threshold_source == "healthy-quantile" for r in found.records)
    assert any("the stored threshold is of other weights" in note for note in found.notes)
    same = evaluate(
        tiny_run,
        pictures,
        device="cpu",
        controls=False,
        weights=tiny_run / "best_model.safetensors",
    )
    assert {r.metric: r.value for r in same.records} == value, "the same weights by their file"
