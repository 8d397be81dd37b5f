"""Weights for inference: in its precision and, on the CPU, in the order that its kernels read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.unet import UNet

BATCH = 8  # images that weights are packed for; one image, or 32, are as fast then
LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def for_inference(model: nn.Module, precision: torch.dtype) -> None:
    """Make the U-Nets and classifiers in `model` fast on its device; they cannot be trained
    afterwards."""
    if precision == torch.bfloat16:
        keep_bfloat16(model)
    pack(model)


def keep_bfloat16(model: nn.Module) -> None:
    """Give the convolutions and linear layers of U-Nets and classifiers bf16 weights.

    Autocast makes the same copies on every call: results are equal to the bit, without that work
    and with half the memory. Norms, embeddings and all other networks stay as they are.
    """
    for network in model.modules():
        if not isinstance(network, UNet | CtUNet | Classifier):
            continue
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                for name, value in list(layer.named_parameters(recurse=False)):
                    setattr(
                        layer,
                        name,
                        nn.Parameter(value.detach().to(torch.bfloat16), requires_grad=False),
                    )


class PackedConv2d(nn.Module):
    """A convolution without gradient whose weights lie as oneDNN's kernels read them.

    Otherwise each call brings them into that order, which for many channels on few pixels takes a
    quarter of its time. The order depends on the image's side and hardly on the batch: weights are
    packed at the first call, for `BATCH` images. (Packed for no size, or for another one, a
    convolution can take fifty times as long.)
    """

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        padding = [int(side) for side in layer.padding]
        self.geometry = (padding, list(layer.stride), list(layer.dilation), layer.groups)
        self.bias, self.weight, self.side = layer.bias, layer.weight.detach(), torch.Size()

    def pack(self, *size: int) -> None:
        dense = self.weight.to_dense() if self.weight.is_mkldnn else self.weight
        arguments = dense.contiguous().to_mkldnn(), *self.geometry, list(size)
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        self.weight = reorder(*arguments)
        self.side = torch.Size(size[2:])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != self.side:
            self.pack(BATCH, *x.shape[1:])
        x = x.to(self.weight.dtype)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, "none", [], ""
        )


def pack(model: nn.Module) -> None:
    """Pack the 3x3 convolutions of the U-Nets in `model`.

    Not those of classifiers, which need a gradient, nor 1x1 ones, whose order depends on the batch.
    Results differ by rounding. A float32 network of one input channel is left alone: it runs
    contiguous (`fast_layout`), and packed convolutions put out channels_last. The functions are
    torch's own for compiled models and not public: where they are missing or refuse, and on other
    devices, everything stays as it is.
    """
    for network in model.modules():
        if not isinstance(network, UNet | CtUNet):
            continue
        first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
        if (first.in_channels == 1 and first.weight.dtype == torch.float32) or not can_pack(
            first.weight
        ):
            continue
        for parent in list(network.modules()):
            for name, layer in list(parent.named_children()):
                if (
                    type(layer) is nn.Conv2d
                    and layer.padding_mode == "zeros"
                    and min(layer.kernel_size) > 1
                ):
                    setattr(parent, name, PackedConv2d(layer))


def can_pack(weight: Tensor) -> bool:
    """Whether torch can pack weights of this kind here, tried on a small convolution.

    No random number is drawn for it.
    """
    if weight.device.type != "cpu":
        return False
    small = torch.nn.utils.skip_init(nn.Conv2d, 16, 16, 3, padding=1, dtype=weight.dtype)
    try:
        with torch.no_grad():
            PackedConv2d(small)(torch.zeros(1, 16, 8, 8))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True
