"""What the pages of docs/methods and docs/how-to tell users to type exists, and the method they
show works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pseudohealthy import cli, datasets, registry, restorers, settings
from pseudohealthy.commands.finding import Detect
from pseudohealthy.commands.measuring import Compare, Evaluate, Sweep
from pseudohealthy.commands.training import ImportWeights, Prepare, Recipes, Train
from pseudohealthy.runs import recipe

pytestmark = pytest.mark.usefixtures("unpainted")

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted([*(DOCS / "methods").glob("*.md"), *(DOCS / "how-to").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
TORCHRUN = re.compile(r"^torchrun .*-m pseudohealthy ")


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page in one language; "" is what a user types."""
    return [
        text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language
    ]


def typed(page: Path) -> Iterator[str]:
    """Command lines of a page, continued ones in one piece."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            line = TORCHRUN.sub("pseudohealthy ", line.strip())
            if line.startswith("pseudohealthy "):
                yield line


LINES = [
    pytest.param(line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in typed(page)
]


def test_the_pages_are_there_and_tell_what_to_type():
    assert len(PAGES) >= 14 and len(LINES) >= 40


@pytest.mark.parametrize("line", LINES)
def test_every_line_parses_and_names_what_exists(line, monkeypatch):
    monkeypatch.setattr(cli, "load_file", lambda file: None)  # the page's file is not here
    names_what_exists(cli.parse(shlex.split(line, comments=True)[1:]))


@pytest.mark.parametrize(
    "line",
    [
        "train qiuck --data d --out o",
        "train quick --data d --out o --set map.smoth=1",
        "prepare lgh s --out o",
        "prepare lgg s --out o --set healthy=slice",
        "evaluate r --data d --out o --protocol strickt",
        "sweep r --data d --out o --over restorer.deep=1",
        "sweep r --data d --out o --over restorer.walk.start_levels=1 --protocol wolle",
        "sweep r --data d --out o --over a=1 --plot line",
        "detekt r i --out o",
        "detect r i --out o --kinds dicom",
    ],
)
def test_a_wrong_line_would_be_noticed(line):
    with pytest.raises((recipe.Fault, AssertionError)):
        names_what_exists(cli.parse(shlex.split(line)))


def names_what_exists(command: cli.Command) -> None:
    """Recipe, settings, data set, options and protocol of a parsed command."""
    from pseudohealthy.evaluation import protocols

    if isinstance(command, Train) and command.recipe and not command.recipe.endswith(".toml"):
        recipe.Recipe.load(command.recipe).set(command.set).resolved()
    elif isinstance(command, (Train, ImportWeights)):
        for text in command.set:
            known(text)
    elif isinstance(command, Recipes) and command.name:
        recipe.Recipe.load(command.name)
    elif isinstance(command, Prepare):
        assert command.dataset in datasets.REGISTRY
        datasets.options(command.dataset, command.set)
    elif isinstance(command, (Evaluate, Compare)):
        protocols.find(command.protocol)
    elif isinstance(command, Sweep):
        protocols.find(command.protocol)
        for text in command.over:
            known(text)
    elif isinstance(command, Detect):
        assert command.threshold in ("stored", "otsu") or float(command.threshold) >= 0


def known(text: str) -> None:
    """section.key=value of a run whose recipe the page does not name: some method has that
    setting."""
    from pseudohealthy.maps.anomaly_map import AnomalyMap
    from pseudohealthy.preprocessing.canvas import Canvas
    from pseudohealthy.runs.budget import Budget

    section, _, key = text.partition("=")[0].partition(".")
    classes: dict[str, list[Any]] = {"canvas": [Canvas], "map": [AnomalyMap], "training": [Budget]}
    classes["restorer"] = [restorers.restorer_class(name) for name in restorers.REGISTRY]
    keys = set().union(*(settings.settable(one) for one in classes[section]))
    keys |= {"preprocess"} if section == "canvas" else set()
    assert key.split(".")[0] in keys | {"sharpened", "blur"}, text


def test_every_method_has_a_row_and_every_recipe_its_figures():
    """The table of recipes holds what the program says: restorer, network calls and parameters."""
    import torch

    text = (DOCS / "methods" / "index.md").read_text(encoding="utf-8")
    assert [name for name in restorers.REGISTRY if f"`{name}`" not in text] == []
    rows = re.findall(
        r"^\| `([\w-]+)` \| `([\w-]+)` \| ([\d,]+) \| ([\d,]+) \|$", text, flags=re.MULTILINE
    )
    said = {name: (method, calls, parameters) for name, method, calls, parameters in rows}
    found = {}
    for name in recipe.names():
        with torch.device("meta"):
            restorer = recipe.Recipe.load(name).make_restorer()
        parameters = sum(
            p.numel()
            for part in restorer.parts()
            for p in restorer.get_submodule(part).parameters()
        )
        found[name] = restorer.name, f"{restorer.network_calls():,}", f"{parameters:,}"
    assert said == found


@pytest.fixture
def added(tmp_path) -> Iterator[Path]:
    """The page's method, registered as the page says, and the path of its recipe."""
    from pseudohealthy.restorers import REGISTRY

    page = DOCS / "how-to" / "add-a-method.md"
    (tmp_path / "sharpened.py").write_text(blocks(page, "python")[0], encoding="utf-8")
    (tmp_path / "sharpened.toml").write_text(blocks(page, "toml")[0], encoding="utf-8")
    yield tmp_path / "sharpened.toml"
    REGISTRY.remove("sharpened")
    for state in (registry.FILES, registry.LOADED, registry.GIVEN):
        state.clear()


def test_the_added_method_trains_and_finds_what_it_has_not_seen(added, pictures, tmp_path):
    """White squares on blobs: the program knows the new settings by name, and its map says more
    inside than outside."""
    import numpy as np
    from PIL import Image

    import pseudohealthy as ph
    from pseudohealthy.errors import Fault

    with pytest.raises(Fault, match="use --plugin"):
        recipe.Recipe.load(added)
    with pytest.raises(Fault, match="blur"):
        recipe.Recipe.load(added, plugins=True).set(["restorer.blurr=1"]).resolved()
    run = ph.train(
        str(added),
        pictures,
        tmp_path / "run",
        steps=40,
        batch=4,
        settings=["training.validate=40"],
        device="cpu",
    )
    assert ph.Recipe.load(run.folder / "recipe.toml").restorer["blur"] == 3.0
    detect = ph.load(run.folder, device="cpu")
    for path in sorted((pictures / "test" / "bad").iterdir())[:3]:
        finding = detect(path)
        mask = np.array(Image.open(pictures / "masks" / path.name)) > 0
        assert finding.map[0][mask].mean() > 2 * finding.map[0][~mask].mean()


@pytest.fixture
def from_python() -> Iterator[dict[str, Any]]:
    """What the blocks of the page define."""
    page: dict[str, Any] = {}
    for block in blocks(DOCS / "how-to" / "python.md", "python"):
        exec(block, page)
    yield page
    restorers.REGISTRY.remove("denoised")


def test_the_page_from_python_runs_as_it_stands(from_python, tmp_path):
    """A disc per image, a bright square in every other one, and a volume of discs."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]
    disc = np.clip(1.2 - np.hypot(rows, columns), 0, 1)
    images = (disc * rng.uniform(0.6, 1, (20, 1, 1)) + 0.02 * rng.random((20, 32, 32))).astype("f4")
    masks = np.zeros((6, 32, 32), bool)
    masks[::2, 10:16, 10:16] = True
    ill = images[14:] + 0.3 * masks
    volume = np.stack(list(images[:4]), 2)
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 3, 1])), tmp_path / "v.nii.gz")
    losses, figures, finding = from_python["study"](
        images[:14], ill, masks, tmp_path / "v.nii.gz", tmp_path / "out"
    )
    assert len(losses) == 50 and losses[-1]["network"] < losses[0]["network"]
    assert any(record.metric == "voxel_average_precision_pooled" for record in figures.records)
    assert (tmp_path / "out" / "compared" / "comparison.md").is_file()
    assert finding.map.shape == (4, 32, 32)
    stored = nib.load(next((tmp_path / "out" / "found").rglob("anomaly_map.nii.gz")))
    assert stored.shape == volume.shape and np.allclose(stored.affine, np.diag([2.0, 2, 3, 1]))
    stop = from_python["patient_stop"](1)
    assert [stop({"validation_loss_a": loss}) for loss in (3.0, 2.0, 2.5)] == [False, False, True]
