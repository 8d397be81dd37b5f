"""bf16 weights give what autocast gives, to the bit; packed ones up to rounding."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn

from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.precision import PackedConv2d, for_inference, keep_bfloat16, pack
from pseudohealthy.networks.unet import UNet

SMALL = {"width": 16, "multipliers": (1, 2), "blocks": 1}
THREE = {"channels": 3}
# oneDNN packs bf16 weights with AVX-512 only (or with AVX2_VNNI_2, where it is not asked here).
LACKING = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2")
LACKING |= os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ("SSE41", "AVX", "AVX2", "AVX2_VNNI")
packs_bf16 = pytest.mark.skipif(LACKING, reason="bf16 weights are packed with AVX-512 only")
WITHOUT = not torch.backends.mkldnn.is_available()
packs = pytest.mark.skipif(WITHOUT, reason="this torch is built without oneDNN")


def small(kind, **options):
    """A network whose every weight matters."""
    torch.manual_seed(0)
    network = kind(**SMALL, **options).eval().requires_grad_(False)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05) if not parameter.any() else None
    return network


def packed(network) -> bool:
    return any(isinstance(layer, PackedConv2d) for layer in network.modules())


@pytest.mark.parametrize(
    "network",
    [
        UNet(attention={"at": (2,)}, condition={"classes": 2}, **SMALL),
        CtUNet(**SMALL, dropout=0.0),
        Classifier(**SMALL, size=16),
    ],
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


@packs_bf16
@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("kind", [UNet, CtUNet])
@pytest.mark.parametrize("batch", [1, 5])
def test_packed_bf16_weights_give_the_same_up_to_rounding(kind, side, batch):
    network = small(kind)
    x, t = torch.randn(batch, 1, side, side), torch.randint(0, 1000, (batch,))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        keep_bfloat16(network)
        before = network(x, t).float()
        pack(network)
        after = network(x, t).float()
    assert packed(network)
    assert (after - before).abs().max() <= 0.03 * before.abs().max()
    assert (after - before).abs().mean() <= 0.003 * before.abs().max()


@packs
@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("kind, options", [(UNet, {"stem": 2}), (CtUNet, THREE)])
@pytest.mark.parametrize("batch", [1, 5])
def test_packed_float32_weights_give_the_same_up_to_rounding(kind, options, side, batch):
    network = small(kind, **options)
    flat = torch.full((batch, options.get("channels", 1), side, side), -1.0)
    flat[-1, :, side // 4 : side // 2, side // 4 : side // 2] = 0.5
    for x in (torch.randn(flat.shape), flat):
        with torch.no_grad():
            before = network(x, torch.full((batch,), 300))
            fast = copy.deepcopy(network)
            for_inference(fast, torch.float32)
            assert packed(fast)
            worst = (fast(x, torch.full((batch,), 300)) - before).abs().max()
            assert worst <= 3e-5 * before.abs().max()  # flat channels; noise stays below 2e-6


@pytest.mark.parametrize("kind", [UNet, CtUNet])
def test_bf16_for_inference_works_whether_or_not_weights_can_be_packed(kind, monkeypatch):
    """Without packed bf16 weights: the same network, unpacked, within the rounding of bf16."""
    for refuses in (False, True):
        network, x, t = small(kind), torch.randn(2, 1, 16, 16), torch.tensor([3, 900])
        with torch.no_grad():
            exact = network(x, t)
            if refuses:
                monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", refuse)
            for_inference(network, torch.bfloat16)
            with torch.autocast("cpu", torch.bfloat16):
                found = network(x, t).float()
        assert not (refuses and packed(network))
        assert (found - exact).abs().max() <= 0.05 * exact.abs().max()


def refuse(*_):
    raise RuntimeError("bf16 path needs the cpu support avx_ne_convert or avx512bw")


def test_what_needs_a_gradient_and_contiguous_float32_stay_as_they_are():
    model = nn.ModuleDict({"unet": UNet(**SMALL), "classifier": Classifier(**SMALL, size=16)})
    for_inference(model, torch.float32)
    assert not packed(model)
    for_inference(model, torch.bfloat16)
    assert not packed(model["classifier"])
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        model["classifier"](x, torch.tensor([3])).sum().backward()
    assert x.grad is not None


def test_where_torch_lacks_the_functions_nothing_changes(monkeypatch):
    network = UNet(**SMALL)
    monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    for_inference(network, torch.bfloat16)
    assert not packed(network)


def test_only_the_layers_that_autocast_would_cast_change():
    model = nn.ModuleDict(
        {
            "unet": UNet(**SMALL, condition={"classes": 2}),
            "other": nn.Conv2d(1, 1, 3),
            "p": Perceptual("none"),
        }
    )
    keep_bfloat16(model)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["unet.out.2.weight"] == torch.bfloat16 and kinds["other.weight"] == torch.float32
    norms = [
        kind
        for name, kind in kinds.items()
        if "label_emb" in name or name.endswith("in_layers.0.weight")
    ]
    assert norms and set(norms) == {torch.float32}
