"""Largest region, mid-line, and what two halves share."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy.maps.regions import largest_region_mass
from pseudohealthy.restorers.symmetry import mid_line, mirror_residual, mirrored

pytestmark = pytest.mark.usefixtures("unpainted")


def test_one_bleed_counts_more_than_many_specks_of_the_same_sum():
    maps = torch.zeros(3, 16, 16)
    maps[0, 4:8, 4:8] = 1.0
    maps[1, ::4, ::4] = 1.0
    inside = torch.ones(3, 16, 16, dtype=torch.bool)
    assert largest_region_mass(maps, inside, 0.5).tolist() == [16.0, 1.0, 0.0]


def test_regions_are_connected_over_corners_and_end_where_the_head_ends():
    maps = torch.eye(8)[None]
    inside = torch.ones(1, 8, 8, dtype=torch.bool)
    assert largest_region_mass(maps, inside, 0.5).item() == 8
    inside[:, 3] = False
    assert largest_region_mass(maps, inside, 0.5).item() == 4
    assert largest_region_mass(maps, inside, 1.0).item() == 0  # above, not at


def heads(*centres: int) -> torch.Tensor:
    """Rings about columns of a 64 px image, an eye on the left and none on the right."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    pictures = []
    for centre in centres:
        radius = torch.hypot((y - 32) / 26, (x - centre) / 20)
        picture = -1 + 1.0 * (radius < 1) + 1.0 * ((radius < 1) & (radius > 0.85))
        picture[28:34, centre - 12 : centre - 6] = 0.9
        pictures.append(picture)
    return torch.stack(pictures)[:, None]


@pytest.mark.parametrize("centre", [24, 31, 40])
def test_the_mid_line_is_found_wherever_the_head_lies_in_a_batch(centre):
    shifts = mid_line(heads(32, centre))
    assert shifts[1] == 2 * centre - 63
    images = heads(centre)
    images[:, :, 28:34] = images[:, :, 27:28]  # without the eye, mirroring changes nothing
    torch.testing.assert_close(mirrored(images + 1, shifts[1:]), images + 1)


def test_what_both_sides_have_goes_what_one_side_has_stays_and_casts_no_shadow():
    images, residual = heads(28), torch.zeros(1, 1, 64, 64)
    residual[..., 20:24, 28 - 10 : 28 - 6] = 0.5  # calcified on both sides
    residual[..., 20:24, 28 + 7 : 28 + 11] = 0.5
    residual[..., 40:44, 28 + 7 : 28 + 11] = 0.5  # a bleed
    left = mirror_residual(residual, images, sigma=0)
    assert left[..., 20:24, :].abs().max() == 0
    assert torch.equal(left[..., 30:, :], residual[..., 30:, :])
    smoothed = mirror_residual(residual, images, sigma=1.0)
    assert smoothed[..., 20:24, :].sum() < 0.5 * residual[..., 20:24, :].sum()
    assert (smoothed * residual >= 0).all() and (smoothed.abs() <= residual.abs()).all()


def test_opposite_signs_are_not_shared():
    images, residual = heads(28), torch.zeros(1, 1, 64, 64)
    residual[..., 20:24, 28 - 10 : 28 - 6], residual[..., 20:24, 28 + 7 : 28 + 11] = 0.5, -0.5
    assert torch.equal(mirror_residual(residual, images, sigma=0), residual)
