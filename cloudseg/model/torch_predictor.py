"""The only forward pass of torch outside the training step: validation, evaluation and prediction go through here."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cloudseg.bands import NO_DATA
from cloudseg.model.device import Device, keep_activations_mapped, set_up
from cloudseg.model.fuse import fuse_conv_bn
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.predictor import Padding, Predictor
from cloudseg.model.weights import LoadedModel


class TorchPredictor(Predictor):
    """A net ready to predict: BatchNorm fused, channels_last, bf16 if the device has it."""

    def __init__(self, loaded: LoadedModel, device: Device) -> None:
        """Copy the net to the device; the given one is not changed.

        Args:
            loaded: the weights.
            device: where to compute; its threads and switches become those of the process.
        """
        super().__init__(loaded.meta, loaded.weights_id)
        set_up(device)
        keep_activations_mapped()
        self._device = device
        net = fuse_conv_bn(loaded.net).to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._net: torch.nn.Module = net.requires_grad_(False)
        self._optional = [self.meta.bands.index(band) for band in self.meta.optional_bands]

    @property
    def arithmetic(self) -> Literal["fp32", "bf16"]:
        """That of the device."""
        return self._device.precision

    def _compute(
        self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], padding: Padding
    ) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            x = normalize(
                to_reflectance(dn).to(self._device.torch),
                torch.from_numpy(valid).to(self._device.torch),
                self.meta.scaling,
            )
            for band in self._optional:
                x[:, band].masked_fill_(torch.from_numpy(dn[:, band] == NO_DATA).to(self._device.torch), 0.0)
            if any(after for _, after in padding):
                # Edge pixels are repeated: zeros would look like missing data to the net and darken the rim.
                x = functional.pad(x, (*padding[1], *padding[0]), mode="replicate")
            probability = self._forward(x)
            if self.meta.tta_flip:
                probability = (probability + self._forward(x.flip(-1)).flip(-1)) / 2
            return probability.cpu().numpy()

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        with self._device.autocast():
            logits = self._net(x.contiguous(memory_format=torch.channels_last))[:, 0].float()
        # The sigmoid of infinity is 0 or 1: a net that overflows would look certain.
        return torch.sigmoid(logits.where(logits.isfinite(), torch.nan))
