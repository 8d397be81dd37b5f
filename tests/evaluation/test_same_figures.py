"""What evaluate, compare and sweep measure stays what it was: figures.json is from before restoring
and reading were apart.

The methods have no network, so that another processor or version of torch gives the same figures.
After a change that means to change one: ``python tests/evaluation/test_same_figures.py >
tests/evaluation/figures.json``, and say why in the commit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from blobs import picture
from pseudohealthy.metrics import bootstrap
from pseudohealthy.workflows.compare import compare
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.sweep import sweep
from pseudohealthy.workflows.train import train
from small import small_recipe

STORED = Path(__file__).parent / "figures.json"


def data(root: Path) -> Path:
    """Blobs, some with a white square of less contrast than usual, so that no method is perfect."""
    rng = np.random.default_rng(5)
    for place, count in (
        ("train/good", 12),
        ("val/good", 5),
        ("val/bad", 4),
        ("test/good", 6),
        ("test/bad", 6),
    ):
        (root / place).mkdir(parents=True)
        for number in range(count):
            image, mask = picture(rng, bright=place.endswith("bad"))
            name = f"{place.replace('/', '-')}-{number}.png"
            image = np.where(mask, image // 3 + 40, image).astype(np.uint8)
            Image.fromarray(image).save(root / place / name)
            if mask.any():
                (root / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / name)
    return root


def trained(name: str, images: Path, folder: Path, *settings: str) -> Path:
    recipe = small_recipe(name).set(
        ["canvas.normalise=range", "canvas.value_range=[0, 255]", *settings]
    )
    return train(recipe, images, folder, device="cpu").folder


def figures(root: Path) -> dict[str, dict[str, list[float]]]:
    """value and ends of the interval, by what measured and by method and metric."""
    images = data(root / "blobs")
    others = root / "blobs-without"  # of what is validated on no figure may be
    for place in ("train", "val"):
        (others / place).mkdir(parents=True)
        (others / place / "good").symlink_to(images / place / "good")
    mean = trained("healthy-mean", others, root / "mean", "map.smooth=1.0")
    score = trained("z-score", others, root / "score", "map.smooth=0.5", "canvas.size=24")
    again = {"device": "cpu"}
    compared = compare([mean, score], images, resamples=100, **again)
    (ours,), (best,) = compared.evaluations.values(), compared.against_best.values()
    swept = sweep(
        mean,
        images,
        ["map.smooth=0,2", "map.kind=absolute,positive"],
        resamples=100,
        allow_leak=True,
        **again,
    )
    weights = bootstrap.weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bootstrap,
            "weights",
            lambda patients, n=100, *more: weights(patients, min(n, 100), *more),
        )
        evaluated = {
            name: evaluate(mean, images, protocol=name, **again).records
            for name in ("strict", "behrendt")
        }
    measured = {
        **evaluated,
        "compare": ours.records,
        "compare, to the best run": best,
        **{
            f"sweep {'; '.join(swept.settings(place))}": group
            for place, group in swept.records.items()
        },
    }
    return {
        what: {
            f"{r.method}: {r.metric}": [
                round(float(number), 6) for number in (r.value, *(r.ci95 or ()))
            ]
            for r in group
            if not r.is_control or "z-score" in r.method
        }
        for what, group in measured.items()
    }


@pytest.mark.usefixtures("unpainted")
def test_every_figure_is_what_it_was(tmp_path):
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    found = figures(tmp_path)
    assert found.keys() == stored.keys()
    for what, group in found.items():
        assert list(group) == list(stored[what]), what
        for name, numbers in group.items():
            assert numbers == pytest.approx(stored[what][name], abs=1e-5), (what, name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        stdout, sys.stdout = sys.stdout, sys.stderr
        measured = figures(Path(folder))
        sys.stdout = stdout
        lines = ",\n".join(
            f" {json.dumps(what)}: {{\n"
            + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in group.items())
            + "\n }"
            for what, group in measured.items()
        )
        print("{\n" + lines + "\n}")
