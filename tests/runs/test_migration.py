"""Settings of version 0.1: every recipe of then, its ``--set`` texts and a stored run."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.models import folder_of
from pseudohealthy.runs.migration import leaves, migrated, renamed
from pseudohealthy.runs.recipe import Recipe, names
from pseudohealthy.runs.run import Run

FIRST = json.loads((Path(__file__).parent / "recipes-0.1.json").read_text(encoding="utf-8"))  # [restorer] of each


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_recipe_of_version_0_1_is_the_present_one(name):
    now = Recipe.load(name)
    old = Recipe(name, canvas=now.canvas, restorer=migrated(FIRST[name]), training=now.training, map=now.map)
    assert old.resolved().restorer == now.resolved().restorer


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_setting_of_version_0_1_can_still_be_given(name):
    now = Recipe.load(name)
    texts = [f"restorer.{'.'.join(path)}={json.dumps(value)}" for path, value in leaves(FIRST[name])]
    assert Recipe.load(name).set(texts).resolved().restorer == now.resolved().restorer


def test_the_recipes_themselves_have_present_names_only():
    assert {*FIRST} <= {*names()}
    for name in names():
        restorer = tomllib.loads((Path(folder()) / f"{name}.toml").read_text(encoding="utf-8"))["restorer"]
        for path, _ in leaves(restorer):
            assert renamed(restorer["name"], path) == path


def folder() -> Path:
    from pseudohealthy.runs import recipe

    return recipe.FOLDER


def test_a_stored_run_opens_as_what_it_was_and_counts_as_unchanged():
    run = Run.open("brain-t1")
    text = (folder_of("brain-t1") / "recipe.toml").read_text(encoding="utf-8")
    assert "depths = [100, 250, 400]" in text, "a run of version 0.1"
    assert run.recipe.restorer["walk"]["start_levels"] == [100, 250, 400] and run.recipe.restorer["walk"]["draws"] == 8
    assert not run.changed


def test_a_setting_under_both_names_is_refused():
    text = '[restorer]\nname = "ddpm"\ndraws = 4\n[restorer.walk]\ndraws = 8\n'
    with pytest.raises(Fault, match=r"restorer\.walk\.draws is given twice, as 4 and as 8; leave its former name out"):
        Recipe.parse(text)
    with pytest.raises(Fault, match=r"restorer\.walk\.draws is given twice, as 4 and as 8"):
        Recipe.load("quick").set(["restorer.draws=4", "restorer.walk.draws=8"])


def test_a_value_where_a_table_belongs_is_refused():
    with pytest.raises(Fault, match=r"restorer\.walk = 5 cannot be used; give a table \[restorer\.walk\]"):
        Recipe.parse('[restorer]\nname = "ddpm"\nwalk = 5\ndraws = 4\n')
