"""Augmentation moves images and foregrounds alike, by item, and brings in nothing but the low
value."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.training.augment import augment

KEYS = [("case", number) for number in range(24)]


def blocks(count: int = len(KEYS)) -> tuple[torch.Tensor, torch.Tensor]:
    """A white block left of the middle on black, (B, 1, 32, 32), and where it is."""
    foreground = torch.zeros(count, 32, 32, dtype=torch.bool)
    foreground[:, 10:24, 6:16] = True
    return torch.where(foreground, 1.0, -1.0)[:, None], foreground


@pytest.mark.parametrize("kind", ["none", "flip", "affine", "strong"])
def test_the_foreground_goes_where_the_image_goes(kind):
    images, foreground = augment(*blocks(), kind, Draw(0, KEYS))
    assert images.shape == (24, 1, 32, 32) and foreground.dtype == torch.bool
    assert images.min() >= -1 and images.max() <= 1 + 1e-6
    differ = ((images[:, 0] > 0) != foreground).float().mean(dim=(1, 2))
    assert differ.max() < 0.02  # the rim, where one is linear and the other nearest
    assert (
        foreground.float().mean(dim=(1, 2)) - 140 / 1024
    ).abs().max() < 0.04  # scaled by 8 % at most


def test_none_changes_nothing():
    images, foreground = blocks()
    same = augment(images, foreground, "none", Draw(0, KEYS))
    assert same[0] is images and same[1] is foreground


def test_a_flip_mirrors_about_half_of_the_items_and_leaves_the_others():
    images, foreground = blocks()
    flipped, _ = augment(images, foreground, "flip", Draw(0, KEYS))
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    assert ((flipped == images).flatten(1).all(dim=1) ^ mirrored).all()
    assert 6 <= int(mirrored.sum()) <= 18


def test_affine_moves_every_item_its_own_way_within_its_bounds():
    images, foreground = augment(*blocks(), "affine", Draw(0, KEYS))
    at = torch.arange(32.0)
    rows = (foreground * at[:, None]).sum(dim=(1, 2)) / foreground.sum(dim=(1, 2))
    assert len(set(rows.tolist())) > 12
    # 8 % shift; turning and scaling move the middle a little.
    assert (rows - 16.5).abs().max() < 32 * (0.08 + 0.05)
    assert not torch.equal(images[0], images[1])


def test_strong_changes_greys_each_its_own_way_but_neither_end_of_the_range():
    foreground = torch.ones(24, 32, 32, dtype=torch.bool)
    grey, _ = augment(torch.zeros(24, 1, 32, 32), foreground, "strong", Draw(0, KEYS))
    middle = grey[:, 0, 16, 16]
    assert len(set(middle.tolist())) == 24 and (middle > 0.05).any() and (middle < -0.05).any()
    assert middle.abs().max() < 0.3
    white, _ = augment(torch.ones(24, 1, 32, 32), foreground, "strong", Draw(0, KEYS))
    assert (white[:, 0, 12:20, 12:20] > 0.999).all()


@pytest.mark.parametrize("kind, least, most", [("affine", 0.0, 0.35), ("strong", 0.6, 3.0)])
def test_an_edge_stays_straight_or_is_bent_by_about_a_hundredth_of_the_side(kind, least, most):
    """Spread of an edge about the straight line through it, pixels of 128; whole pixels alone make
    .29."""
    found: list[float] = []
    keys = KEYS[:6]
    picture = torch.where(torch.arange(128) < 64, 1.0, -1.0).expand(6, 1, 128, 128)
    moved, _ = augment(picture, torch.ones(6, 128, 128, dtype=torch.bool), kind, Draw(0, keys))
    for one in moved[:, 0, 32:96]:
        # Where white ends, or begins: the rest of the row is constant.
        edge = (one[:, 20:108] > 0).sum(1).double()
        rows = torch.stack([torch.ones(64), torch.arange(64.0)], 1).double()
        fit = rows @ torch.linalg.lstsq(rows, edge[:, None]).solution
        found.append((edge - fit[:, 0]).std().item())
    assert least <= sum(found) / len(found) <= most, found


@pytest.mark.parametrize("kind", ["flip", "affine", "strong"])
def test_an_item_is_moved_alike_in_any_batch(kind):
    images, foreground = blocks()
    whole, _ = augment(images, foreground, kind, Draw(0, KEYS))
    part, _ = augment(images[5:8], foreground[5:8], kind, Draw(0, KEYS[5:8]))
    torch.testing.assert_close(part, whole[5:8])
