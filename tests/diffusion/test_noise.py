"""Noise belongs to an item: batch size, order and company do not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.simplex import simplex

KEYS = [("case", plane) for plane in range(16)]


def two_draws(keys, kind):
    draw, like = Draw(7, keys, kind), torch.empty(len(keys), 2, 16, 24)
    return torch.stack([draw.noise(like), draw.noise(like)], dim=1)


@pytest.mark.parametrize("kind", ["gaussian", "simplex"])
def test_values_do_not_depend_on_batch_size_or_order(kind):
    whole = two_draws(KEYS, kind)
    for size in (1, 7):
        parts = [two_draws(KEYS[i : i + size], kind) for i in range(0, 16, size)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(two_draws(KEYS[::-1], kind), whole.flip(0))


@pytest.mark.parametrize("kind", ["gaussian", "simplex"])
def test_items_draws_channels_and_seeds_differ(kind):
    fields = two_draws(KEYS[:3], kind).flatten(0, 2)
    other = Draw(8, KEYS[:1], kind).noise(torch.empty(1, 2, 16, 24))[0]
    every = torch.cat([fields, other]).flatten(1)
    assert not any(torch.equal(every[i], every[j]) for i in range(len(every)) for j in range(i))


def test_equal_keys_share_a_field_as_the_published_codes_do():
    a, b = Draw(7, ["volume", "volume"], "simplex").noise(torch.empty(2, 1, 8, 8))
    assert torch.equal(a, b)


def test_numbers_and_names_from_numpy_are_the_same_keys():
    like = torch.empty(1, 1, 4, 4)
    assert torch.equal(
        Draw(7, [(np.str_("a"), np.int64(3))]).noise(like), Draw(7, [("a", 3)]).noise(like)
    )
    with pytest.raises(TypeError):
        Draw(7, [1.5])


def test_gaussian_noise_is_standard_normal():
    noise = Draw(0, range(20)).noise(torch.empty(20, 1, 64, 64))
    assert noise.mean().abs() < 0.02 and abs(noise.std() - 1) < 0.02


def test_integers_and_uniform_stay_in_range_and_belong_to_items():
    draw = Draw(3, range(500))
    levels, chances = draw.integers(1, 11), draw.uniform()
    assert levels.dtype == torch.long and set(levels.tolist()) == set(range(1, 11))
    assert chances.min() >= 0 and chances.max() < 1 and abs(chances.mean() - 0.5) < 0.05
    assert Draw(3, [42]).integers(1, 11) == levels[42]


def test_forks_are_independent_and_reproducible():
    like = torch.empty(2, 1, 4, 4)
    draw = Draw(1, "ab")
    fork = draw.fork("patches").noise(like)
    assert not torch.equal(fork, draw.noise(like))
    assert torch.equal(fork, draw.fork("patches").noise(like))
    assert not torch.equal(fork, draw.fork("other").noise(like))
    assert not torch.equal(fork, draw.fork("patches").fork("patches").noise(like))


def test_repeat_is_ordered_like_repeat_interleave():
    copies = Draw(1, ["a", "b"]).repeat(3)
    assert copies.keys == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
    noise = copies.noise(torch.empty(6, 1, 4, 4))
    assert torch.equal(noise[3:], Draw(1, ["b"]).repeat(3).noise(torch.empty(3, 1, 4, 4)))


def test_another_kind_of_noise_keeps_the_items():
    like = torch.empty(2, 1, 8, 8)
    draw = Draw(1, "ab").of_kind("simplex", standardise=True)
    assert torch.equal(draw.noise(like), Draw(1, "ab", "simplex", standardise=True).noise(like))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 items"):
        Draw(1, "ab").noise(torch.empty(3, 1, 4, 4))
    with pytest.raises(ValueError, match="perlin"):
        Draw(1, "ab", "perlin")
    with pytest.raises(ValueError, match="seeds"):
        simplex((2, 1, 4, 4), [1, 2, 3])


@pytest.mark.parametrize("z", [None, 250.0])
def test_simplex_fields_are_batched_rectangular_and_optionally_standardised(z):
    fields = simplex((3, 2, 20, 36), [1, 2, 3], z=z)
    assert torch.equal(fields[1], simplex((1, 2, 20, 36), [2], z=z)[0])
    assert torch.equal(fields[:, 0], fields[:, 1])  # one seed per item: the channels share it
    # a larger field continues the smaller one
    assert torch.equal(simplex((3, 2, 40, 40), [1, 2, 3], z=z)[:, :, :20, :36], fields)
    standard = simplex((3, 2, 20, 36), torch.arange(6).reshape(3, 2), z=z, standardise=True)
    assert torch.allclose(standard.mean((2, 3)), torch.zeros(3, 2), atol=1e-6)
    assert torch.allclose(standard.std((2, 3)), torch.ones(3, 2), atol=1e-6)
