"""`map.across`: a map smoothed along the planes of its volume, where it is made, stored and
checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.io import read
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.train import train
from pseudohealthy.workflows.verification import AGREES
from pseudohealthy.workflows.verify import verify

FULL = torch.ones(9, 8, 8, dtype=torch.bool)


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Path:
    """A training and a healthy validation head."""
    root, rng = tmp_path_factory.mktemp("heads"), np.random.default_rng(3)
    for place in ("train/good/a", "val/good/b"):
        volume, _, affine = head(rng, shape=(6, 32, 32))
        (root / place).parent.mkdir(parents=True)
        nifti(root / f"{place}.nii.gz", volume, affine)
    return root


@pytest.fixture(scope="module")
def run(heads, tmp_path_factory) -> Run:
    """The residual to the mean head, smoothed along the planes."""
    canvas = {"size": 32, "normalise": "window", "windows": ["brain"], "foreground": "head-ct"}
    recipe = Recipe(
        "heads",
        canvas=canvas,
        restorer={"name": "healthy-mean"},
        training={"batch": 2},
        map={"across": 0.8},
    )
    return train(recipe, heads, tmp_path_factory.mktemp("runs") / "across", device="cpu")


def test_away_from_the_ends_it_is_the_usual_filter():
    maps = torch.rand(9, 8, 8, generator=torch.Generator().manual_seed(0))
    found = AnomalyMap(across=1.0).along(maps, FULL, range(9))
    usual = ndimage.gaussian_filter1d(maps.double().numpy(), 1.0, axis=0, truncate=3.0)
    np.testing.assert_allclose(found[3:6], usual[3:6], atol=1e-6)


def test_what_shows_in_neighbours_stays_and_an_accident_of_one_plane_fades():
    maps = torch.zeros(9, 8, 8)
    maps[2:7, 1, 1], maps[4, 6, 6] = 1.0, 1.0
    found = AnomalyMap(across=1.0).along(maps, FULL, range(9))
    assert found[4, 1, 1] > 0.95 and found[4, 6, 6] < 0.45


def test_missing_planes_count_by_their_distance():
    maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    far = AnomalyMap(across=1.0).along(maps, FULL[:3], [0, 1, 9])
    assert torch.equal(far[2], maps[2])  # nothing within three sigma
    pair = AnomalyMap(across=1.0).along(maps[:2], FULL[:2], [4, 5])
    assert torch.allclose(far[:2], pair)


def test_planes_without_foreground_count_as_missing():
    """The first plane of a brain is not half as conspicuous for having air above it."""
    maps, inside = torch.rand(9, 8, 8, generator=torch.Generator().manual_seed(0)), FULL.clone()
    inside[:3], maps[:3] = False, 0.0
    found = AnomalyMap(across=1.0).along(maps, inside, range(9))
    assert torch.allclose(found[3:], AnomalyMap(across=1.0).along(maps[3:], FULL[3:], range(3, 9)))
    assert not found[:3].any()


def test_one_plane_or_no_sigma_changes_nothing_and_the_foreground_stays_the_limit():
    maps = torch.rand(9, 8, 8)
    assert AnomalyMap().along(maps, FULL, range(9)) is maps
    assert torch.equal(AnomalyMap(across=1.0).along(maps[:1], FULL[:1], [0]), maps[:1])
    inside = FULL.clone()
    inside[4, 2] = False
    assert not AnomalyMap(across=1.0).along(maps, inside, range(9))[4, 2].any()


def test_a_negative_sigma_is_refused_and_the_words_say_it():
    with pytest.raises(Fault, match=r"map\.across = -1"):
        AnomalyMap(across=-1)
    assert "sigma 0.8 along the planes" in AnomalyMap(across=0.8).describe()


def test_a_volume_is_smoothed_by_itself_whatever_its_company_and_batch(run, heads):
    """Neighbours in a batch are not neighbours in a head."""
    scans = [read(heads / place) for place in ("val/good/b.nii.gz", "train/good/a.nii.gz")]
    plain = [Detector(run, device="cpu", settings=["map.across=0"])(scan) for scan in scans]
    for batch in (4, 32):
        together = [*Detector(run, device="cpu", batch=batch).stream(scans)]
        for scan, one, without in zip(scans, together, plain, strict=True):
            alone = Detector(run, device="cpu")(scan)
            np.testing.assert_allclose(one.map, alone.map, atol=1e-6)
            assert np.abs(one.map - without.map).max() > 0.05
            assert "along the planes" in one.made["postprocessing"]
    rough, calm = (np.abs(np.diff(one.map, axis=0)).mean() for one in (plain[0], together[0]))
    assert calm < 0.8 * rough


def test_threshold_and_scores_are_of_maps_smoothed_alike(run, heads):
    """The stored quantile and the score of the healthy head are those of detecting it."""
    finding = Detector(run, device="cpu")(heads / "val/good/b.nii.gz")
    stored = run.read_json("threshold.json")
    plain = Detector(run, device="cpu", settings=["map.across=0"])(heads / "val/good/b.nii.gz")
    assert abs(plain.score - finding.score) > 0.02 * finding.score
    # The cache holds planes in half precision.
    assert stored["case_scores"] == pytest.approx([finding.score], rel=2e-3)
    values = finding.map[finding.foreground]
    assert np.mean(values > stored["value"]) == pytest.approx(0.01, abs=0.002)


def test_verify_restores_the_kept_case_the_same_way(run, heads):
    found = verify(run.folder, data=heads, device="cpu")
    assert next(check.result for check in found.checks if check.what == "validation case") == AGREES
