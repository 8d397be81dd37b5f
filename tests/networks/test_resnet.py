"""ResNet: published sizes and names, smaller relatives, stochastic depth."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy.errors import Fault
from pseudohealthy.networks.resnet import ResNet


def count(**settings) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ResNet(**settings).parameters())


def test_published_sizes():
    assert count() == 24_550_848  # the context encoder of cDDPM
    assert count(in_channels=3, outputs=1000) == 25_557_032  # ResNet-50 of ImageNet
    assert count(in_channels=3, outputs=1000, layers=(3, 4, 23, 3)) == 44_549_160  # ResNet-101


def test_names_are_those_of_timm_and_torchvision():
    names = list(ResNet(layers=(2, 1), width=8).state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    block = [n for i in (1, 2, 3) for n in (f"conv{i}.weight", *(f"bn{i}.{k}" for k in norm))]
    down = ["downsample.0.weight", *(f"downsample.1.{k}" for k in norm)]
    expected = ["conv1.weight", *(f"bn1.{k}" for k in norm)]
    expected += [f"layer1.0.{n}" for n in (*block, *down)] + [f"layer1.1.{n}" for n in block]
    expected += [f"layer2.0.{n}" for n in (*block, *down)] + ["fc.weight", "fc.bias"]
    assert names == expected


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_each_stage_halves_and_doubles(stages):
    network = ResNet(in_channels=2, layers=(1,) * stages, width=8, outputs=5).eval()
    x = torch.randn(2, 2, 64, 96)
    maps = network.features(x)
    assert network.factor == 2 ** (stages + 1)
    assert [tuple(m.shape) for m in maps] == [
        (2, 32 * 2**s, 16 // 2**s, 24 // 2**s) for s in range(stages)
    ]
    assert network.widths == tuple(m.shape[1] for m in maps)
    assert network(x).shape == (2, 5)


def test_stochastic_depth_keeps_the_mean_and_is_off_when_restoring():
    torch.manual_seed(0)
    network = ResNet(layers=(1, 1), width=8, drop_path=0.5)
    block = network.get_submodule("layer2.0")
    # Rises from the first block to the last.
    assert network.get_submodule("layer1.0").drop == 0 and block.drop == 0.5
    torch.nn.init.ones_(block.bn3.weight)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x = torch.rand(1, 32, 8, 8)
    block.relu = torch.nn.Identity()  # means pass through what is linear
    block.eval()
    kept = block(x)
    block.drop = 0.5
    block.training = True
    mean = torch.stack([block(x) for _ in range(2000)]).mean(0)
    assert (mean - kept).abs().max() < 0.15 * (kept - block.downsample(x)).abs().max()
    network.eval()
    image = torch.rand(2, 1, 32, 32)
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("layers", [(), (1, 0), (1, 1, 1, 1, 1)])
def test_impossible_layers_are_refused(layers):
    with pytest.raises(Fault, match="layers"):
        ResNet(layers=layers)
