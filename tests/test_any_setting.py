"""Whatever a recipe says is carried out or refused in one line: any value of any setting, tried."""

from __future__ import annotations

import datetime
import math
import resource
import shutil
import tempfile
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from blobs import picture
from pseudohealthy import settings as module
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.interop import pretrained
from pseudohealthy.io.scan import Scan
from pseudohealthy.marks import Choice, Range
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.restorers.base import Batch
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.workflows.train import train
from small import small_recipe

PARAMETERS, CALLS = 500_000, 60  # beyond, settings are only checked here, and not tried


ANYTHING = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([10**400, 2**63, -(2**70)])
    | st.dates()
    | st.just(datetime.datetime(2026, 1, 1)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=2)
    ),
    max_leaves=6,
)


def edges(mark: Range) -> list[float]:
    """The ends of a range and what lies beside them, inside and out."""
    ends = [mark.low, mark.high, *mark.also]
    return [value + by for value in ends for by in (-1, 0, 1)] + [
        value * by for value in ends for by in (0.5, 2)
    ]


def usual(hint: Any) -> st.SearchStrategy:
    """Values of the annotated type, most of them small and in range."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        marks = [mark for mark in args[1:] if isinstance(mark, module.Mark)]
        if isinstance(marks[0], Choice):
            return st.sampled_from(marks[0].values)
        if isinstance(marks[0], Range):
            low, high = max(marks[0].low, 0), min(marks[0].high, 24)
            kind = (
                st.integers(math.ceil(low), math.floor(max(low, high)))
                if args[0] is int
                else st.floats(low, high)
            )
            return kind | st.sampled_from(
                [args[0](value) if abs(value) < 1e300 else value for value in edges(marks[0])]
            )
        return usual(args[0])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        inner = usual(args[0])
        return (
            st.lists(inner, max_size=3)
            if args[-1] is Ellipsis
            else st.lists(inner, min_size=len(args), max_size=len(args))
        )
    if args:
        return usual(next(arg for arg in args if arg is not type(None)))
    return {bool: st.booleans(), str: st.sampled_from(["", "nowhere", "brain", "40/80", "1/0"])}[
        hint
    ]


def all_settings(method: str) -> dict[str, Any]:
    """Annotation of every setting, by its name."""
    found: dict[str, Any] = {}

    def gather(cls: Any, where: str, hidden: Iterable[str] = ()) -> None:
        nested = module.tables(cls)
        for key in module.settable(cls, hidden):
            if key in nested:
                gather(nested[key], f"{where}.{key}", module.hidden_in(cls, key))
            else:
                found[f"{where}.{key}"] = module.hints(cls.__init__)[key]

    for section, cls in small_recipe(method).classes().items():
        gather(cls, section)
    return found


@st.composite
def changed(draw) -> Recipe:
    """A small recipe with one to three settings changed, mostly to values of their type."""
    method = draw(st.sampled_from(sorted(REGISTRY)))
    made, known = small_recipe(method), all_settings(method)
    for key in draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True)):
        section, *path, last = key.split(".")
        table = getattr(made, section)
        for part in path:
            table = table.setdefault(part, {})
        table[last] = draw(st.one_of(usual(known[key]), usual(known[key]), ANYTHING))
    return made


def three_steps(made: Recipe) -> None:
    """Train three steps and restore once. Faults as they come."""
    found = made.checked()
    canvas, budget, amap = found.make_canvas(), found.make_budget(), found.make_map()
    if not small(found):
        return
    images, foreground = fitted(canvas, budget.batch)
    torch.manual_seed(budget.seed)
    model = found.make_restorer().train()
    pretrained.begin(model)
    optimisers = {
        part: torch.optim.AdamW(
            model.get_submodule(part).parameters(),
            lr=budget.rate,
            betas=budget.betas,
            weight_decay=budget.weight_decay,
        )
        for part in model.parts()
    }
    for step in range(3):
        draw = Draw(budget.seed, [("train", step, item) for item in range(budget.batch)])
        labels = torch.arange(budget.batch) % 2 if model.uses_labels else None
        for part, optimiser in optimisers.items():
            optimiser.param_groups[0]["lr"] = budget.rate_at(step, 3)
            model.loss(Batch(images, foreground, labels, draw), part).mean().backward()
            optimiser.step()
            model.zero_grad(set_to_none=True)
    with torch.no_grad():
        restored = model.eval().restore(
            images[:2], Draw(budget.seed, [("case", item) for item in range(len(images[:2]))])
        )
        if restored.map is None:
            restored.map = amap.residual_map(images[:2], restored.healthy.float(), foreground[:2])
        maps = amap.along(
            amap.finish(restored.map.float(), images[:2], foreground[:2]),
            foreground[:2],
            [0, 1][: len(images)],
        )
        amap.score_of(maps, amap.inside(foreground[:2]))


def small(found: Recipe) -> bool:
    """Whether it can be tried here, in seconds and megabytes."""
    canvas, budget = found.make_canvas(), found.make_budget()
    with torch.device("meta"):
        model = found.make_restorer()
    copies = model.network_calls() * budget.batch * canvas.size**2 * canvas.channels
    return (
        sum(p.numel() for p in model.parameters()) < PARAMETERS
        and model.network_calls() < CALLS
        and copies < 2**21
    )


def fitted(canvas: Canvas, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(images (B, C, S, S), foreground (B, S, S)) of pictures, and a volume, that the canvas takes
    or refuses."""
    voxels = (
        np.random.default_rng(0).uniform(0, 200, (canvas.channels, 3, 18, 21)).astype(np.float32)
    )
    if canvas.normalise == "window":
        voxels = voxels[:1]
    there = canvas.fit(Scan.from_array(voxels, affine=np.diag([2.0, 1, 1, 1])))
    canvas.undo(there.planes, there.placement)
    rows = torch.arange(count) % len(there.planes)
    return there.planes[rows], there.foreground[rows]


def carried_out_or_refused(made: Recipe) -> None:
    try:
        three_steps(made)
    except Fault as fault:
        assert fault.exit in (2, 3) and "\n" not in str(fault), fault
        # Of this very image.
        assert fault.exit == 2 or fault.code in ("SPACING", "CONSTANT_IMAGE", "RANGE"), fault
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20, "more than 4 GiB"


@given(changed())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_value_of_any_setting_is_carried_out_or_refused(made):
    carried_out_or_refused(made)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(changed())
@settings(
    max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False
)
def test_many_more_values_of_any_setting_are_carried_out_or_refused(made):
    carried_out_or_refused(made)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(changed())
@settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=False
)
def test_the_command_carries_any_value_out_or_refuses_it_and_leaves_nothing(both_labels, made):
    """The same through `train` itself, with validation, threshold and model card."""
    try:
        fits = small(made.checked())
    except Fault:
        fits = True  # which `train` has to say as well
    if not fits:
        return
    folder = Path(tempfile.mkdtemp()) / "deep" / "run"
    try:
        assert (
            train(made, both_labels, folder, steps=3, device="cpu").record["status"] == "finished"
        )
    except Fault as fault:
        assert fault.exit == 2 and not folder.parent.exists(), fault
    shutil.rmtree(folder.parents[1])


@pytest.fixture(scope="module")
def both_labels(tmp_path_factory) -> Path:
    """Blobs with and without a square in training and validation, so that every method can
    learn."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows = ["case_id,patient_id,image,label,split"]
    for number in range(24):
        image, _ = picture(rng, bright=bool(number % 2))
        Image.fromarray(image).save(root / f"{number}.png")
        rows.append(
            f"c{number},p{number},{number}.png,{number % 2},{'train' if number < 16 else 'val'}"
        )
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root
