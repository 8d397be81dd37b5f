"""Weights in the precision they are used in."""

from __future__ import annotations

import torch
from torch import nn

from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.unet import UNet

LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def keep_bfloat16(model: nn.Module) -> None:
    """Give the convolutions and linear layers of the U-Nets and classifiers in `model` bf16 weights, for autocast.

    Autocast makes the very same copies on every call: results are equal to the bit, without that work and with half the
    memory. Norms, embeddings and all other networks stay as they are. For restoring only: nothing can train on these.
    """
    for network in model.modules():
        if not isinstance(network, UNet | CtUNet | Classifier):
            continue
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                for name, value in list(layer.named_parameters(recurse=False)):
                    setattr(layer, name, nn.Parameter(value.detach().to(torch.bfloat16), requires_grad=False))
