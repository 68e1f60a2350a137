"""The ImageNet parameters of the encoder of `EfficientUNet`, shipped with the package.

The file holds the stages to 1/16 of EfficientNet-Lite0 as TensorFlow's authors published it (Apache-2.0); the
origin of each tensor and how to make the file again: `cloudseg/model/pretrained/README.md`.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Final

import torch
from safetensors.torch import load

from cloudseg.bands import RGB
from cloudseg.errors import BadWeights
from cloudseg.keys import sha256_of
from cloudseg.model.efficient_unet import EfficientUNet
from cloudseg.model.unet import UNet

FILE: Final = "efficientnet_lite0.safetensors"
SHA256: Final = "d5efda04b6203e3a1539b26244a32a2d3c2ada4293768387c8c563cd835b4f7f"
_STEM: Final = "stage1.0.weight"


def load_encoder(net: UNet, bands: Sequence[str]) -> None:
    """Load the ImageNet parameters into the encoder of a net whose input has these bands.

    Red, green and blue use their pretrained weights. Every other band is zero-initialized, so that the net starts as
    it would without that band and learns what it contributes.

    Raises:
        BadWeights: the shipped file is damaged.
        ValueError: the net is not an EfficientUNet.
    """
    if not isinstance(net, EfficientUNet):
        raise ValueError(f"only EfficientUNet has this encoder, not {type(net).__name__}")
    tensors = _read()
    stem = torch.zeros(tensors[_STEM].shape[0], len(bands), *tensors[_STEM].shape[2:])
    for position, band in enumerate(RGB):
        stem[:, list(bands).index(band)] = tensors[_STEM][:, position]
    tensors[_STEM] = stem
    for level in range(1, len(net.widths) + 1):
        prefix = f"stage{level}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        net.stage(level).load_state_dict(own, strict=True)


def encoder_parameters(net: UNet) -> list[torch.nn.Parameter]:
    """Return the parameters that `load_encoder` sets, none of another net than an EfficientUNet."""
    if not isinstance(net, EfficientUNet):
        return []
    return [parameter for level in range(1, len(net.widths) + 1) for parameter in net.stage(level).parameters()]


def _read() -> dict[str, torch.Tensor]:
    """Read the shipped file, which stores convolutions in half precision, as float32."""
    data = (resources.files("cloudseg.model") / "pretrained" / FILE).read_bytes()
    if (found := sha256_of(data)) != SHA256:
        raise BadWeights(
            "the shipped parameters of the encoder are damaged",
            subject=FILE,
            found=found,
            expected=SHA256,
            next_step="Install the package again.",
        )
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load(data).items()}
