"""Structural similarity (Wang et al. 2004) of image batches, differentiable."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def ssim_map(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 2.0,
    window: int = 11,
    sigma: float = 1.5,
    border: Literal["inside", "zeros"] = "inside",
) -> Tensor:
    """SSIM of every pixel, (B, C, H, W) float32 in about [-1, 1], of images x and y (B, C, H, W).

    Args:
        x, y: Images.
        data_range: Span of the images' values: 2 for [-1, 1]. The constants are (0.01 range)^2 and
            (0.03 range)^2; those of range 1 on images of range 2, as in the published CT code,
            weigh the contrast term of flat regions too high.
        window: Side of the Gaussian window in pixels.
        sigma: Its spread in pixels.
        border: "inside" averages over the part of the window that lies in the image; "zeros" pads
            (the published CT code), which makes borders look alike.
    """
    place = torch.arange(window, device=x.device) - (window - 1) / 2
    bell = torch.exp(-0.5 * (place / sigma) ** 2)
    bell = bell / bell.sum()
    x, y = x.float(), y.float()

    def blur(image: Tensor) -> Tensor:
        flat = image.reshape(-1, 1, *image.shape[-2:])
        flat = F.conv2d(flat, bell.view(1, 1, 1, -1), padding=(0, window // 2))
        return F.conv2d(flat, bell.view(1, 1, -1, 1), padding=(window // 2, 0)).reshape(image.shape)

    # Variances are small differences of large numbers: never in half precision.
    with torch.autocast(x.device.type, enabled=False):
        weight = blur(torch.ones_like(x[:1])) if border == "inside" else torch.ones_like(x[:1])
        mean_x, mean_y = blur(x) / weight, blur(y) / weight
        variance_x, variance_y = blur(x * x) / weight - mean_x**2, blur(y * y) / weight - mean_y**2
        covariance = blur(x * y) / weight - mean_x * mean_y
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)


def ssim(x: Tensor, y: Tensor, **settings) -> Tensor:
    """Mean SSIM of each image, (B,); settings as for `ssim_map`. As a loss: ``1 - ssim(x, y)``."""
    return ssim_map(x, y, **settings).flatten(1).mean(1)
