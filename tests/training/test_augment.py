"""Augmentation moves images and foregrounds alike, by item, and brings in nothing but the low value."""

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


@pytest.mark.parametrize("kind", ["none", "flip", "affine"])
def test_the_foreground_goes_where_the_image_goes(kind):
    images, foreground = augment(*blocks(), kind, Draw(0, KEYS))
    assert images.shape == (24, 1, 32, 32) and foreground.dtype == torch.bool
    assert images.min() >= -1 and images.max() <= 1 + 1e-6
    differ = ((images[:, 0] > 0) != foreground).float().mean(dim=(1, 2))
    assert differ.max() < 0.02  # the rim, where one is linear and the other nearest
    assert (foreground.float().mean(dim=(1, 2)) - 140 / 1024).abs().max() < 0.04  # scaled by 8 % at most


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
    assert (rows - 16.5).abs().max() < 32 * (0.08 + 0.05)  # 8 % shift; turning and scaling move the middle a little
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("kind", ["flip", "affine"])
def test_an_item_is_moved_alike_in_any_batch(kind):
    images, foreground = blocks()
    whole, _ = augment(images, foreground, kind, Draw(0, KEYS))
    part, _ = augment(images[5:8], foreground[5:8], kind, Draw(0, KEYS[5:8]))
    torch.testing.assert_close(part, whole[5:8])
