"""A U-Net on the encoder of EfficientNet-Lite0, which can be initialized with its ImageNet parameters.

Tan and Le 2019 (arXiv:1905.11946) and its Lite variant without squeeze-and-excitation and with ReLU6, made for int8.
Only the stages down to 1/16 are used: the receptive field of the next ones is half a scene wider, and windows of a
scene would have to overlap by as much.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from cloudseg.model.shapes import STAGES
from cloudseg.model.unet import DoubleConv, UNet

_EPS: Final = 1e-3
"""Of every BatchNorm in the published net (PyTorch's default is 1e-5)."""
_STEM: Final = 32
_STRIP_ROWS: Final = 32
"""Rows of a halved map that a prediction computes together: 14 MB of expanded values for a window of 1 120 pixels."""


class HalvingConv2d(nn.Conv2d):
    """Convolution with stride 2 and TensorFlow's "same" padding, with which the parameters were learned.

    Of the `kernel - 2` lines of zeros around an even image the smaller half is before it, the larger after.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=2, groups=groups, bias=False)
        self.before = (kernel - 2) // 2
        self.after = kernel - 2 - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(batch, out_channels, row / 2, col / 2)`."""
        return super().forward(functional.pad(x, (self.before, self.after) * 2))


def _convolution(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    if stride == 2:
        convolution: nn.Conv2d = HalvingConv2d(in_channels, out_channels, kernel, groups)
    else:
        convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels, eps=_EPS)]


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project; with a residual connection where shapes allow it (Sandler et al. 2018)."""

    def __init__(self, in_channels: int, out_channels: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * expand
        expansion = [*_convolution(in_channels, wide), nn.ReLU6(inplace=True)] if expand > 1 else []
        depthwise = [*_convolution(wide, wide, kernel, stride, groups=wide), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*expansion, *depthwise, *_convolution(wide, out_channels))
        self.is_residual = stride == 1 and in_channels == out_channels
        self.halves_wide = stride == 2 and expand > 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `(batch, out_channels, row, col)`."""
        if self.halves_wide and not torch.is_grad_enabled() and x.shape[2] > 2 * _STRIP_ROWS:
            return self._by_strips(x)
        out: torch.Tensor = self.conv(x)
        return x + out if self.is_residual else out

    def _by_strips(self, x: torch.Tensor) -> torch.Tensor:
        """Return what `self.conv` returns: the expanded map, six times the input, exists a few rows at a time.

        It would be the largest map of a prediction by far, and pass through memory instead of the processor's cache.
        """
        layers = list(self.conv)
        expand, halve, project = nn.Sequential(*layers[:3]), layers[3], nn.Sequential(*layers[4:])
        if not isinstance(halve, HalvingConv2d):
            raise TypeError(f"{type(halve).__name__} does not halve")
        kernel, height = halve.kernel_size[0], x.shape[2]
        strips = []
        for row in range(0, height // 2, _STRIP_ROWS):
            first = 2 * row - halve.before
            end = 2 * (min(row + _STRIP_ROWS, height // 2) - 1) - halve.before + kernel
            wide = expand(x[:, :, max(first, 0) : min(end, height)])
            wide = functional.pad(wide, (halve.before, halve.after, max(-first, 0), max(end - height, 0)))
            halved = functional.conv2d(wide, halve.weight, halve.bias, stride=2, groups=halve.groups)
            strips.append(project(halved))
        return torch.cat(strips, dim=2)


def _stage(level: int, in_channels: int) -> nn.Sequential:
    """Return the blocks that end at 1 / 2**level."""
    layers: list[nn.Module] = []
    channels = in_channels
    if level == 1:
        layers, channels = [*_convolution(in_channels, _STEM, 3, 2), nn.ReLU6(inplace=True)], _STEM
    for blocks in STAGES[level - 1]:
        for index in range(blocks.repeats):
            stride = blocks.stride if index == 0 else 1
            layers.append(InvertedResidual(channels, blocks.out, blocks.expand, blocks.kernel, stride))
            channels = blocks.out
    return nn.Sequential(*layers)


class EfficientUNet(UNet):
    """Encoder EfficientNet-Lite0, decoder of double convolutions.

    `widths` are the decoder's, level 1 at half the resolution; up to four levels. Height and width of the input are
    multiples of `2 ** levels`. The logits are computed at half the resolution and upsampled bilinearly: a cloud's
    edge is less sharp than that in any label.
    """

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = (32, 64, 96, 96), dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.widths = tuple(widths)
        outs = [in_channels, *(stage[-1].out for stage in STAGES)]
        deepest = len(self.widths)
        for level in range(1, deepest):
            self.add_module(f"enc{level}", _stage(level, outs[level - 1]))
            self.add_module(f"pool{level}", nn.Identity())  # the first convolution of the next stage has stride 2
        projection = [
            nn.Conv2d(outs[deepest], self.widths[-1], 1),
            nn.BatchNorm2d(self.widths[-1]),
            nn.ReLU(inplace=True),
        ]
        self.bottleneck = nn.Sequential(_stage(deepest, outs[deepest - 1]), *projection)
        for level in range(deepest - 1, 0, -1):
            self.add_module(f"up{level}", nn.Upsample(scale_factor=2, mode="nearest"))
            self.add_module(
                f"dec{level}", DoubleConv(self.widths[level] + outs[level], self.widths[level - 1], dropout)
            )
        self.final = nn.Conv2d(self.widths[0], 1, 1)

    def stage(self, level: int) -> nn.Module:
        """Return a stage of the encoder (1 is the first)."""
        return self.get_submodule(f"enc{level}" if level < len(self.widths) else "bottleneck.0")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `(batch, 1, row, col)` of normalized pixels `(batch, band, row, col)`."""
        return functional.interpolate(super().forward(x), scale_factor=2, mode="bilinear", align_corners=False)
