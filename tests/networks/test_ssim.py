"""Structural similarity against scikit-image, and what a wrong data range does."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from pseudohealthy.networks.ssim import ssim, ssim_map


def pair(size: int = 48, channels: int = 1):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, channels, size // 8, size // 8, generator=generator) * 2 - 1
    x = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)
    return x, (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_equals_scikit_image_away_from_the_border(data_range):
    x, y = pair()
    got = ssim_map(x, y, data_range=data_range)
    for i in range(2):
        _, expected = structural_similarity(
            x[i, 0].double().numpy(),
            y[i, 0].double().numpy(),
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        inside = torch.from_numpy(expected)[5:-5, 5:-5].float()
        torch.testing.assert_close(got[i, 0, 5:-5, 5:-5], inside, atol=1e-4, rtol=1e-4)


def test_equal_images_are_entirely_similar_also_when_smaller_than_the_window():
    for size in (1, 5, 32):
        x = torch.rand(3, 2, size, size)
        torch.testing.assert_close(ssim(x, x), torch.ones(3))


def test_only_values_relative_to_the_range_matter():
    """The default range is that of [-1, 1]; the constants of range 1 on such images give another
    measure."""
    x, y = pair()
    zero_based = ssim((x + 1) / 2, (y + 1) / 2, data_range=1.0)
    shifted = ssim(x + 1, y + 1, data_range=2.0)
    torch.testing.assert_close(zero_based, shifted, atol=1e-4, rtol=1e-4)
    assert (ssim(x, y, data_range=1.0) - ssim(x, y)).abs().max() > 0.01


def test_zero_padding_makes_borders_look_alike():
    x, y = torch.full((1, 1, 32, 32), 0.9), torch.full((1, 1, 32, 32), 0.1)
    inside, zeros = (ssim_map(x, y, border=border)[0, 0] for border in ("inside", "zeros"))
    torch.testing.assert_close(inside, inside[16, 16].expand_as(inside), atol=1e-4, rtol=1e-4)
    assert (
        zeros[16, 16] == pytest.approx(inside[16, 16].item(), abs=1e-4)
        and abs(zeros[0, 0] - zeros[16, 16]) > 0.01
    )


def test_items_are_apart_and_the_loss_has_a_gradient():
    x, y = pair(channels=3)
    together = ssim(x, y)
    torch.testing.assert_close(torch.cat([ssim(x[:1], y[:1]), ssim(x[1:], y[1:])]), together)
    moved = y.clone().requires_grad_()
    for _ in range(20):
        (gradient,) = torch.autograd.grad((1 - ssim(moved, x)).sum(), moved)
        assert torch.isfinite(gradient).all()
        moved = (moved - 20 * gradient).detach().requires_grad_()
    assert (ssim(moved, x) > together + 0.05).all()


def test_half_precision_around_it_changes_nothing():
    x, y = pair()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim(x, y), ssim(x, y)) and ssim(x, y).dtype == torch.float32
        cast = ssim(x, y)
    torch.testing.assert_close(cast, ssim(x, y), atol=0, rtol=0)
