"""The U-Net of the patched CT code: sizes, and what its decoder sees in the published and in the
intended form."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pseudohealthy.networks.ct_unet import CtAttention, CtUNet

TINY = {"width": 16, "multipliers": (1, 2, 2), "blocks": 1}


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 30_883_905),
        ({"quirks": "published"}, 30_022_849),
        ({"quirks": "published", "channels": 3}, 30_025_155),
        ({"quirks": "published", "multipliers": (1, 2, 4)}, 7_854_017),
    ],
)
def test_parameter_count(settings, parameters):
    """README says ~14M for the second."""
    with torch.device("meta"):
        assert sum(p.numel() for p in CtUNet(**settings).parameters()) == parameters


def test_the_intended_decoder_has_the_channels_of_the_readme():
    with torch.device("meta"):
        network = CtUNet()
    plan = [
        (level[0].conv1.in_channels, level[-1].conv2.out_channels) for level in network.up_blocks
    ]
    assert plan == [(512 + 512, 256), (256 + 256, 128), (128 + 128, 64), (64 + 64, 64)]


@torch.no_grad()
@pytest.mark.parametrize("quirks", ["none", "published"])
def test_the_deepest_level_reaches_the_decoder_directly_but_not_in_the_published_form(quirks):
    torch.manual_seed(0)
    network, x = CtUNet(**TINY, quirks=quirks).eval(), torch.randn(1, 1, 32, 32)
    network.mid_block2.register_forward_hook(lambda module, given, output: torch.zeros_like(output))
    before = network(x, 10)
    network.down_blocks[-1][-1].conv2.weight.add_(1)
    assert torch.equal(network(x, 10), before) == (quirks == "published")


@torch.no_grad()
def test_sides_that_do_not_halve_are_refused_and_mended_by_resizing_in_the_published_form():
    x = torch.randn(1, 1, 30, 34)
    with pytest.raises(ValueError, match="30 x 34"):
        CtUNet(**TINY)(x, 0)
    assert CtUNet(**TINY, quirks="published")(x, 0).shape == x.shape


@torch.no_grad()
def test_attention_is_that_of_the_textbook():
    torch.manual_seed(0)
    layer, x = CtAttention(16, heads=4), torch.randn(2, 16, 6, 7)
    q, k, v = layer.qkv(layer.norm(x)).reshape(2, 3, 4, 4, 42).transpose(-1, -2).unbind(1)
    expected = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)
    torch.testing.assert_close(layer(x), x + layer.proj(expected), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="heads"):
        CtAttention(16, heads=3)


@torch.no_grad()
def test_the_stem_keeps_the_shape_at_half_the_resolution_and_time_matters():
    network = CtUNet(channels=3, stem=2, **TINY).eval()
    x, seen = torch.randn(2, 3, 32, 32), []
    network.init_conv.register_forward_hook(lambda module, given, output: seen.append(output.shape))
    out = network(x, torch.tensor([1, 900]))
    assert out.shape == x.shape and seen == [(2, 16, 16, 16)]
    torch.testing.assert_close(network(x[:1], 1), out[:1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(network(x[1:], 1), out[1:], atol=1e-3)
