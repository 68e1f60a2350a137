"""The two U-Nets of the baseline, configurable in bands and widths. The number of widths is the number of levels.

Input `(batch, band, row, col)` float32, normalized by `cloudseg.model.normalize`; height and width are multiples of
`2 ** (levels - 1)`. Output `(batch, 1, row, col)`: logits of cloud.
"""

from collections.abc import Sequence

import torch
from torch import nn


def _double_conv(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm and ReLU, then Dropout2d if the net has dropout."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = _double_conv(in_channels, out_channels, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(batch, out_channels, row, col)`."""
        out: torch.Tensor = self.conv(x)
        return out


class UNet(nn.Module):
    """Encoder, bottleneck, decoder and skip connections (Ronneberger et al. 2015).

    Attributes `enc1 pool1 enc2 pool2 ... bottleneck`, then one `up` and `dec` for each level, then `final`.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.widths = tuple(widths)
        channels = in_channels
        for level, width in enumerate(self.widths[:-1], start=1):
            self.add_module(f"enc{level}", self._block(channels, width, dropout))
            self.add_module(f"pool{level}", nn.MaxPool2d(2))
            channels = width
        self.bottleneck = self._block(channels, self.widths[-1], dropout)
        for level in range(len(self.widths) - 1, 0, -1):
            width, below = self.widths[level - 1], self.widths[level]
            self.add_module(f"up{self._name(level)}", nn.ConvTranspose2d(below, width, 2, stride=2))
            self.add_module(f"dec{self._name(level)}", self._block(2 * width, width, dropout))
        self.final = nn.Conv2d(self.widths[0], 1, 1)

    def _block(self, in_channels: int, out_channels: int, dropout: float) -> nn.Module:
        return DoubleConv(in_channels, out_channels, dropout)

    def _name(self, level: int) -> int:
        """Return the number in the attribute names of the decoder's blocks of a level (1 is full resolution)."""
        return level

    @property
    def decoder_names(self) -> list[tuple[int, int]]:
        """Pairs of level and the number in the decoder's attribute names, deepest first."""
        return [(level, self._name(level)) for level in range(len(self.widths) - 1, 0, -1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(batch, 1, row, col)` of normalized pixels `(batch, band, row, col)`."""
        skips = {}
        for level in range(1, len(self.widths)):
            skips[level] = self.get_submodule(f"enc{level}")(x)
            x = self.get_submodule(f"pool{level}")(skips[level])
        x = self.bottleneck(x)
        for level, name in self.decoder_names:
            x = torch.cat([self.get_submodule(f"up{name}")(x), skips.pop(level)], dim=1)
            x = self.get_submodule(f"dec{name}")(x)
        logits: torch.Tensor = self.final(x)
        return logits


class SimpleUNet(UNet):
    """The baseline's net: 3 bands, 64-128-256, 1,865,409 parameters."""

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (64, 128, 256), dropout: float = 0.0) -> None:
        super().__init__(in_channels, widths, dropout)


class SimpleUNetV2(UNet):
    """The net whose weights the baseline project published: red, green, blue, nir, 32-64-128, 468,097 parameters.

    It has Dropout2d 0.3. Its blocks are plain `Sequential`s and its decoder counts upwards from the bottleneck, as in
    the published file.
    """

    def __init__(self, in_channels: int = 4, widths: Sequence[int] = (32, 64, 128), dropout: float = 0.3) -> None:
        super().__init__(in_channels, widths, dropout)

    def _block(self, in_channels: int, out_channels: int, dropout: float) -> nn.Module:
        return _double_conv(in_channels, out_channels, dropout)

    def _name(self, level: int) -> int:
        return len(self.widths) - level


def count_parameters(net: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
