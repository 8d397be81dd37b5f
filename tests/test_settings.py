"""Every setting has a range, and a value outside of it is refused in one line."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from pseudohealthy import settings as module
from pseudohealthy.detection.detector import threshold_of
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.marks import Choice, Length, Mark, Range, words
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers import REGISTRY, restorer_class
from pseudohealthy.runs.budget import Budget
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.settings import coerce
from settings_page import page
from small import small_recipe


def recipe(*assignments: str, method: str = "ddpm") -> Recipe:
    return small_recipe(method).set(assignments)


def refused(action, *said: str) -> Fault:
    with pytest.raises(Fault) as caught:
        action()
    line = str(caught.value)
    assert caught.value.exit == USAGE and caught.value.cure and "\n" not in line
    assert all(word in line for word in said), line
    return caught.value


# -- declarations ----------------------------------------------------------------------------------
def declared(hint: Any) -> bool:
    """Whether every value of the annotated type may be taken, or a mark says which."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inside = typing.get_origin(args[0]) is not tuple or declared(args[0])
        return inside and any(isinstance(mark, Mark) for mark in args[1:])
    if origin in (tuple, typing.Union, types.UnionType):
        return all(declared(arg) for arg in args if arg not in (Ellipsis, type(None)))
    return hint is bool or origin is Literal


def undeclared(cls: Any, where: str, hidden: Iterable[str] = ()) -> Iterator[str]:
    """Settings whose annotation says no range and needs one: numbers, texts and lists without a
    mark."""
    nested = module.tables(cls)
    for key in module.settable(cls, hidden):
        if key in nested:
            yield from undeclared(nested[key], f"{where}.{key}", module.hidden_in(cls, key))
        elif not declared(module.hints(cls.__init__).get(key, Any)):
            yield f"{where}.{key}"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_setting_of_every_method_has_a_range_or_a_type_that_needs_none(name):
    assert list(undeclared(restorer_class(name), f"restorer[{name}]")) == []


@pytest.mark.parametrize("cls", [Canvas, AnomalyMap, Budget])
def test_every_setting_of_canvas_map_and_budget_has_a_range_or_a_type_that_needs_none(cls):
    assert list(undeclared(cls, cls.__name__)) == []


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_default_lies_in_its_range(name):
    for key, cls in Recipe("x", restorer={"name": name}).classes().items():
        module.check(cls, plain(module.complete(cls, {}, key)), key)


def plain(table: dict[str, Any]) -> dict[str, Any]:
    return {k: plain(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None}


def test_the_range_stands_beside_every_setting_that_is_printed():
    found = recipe().resolved()
    text = found.toml(notes=True)
    assert Recipe.parse(text).resolved() == found
    assert (
        "draws = 1  # a whole number from 1 to 1000" in text
        and 'plane = "axial"  # axial, coronal' in text
    )
    lines = [
        line
        for line in text.splitlines()
        if " = " in line and not line.startswith(("name", "summary", "source"))
    ]
    assert all("  # " in line for line in lines), [line for line in lines if "  # " not in line]


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (Annotated[int, Range(1, 9)], "a whole number from 1 to 9"),
        (Annotated[float, Range(0, 1, open="low")], "a number above 0, up to 1"),
        (Annotated[float, Range(0, 1, open="high")], "a number from 0 and below 1"),
        (Annotated[float, Range(0, 1, open="both")], "a number above 0 and below 1"),
        (Annotated[int, Range(1, 9, step=2, also=(0,))], "0, or an odd number from 1 to 9"),
        (Annotated[int, Range(8, 64, step=8)], "a multiple of 8 from 8 to 64"),
        (Annotated[int, Choice(1, 2, 4)], "1, 2 or 4"),
        (
            Annotated[tuple[Annotated[int, Range(1, 9)], ...], Length(1, 3)],
            "1 to 3 values, each a whole number from 1 to 9",
        ),
        (Literal["a", "b"], "a or b"),
        (tuple[float, float], "2 values, each a number"),
        (int | None, "a whole number"),
    ],
)
def test_a_range_in_words(hint, said):
    assert words(hint) == said


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (
            Annotated[int, Range(1, 9)],
            [1, 9, np.int64(5)],
            [0, 10, True, 1.0, "1", None, 10**400, math.inf],
        ),
        (
            Annotated[float, Range(0, 1, open="high")],
            [0, 0.5, np.float32(0.5)],
            [1, -1e-9, math.nan, math.inf, False, 10**400],
        ),
        (Annotated[int, Range(1, 9, step=2, also=(0,))], [0, 1, 9], [2, 11, -1]),
        (
            Annotated[tuple[Annotated[int, Range(1, 9)], ...], Length(1, 3)],
            [[1], (1, 2, 3), 4],
            [[], [0], [1, 2, 3, 4], ["x"]],
        ),
        (Annotated[int, Range(1, 9)] | None, [None, 3], [0, "x"]),
        (Literal[1, 2], [1, 2], [True, 1.0, 3, [1]]),
        (Literal["a"], ["a"], ["b", {"a": 1}, []]),
    ],
)
def test_what_a_range_takes(hint, good, bad):
    for value in good:
        coerce(value, hint, "x")
    for value in bad:
        refused(lambda value=value: coerce(value, hint, "x"), "x = ", "give ")


# -- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("restorer.walk.draws=0", "1 to 1000"),
        ("restorer.walk.start_levels=[5000]", "restorer.diffusion.levels = 40"),
        ("restorer.walk.start_levels=[]", "1 to 32 values"),
        ("restorer.walk.start_levels=[0]", "1 to"),
        ("restorer.diffusion.levels=1", "from 2"),
        ("restorer.diffusion.max_level=41", "restorer.diffusion.levels = 40"),
        ("restorer.walk.eta=nan", "0 to 1"),
        ("restorer.walk.eta=inf", "0 to 1"),
        ("restorer.walk.order=3", "1 or 2"),
        ("restorer.walk.calls=-1", "from 0"),
        ("restorer.diffusion.octaves=0", "1 to 8"),
        ("restorer.diffusion.frequency=0", "1 to 4096"),
        ("restorer.diffusion.target=3", "noise, clean or velocity"),
        ("restorer.network.block.groups=7", "16 channels"),
        ("restorer.network.width=0", "even"),
        ("restorer.network.width=15", "even"),
        ("restorer.network.multipliers=[]", "1 to 10 values"),
        ("restorer.network.multipliers=[1,1,1,1,1,1]", "32 divides"),
        ("restorer.network.stem=3", "6 divides"),
        ("restorer.network.attention.at=[3]", "1, 2, 4"),
        ("restorer.network.block.dropout=1", "below 1"),
        ("restorer.network.blocks=0", "1 to 32"),
        ("restorer.network.block.eps=0", "0.1"),
        ("restorer.network=3", "a table"),
        ("restorer.network.attention.head_channels=5", "32 channels"),
        ("canvas.size=0", "4 to 2048"),
        ("canvas.size=17", "2 divides"),
        ("canvas.margin=-4", "0 to 1"),
        ("canvas.channels=0", "1 to 64"),
        ("canvas.percentiles=[9, 3]", "rising"),
        ("canvas.percentiles=[1]", "2 values"),
        ("canvas.value_range=[1, 1]", "rising"),
        ("canvas.slices=[1]", "no or 2 values"),
        ("canvas.plane=side", "axial"),
        ("canvas.preprocess=[1]", "choose from"),
        ("canvas.spacing=-1", "0, or a number"),
        ("map.quantile=1.5", "below 1"),
        ("map.share=0", "above 0"),
        ("map.median=4", "odd"),
        ("map.median=17", "canvas.size = 16"),
        ("map.erode=8", "canvas.size = 16"),
        ("map.smooth=-1", "0 to 100"),
        ("map.gate=nan", "0 to 1000"),
        ("map.kind=loud", "absolute"),
        ("training.batch=0", "1 to 65536"),
        ("training.precision=foo", "auto, bf16 or fp32"),
        ("training.rate=-1", "above 0"),
        ("training.augment=[1]", "none, flip"),
        ("training.seed=-1", "from 0"),
        ("training.betas=[0.9, 1]", "below 1"),
        ("training.epochs=0", "above 0"),
        ("training.ema=1", "below 1"),
        ("training.steps=1e9", "a whole number"),
        ("training.lr=-1", "did you mean 'rate'"),
        ("training.batch_size=0", "did you mean 'batch'"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_with_its_range(assignment, said):
    key = assignment.partition("=")[0]
    within = {
        "canvas.size": "",
        "restorer.network.multipliers": "restorer.network",
        "restorer.network.stem": "stem",
    }
    refused(lambda: recipe(assignment).checked(), within.get(key, key), said)


@pytest.mark.parametrize(
    ("method", "assignment", "said"),
    [
        ("thor", "restorer.harmonise.sigma=-1", "restorer.harmonise.sigma = -1"),
        ("thor", "restorer.harmonise.sigma=0", "above 0"),
        ("thor", "restorer.harmonise.side=4", "odd"),
        ("thor", "restorer.harmonise.levels=[9]", "restorer.walk.start_levels = 8"),
        ("thor", "restorer.walk.start_levels=41", "restorer.diffusion.levels = 40"),
        ("consensus", "restorer.sigma=-1", "0 to 64"),
        ("stitched", "restorer.repaint.level=40", "1 to 39"),
        ("stitched", "restorer.repaint.repeats=0", "1 to 100"),
        ("guided", "restorer.walk.start_levels=41", "restorer.diffusion.levels = 40"),
        ("guided", "restorer.guidance.scale=-1", "0 to 10000"),
        ("guided", "restorer.classifier.attention.heads=0", "1 to 64"),
        ("patched", "restorer.patches.side=17", "canvas.size = 16"),
        ("patched", "restorer.patches.stride=9", "restorer.patches.stride = 9"),
        ("ct-patched", "restorer.windows.side=32", "canvas.size = 16"),
        ("ct-patched", "restorer.network.ct.heads=3", "heads = 3"),
        ("conditioned", "restorer.encoder.layers=[]", "1 to 4"),
        ("autoencoder", "restorer.network.width=12", "multiple of 8"),
        ("autoencoder", "restorer.network.levels=6", "32 divides"),
        ("latent", "restorer.autoencoder.levels=5", "2 divides"),
        ("spark", "restorer.hidden=1", "below 1"),
        ("spark", "canvas.size=18", "canvas.size = 18"),
        ("fanogan", "canvas.size=20", "size 20"),
        ("fpgan", "restorer.critic.layers=9", "layers = 9"),
        ("bright-area", "restorer.level=2", "0 to 1"),
        ("z-score", "restorer.floor=0", "above 0"),
    ],
)
def test_so_is_one_of_any_method(method, assignment, said):
    refused(lambda: recipe(assignment, method=method).checked(), said)


def test_costs_that_no_machine_bears_are_refused_before_memory_is_taken():
    refused(
        lambda: recipe(
            "restorer.walk.draws=1000", "restorer.walk.start_levels=[40,39,38,37,36,35,34,33]"
        ).checked(),
        "network calls",
    )
    refused(
        lambda: recipe(
            "restorer.network.width=1024", "restorer.network.multipliers=[32]"
        ).checked(),
        "parameters",
    )


def test_one_image_is_no_batch_for_batch_norm_on_one_pixel():
    settings = ("canvas.size=16", "restorer.encoder.layers=[1,1,1]")
    refused(
        lambda: recipe(*settings, "training.batch=1", method="conditioned").checked(),
        "training.batch = 1",
    )
    recipe(*settings, "training.batch=2", method="conditioned").checked()


def test_python_calls_are_checked_alike():
    from pseudohealthy.networks import UNet
    from pseudohealthy.restorers.ddpm import Ddpm

    refused(lambda: Canvas(size=0), "canvas.size = 0", "4 to 2048")
    refused(lambda: AnomalyMap(quantile=1.5), "map.quantile = 1.5")
    refused(lambda: Budget(batch=0), "training.batch = 0")
    refused(lambda: Ddpm(size=16, channels=1, walk={"draws": 0}), "Ddpm.walk.draws = 0")
    refused(lambda: UNet(width=7), "UNet.width = 7")
    refused(lambda: Recipe("x", restorer={"name": ["ddpm"]}).resolved(), "restorer.name")


def test_a_number_of_thousands_of_digits_is_refused_in_one_line():
    digits = "0x" + "f" * 5000
    refused(
        lambda: recipe(f"restorer.walk.draws={digits}").checked(),
        "restorer.walk.draws",
        "thousands of digits",
    )
    refused(lambda: recipe(f"training.rate={digits}").checked(), "training.rate")


# -- flags -----------------------------------------------------------------------------------------
def test_every_number_that_a_command_takes_has_a_bound():
    from pseudohealthy.cli import COMMANDS
    from pseudohealthy.commands.words import words_of

    numbers = [
        (name, word)
        for name, cls in COMMANDS.items()
        for word in words_of(cls)
        if word.of in (int, float)
    ]
    assert len(numbers) > 10
    assert [
        (name, w.name) for name, w in numbers if w.arg.least is None and w.arg.above is None
    ] == []


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "-0.5", "otsuu", "1e400", "0,5", ""])
def test_a_threshold_that_no_map_can_have_is_refused(value):
    fault = refused(lambda: threshold_of(value), "threshold")
    assert fault.code == "THRESHOLD" and ("otsu'?" in fault.cure) == (value == "otsuu")


def test_a_threshold_that_a_map_can_have_is_taken():
    assert [threshold_of(value) for value in ("stored", "otsu", "0", "0.25", 3, 1e-9)] == [
        "stored",
        "otsu",
        0,
        0.25,
        3,
        1e-9,
    ]


def test_a_detector_needs_a_batch(tiny_run):
    from pseudohealthy.detection.detector import load

    refused(lambda: load(tiny_run, device="cpu", batch=0), "batch = 0")
    refused(
        lambda: load(tiny_run, device="cpu", settings=["restorer.draws=0"]),
        "restorer.walk.draws = 0",
    )
    refused(lambda: load(tiny_run, device="cpu", settings=["map.median=17"]), "map.median = 17")


def test_all_values_of_a_sweep_are_checked_before_the_first_is_tried(tiny_run, tmp_path):
    from pseudohealthy.workflows.sweep import sweep

    for over in (
        "restorer.walk.start_levels=5,51",
        "restorer.walk.draws=1,0",
        "map.quantile=0.9,1.5",
        "map.median=3,17",
        "map.smooth=0,nan",
    ):
        refused(
            lambda over=over: sweep(tiny_run, tmp_path / "nowhere", [over], tmp_path / "out"),
            over.split("=")[0],
        )
    assert not (tmp_path / "out").exists()


def test_the_page_of_settings_is_what_the_signatures_say():
    path = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
    assert path.read_text(encoding="utf-8") == page(), (
        "run: PYTHONPATH=src python tests/settings_page.py > docs/settings.md"
    )
