"""One image by all runs: which case, which plane, what each run made of it, and what its channels
are called."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudohealthy import load as load_run
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case
from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.compare import Comparison
from pseudohealthy.evaluation.example import Example, Pictures, channel_names
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.report import example as drawing
from pseudohealthy.workflows.compare import compare
from pseudohealthy.workflows.train import train


@pytest.fixture(scope="module")
def compared(
    tiny_run: Path, tiny, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("example")
    other = tiny(
        "canvas.size=24", "restorer.walk.calls=2", "training.steps=2", "training.validate=2"
    )
    runs = [tiny_run, train(other, pictures, folder / "large", device="cpu").folder]
    return compare(
        runs, pictures, folder / "out", device="cpu", resamples=20, batch=3
    ), folder / "out"


def test_the_case_with_the_largest_reference_is_shown_as_each_run_restored_it(
    compared, tiny_run, pictures
):
    result, out = compared
    sizes = {
        path.stem: int((np.asarray(Image.open(path)) > 0).sum())
        for path in (pictures / "masks").iterdir()
    }
    example = result.examples["blobs"]
    assert sizes[Path(example.case_id).stem] == max(sizes.values())
    assert example.channels == ["image"] and set(example.pictures) == {"tiny", "large"}
    assert [one.image.shape[-1] for one in example.pictures.values()] == [16, 24], (
        "each on its own canvas"
    )
    finding = load_run(tiny_run, device="cpu")(
        pictures / "test" / "bad" / f"{Path(example.case_id).stem}.png"
    )
    mine = example.pictures["tiny"]
    assert mine.reference.sum() > 0 and mine.threshold == pytest.approx(finding.threshold)
    assert np.allclose(mine.map, finding.map[0], atol=1e-5), "the very map that was measured"
    stored = json.loads((out / "comparison.json").read_text())["panels"]
    assert stored == [{"data": "blobs", "case": example.case_id, "plane": 0, "why": example.why}]
    assert (out / "panel.png").is_file() and "One test case by all runs" in (
        out / "report.html"
    ).read_text()


def test_a_named_case_is_shown_and_an_unknown_one_is_refused(tiny_run, pictures, tmp_path):
    name = next(case.case_id for case in load(pictures).split("test") if case.label == 0)
    result = compare([tiny_run], pictures, device="cpu", resamples=20, case=name)
    assert (
        result.examples["blobs"].case_id == name and result.examples["blobs"].why == "as asked for"
    )
    with pytest.raises(Fault, match="did you mean") as caught:
        compare([tiny_run], pictures, tmp_path / "out", device="cpu", case=name + "x")
    assert (caught.value.code, caught.value.exit) == ("CASE", 2) and not (tmp_path / "out").exists()


def reading(name: str, label: int, marked: int, planes: int = 3):
    mask = torch.zeros(planes, 4, 4, dtype=torch.bool)
    mask[1].view(-1)[:marked] = True
    fitted = SimpleNamespace(
        planes=torch.zeros(planes, 1, 4, 4), mask=mask, foreground=torch.ones_like(mask)
    )
    return SimpleNamespace(
        case=Case(name, name, "test", label, f"{name}.png"),
        truth=mask.numpy(),
        fitted=fitted,
        scan=SimpleNamespace(voxel_ml=None),
    )


def test_the_best_case_so_far_is_replaced_by_a_better_one_only():
    example = Example()
    canvas = Canvas(size=4)
    example.choose([reading("healthy", 0, 0)], canvas)
    assert (example.case_id, example.why) == ("healthy", "the first test case")
    example.choose([reading("sick", 1, 0), reading("small", 1, 3)], canvas)
    assert (example.case_id, example.plane, example.found) == ("small", 1, 1)
    example.choose([reading("smaller", 1, 2)], canvas)
    assert example.case_id == "small" and example.found is None
    example.choose([reading("equal", 1, 3), reading("large", 1, 9)], canvas)
    assert example.case_id == "large"


@pytest.mark.parametrize(
    "image, count, names",
    [
        (
            "|".join(f"a/brats_train_001_{k}_080_w.nii.gz" for k in ("t1", "t1ce", "t2", "flair")),
            4,
            ["t1", "t1ce", "t2", "flair"],
        ),
        ("x/one.png|y/one.png", 2, ["channel 1", "channel 2"]),
        ("rgb.png", 3, ["channel 1", "channel 2", "channel 3"]),
        ("one.png", 1, ["image"]),
    ],
)
def test_channels_are_called_by_what_tells_their_files_apart(image, count, names):
    assert channel_names(Case("c", "p", "test", 1, image), Canvas(size=8), count) == names


def test_windows_name_the_channels_of_ct():
    canvas = Canvas(size=8, channels=2, normalise="window", windows=("brain", "subdural"))
    assert channel_names(Case("c", "p", "test", 1, "a.nii.gz"), canvas, 2) == ["brain", "subdural"]


def test_runs_of_different_channels_stand_side_by_side(tmp_path):
    one, three = np.zeros((1, 16, 16), np.float32), np.zeros((3, 16, 16), np.float32)
    example = Example(case_id="c", planes=1, why="x", channels=["image"])
    example.pictures = {
        "one": Pictures(one, one, one[0], None, 0.4),
        "three": Pictures(three, three, one[0], None, 0.4),
    }
    with Image.open(drawing.draw(example, tmp_path / "panel.png")) as picture:
        assert picture.height > 1.2 * picture.width, (
            "a row for each of three channels and a map, three columns"
        )


def test_a_map_is_bright_by_its_threshold_and_every_channel_has_a_row(tmp_path):
    plane = np.zeros((4, 16, 16), np.float32)
    square = np.zeros((16, 16), np.float32)
    square[4:8, 4:8] = 1.0
    example = Example(case_id="$c_{", planes=1, why="x", channels=["a", "b", "c", "d"])
    example.pictures = {
        "loud": Pictures(plane, plane, square, square > 0, 0.4),
        "quiet": Pictures(plane, plane, square, None, 4.0),
    }
    path = drawing.draw(example, tmp_path / "panel.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    bright = np.abs(pixels - (252, 255, 164)).max(-1) <= 3
    third = pixels.shape[1] // 3
    assert bright[:, third : 2 * third].sum() > 300 and not bright[:, 2 * third + 20 :].any()
    assert pixels.shape[0] > 1.4 * pixels.shape[1], "four channels and a map, three columns"
    assert drawing.top(Pictures(plane, plane, square, None, 0.0)) == pytest.approx(
        np.quantile(square, 0.998)
    )
