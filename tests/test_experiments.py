"""What `benchmarks/real_data/run.py` is told to train exists: recipes, their settings, data sets,
other runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pseudohealthy import datasets
from pseudohealthy.runs.recipe import Recipe

LISTED = tomllib.loads(
    (Path(__file__).parents[1] / "benchmarks/real_data/experiments.toml").read_text(
        encoding="utf-8"
    )
)
NAMES = [entry["name"] for entry in LISTED["run"]]


def test_names_are_distinct():
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("entry", LISTED["run"], ids=NAMES)
def test_a_listed_run_names_known_data_a_recipe_and_settings_it_has(entry):
    assert {entry["data"], *entry.get("also", [])} <= LISTED["data"].keys()
    others = dict.fromkeys(NAMES, "runs/other")
    settings = [text.format_map(others) if "{" in text else text for text in entry.get("set", [])]
    Recipe.load(entry["recipe"]).set(settings).resolved().make_map()
    assert not entry.keys() - {"name", "data", "also", "recipe", "set"}


@pytest.mark.parametrize("name", LISTED["data"])
def test_a_listed_data_set_can_be_prepared_with_its_options(name):
    facts = LISTED["data"][name]
    datasets.options(facts["dataset"], facts.get("options", []))
