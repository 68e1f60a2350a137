"""An exponential moving average of a net: what is validated, kept and published when the recipe asks for it."""

import copy

import torch

from cloudseg.model.unet import UNet


class EMA:
    """A copy that follows parameters and BatchNorm statistics.

    The decay grows as (1 + n) / (10 + n) up to its value, so that early averages forget the first random weights (as in
    TensorFlow's ExponentialMovingAverage with `num_updates`).
    """

    def __init__(self, net: UNet, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, net: UNet, step: int) -> None:
        """Follow the net after a step (0 is the first)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for mine, new in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(new, 1 - decay)
            else:
                mine.copy_(new)
