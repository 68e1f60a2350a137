"""The architectures that a recipe can name."""

from typing import Final

from cloudseg.model.efficient_unet import EfficientUNet
from cloudseg.model.unet import SimpleUNet, SimpleUNetV2, UNet
from cloudseg.recipe import Model

ARCHITECTURES: Final[dict[str, type[SimpleUNet] | type[SimpleUNetV2] | type[EfficientUNet]]] = {
    "SimpleUNet": SimpleUNet,
    "SimpleUNetV2": SimpleUNetV2,
    "EfficientUNet": EfficientUNet,
}


def build_model(model: Model) -> UNet:
    """Build the net of a recipe with PyTorch's default initialization (the caller seeds torch)."""
    return ARCHITECTURES[model.architecture](len(model.bands), model.widths, model.dropout)
