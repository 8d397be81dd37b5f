from __future__ import annotations

import tomllib

import pytest
import torch

from pseudohealthy.errors import Fault
from pseudohealthy.runs import recipe as recipes
from pseudohealthy.runs.changes import changes
from pseudohealthy.runs.recipe import Recipe, toml_value


def refused(action, *words: str) -> None:
    with pytest.raises(Fault) as caught:
        action()
    assert caught.value.exit == 2
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_of_the_package_builds_and_survives_writing_and_reading(name):
    recipe = Recipe.load(name)
    assert recipe.name == name and recipe.summary and recipe.source
    resolved = recipe.resolved()
    assert Recipe.parse(resolved.toml()).resolved() == resolved
    assert Recipe.parse(recipe.toml()).resolved() == resolved
    with torch.device("meta"):  # no memory, no time: published networks have 10^8 parameters
        restorer = recipe.make_restorer()
    canvas = recipe.make_canvas()
    assert (restorer.size, restorer.channels) == (canvas.size, canvas.channels)
    assert recipe.make_budget().total(1000) > 0
    assert 0 < recipe.make_map().quantile < 1


def test_resolving_writes_every_default_out_and_nothing_the_canvas_decides():
    resolved = Recipe("x", restorer={"name": "ddpm"}).resolved()
    assert (
        resolved.restorer["diffusion"]["levels"] == 1000
        and resolved.restorer["network"]["width"] == 128
    )
    assert not {"size", "channels"} & resolved.restorer.keys()
    assert "channels" not in resolved.restorer["network"]
    assert resolved.training["betas"] == (0.9, 0.999) and resolved.map["score"] == "top"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tiny):
    refused(
        lambda: tiny("restorer.walk.start_level=3").resolved(),
        "walk.start_level",
        "did you mean 'start_levels'",
    )
    refused(
        lambda: tiny("restorer.calls=3").resolved(), "restorer.calls", "did you mean 'walk.calls'"
    )
    refused(lambda: tiny("restorer.network.wdth=8").resolved(), "restorer.network.wdth", "'width'")
    refused(lambda: tiny("training.zzz=8").resolved(), "training.zzz", "known keys: steps")
    refused(lambda: Recipe.parse("[restorerr]\nname = 'ddpm'"), "restorerr", "'restorer'")
    refused(lambda: Recipe.load("mnist-splotch-smal"), "did you mean 'mnist-splotch-small'")
    refused(lambda: Recipe("x", restorer={"name": "ddmp"}).resolved(), "ddmp", "did you mean 'dd")
    refused(lambda: Recipe("x").resolved(), "restorer.name")


def test_what_the_canvas_dictates_cannot_be_set(tiny):
    refused(lambda: tiny("restorer.size=64").resolved(), "restorer.size")
    refused(lambda: tiny("restorer.network.channels=2").resolved(), "network.channels")


@pytest.mark.parametrize(
    "setting",
    [
        "training.batch=many",
        "training.batch=1.5",
        "training.batch=true",
        "restorer.diffusion.target=epsilon",
        "map.smooth=[1]",
        "canvas.percentiles=[1]",
        "restorer.network=3",
        "restorer.walk.clip=1",
        "training.betas=[0.9, 'x']",
    ],
)
def test_a_wrong_type_is_refused_by_name(tiny, setting):
    refused(lambda: tiny(setting).resolved(), setting.partition("=")[0])


@pytest.mark.parametrize(
    "setting",
    [
        "training.batch=0",
        "training.steps=-1",
        "training.rate=0",
        "training.ema=1.0",
        "training.epochs=0",
        "map.quantile=1.0",
        "map.share=0",
        "map.median=4",
        "map.smooth=-1",
        "canvas.size=0",
        "canvas.normalise='best'",
        "canvas.windows=['brian']",
    ],
)
def test_an_impossible_value_is_refused(tiny, setting):
    recipe = tiny(setting)
    refused(
        lambda: (recipe.make_canvas(), recipe.make_budget(), recipe.make_map()),
        "give" if "canvas" not in setting else "",
    )


def test_settings_that_contradict_one_another_are_refused_when_built():
    recipe = Recipe("x", canvas={"size": 30}, restorer={"name": "autoencoder"})
    refused(recipe.make_restorer, "[restorer.network]", "size 30")


def test_set_takes_toml_values_and_bare_words(tiny):
    recipe = tiny(
        "restorer.walk.start_levels=[3, 5]",
        "restorer.network.width=24",
        "restorer.diffusion.target=clean",
        "training.rate=1",
        "restorer.walk.clip=false",
        "map.kind='squared'",
        "canvas.windows=['40/80', 'bone']",
    )
    assert (
        recipe.restorer["walk"]["start_levels"] == [3, 5]
        and recipe.restorer["network"]["width"] == 24
    )
    resolved = recipe.resolved()
    assert (
        resolved.restorer["walk"]["start_levels"] == (3, 5)
        and resolved.restorer["diffusion"]["target"] == "clean"
    )
    assert resolved.training["rate"] == 1.0 and isinstance(resolved.training["rate"], float)
    assert resolved.restorer["walk"]["clip"] is False and resolved.map["kind"] == "squared"
    assert resolved.canvas["windows"] == ("40/80", "bone")


def test_one_value_stands_for_a_list_of_one(tiny):
    assert tiny("restorer.walk.start_levels=7").resolved().restorer["walk"]["start_levels"] == (7,)


@pytest.mark.parametrize(
    "text",
    [
        "width=3",
        "restorer=3",
        "nowhere.x=1",
        "restorer.diffusion.levels",
        "=1",
        "restorer.name.x=1",
    ],
)
def test_a_setting_without_section_key_and_value_is_refused(tiny, text):
    refused(lambda: tiny(text), text.partition("=")[0])


def test_texts_and_numbers_survive_toml():
    text = 'quote " backslash \\ newline \n tab \t bell \x07 delete \x7f umlaut ü'
    recipe = Recipe(
        "x",
        summary=text,
        restorer={"name": "ddpm", "walk": {"eta": 1e-7}},
        training={"rate": 3e-5, "clip": 1e22},
    )
    again = Recipe.parse(recipe.toml())
    assert (
        again.summary == text
        and again.restorer == recipe.restorer
        and again.training == recipe.training
    )


def test_a_recipe_reads_as_it_is_written_by_hand():
    recipe = Recipe(
        "x",
        summary="a list [\n  1,\n  2,\n] in a text",
        canvas={"size": [64, 96], "window": None, "spacing": ()},
        restorer={
            "name": "ddpm",
            "network": {"attention": [True, "a, ]"], "inner": {"pairs": [[1, 2], [3.5, 4]]}},
            "clip": 1.0,
        },
    )
    text = recipe.toml()
    assert (
        text
        == """\
name = "x"
summary = "a list [\\n  1,\\n  2,\\n] in a text"
source = ""

[canvas]
size = [64, 96]
spacing = []

[restorer]
name = "ddpm"
clip = 1.0

[restorer.network]
attention = [true, "a, ]"]

[restorer.network.inner]
pairs = [[1, 2], [3.5, 4]]

[training]

[map]
"""
    )
    assert tomllib.loads(text)["summary"] == recipe.summary


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "true"),
        (3, "3"),
        (1e-7, "1e-07"),
        (float("inf"), "inf"),
        ("a\x7f\n", '"a\\u007f\\n"'),
        ((1, (2.5, "b")), '[1, [2.5, "b"]]'),
        ([], "[]"),
    ],
)
def test_a_value_is_one_line_that_reads_back(value, said):
    assert toml_value(value) == said
    assert str(tomllib.loads(f"x = {said}")["x"]) == str(value).replace("(", "[").replace(")", "]")


def test_what_is_no_recipe_is_refused_in_one_line(tmp_path):
    refused(lambda: Recipe.load(tmp_path / "absent.toml"), "there is no recipe")
    (tmp_path / "broken.toml").write_text("[canvas\nsize = 3")
    refused(lambda: Recipe.load(tmp_path / "broken.toml"), "not valid TOML")
    (tmp_path / "latin.toml").write_bytes(b'summary = "\xe4"')
    refused(lambda: Recipe.load(tmp_path / "latin.toml"), "UTF-8")
    refused(lambda: Recipe.parse("canvas = 3"), "not a table")
    refused(lambda: Recipe.parse("summary = 3"), "summary")


def test_a_setting_given_twice_is_refused_unless_it_says_the_same():
    assert Recipe.load("quick").set(["map.smooth=2", "map.smooth=2"]).map["smooth"] == 2
    with pytest.raises(Fault, match=r"map\.smooth is given twice, as 2 and as 3; give it once"):
        Recipe.load("quick").set(["map.smooth=2", "map.smooth=3"])


def test_a_recipe_without_a_restorer_is_told_so(tmp_path):
    (tmp_path / "own.toml").write_text('name = "own"\n[canvas]\nsize = 64\n')
    with pytest.raises(Fault, match="the recipe names no restorer"):
        Recipe.load(tmp_path / "own.toml").checked()


@pytest.mark.parametrize("text", ["=2", "smooth=2", "mapp.smooth=2", "map=2"])
def test_what_is_no_setting_is_not_said_to_change_the_network(text):
    with pytest.raises(Fault, match="is not a setting; write SECTION"):
        changes(Recipe.load("quick"), None, [text])
