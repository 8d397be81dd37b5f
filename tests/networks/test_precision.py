"""bf16 weights give what autocast gives, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.precision import keep_bfloat16
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


def test_only_the_layers_that_autocast_would_cast_change():
    model = nn.ModuleDict({"unet": UNet(**SMALL, classes=2), "other": nn.Conv2d(1, 1, 3), "p": Perceptual("none")})
    keep_bfloat16(model)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["unet.out.2.weight"] == torch.bfloat16 and kinds["other.weight"] == torch.float32
    norms = [kind for name, kind in kinds.items() if "label_emb" in name or name.endswith("in_layers.0.weight")]
    assert norms and set(norms) == {torch.float32}
