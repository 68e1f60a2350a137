"""The only forward pass outside the training step: validation, evaluation and prediction all go through here."""

import logging

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cloudseg.model.device import Device, set_up
from cloudseg.model.fold import fold_batch_norm
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.weights import LoadedModel

log = logging.getLogger(__name__)


class Predictor:
    """A net ready to predict: BatchNorm folded, channels_last, bf16 where the device has it. Keeps no state between calls."""

    def __init__(self, loaded: LoadedModel, device: Device) -> None:
        """Copy the net to the device; the given one is not changed."""
        set_up(device)
        self.meta = loaded.meta
        self.weights_id = loaded.weights_id
        self.device = device
        net = fold_batch_norm(loaded.net).to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._net: torch.nn.Module = net.requires_grad_(False)

    def probability(self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Give the probability of cloud.

        Args:
            dn: uint16 `(n, band, row, col)`, canonical digital numbers in the order of `meta.bands`, working pixels.
            valid: bool `(n, row, col)`, True where observed.

        Returns:
            float32 `(n, row, col)` in 0..1, of any height and width; what stands at invalid pixels means nothing.
        """
        if dn.ndim != 4 or dn.shape[1] != len(self.meta.bands) or valid.shape != (dn.shape[0], *dn.shape[2:]):
            raise ValueError(f"dn {dn.shape} and valid {valid.shape} do not fit the bands {self.meta.bands}")
        height, width = dn.shape[2:]
        rows, cols = -height % self.meta.multiple, -width % self.meta.multiple
        with torch.inference_mode():
            x = normalize(to_reflectance(dn).to(self.device.torch), torch.from_numpy(valid).to(self.device.torch), self.meta.scaling)
            if rows or cols:
                # Edge pixels are repeated: zeros would look like missing data to the net and darken the rim.
                x = functional.pad(x, (0, cols, 0, rows), mode="replicate")
            probability = self._forward(x)
            if self.meta.flip_at_prediction:
                probability = (probability + self._forward(x.flip(-1)).flip(-1)) / 2
            return probability[:, :height, :width].cpu().numpy()

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.device.autocast():
            logits = self._net(x.contiguous(memory_format=torch.channels_last))
        return torch.sigmoid(logits[:, 0].float())
