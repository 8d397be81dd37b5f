"""Published preprocessing by name: the numbers of the papers on the volumes of the papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.published import PUBLISHED, expanded
from pseudohealthy.runs.recipe import Recipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "preprocessing.md"
RECIPES = {
    "behrendt": ("pddpm-ixi", "cddpm-ixi", "ddpm-ixi", "spark-ixi"),
    "thor": ("thor-atlas",),
    "wolleb": ("wolleb-brats",),
    "anoddpm": ("anoddpm-nfbs",),
}


def fitted(name: str, shape: tuple[int, int, int], channels: int = 1, **changes):
    values = np.random.default_rng(0).random((channels, *shape), dtype=np.float32) + 0.5
    canvas = Recipe(
        name, canvas={"preprocess": name, "channels": channels, **changes}
    ).make_canvas()
    return canvas, canvas.fit(
        Scan.from_array(values, affine=np.eye(4)), brain_mask=np.ones(shape, bool)
    )


def test_behrendt_is_96_pixels_of_2_mm_and_the_middle_100_mm():
    canvas, found = fitted("behrendt", (140, 160, 170))
    assert found.placement.sides == (192, 192) and found.planes.shape[1:] == (1, 96, 96)
    assert found.chosen.sum() == 100 and canvas.step == 2 and found.chosen[20:120].all()
    assert (found.placement.low[0], found.placement.high[0]) == pytest.approx(
        (0.51, 1.49), abs=0.01
    )


def test_thor_is_a_233_mm_square_and_plane_95_of_189():
    _, found = fitted("thor", (189, 233, 197))
    assert found.placement.sides == (233, 233) and np.flatnonzero(found.chosen).tolist() == [95]
    assert found.placement.low == (0,) and found.placement.high[0] == pytest.approx(1.48, abs=0.01)


def test_wolleb_pads_240_to_256_and_takes_planes_80_to_128():
    _, found = fitted("wolleb", (155, 240, 240), size=256)
    assert (
        found.placement.sides == (256, 256)
        and found.chosen.sum() == 49
        and found.foreground[80:129].any()
    )
    assert not found.foreground[79].any() and found.placement.low == (0,)


def test_anoddpm_clips_by_deviations_in_coronal_planes():
    canvas, found = fitted("anoddpm", (256, 192, 256), size=32)
    assert canvas.plane == "coronal" and np.flatnonzero(found.chosen)[[0, -1]].tolist() == [40, 100]
    assert (found.placement.low[0], found.placement.high[0]) == pytest.approx(
        (1 - 0.289, 1 + 0.577), abs=0.01
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_recipes_use_it_and_a_run_writes_it_out(name):
    for recipe in map(Recipe.load, RECIPES[name]):
        assert recipe.canvas["preprocess"] == name
        resolved = recipe.resolved().canvas
        assert (
            "preprocess" not in resolved
            and {k: resolved[k] for k in PUBLISHED[name]} == PUBLISHED[name]
        )


def test_what_is_written_beside_a_name_wins_and_an_unknown_name_is_refused():
    assert expanded({"preprocess": "thor", "size": 64})["size"] == 64 and expanded({"size": 3}) == {
        "size": 3
    }
    with pytest.raises(Fault, match="behrendt"):
        expanded({"preprocess": "behrend"})


def test_stripping_blackens_what_is_outside_the_mask_and_the_twin_keeps_it():
    values = np.random.default_rng(0).random((1, 2, 20, 20), dtype=np.float32)
    mask = np.zeros((2, 20, 20), bool)
    mask[:, 5:15, 5:15] = True
    canvas = Recipe("x", canvas={"size": 20, "strip": True, "normalise": "unit"}).make_canvas()
    scan = Scan.from_array(values)
    found = canvas.fit(scan, brain_mask=mask)
    assert (found.planes[:, 0][~found.foreground] == -1).all() and found.planes[:, 0][
        found.foreground
    ].min() > -1
    assert canvas.healthy(scan, found.planes, found).tobytes() == scan.voxels.tobytes()


def test_the_page_names_every_name_and_commands_that_feed_each_other():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in PUBLISHED)
    assert all(recipe in text for recipes in RECIPES.values() for recipe in recipes)
    made = text[text.index("```bash") :]
    for file in (
        "work/IXI002_1mm.nii.gz",
        "stripped/IXI002.nii.gz",
        "stripped/IXI002_bet.nii.gz",
        "reg/IXI002_0GenericAffine.mat",
        "reg/IXI002_Warped.nii.gz",
        "reg/IXI002_brain.nii.gz",
    ):
        assert made.count(file) >= 2, file
    header = text[text.index("```csv") :].split("\n")[1]
    assert header == "case_id,patient_id,split,label,image,mask,brain_mask,site"
