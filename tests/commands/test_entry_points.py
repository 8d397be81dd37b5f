"""Every command takes the name of a model that comes along, and says what it cannot do with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pseudohealthy import io, models
from pseudohealthy.__main__ import main
from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault
from pseudohealthy.restorers import REGISTRY, restorer_class
from pseudohealthy.runs import recipe as recipes
from pseudohealthy.runs.changes import walked
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.settings import ranges

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")

NAME = "brain-t1"
EXAMPLES = models.examples(NAME)
SCAN = EXAMPLES / "test" / "bad" / "IXI002.png"


@pytest.fixture
def said(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_folder_of_that_name_which_is_no_run_does_not_hide_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert Run.open(NAME).folder == models.FOLDER / NAME
    (tmp_path / NAME / "recipe.toml").write_text(Recipe.load("quick").toml())
    assert models.folder_of(NAME) == Path(NAME), "a run of the user's comes first"


def test_detect_says_that_calls_do_not_apply_and_the_cure_it_names_works(said):
    for flag in ("--levels", "--calls"):
        code, _, err = said("detect", NAME, SCAN, "--out", "out", flag, 5)
        assert code == 2 and err.startswith("error[USAGE]: --calls does not apply")
        assert "--set restorer.walk.draws=N" in err and err.count("\n") == 1
    code, out, err = said(
        "detect",
        NAME,
        SCAN,
        "--out",
        "out",
        "--set",
        "restorer.walk.draws=1",
        "--kinds",
        "json",
        "--json",
    )
    assert code == 0 and "without restorer.walk.draws=1" in err
    case = json.loads(Path("out/IXI002/case.json").read_text())
    assert (
        case["made"]["settings"] == ["restorer.walk.draws=1"] and case["made"]["network_calls"] == 3
    )
    assert json.loads(out)["exit"] == 0


@pytest.mark.parametrize(
    "setting",
    [
        "restorer.diffusion.levels=9",
        "canvas.size=8",
        "restorer.name=ddim",
        "restorer.network.width=8",
    ],
)
def test_detect_refuses_settings_of_another_network(said, setting):
    code, _, err = said("detect", NAME, SCAN, "--out", "out", "--set", setting)
    assert code == 2 and "changes the network" in err


@pytest.mark.parametrize("name", recipes.names())
def test_calls_apply_to_every_method_that_walks_and_to_no_other(name):
    recipe = Recipe.load(name)
    known = ranges(restorer_class(recipe.restorer["name"]), "restorer")
    if "restorer.walk.calls" in known:
        assert walked(recipe, 3) == "restorer.walk.calls=3"
        return
    with pytest.raises(Fault) as caught:
        walked(recipe, 3)
    assert caught.value.exit == 2 and "does not apply" in caught.value.message
    assert ("restorer.walk.draws" in caught.value.cure) == ("restorer.walk.draws" in known)


def test_calls_change_the_walk_of_a_run(said, tiny_run, pictures):
    scan = next((pictures / "test" / "bad").iterdir())
    words = ("detect", tiny_run, scan, "--kinds", "json", "--device", "cpu")
    assert said(*words, "--out", "a", "--calls", 5)[0] == 0
    made = json.loads((Path("a") / scan.stem / "case.json").read_text())["made"]
    # Two draws.
    assert made["settings"] == ["restorer.walk.calls=5"] and made["network_calls"] == 10


def test_verify_and_sweep_take_the_name(said):
    code, out, _ = said("verify", NAME, "--quiet")
    assert code == 0 and "weights" in out and "0 DIFFERS" in out
    code, _, err = said(
        "sweep", NAME, "--data", EXAMPLES, "--over", "map.smooth_after=0,2", "--out", "s"
    )
    assert code == 3 and "NO_CASES" in err, "the examples are test cases"


def test_a_sweep_says_how_to_use_its_best_on_a_model_that_stays_as_it_is(said):
    words = ("--split", "test", "--limit", 2, "--over", "map.quantile=0.9")
    code, out, _ = said("sweep", NAME, "--data", EXAMPLES, "--out", "s", *words)
    assert code == 0
    assert out.splitlines()[-1].endswith(f"detect {NAME} INPUT... --out DIR --set map.quantile=0.9")


def test_evaluate_and_compare_take_the_name_and_say_once_what_is_undefined(said):
    good = Path("good/test/good")
    shutil.copytree(EXAMPLES / "test" / "good", good)
    common = ("--data", "good", "--limit", 2)
    code, out, _ = said("evaluate", NAME, *common, "--out", "e")
    assert code == 0 and out.count("image_auroc and") == 1
    assert Path("e/report.html").read_text().count("image_auroc and") == 1
    code, out, _ = said("compare", NAME, *common, "--out", "c")
    assert code == 0 and out.count("image_auroc and") == 1
    assert Path("c/report.html").read_text().count("image_auroc and") == 1


def test_nothing_is_written_into_a_model_that_comes_along(said):
    code, _, err = said("train", "--resume", NAME, "--steps", 9999)
    assert code == 2 and "stays as it is" in err and err.count("\n") == 1


def test_a_run_whose_data_are_gone_says_so_without_naming_a_folder_of_the_machine(said, tiny_run):
    shutil.copytree(tiny_run, "else/where/moved")  # deeper: the way to the data is relative
    code, _, err = said("train", "--resume", "else/where/moved", "--steps", 13)
    assert code == 3 and "name them with --data" in err and os.getcwd() not in err


def test_serve_serves_the_model(tmp_path):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    line = [sys.executable, "-m", "pseudohealthy", "serve", NAME, "--port", "0", "--out", "served"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as child:
        try:
            said = child.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", said)
            assert address, said
            with urllib.request.urlopen(address[0], timeout=60) as answer:
                page = answer.read().decode()
            assert answer.status == 200 and NAME in page
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)


@pytest.mark.parametrize("words", [(NAME,), (NAME, ""), ("",), (NAME, str(SCAN), "")])
def test_detect_without_inputs_or_with_empty_ones_reads_nothing(said, words):
    Path("a.png").write_bytes(SCAN.read_bytes())
    code, out, err = said("detect", *words, "--out", "out")
    assert code == 2 and out == "" and err.startswith("error[USAGE]: ")
    assert not Path("out").exists()


def test_info_says_what_is_there(said):
    code, out, err = said("info", "--json", "--device", "cpu")
    found = json.loads(out)
    assert (
        code == 0
        and err == ""
        and found["models"] == [NAME]
        and found["recipes"] == recipes.names()
    )
    assert found["device"]["kind"] == "cpu" and set(found["restorers"]) == set(REGISTRY)
    code, out, _ = said("info", "--quiet")
    (line,) = [line for line in out.splitlines() if line.startswith("restorers ")]
    assert code == 0 and line.split(maxsplit=1)[1] == ", ".join(sorted(REGISTRY)), "in one line"
    assert all(word in out for word in ("models", NAME, "restorers", "protocols", "extra serve"))


def test_debug_keeps_the_exit_code(tmp_path, program):
    child = program("detect", NAME, "absent", "--out", "o", "--debug", cwd=tmp_path)
    _, errors = child.communicate(60)
    assert child.returncode == 3 and "Traceback" in errors and "error[NOT_FOUND]" in errors


def test_python_refuses_empty_paths_as_the_program_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(SCAN.read_bytes())
    for call in (lambda: io.discover([""]), lambda: load("")):
        with pytest.raises(Fault) as caught:
            call()
        assert caught.value.exit == 2 and "empty" in caught.value.message
