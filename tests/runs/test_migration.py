"""Settings of version 0.1: every recipe of then, its ``--set`` texts and a stored run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.models import folder_of
from pseudohealthy.runs.changes import changes
from pseudohealthy.runs.migration import leaves, migrated, renamed
from pseudohealthy.runs.recipe import Recipe, names
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.train import resume

# [restorer] of each.
FIRST = json.loads((Path(__file__).parent / "recipes-0.1.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_recipe_of_version_0_1_is_the_present_one(name):
    now = Recipe.load(name)
    old = Recipe(
        name, canvas=now.canvas, restorer=migrated(FIRST[name]), training=now.training, map=now.map
    )
    assert old.resolved().restorer == now.resolved().restorer


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_setting_of_version_0_1_can_still_be_given(name):
    now = Recipe.load(name)
    texts = [
        f"restorer.{'.'.join(path)}={json.dumps(value)}" for path, value in leaves(FIRST[name])
    ]
    assert Recipe.load(name).set(texts).resolved().restorer == now.resolved().restorer


def test_the_recipes_themselves_have_present_names_only():
    assert {*FIRST} <= {*names()}
    for name in names():
        restorer = tomllib.loads((Path(folder()) / f"{name}.toml").read_text(encoding="utf-8"))[
            "restorer"
        ]
        for path, _ in leaves(restorer):
            assert renamed(restorer["name"], path) == path


def folder() -> Path:
    from pseudohealthy.runs import recipe

    return recipe.FOLDER


def test_a_stored_run_opens_as_what_it_was_and_counts_as_unchanged():
    run = Run.open("brain-t1")
    text = (folder_of("brain-t1") / "recipe.toml").read_text(encoding="utf-8")
    assert "depths = [100, 250, 400]" in text, "a run of version 0.1"
    assert (
        run.recipe.restorer["walk"]["start_levels"] == [100, 250, 400]
        and run.recipe.restorer["walk"]["draws"] == 8
    )
    assert not run.changed


def test_a_setting_under_both_names_is_refused():
    text = '[restorer]\nname = "ddpm"\ndraws = 4\n[restorer.walk]\ndraws = 8\n'
    with pytest.raises(
        Fault,
        match=r"restorer\.walk\.draws is given twice, as 4 and as 8; leave its former name out",
    ):
        Recipe.parse(text)
    with pytest.raises(Fault, match=r"restorer\.walk\.draws is given twice, as 4 and as 8"):
        Recipe.load("quick").set(["restorer.draws=4", "restorer.walk.draws=8"])


def test_a_value_where_a_table_belongs_is_refused():
    with pytest.raises(
        Fault, match=r"restorer\.walk = 5 cannot be used; give a table \[restorer\.walk\]"
    ):
        Recipe.parse('[restorer]\nname = "ddpm"\nwalk = 5\ndraws = 4\n')


@pytest.mark.parametrize(
    "method, text, old, new",
    [
        ("ddpm", "network={width=32, attention=[2]}", "network.attention.at", [2]),
        ("ddpm", "network.attention={at=[2]}", "network.attention.at", [2]),
        ("ddpm", "walk={calls=3}", "walk.calls", 3),
        ("thor", "harmonise={levels=[100]}", "harmonise.levels", [100]),
        ("ct-patched", "windows={side=16}", "windows.side", 16),
        ("ct-patched", "windows=16", "windows.at_once", 16),
    ],
)
def test_a_table_is_given_at_once_under_either_name(method, text, old, new):
    table = Recipe.parse(f'[restorer]\nname = "{method}"').set([f"restorer.{text}"]).restorer
    assert {".".join(path): value for path, value in leaves(table)}[old] == new


def test_a_table_given_at_once_leaves_the_other_settings_of_it():
    assert Recipe.load("quick").set(["restorer.walk={draws=4}"]).restorer["walk"] == {
        "start_levels": [100, 250, 400],
        "draws": 4,
    }
    assert Recipe.load("quick").set(["restorer.walk={}"]).restorer["walk"]["draws"] == 8
    with pytest.raises(Fault, match=r"restorer\.walk\.draws is given twice, as 3 and as 4"):
        Recipe.load("quick").set(["restorer.walk.draws=3", "restorer.walk={draws=4}"])


def test_what_is_below_a_value_is_refused():
    with pytest.raises(
        Fault, match=r"'restorer\.walk\.draws\.x' is unknown; write restorer\.walk\.draws=VALUE"
    ):
        Recipe.load("quick").set(["restorer.walk.draws.x=4"])


@pytest.mark.parametrize("table", ["foo = {}", "draws = {}", "[restorer.wlak]"])
def test_a_mistyped_table_that_is_empty_is_refused(table):
    with pytest.raises(Fault, match=r"recipe key 'restorer\.(foo|draws|wlak)' is unknown"):
        Recipe.parse(f'[restorer]\nname = "ddpm"\n{table}\n').resolved()
    Recipe.parse(
        '[restorer]\nname = "ddpm"\nwalk = {}\nnetwork = {attention = {}}\ndraws = 2\n'
    ).resolved()


def test_settings_of_version_0_1_wait_for_the_method_that_names_them():
    assert Recipe.parse("[restorer]\ndraws = 3\n").set(["restorer.name=ddpm"]).restorer["walk"] == {
        "draws": 3
    }


def test_a_former_name_is_answered_by_the_present_one_and_by_no_name_that_was_not_given():
    with pytest.raises(
        Fault, match=r"'restorer\.walk\.depths' is unknown; did you mean 'start_levels'\?"
    ):
        Recipe.parse('[restorer]\nname = "ddpm"\nwalk.depths = [3]').resolved()
    with pytest.raises(Fault, match=r"'restorer\.walk\.steps' is unknown; did you mean 'calls'\?"):
        Recipe.parse('[restorer]\nname = "ddpm"\nwalk.steps = 3').resolved()
    with pytest.raises(Fault, match=r"'restorer\.steps' is unknown"):
        Recipe.load("quick").set(["restorer.steps=3"]).resolved()


@pytest.mark.parametrize(
    "text",
    ["restorer.diffusion={levels=500}", "restorer.levels=500", "restorer.diffusion.levels=500"],
)
def test_what_the_weights_know_is_never_changed_however_it_is_given(text):
    recipe = Recipe.load("digits-splotch")
    with pytest.raises(Fault, match="changes the network"):
        changes(recipe, None, [text])


@pytest.mark.parametrize(
    "text",
    ["restorer.target=clean", "restorer.diffusion={levels=500}", "restorer.betas=[0.001,0.03]"],
)
def test_neither_resume_nor_a_detector_takes_what_the_weights_know(tiny_run, text):
    before = (tiny_run / "recipe.toml").read_bytes()
    text = text.replace("restorer.betas", "restorer.diffusion.betas")
    with pytest.raises(Fault, match="changes the network"):
        resume(tiny_run, settings=[text])
    with pytest.raises(Fault, match="changes the network"):
        Detector(Run.open(tiny_run), settings=[text], device="cpu")
    assert (tiny_run / "recipe.toml").read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    ["draws = 3\nwalk = {draws = 4}", "draws = 3 4", "walk = 5\ndraws = 3", "draws = 99999"],
)
def test_a_run_whose_recipe_was_spoiled_is_rejected_as_a_run(wrong, tmp_path):
    (tmp_path / "recipe.toml").write_text(f'[restorer]\nname = "ddpm"\n{wrong}\n', encoding="utf-8")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Fault, match=r"recipe\.toml of 'test_") as caught:
        Run.open(tmp_path)
    assert caught.value.exit == 5


def test_a_table_of_a_method_that_stands_alone_is_told_where_it_belongs():
    with pytest.raises(Fault, match=r"'walk' is unknown; did you mean 'restorer\.walk'\?"):
        Recipe.parse('[walk]\ndraws = 3\n[restorer]\nname = "ddpm"\n')
    with pytest.raises(Fault, match=r"write walk\.draws without quotes"):
        Recipe.parse('[restorer]\nname = "ddpm"\n"walk.draws" = 3\n').resolved()
