"""Fuse BatchNorm into the convolution before it: the same result, one pass over memory less."""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cloudseg.model.unet import UNet


def fuse_conv_bn(net: UNet) -> UNet:
    """Return a copy in evaluation mode without BatchNorm (and without Dropout, which does nothing there).

    Equal to the net's own evaluation mode up to float32 rounding.
    """
    fused = copy.deepcopy(net).eval()
    for module in list(fused.modules()):
        if isinstance(module, nn.Sequential):
            _fuse_sequence(module)
    return fused


def _fuse_sequence(sequence: nn.Sequential) -> None:
    layers = list(sequence)
    for index, (layer, following) in enumerate(pairwise(layers)):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            with torch.no_grad():
                sequence[index] = fuse_conv_bn_eval(layer, following)
            sequence[index + 1] = nn.Identity()
        elif isinstance(following, nn.Dropout2d):
            sequence[index + 1] = nn.Identity()
