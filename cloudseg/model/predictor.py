"""The only forward pass outside the training step: validation, evaluation and prediction all go through here."""

import logging
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cloudseg.bands import NO_DATA
from cloudseg.model.device import Device, keep_activations_mapped, set_up, usable_cpus
from cloudseg.model.fuse import fuse_conv_bn
from cloudseg.model.int8 import INT8_ASSET, Int8Net
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.weights import LoadedModel, load_weights
from cloudseg.records import StoredObject, Weights
from cloudseg.storage import Store

log = logging.getLogger(__name__)
_Padding = tuple[tuple[int, int], tuple[int, int]]
"""Pixels to add before and after, rows and columns, so that sides are multiples of the net's pooling cell."""


class Predictor:
    """A net ready to predict: BatchNorm fused, channels_last, bf16 or int8 if the device has it.

    Keeps no state between calls.
    """

    def __init__(self, loaded: LoadedModel, device: Device, int8: bytes | None = None) -> None:
        """Copy the net to the device; the given one is not changed.

        Args:
            loaded: the weights.
            device: where to compute; its threads and switches become those of the process.
            int8: the weights' int8 file, its checksum compared; used if the device names int8 arithmetic.
        """
        set_up(device)
        if int8 is None or not device.int8:
            keep_activations_mapped()
        self.meta = loaded.meta
        self.weights_id = loaded.weights_id
        self.device = device
        self._int8 = (
            Int8Net(int8, loaded.meta, threads=device.threads or usable_cpus())
            if int8 is not None and device.int8
            else None
        )
        net = fuse_conv_bn(loaded.net).to(device.torch, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._net: torch.nn.Module = net.requires_grad_(False)
        self._optional = [self.meta.bands.index(band) for band in self.meta.optional_bands]

    @property
    def arithmetic(self) -> Literal["fp32", "bf16", "int8"]:
        """The arithmetic in use. The same scene and weights produce the same bytes in the same arithmetic."""
        return "int8" if self._int8 is not None else self.device.precision

    def probability(self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return the probability of cloud.

        Args:
            dn: uint16 `(n, band, row, col)`, canonical digital numbers in the order of `meta.bands`, working pixels;
                0 where an optional band is missing (`cloudseg.model.normalize.fill_missing`).
            valid: bool `(n, row, col)`, True where observed.

        Returns:
            float32 `(n, row, col)` in 0..1, of any height and width; NaN where the net's output is not finite, and
            meaningless at invalid pixels.
        """
        if dn.ndim != 4 or dn.shape[1] != len(self.meta.bands) or valid.shape != (dn.shape[0], *dn.shape[2:]):
            raise ValueError(f"dn {dn.shape} and valid {valid.shape} do not fit the bands {self.meta.bands}")
        height, width = dn.shape[2:]
        padding = (0, -height % self.meta.multiple), (0, -width % self.meta.multiple)
        if self._int8 is None:
            probability = self._torch_probability(dn, valid, padding)
        else:  # the graph includes preprocessing and flip; 0 means no data
            probability = self._int8.probability(np.pad(dn * valid[:, None], ((0, 0), (0, 0), *padding), mode="edge"))
        return probability[:, :height, :width]

    def _torch_probability(
        self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], padding: _Padding
    ) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            x = normalize(
                to_reflectance(dn).to(self.device.torch),
                torch.from_numpy(valid).to(self.device.torch),
                self.meta.scaling,
            )
            for band in self._optional:
                x[:, band].masked_fill_(torch.from_numpy(dn[:, band] == NO_DATA).to(self.device.torch), 0.0)
            if any(after for _, after in padding):
                # Edge pixels are repeated: zeros would look like missing data to the net and darken the rim.
                x = functional.pad(x, (*padding[1], *padding[0]), mode="replicate")
            probability = self._forward(x)
            if self.meta.tta_flip:
                probability = (probability + self._forward(x.flip(-1)).flip(-1)) / 2
            return probability.cpu().numpy()

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.device.autocast():
            logits = self._net(x.contiguous(memory_format=torch.channels_last))[:, 0].float()
        # The sigmoid of infinity is 0 or 1: a net that overflows would look certain.
        return torch.sigmoid(logits.where(logits.isfinite(), torch.nan))


def open_predictor(store: Store, weights: Weights, device: Device) -> Predictor:
    """Load published weights, and their int8 file if there is one and the device can use it; log which and why.

    Raises:
        BadWeights: a file is invalid.
        ObjectMissing: a file is gone.
        ObjectCorrupt: a file has another checksum than its row.
    """
    loaded = load_weights(store.get(weights.key, weights.sha256), device.torch)
    asset = weights.companions.get(INT8_ASSET)
    int8 = None
    if asset is None:
        why = "no int8 file was published with them"
    elif device.int8 is None:
        why = f"int8 is switched off, or this {device.kind} cannot sum it exactly"
    else:
        stored = StoredObject.model_validate(asset)
        int8, why = store.get(stored.key, stored.sha256), f"they have an int8 file and the CPU has {device.int8}"
    predictor = Predictor(loaded, device, int8)
    log.info("weights %s predict in %s: %s", weights.weights_id, predictor.arithmetic, why)
    return predictor
