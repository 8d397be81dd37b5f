"""Weights in the precision, and on the CPU in the order, in which they are used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.unet import UNet

LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def for_inference(model: nn.Module, precision: torch.dtype) -> None:
    """Make the U-Nets and classifiers in `model`, on its device, as fast as they get. Nothing can train on them then."""
    if precision == torch.bfloat16:
        keep_bfloat16(model)
    pack(model)


def keep_bfloat16(model: nn.Module) -> None:
    """Give the convolutions and linear layers of the U-Nets and classifiers in `model` bf16 weights, for autocast.

    Autocast makes the very same copies on every call: results are equal to the bit, without that work and with half the
    memory. Norms, embeddings and all other networks stay as they are.
    """
    for network in model.modules():
        if not isinstance(network, UNet | CtUNet | Classifier):
            continue
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                for name, value in list(layer.named_parameters(recurse=False)):
                    setattr(layer, name, nn.Parameter(value.detach().to(torch.bfloat16), requires_grad=False))


class PackedConv2d(nn.Module):
    """A convolution without gradient whose weights lie as oneDNN's kernels read them; else each call would bring them into
    that order, which for many channels on few pixels takes a quarter of its time."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        padding = [int(side) for side in layer.padding]
        self.geometry = (padding, list(layer.stride), list(layer.dilation), layer.groups)
        self.bias = layer.bias
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(layer.weight.detach().to_mkldnn(), *self.geometry)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.geometry, "none", [], "")


def pack(model: nn.Module) -> None:
    """Pack the convolutions of the U-Nets in `model`, which never need a gradient; not those of classifiers, which do.

    Results differ by rounding. A float32 network of one input channel is left alone: it runs contiguous (`fast_layout`),
    and packed convolutions put out channels_last. The functions are torch's own for compiled models and not public: where
    they are missing or refuse, and on other devices, everything stays as it is.
    """
    for network in model.modules():
        if not isinstance(network, UNet | CtUNet):
            continue
        first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
        if first.in_channels == 1 and first.weight.dtype == torch.float32:
            continue
        for parent in list(network.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is nn.Conv2d and layer.weight.device.type == "cpu" and layer.padding_mode == "zeros":
                    try:
                        setattr(parent, name, PackedConv2d(layer))
                    except (AttributeError, RuntimeError, TypeError, ValueError):
                        return
