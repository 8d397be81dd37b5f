"""bf16 weights give what autocast gives, to the bit; packed ones up to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.precision import PackedConv2d, for_inference, keep_bfloat16, pack
from pseudohealthy.networks.unet import UNet

SMALL = {"width": 16, "multipliers": (1, 2), "blocks": 1}


@pytest.mark.parametrize(
    "network",
    [UNet(**SMALL, attention=(2,), classes=2), CtUNet(**SMALL, dropout=0.0), Classifier(**SMALL, size=16)],
    ids=["unet", "ct-unet", "classifier"],
)
def test_kept_weights_give_the_same_to_the_bit(network):
    network.eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05) if not parameter.any() else None
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 900])
    label = {"label": 1} if isinstance(network, UNet) else {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = network(x, t, **label)
        keep_bfloat16(network)
        assert torch.equal(network(x, t, **label), before)


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("kind", [UNet, CtUNet])
@pytest.mark.parametrize("batch", [1, 5])
def test_packed_weights_give_the_same_up_to_rounding(kind, side, batch):
    network = kind(**SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05) if not parameter.any() else None
    x, t = torch.randn(batch, 1, side, side), torch.randint(0, 1000, (batch,))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        keep_bfloat16(network)
        before = network(x, t).float()
        pack(network)
        after = network(x, t).float()
    assert any(isinstance(layer, PackedConv2d) for layer in network.modules())
    assert (after - before).abs().max() <= 0.03 * before.abs().max()
    assert (after - before).abs().mean() <= 0.003 * before.abs().max()


def test_packed_float32_is_exact_to_five_digits():
    network = UNet(**SMALL, stem=2).eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05) if not parameter.any() else None
    flat = torch.full((2, 1, 32, 32), -1.0)
    flat[1, :, 8:20, 8:20] = 0.5
    for x in (torch.randn(5, 1, 32, 32), flat):
        with torch.no_grad():
            before = network(x, 300)
            packed = copy.deepcopy(network)
            for_inference(packed, torch.float32)
            assert any(isinstance(layer, PackedConv2d) for layer in packed.modules())
            assert (packed(x, 300) - before).abs().max() <= 1e-5


def test_what_needs_a_gradient_and_contiguous_float32_stay_as_they_are():
    model = nn.ModuleDict({"unet": UNet(**SMALL), "classifier": Classifier(**SMALL, size=16)})
    for_inference(model, torch.float32)
    assert not any(isinstance(layer, PackedConv2d) for layer in model.modules())
    for_inference(model, torch.bfloat16)
    assert not any(isinstance(layer, PackedConv2d) for layer in model["classifier"].modules())
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        model["classifier"](x, torch.tensor([3])).sum().backward()
    assert x.grad is not None


def test_where_torch_lacks_the_functions_nothing_changes(monkeypatch):
    network = UNet(**SMALL)
    monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    for_inference(network, torch.bfloat16)
    assert not any(isinstance(layer, PackedConv2d) for layer in network.modules())


def test_only_the_layers_that_autocast_would_cast_change():
    model = nn.ModuleDict({"unet": UNet(**SMALL, classes=2), "other": nn.Conv2d(1, 1, 3), "p": Perceptual("none")})
    keep_bfloat16(model)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["unet.out.2.weight"] == torch.bfloat16 and kinds["other.weight"] == torch.float32
    norms = [kind for name, kind in kinds.items() if "label_emb" in name or name.endswith("in_layers.0.weight")]
    assert norms and set(norms) == {torch.float32}
