"""Analyses on numbers whose answer is known, and once on a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from pseudohealthy.evaluation.analyses import (
    contrast,
    divergence,
    healthy_in,
    strata,
    with_contrast,
)
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.restorers.apply import Applied
from pseudohealthy.workflows.analyse import analyse

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


def case(
    number: int, label: int, lesion: float = 0.0, size: int = 10, health: float = 0.1
) -> CaseResult:
    truth = np.zeros(100, bool)
    truth[: size if label else 0] = True
    scores = np.where(truth, lesion, health).astype(np.float32)
    return CaseResult(
        f"c{number}", f"p{number}", label, float(scores.max()), map=scores, truth=truth
    )


def test_divergence_is_that_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 400_000), rng.normal(0.5, 1, 400_000)
    assert divergence(first, second, bins=60).kl == pytest.approx(0.5**2 / 2, rel=0.05)
    wide = rng.normal(0, 2, 400_000)
    assert divergence(wide, first, bins=200).entropy_difference == pytest.approx(
        math.log(2), abs=0.02
    )


def test_the_published_difference_of_entropies_is_blind_where_the_divergence_is_not():
    low, high = np.repeat([0.0, 1.0], [9000, 1000]), np.repeat([0.0, 1.0], [1000, 9000])
    found = divergence(low, high)
    assert found.entropy_difference == pytest.approx(0, abs=1e-12) and found.kl > 0.5
    same = divergence(low, low)
    assert (same.kl, same.entropy_difference) == (0, 0)
    assert math.isfinite(divergence(np.zeros(5), np.zeros(5)).kl)


def test_healthy_in_tells_health_from_the_rest_and_the_lesion():
    found = healthy_in(
        [
            case(0, 0, health=0.02),
            case(1, 1, lesion=0.9, health=0.1),
            case(2, 1, lesion=0.7, health=0.3),
        ]
    )
    assert found["healthy"] == pytest.approx([0.02])
    assert found["outside"] == pytest.approx([0.1, 0.3]) and found["inside"] == pytest.approx(
        [0.9, 0.7]
    )


def test_contrast_changes_the_marked_tissue_only_and_by_the_power():
    planes = torch.tensor([[[[-1.0, 0.0], [0.5, 1.0]]]])
    where = torch.tensor([[[True, True], [False, True]]])
    changed = with_contrast(planes, 2.0, where)
    assert changed.flatten().tolist() == pytest.approx([-1, 2 * 0.25 - 1, 0.5, 1])
    assert torch.equal(with_contrast(planes, 1.0, where), planes)
    assert with_contrast(planes, 2.0)[0, 0, 1, 0] == pytest.approx(2 * 0.75**2 - 1)


def test_a_method_that_knows_the_healthy_image_answers_to_contrast():
    class Knowing:
        def apply(self, stacks):
            twins = [torch.zeros_like(stack.planes) for stack in stacks]
            return [
                Applied(
                    twin, (stack.planes - twin).abs().sum(1), np.ones(1, bool), np.zeros(1), 0.0
                )
                for stack, twin in zip(stacks, twins, strict=True)
            ]

    planes = torch.full((2, 1, 4, 4), 0.0)
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[:, :2] = True
    rows = contrast(Knowing(), planes, torch.ones_like(where), where, [0, 1], (0.3, 1.0, 2.0))
    inside = {row["contrast"]: row["inside"] for row in rows}
    assert (
        inside[1.0] == 0
        and inside[0.3] == pytest.approx(2 * 0.5**0.3 - 1)
        and inside[2.0] == pytest.approx(0.5)
    )
    assert all(row["outside"] == 0 for row in rows) and rows[1]["kl"] == 0 < rows[0]["kl"]


def test_strata_show_what_a_mean_hides():
    found = [case(n, 0) for n in range(6)]
    for n, size in enumerate((2, 3, 4, 10, 11, 12, 40, 41, 42)):
        found.append(case(10 + n, 1, lesion=0.9 if size > 5 else 0.05, size=size))
    sites = {c.case_id: "a" if i % 2 else "b" for i, c in enumerate(found)}
    rows = {row["stratum"]: row for row in strata(found, sites)}
    assert set(rows) == {"site a", "site b", "small lesions", "medium lesions", "large lesions"}
    assert rows["large lesions"]["image_auroc"] == 1 and rows["small lesions"]["image_auroc"] <= 0.5
    assert rows["large lesions"]["cases"] == 9 and rows["large lesions"]["anomalous"] == 3
    assert not any(name.startswith("site") for name in {r["stratum"] for r in strata(found, {})})


def test_analyses_of_a_run_are_written(tiny_run, pictures, tmp_path):
    result = analyse(tiny_run, pictures, tmp_path, device="cpu", limit=8)
    assert {path.name for path in tmp_path.iterdir()} == {
        "analyses.json",
        "analyses.html",
        "healthy_in.png",
        "mean.png",
        "histograms.png",
        "contrast.png",
        "intensities.csv",
        "intensities.json",
        "intensities.md",
        "intensities.png",
        "examples_oracle.png",
    }
    stored = json.loads((tmp_path / "analyses.json").read_text())
    assert (
        stored["healthy_in"].keys() == {"healthy", "outside", "inside"}
        and stored["histograms"]["kl"] > 0
    )
    assert [row["contrast"] for row in result["contrast"]] == [0.3, 0.7, 1.0, 1.5, 2.0]
    assert {(row["planes"], row["contrast"]) for row in stored["intensities"]} == {
        (kind, factor) for kind in ("without lesion", "with lesion") for factor in (0.5, 1.0, 2.0)
    }
    assert stored["conditioning"] == [] and len(stored["examples_oracle"]) == 3
