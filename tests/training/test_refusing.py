"""A refused training leaves no folder, and what was there before as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.runs.run import Run
from pseudohealthy.training import loop, trainer
from pseudohealthy.workflows.train import train


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file, hidden ones included."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture
def leaking(pictures: Path, tmp_path: Path) -> Path:
    """The pictures, one of which is in training and in validation."""
    root = tmp_path / "leaking"
    shutil.copytree(pictures, root)
    shutil.copy(
        root / "train" / "good" / "train-good-0.png", root / "val" / "good" / "train-good-0.png"
    )
    return root


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    root = tmp_path / "unreadable"
    for place in ("train", "val"):
        (root / place / "good").mkdir(parents=True)
        (root / place / "good" / f"{place}.png").write_bytes(b"no picture")
    return root


def refused(recipe, data: Path, out: Path, **options) -> Fault:
    with pytest.raises(Fault) as caught:
        train(recipe, data, out, device="cpu", **options)
    return caught.value


WRONG = [
    ("restorer.walk.draws=0", 2),
    ("map.median=17", 2),
    ("canvas.size=15", 2),
    ("canvas.channels=2", 2),
    ("restorer.weights=nowhere", 2),
    ("training.batch=0", 2),
]


@pytest.mark.parametrize(("setting", "exit"), WRONG)
def test_a_refused_setting_leaves_no_folder_nor_its_parents(
    tiny, pictures, tmp_path, setting, exit
):
    out = tmp_path / "a" / "b" / "run"
    fault = refused(tiny(setting), pictures, out)
    assert fault.exit == exit and setting.partition("=")[0].split(".")[-1] in str(fault).lower()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("data", ["leaking", "unreadable", "nowhere"])
def test_refused_data_leave_no_folder_either(tiny, tmp_path, request, data):
    folder = tmp_path / "nowhere" if data == "nowhere" else request.getfixturevalue(data)
    assert refused(tiny(), folder, tmp_path / "a" / "b").exit in (2, 3, 8)
    assert not (tmp_path / "a").exists()


def test_a_folder_that_was_there_stays_with_what_lay_in_it(tiny, unreadable, tmp_path):
    out = tmp_path / "mine" / "run"
    out.mkdir(parents=True)
    refused(tiny(), unreadable, out)
    assert out.is_dir() and not list(out.iterdir())
    (out / ".notes").write_text("mine")
    before = contents(out)
    refused(tiny(), unreadable, out)
    assert contents(out) == before


def test_a_finished_run_is_not_touched_unless_asked_and_survives_a_refused_overwriting(
    tiny, tiny_run, pictures, unreadable, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    before, names = contents(out), sorted(path.name for path in out.iterdir())
    assert refused(tiny(), pictures, out).code == "OUTPUT_NOT_EMPTY"
    assert contents(out) == before
    for data, recipe in (
        (unreadable, tiny()),
        (pictures, tiny("restorer.walk.draws=0")),
        (pictures, tiny("canvas.channels=2")),
    ):
        refused(recipe, data, out, overwrite=True)
        assert contents(out) == before and sorted(path.name for path in out.iterdir()) == names
    assert Run.open(out).restorer()[1] == Run.open(tiny_run).restorer()[1]


def test_losses_that_are_not_finite_before_anything_was_saved_are_refused(
    tiny, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        trainer.PartLoss, "forward", lambda self, batch: batch.images.sum() * float("nan")
    )
    fault = refused(tiny(), pictures, tmp_path / "a" / "run")
    assert (
        fault.code == "NONFINITE_LOSS" and fault.exit == 2 and "lower training.rate" in fault.cure
    )
    assert not (tmp_path / "a").exists()


def test_a_run_whose_recipe_was_edited_is_rejected_by_the_name_of_the_setting(tiny_run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    recipe = (out / "recipe.toml").read_text()
    for good, bad in (
        ("draws = 2", "draws = 0"),
        ("seed = 0", 'seed = "x"'),
        ("quantile = 0.95", "quantile = 1.5"),
    ):
        assert good in recipe
        (out / "recipe.toml").write_text(recipe.replace(good, bad))
        with pytest.raises(Fault) as caught:
            Run.open(out)
        assert (
            caught.value.exit == 5
            and bad.partition(" ")[0] in str(caught.value)
            and "'run'" in str(caught.value)
        )


def test_networks_whose_weights_do_not_fit_are_refused_before_they_are_made(
    tiny, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop.memory, "available", lambda device: 1_000_000)
    monkeypatch.setattr(loop, "Trainer", None)
    fault = refused(tiny("restorer.network.width=256"), pictures, tmp_path / "a" / "run")
    assert fault.code == "OUT_OF_MEMORY" and fault.exit == 7 and not (tmp_path / "a").exists()
