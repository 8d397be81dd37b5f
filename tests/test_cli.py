"""The command line as a user meets it: one clear line on standard error, no traceback, the
contract's exit code."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from blobs import picture
from messages import one_line
from pseudohealthy.__main__ import main

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "case.png"
    Image.fromarray(picture(np.random.default_rng(0))[0]).save(path)
    return path


# -- the process -----------------------------------------------------------------------------------
def test_it_is_a_program(command, program, tiny_run, png, tmp_path):
    done = command("detect", tiny_run, png, "--out", tmp_path / "out", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["exit"] == 0 and result["findings"][0]["case_id"] == "case"
    assert (tmp_path / "out" / "case" / "panel.png").is_file()
    failed = program("detect", tiny_run, tmp_path / "absent", "--out", tmp_path / "other")
    out, err = failed.communicate(60)
    assert failed.returncode == 3 and out == "" and "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    one_line(err, "NOT_FOUND")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("detect", "--help"), ("train", "--help"), ("--version",), ()]
)
def test_help_is_no_error(said, arguments):
    code, out, _ = said(*arguments)
    assert code == 0 and out


@pytest.mark.parametrize(
    "arguments",
    [("detekt",), ("detect", "--out", "x"), ("train", "--stepz", "3"), ("detect", "r", "i")],
)
def test_wrong_usage_ends_with_2(said, arguments):
    assert said(*arguments)[0] == 2


# -- detect ----------------------------------------------------------------------------------------
def test_detect_writes_the_files_of_the_contract_and_says_where(said, tiny_run, png, tmp_path):
    code, out, err = said("detect", tiny_run, png, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0 and "1 of 1 input: " in out and "report.html" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "case",
        "findings.csv",
        "findings.json",
        "report.html",
    }
    assert {path.name for path in (tmp_path / "out" / "case").iterdir()} == {
        "pseudo_healthy.png",
        "anomaly_map.tiff",
        "anomaly_mask.png",
        "panel.png",
        "case.html",
        "case.json",
    }


def test_some_cases_failed_is_exit_4(said, tiny_run, png, tmp_path):
    (tmp_path / "broken.png").write_bytes(png.read_bytes()[:100])
    code, out, err = said(
        "detect",
        tiny_run,
        png,
        tmp_path / "broken.png",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    assert code == 4 and "1 of 2 inputs" in out and "case=broken" in one_line(err, "TRUNCATED")


def test_quiet_says_nothing_and_still_names_errors(said, tiny_run, png, tmp_path):
    assert said(
        "detect", tiny_run, png, "--out", tmp_path / "out", "--device", "cpu", "--quiet"
    ) == (0, "", "")
    code, out, err = said(
        "detect", tiny_run, png, "--out", tmp_path / "out", "--device", "cpu", "--quiet"
    )
    assert (code, out) == (6, "") and one_line(err, "OUTPUT_NOT_EMPTY")


def test_quiet_still_names_a_case_that_failed(said, tiny_run, png, tmp_path):
    (tmp_path / "broken.png").write_bytes(png.read_bytes()[:100])
    code, _, err = said(
        "detect", tiny_run, png, tmp_path / "broken.png", "--out", tmp_path / "out", "--quiet"
    )
    assert code == 4 and one_line(err, "TRUNCATED")


@pytest.mark.parametrize(
    "run, code, exit",
    [("absent", "RUN_MISSING", 5), ("empty", "RUN_MISSING", 5), ("torn", "CHECKPOINT_CORRUPT", 5)],
)
def test_a_run_that_cannot_be_used_is_exit_5(said, tiny_run, png, tmp_path, run, code, exit):
    folder = tmp_path / run
    if run == "empty":
        folder.mkdir()
    if run == "torn":
        shutil.copytree(tiny_run, folder)
        os.truncate(folder / "best_model.safetensors", 3000)
    found, _, err = said("detect", folder, png, "--out", tmp_path / "out")
    assert found == exit
    one_line(err, code)
    assert not (tmp_path / "out").exists()


def test_a_threshold_or_device_that_is_none_is_exit_2(said, tiny_run, png, tmp_path):
    code, _, err = said("detect", tiny_run, png, "--out", tmp_path / "out", "--threshold", "best")
    assert code == 2 and one_line(err, "THRESHOLD")
    code, _, err = said("detect", tiny_run, png, "--out", tmp_path / "out", "--device", "abacus")
    assert code == 2 and one_line(err, "DEVICE")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_exit_6(said, tiny_run, png, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = said("detect", tiny_run, png, "--out", tmp_path / "locked" / "out")
    assert code == 6 and one_line(err, "OUTPUT")


def test_an_output_that_cannot_be_a_folder_is_exit_6(said, tiny_run, png, tmp_path):
    code, _, err = said("detect", tiny_run, png, "--out", png)
    assert code == 6 and one_line(err, "OUTPUT")
    code, _, err = said("detect", tiny_run, png, "--out", "/proc/nowhere/out")
    assert code == 6 and one_line(err, "OUTPUT")


# -- train -----------------------------------------------------------------------------------------
def test_train_and_extend(said, pictures, tiny, tmp_path):
    (tmp_path / "r.toml").write_text(tiny("training.steps=2").toml())
    common = ("--device", "cpu", "--quiet")
    code, out, _ = said(
        "train",
        tmp_path / "r.toml",
        "--data",
        pictures,
        "--out",
        tmp_path / "run",
        "--set",
        "map.quantile=0.9",
        "training.batch=5",
        "--seed",
        4,
        "--json",
        *common,
    )
    assert code == 0 and json.loads(out)["step"] == 2
    resolved = (tmp_path / "run" / "recipe.toml").read_text()
    assert "quantile = 0.9" in resolved and "batch = 5" in resolved and "seed = 4" in resolved
    assert said("train", "--resume", tmp_path / "run", "--steps", 3, *common)[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 3


@pytest.mark.parametrize(
    "setting, word",
    [
        ("training.stepz=3", "steps"),
        ("restorer.network.width=big", "number"),
        ("stepz", "SECTION.KEY"),
    ],
)
def test_a_wrong_recipe_key_is_exit_2_before_anything_is_written(
    said, pictures, tmp_path, setting, word
):
    code, _, err = said(
        "train", "digits-splotch", "--data", pictures, "--out", tmp_path / "run", "--set", setting
    )
    assert code == 2 and word in one_line(err, "RECIPE")
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there_or_leak_are_named(said, pictures, tmp_path):
    code, _, err = said(
        "train", "digits-splotch", "--data", tmp_path / "absent", "--out", tmp_path / "run"
    )
    assert code == 3 and one_line(err, "NOT_FOUND")
    shutil.copytree(pictures, tmp_path / "data")
    shutil.copy(
        next((pictures / "train" / "good").iterdir()),
        tmp_path / "data" / "test" / "good" / "copy.png",
    )
    code, _, err = said(
        "train", "digits-splotch", "--data", tmp_path / "data", "--out", tmp_path / "run"
    )
    assert code == 2 and one_line(err, "LEAK")
    assert not (tmp_path / "run").exists()


def test_train_needs_its_words(said, tiny_run):
    code, _, err = said("train", "digits-splotch")
    assert code == 2 and "--data" in one_line(err, "USAGE")
    code, _, err = said("train", "--resume", tiny_run, "--batch", 2)
    assert code == 2 and one_line(err, "USAGE")


# -- recipes, inspect, prepare, evaluate -----------------------------------------------------------
def test_recipes_lists_and_prints_with_parameter_counts(said):
    code, out, _ = said("recipes")
    assert code == 0 and "mnist-splotch-small" in out
    code, out, _ = said("recipes", "digits-splotch")
    assert code == 0 and "[restorer.network]" in out and "# parameters of denoiser: " in out
    from pseudohealthy.runs.recipe import Recipe

    assert (
        Recipe.parse(out).resolved().restorer == Recipe.load("digits-splotch").resolved().restorer
    )
    code, out, _ = said("recipes", "digits-splotch", "--json")
    assert code == 0 and json.loads(out)["parameters"]["denoiser"] > 1e5
    code, _, err = said("recipes", "digits-splotsch")
    assert code == 2 and "digits-splotch" in one_line(err, "RECIPE")


def test_inspect_names_what_it_cannot_read(said, png, tmp_path):
    (tmp_path / "broken.png").write_bytes(png.read_bytes()[:100])
    code, out, _ = said("inspect", tmp_path)
    assert (
        code == 4 and re.search("case +raster +1 x 1 x 16 x 16", out) and "broken: TRUNCATED" in out
    )
    code, out, _ = said("inspect", png, "--json")
    assert code == 0 and json.loads(out)["inputs"][0]["shape"] == [1, 1, 16, 16]


def test_prepare_counts_and_checks(said, tmp_path):
    code, _, err = said("prepare", "digitz", ".", "--out", tmp_path / "d")
    assert code == 2 and "digits" in one_line(err, "UNKNOWN_DATASET")
    code, _, err = said("prepare", "mnist", tmp_path / "absent", "--out", tmp_path / "d")
    assert code == 3 and one_line(err, "NOT_FOUND")


def test_evaluate_needs_a_test_split(said, tiny_run, pictures, tmp_path):
    shutil.copytree(pictures / "train", tmp_path / "data" / "train")
    code, _, err = said(
        "evaluate", tiny_run, "--data", tmp_path / "data", "--out", tmp_path / "out"
    )
    assert code == 3 and one_line(err, "NO_TEST")


# -- the program's own failures --------------------------------------------------------------------
@pytest.mark.parametrize(
    "error, code, exit",
    [
        (ZeroDivisionError("x"), "INTERNAL", 1),
        (KeyboardInterrupt(), "INTERRUPTED", 130),
        (MemoryError(), "OUT_OF_MEMORY", 7),
    ],
)
def test_what_goes_wrong_inside_is_one_line_and_an_exit_code(
    said, monkeypatch, png, error, code, exit
):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("pseudohealthy.workflows.inspect.inspect", broken)
    found, _, err = said("inspect", png)
    assert found == exit and one_line(err, code)


def test_debug_shows_the_traceback(tiny_run, png, tmp_path):
    from pseudohealthy.errors import Fault

    with pytest.raises(Fault):
        main(
            [
                "detect",
                str(tiny_run),
                str(tmp_path / "absent"),
                "--out",
                str(tmp_path / "out"),
                "--debug",
            ]
        )
