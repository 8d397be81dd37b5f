"""Every command line of docs/methods and docs/claims.md runs as it is written, on made-up data.

The pages are read, so a new line is run as soon as it stands there. The lines of a page run one
after another in a folder of their own, as a reader types them; what a line names and no earlier
line has made, `MADE` makes under that name. Long trainings are shortened and this is all that is
changed: `--steps 2 --batch 2`, networks of a few channels, walks of two calls, two draws and images
of 64 pixels at most are appended (`shortened`). A line that can only be parsed stands in
`PARSED_ONLY` with its reason. docs/ct.md has a test of its own.
"""

from __future__ import annotations

import copy
import csv
import functools
import importlib.util
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudohealthy import cli
from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.commands.measuring import Compare, Evaluate, Sweep
from pseudohealthy.commands.training import Prepare, Train
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers import restorer_class
from pseudohealthy.runs.migration import leaves
from pseudohealthy.runs.recipe import Recipe, toml_value
from pseudohealthy.settings import ranges, settable, tables
from small import NETWORKS, merged
from test_howto import typed

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs"
PAGES = [*sorted((DOCS / "methods").glob("*.md")), DOCS / "claims.md"]
INLINE = re.compile(r"(?<!`)`(pseudohealthy [^`\n]+)`(?!`)")
WORDS = {"NAME": "quick"}  # placeholders for which any name of the kind does
PARSED_ONLY: dict[str, str] = {}  # line -> why it cannot run here


def lines(page: Path) -> list[str]:
    """Command lines of a page in order: of its blocks, then inside its sentences; each once."""
    inline = INLINE.findall(
        re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    return list(dict.fromkeys([*typed(page), *inline]))


WITH_LINES = [page for page in PAGES if lines(page)]
# Above 20 s of one core each.
SLOW = {"baselines", "ct-patched", "conditioned", "consensus", "ddpm", "guided", "patched", "thor"}
MARKED = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW else [])
    for page in WITH_LINES
]


def test_the_pages_hold_commands_and_no_reason_is_left_over():
    found = [line for page in WITH_LINES for line in lines(page)]
    assert len(found) >= 45 and [line for line in PARSED_ONLY if line not in found] == []
    assert len(PARSED_ONLY) < len(found) / 4 and {page.stem for page in WITH_LINES} >= SLOW


@pytest.mark.parametrize("page", MARKED)
def test_every_command_of_a_page_runs_as_it_is_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pseudohealthy.metrics.bootstrap.RESAMPLES", 100)
    for line in lines(page):
        command = cli.parse(
            [WORDS.get(word, word) for word in shlex.split(line, comments=True)[1:]]
        )
        if line in PARSED_ONLY:
            continue
        provide(line, page.stem)
        if isinstance(command, Train) and command.recipe:
            command = shortened(command)
        try:
            code = command.start()
        except Exception as error:
            pytest.fail(f"{line}\n{type(error).__name__}: {error}")
        assert code == 0, line
        left(command, line)


def provide(line: str, page: str) -> None:
    """Make what a line names and no earlier one has made."""
    for word in re.split(r"[\s=,|\"']+", line):
        if Path(word).exists() or f"--out {word}" in line:
            continue
        if word in TRAINED:
            provide(TRAINED[word], page)
            assert shortened(cli.parse(shlex.split(TRAINED[word]))).start() == 0
        elif make := MADE.get(f"{word} of {page}", MADE.get(word)):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            make(Path(word))


def shortened(command: Train) -> Train:
    """The same training in two steps of two images, with a small network and walks of two calls."""
    recipe = Recipe.load(command.recipe or "").set(command.set)
    cls = restorer_class(recipe.restorer["name"])
    published = recipe.restorer.get("quirks") == "published"
    keys = ranges(cls, "restorer")
    found = ["restorer.walk.calls=2"] if "restorer.walk.calls" in keys and not published else []
    found += ["restorer.walk.draws=2"] if "restorer.walk.draws" in keys else []
    if not recipe.canvas.get("preprocess") and recipe.canvas["size"] > 64:
        found.append("canvas.size=64")
    if "restorer.windows.side" in keys:  # 4 windows of a slice instead of 49
        found += ["restorer.windows.side=32", "restorer.windows.stride=32"]
        found += ["restorer.walk.start_levels=[2]"] if published else []
    networks = {
        f"{key}.{name}": inner
        for key, cls in cls.nested.items()
        for name, inner in tables(cls).items()
    } | cls.nested
    for key, network in networks.items():
        small = copy.deepcopy(NETWORKS.get(network.__name__, {}))
        if "attention" in settable(network):
            given = functools.reduce(
                lambda table, name: table.get(name, {}), key.split("."), recipe.restorer
            )
            headed = given.get("attention", {}).get("head_channels")
            small = merged(
                small, {"attention": {"at": ()} | ({"head_channels": 16} if headed else {})}
            )
        small |= {"stem": 4} if network is UNet else {}
        found += [
            f"restorer.{key}.{'.'.join(path)}={toml_value(value)}" for path, value in leaves(small)
        ]
    given = [text.partition("=")[0] for text in command.set]
    found = [text for text in found if text.partition("=")[0] not in given]
    return replace(command, steps=2, batch=2, epochs=None, set=(*command.set, *found))


def left(command: cli.Command, line: str) -> None:
    """What a command is for lies in its folder."""
    out: Any = getattr(command, "out", None)
    if isinstance(command, Prepare) and out:
        with (out / "manifest.csv").open() as stream:
            assert list(csv.DictReader(stream)), line
    elif isinstance(command, Evaluate):
        records = json.loads((out / "metrics.json").read_text())
        own = [
            r
            for r in records
            if r["protocol"].startswith(command.protocol) and not r["method"].startswith("control")
        ]
        assert own and (out / "report.html").is_file(), f"{line}\nmeasures nothing"
    elif isinstance(command, Compare):
        assert json.loads((out / "comparison.json").read_text())["records"], line
    elif isinstance(command, Sweep):
        assert len((out / "sweep.csv").read_text().splitlines()) > 2, line
    elif out:
        assert any(out.iterdir()), line


# -- made-up data, under the names that the pages use ----------------------------------------------


def maker(name: str) -> ModuleType:
    """A file of tests with makers of small data."""
    spec = importlib.util.spec_from_file_location(f"makers_{Path(name).stem}", TESTS / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slices(folder: Path) -> None:
    """MR-like slices as pictures, healthy and diseased in every split, with masks."""
    rng = np.random.default_rng(1)
    for place, count in (
        ("train/good", 5),
        ("train/bad", 3),
        ("val/good", 4),
        ("val/bad", 2),
        ("test/good", 2),
        ("test/bad", 3),
    ):
        (folder / place).mkdir(parents=True)
        for number in range(count):
            volume, mask, _ = head(
                rng,
                shape=(6, 40, 40),
                lesion=0.35 if place.endswith("bad") else None,
                modality="MR",
            )
            plane = int(mask.sum((1, 2)).argmax()) if mask.any() else 3
            name = f"{place.replace('/', '-')}-{number}.png"
            Image.fromarray((volume[plane] / 800 * 255).clip(0, 255).astype(np.uint8)).save(
                folder / place / name
            )
            if mask.any():
                (folder / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask[plane].astype(np.uint8) * 255).save(folder / "masks" / name)


def heads(folder: Path) -> None:
    """CT heads, one a patient, two of them with a bleed and its mask."""
    rng = np.random.default_rng(2)
    for place, count in (("train/good", 2), ("val/good", 2), ("test/good", 1), ("test/bad", 2)):
        for number in range(count):
            volume, mask, affine = head(
                rng, shape=(4, 40, 40), lesion=0.35 if place.endswith("bad") else None
            )
            name = f"{place.replace('/', '-')}-{number}.nii.gz"
            (folder / place).mkdir(parents=True, exist_ok=True)
            nifti(folder / place / name, volume, affine)
            if mask.any():
                (folder / "masks").mkdir(exist_ok=True)
                nifti(folder / "masks" / name, mask.astype(np.uint8), affine)


def ixi(folder: Path) -> None:
    rng = np.random.default_rng(3)
    folder.mkdir()
    for number in range(12):
        volume, _, affine = head(rng, shape=(5, 36, 36), modality="MR")
        nifti(folder / f"IXI{number:03d}-Guys-{number:04d}-T1.nii.gz", volume, affine)


def brats(folder: Path) -> None:
    """The slices of Wolleb's preprocessing."""
    make = maker("datasets/test_wolleb_slices.py").slices
    for patient in range(1, 11):
        make(folder / "brats", "training", patient, 2, 10 * patient)
    make(folder / "brats", "testing", 20, 2, 300)


def wmh(folder: Path) -> None:
    rng = np.random.default_rng(7)
    for place in (
        folder / "training" / site / str(number)
        for site in ("Utrecht", "Singapore")
        for number in range(4)
    ):
        volume, mask, affine = head(rng, shape=(5, 36, 36), lesion=0.35, modality="MR")
        (place / "pre").mkdir(parents=True)
        for kind in ("T1", "FLAIR"):
            nifti(place / "pre" / f"{kind}.nii.gz", volume, affine)
        nifti(place / "wmh.nii.gz", mask.astype(np.uint8), affine)


def scan(path: Path) -> None:
    """A volume under a name that ends in .nii.gz, else a folder with one."""
    volume, _, affine = head(np.random.default_rng(4), shape=(5, 36, 36), modality="MR")
    if not path.name.endswith(".nii.gz"):
        path.mkdir()
        path /= "scan.nii.gz"
    nifti(path, volume, affine)


def sequences(folder: Path) -> None:
    """A folder with one scan of four sequences (C, D, H, W)."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    np.save(
        folder / "scan.npy",
        np.stack([head(rng, shape=(3, 36, 36), modality="MR")[0] for _ in range(4)]),
    )


def grey(path: Path, rng: np.random.Generator, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:side, :side] / side - rng.uniform(0.4, 0.6, (2, 1, 1))
    Image.fromarray(
        (180 * np.exp(-8 * (rows**2 + columns**2)) + rng.uniform(0, 40, (side, side))).astype(
            np.uint8
        )
    ).save(path)


def listed(folder: Path, name: str, rows: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text("\n".join(["filename", *rows]) + "\n")


def brain_lists(folder: Path) -> None:
    """The four lists of THOR with a list of masks, their images in data/ two folders above."""
    rng, lists = np.random.default_rng(5), dict[str, list[str]]()
    for name, count in (("ixi-t1_atlas_train_2D", 4), ("ixi-t1_val_2D", 3), ("ixi-t1_test_2D", 2)):
        first = 10 * len(lists)
        lists[name] = [f"./data/CAPS_IXI/png/sub-IXI{first + k:03d}_T1w.png" for k in range(count)]
    lists["atlas_train_png"] = [f"./data/ATLAS/png_128_sl_95/Atlas_train_{k}.png" for k in range(4)]
    for name, rows in lists.items():
        listed(folder, name, rows)
        for row in rows:
            grey(folder.parent.parent / row, rng)
    masks = [row.replace("png_128_sl_95", "masks") for row in lists["atlas_train_png"]]
    listed(folder, "atlas_train_mask_png", masks)
    for number, row in enumerate(masks):
        mask = np.zeros((40, 40), np.uint8)
        mask[12:22, 14 + number : 24 + number] = 255 * (number < 3)
        path = folder.parent.parent / row
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)


WRISTS = {"fracture": 2, "metal": 1}  # images of each finding


def wrist_lists(folder: Path) -> None:
    """Lists of THOR without masks; the images in data/ two folders above, the boxes in
    `GRAZPEDWRI`."""
    rng = np.random.default_rng(6)
    groups = {"train_normal": 4, "val_normal": 3, "test_normal": 2, **WRISTS}
    for first, (name, count) in enumerate(groups.items()):
        stems = [f"{first:02d}{k:02d}_1_01_WRI-L1_M014" for k in range(count)]
        listed(folder, name, [f"./data/wrist/pediatric/{stem}.png" for stem in stems])
        for stem in stems:
            grey(folder.parent.parent / f"data/wrist/pediatric/{stem}.png", rng)
        if name in WRISTS:
            listed(
                folder,
                f"{name}_ann",
                [f"./data/wrist/masks/{name}/{stem}_{name}_0.png" for stem in stems],
            )


def grazpedwri(folder: Path) -> None:
    """A miniature of GRAZPEDWRI-DX that holds the diseased images of `wrist_lists`, too."""
    box = ("text", 0, 0, 4, 3)
    rows: list[tuple] = [(f"{90 + k}00_1_01_WRI-L1_M014", (), [box]) for k in range(8)]
    for first, (name, count) in enumerate(WRISTS.items(), 3):
        for k in range(count):
            rows.append((f"{first:02d}{k:02d}_1_01_WRI-L1_M014", (), [box, (name, 10, 5, 22, 15)]))
    maker("datasets/test_public_radiographs.py").wrist(folder, rows)


def lpips(folder: Path) -> None:
    """Weights of the right names and shapes; what they say is nothing."""
    folder.mkdir()
    names = {
        name: tensor
        for name, tensor in Perceptual("squeeze").state_dict().items()
        if name != "ready"
    }
    generator = torch.Generator().manual_seed(0)
    torch.save(
        {k: torch.rand(v.shape, generator=generator) * 0.1 for k, v in names.items()},
        folder / "squeeze.pth",
    )


MADE: dict[str, Callable[[Path], None]] = {
    "mydata": slices,
    "digits": slices,
    "data/lgg": slices,
    "data/ct": heads,
    "IXI_FOLDER": ixi,
    "SOURCE": brats,
    "WMH_FOLDER": wmh,
    "SCAN": scan,
    "lists/thor-brain": brain_lists,
    "lists/thor-wrist": wrist_lists,
    "GRAZPEDWRI": grazpedwri,
    "LPIPS_FOLDER": lpips,
    "SCAN of guided": sequences,
    "data/ixi of claims": slices,
    **{f"{kind}.nii.gz": scan for kind in ("T1", "T1CE", "T2", "FLAIR")},
}
TRAINED = {  # by a line of another page
    f"runs/{name}": f"train {name}-ixi-small --data data/ixi --out runs/{name}"
    for name in ("ddpm", "cddpm")
}
