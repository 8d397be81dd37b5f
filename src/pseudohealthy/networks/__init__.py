"""Networks: U-Net, noise-conditional classifier, convolutional autoencoders."""

from .autoencoder import ConvAutoencoder
from .classifier import Classifier
from .unet import UNet

__all__ = ["Classifier", "ConvAutoencoder", "UNet"]
