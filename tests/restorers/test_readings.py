"""What was restored once is read in many ways; a method's own scores and spreads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.restorers.apply import Applied, How, Stack, apply, read, restorations
from pseudohealthy.restorers.base import HealthyResiduals, Restoration, Restorer
from small import small_recipe

CPU = torch.device("cpu")


class OwnScores(Restorer):
    """Scores a plane by its first pixel, and changes nothing."""

    def restore(self, images, draw):
        return Restoration(
            images, map=torch.zeros_like(images[:, 0]), score=images[:, 0, 0, 0].float()
        )


def test_a_methods_own_score_of_a_volume_is_the_mean_over_its_counted_planes():
    planes, inside = torch.zeros(4, 1, 8, 8), torch.ones(4, 8, 8, dtype=torch.bool)
    planes[:, 0, 0, 0] = torch.tensor([0.1, 0.5, -0.9, 0.8])
    case = Stack(planes, inside, range(4), torch.tensor([True, True, False, True]))
    (found,) = apply(
        OwnScores(size=8, channels=1), AnomalyMap(), [case], How(seed=0, device=torch.device("cpu"))
    )
    assert found.score == pytest.approx((0.1 + 0.5 + 0.8) / 3)
    assert found.plane_scores == pytest.approx([0.1, 0.5, -0.9, 0.8])


def volumes_of(*numbers: int) -> list[Stack]:
    """Noisy volumes of so many planes, of which the first has no foreground."""
    random = torch.Generator().manual_seed(0)
    found = []
    for number in numbers:
        inside = torch.ones(number, 16, 16, dtype=torch.bool)
        inside[0] = False
        found.append(
            Stack.whole(
                torch.randn(number, 1, 16, 16, generator=random).clamp(-1, 1), inside, range(number)
            )
        )
    return found


def same(one: Applied, other: Applied) -> bool:
    parts = [
        torch.equal(one.healthy, other.healthy),
        torch.equal(one.maps, other.maps),
        one.score == other.score,
    ]
    return (
        all(parts)
        and np.array_equal(one.plane_scores, other.plane_scores)
        and one.score_sd == other.score_sd
    )


def test_what_was_restored_once_is_read_in_many_ways_to_the_last_bit(monkeypatch):
    restorer = small_recipe("ddpm").set(["restorer.walk.draws=3"]).make_restorer().eval()
    cases = volumes_of(5, 2)
    how = How(seed=4, device=CPU, batch=3)
    ways = [AnomalyMap(), AnomalyMap(smooth=2.0), AnomalyMap(kind="positive", erode=2)]
    apart = [apply(restorer, amap, cases, how) for amap in ways]
    parts = [part.kept() for part in restorations(restorer, cases, how)]
    monkeypatch.setattr(type(restorer), "restore", lambda *_: pytest.fail("restored again"))
    for amap, wanted in zip((*ways, *reversed(ways)), (*apart, *reversed(apart)), strict=True):
        assert all(map(same, read(restorer, amap, cases, parts), wanted))
    assert not all(map(same, apart[0], apart[1])), "the ways differ"
    assert all(
        torch.equal(case.planes, other.planes)
        for case, other in zip(cases, volumes_of(5, 2), strict=True)
    )


def test_draws_are_left_out_of_what_was_restored_and_of_nothing_that_is_kept():
    restorer = small_recipe("ddpm").set(["restorer.walk.draws=3"]).make_restorer().eval()
    cases = volumes_of(4)
    how = How(seed=4, device=CPU, spread=True)
    (wanted,) = apply(restorer, AnomalyMap(), cases, how)
    parts = list(restorations(restorer, cases, how))
    (found,) = read(restorer, AnomalyMap(), cases, parts, spread=True)
    assert same(found, wanted) and wanted.score_sd > 0
    (plain,) = read(restorer, AnomalyMap(), cases, [part.kept() for part in parts], spread=True)
    assert plain.score_sd is None and plain.score == found.score, (
        "the estimates of single draws take too much memory"
    )


def test_a_case_without_foreground_is_read_without_anything_restored(monkeypatch):
    restorer = OwnScores(size=16, channels=1)
    monkeypatch.setattr(restorer, "restore", lambda *_: pytest.fail("restored"))
    (case,) = volumes_of(1)
    (found,) = apply(restorer, AnomalyMap(), [case], How(seed=0, device=CPU))
    assert (
        torch.equal(found.healthy, case.planes)
        and found.score == 0
        and not found.maps.any()
        and not found.judged.any()
    )


def test_a_long_volume_is_read_while_it_is_restored():
    """One batch at a time is in memory."""
    order: list[str] = []

    class Heard(OwnScores):
        def restore(self, images, draw):
            order.append("restored")
            return super().restore(images, draw)

    class Read(AnomalyMap):
        def finish(self, *given):
            order.append("read")
            return super().finish(*given)

    apply(Heard(size=16, channels=1), Read(), volumes_of(7), How(seed=0, device=CPU, batch=3))
    assert order == ["restored", "read"] * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_healthy_spreads_do_not_grow_with_the_number_of_channels(channels):
    residuals = 0.2 * torch.randn(40, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    healthy = HealthyResiduals()
    healthy.add(residuals, torch.ones(40, 16, 16, dtype=torch.bool))
    for by in ("level", "pixel"):
        restorer = OwnScores(size=16, channels=channels)
        assert healthy.fill(restorer, by)
        assert restorer.residual_spread.mean().item() == pytest.approx(0.2, rel=0.15)
