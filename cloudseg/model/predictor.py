"""Published weights, ready to predict: in int8 without torch where that can be, else in torch."""

import logging
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import numpy.typing as npt

from cloudseg.keys import id_from_hash, sha256_of
from cloudseg.model.device import Device, choose_device, usable_cpus
from cloudseg.model.int8_net import INT8_ASSET, Int8Net
from cloudseg.model.meta import WeightsMeta, read_meta, read_weights_header
from cloudseg.records import StoredObject, Weights
from cloudseg.storage import Store

log = logging.getLogger(__name__)
Padding = tuple[tuple[int, int], tuple[int, int]]
"""Pixels to add before and after, rows and columns, so that sides are multiples of the net's pooling cell."""


class Predictor(ABC):
    """Some weights in one arithmetic; keeps no state between calls."""

    def __init__(self, meta: WeightsMeta, weights_id: str | None) -> None:
        self.meta, self.weights_id = meta, weights_id

    @property
    @abstractmethod
    def arithmetic(self) -> Literal["fp32", "bf16", "int8"]:
        """The arithmetic in use. The same scene and weights produce the same bytes in the same arithmetic."""

    def probability(self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return the probability of cloud.

        Args:
            dn: uint16 `(n, band, row, col)`, canonical digital numbers in the order of `meta.bands`, working pixels;
                0 where an optional band is missing (`cloudseg.model.pixels.fill_missing`).
            valid: bool `(n, row, col)`, True where observed.

        Returns:
            float32 `(n, row, col)` in 0..1, of any height and width; NaN where the net's output is not finite, and
            meaningless at invalid pixels.
        """
        if dn.ndim != 4 or dn.shape[1] != len(self.meta.bands) or valid.shape != (dn.shape[0], *dn.shape[2:]):
            raise ValueError(f"dn {dn.shape} and valid {valid.shape} do not fit the bands {self.meta.bands}")
        height, width = dn.shape[2:]
        padding = (0, -height % self.meta.multiple), (0, -width % self.meta.multiple)
        return self._compute(dn, valid, padding)[:, :height, :width]

    @abstractmethod
    def _compute(
        self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], padding: Padding
    ) -> npt.NDArray[np.float32]:
        """Return the probability of the padded pixels."""


class Int8Predictor(Predictor):
    """The int8 file of some weights.

    Args:
        data: the file, its checksum compared.
        meta: of the weights.
        weights_id: of the weights.
        threads: CPU threads; 0 uses every CPU of the process.
    """

    arithmetic: Literal["int8"] = "int8"

    def __init__(self, data: bytes, meta: WeightsMeta, weights_id: str | None, *, threads: int = 0) -> None:
        super().__init__(meta, weights_id)
        self._net = Int8Net(data, meta, threads=threads or usable_cpus())

    def _compute(
        self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_], padding: Padding
    ) -> npt.NDArray[np.float32]:
        # The graph includes preprocessing and flip; 0 means no data.
        return self._net.probability(np.pad(dn * valid[:, None], ((0, 0), (0, 0), *padding), mode="edge"))


def open_predictor(store: Store, weights: Weights, device: Device) -> Predictor:
    """Load published weights, or their int8 file if there is one and the device can use it; log which and why.

    Raises:
        BadWeights: a file is invalid.
        ObjectMissing: a file is gone.
        ObjectCorrupt: a file has another checksum than its row.
        SettingsError: torch is needed and not installed.
    """
    data, asset = store.get(weights.key, weights.sha256), weights.companions.get(INT8_ASSET)
    int8 = None
    if asset is not None and device.int8 is not None:
        stored = StoredObject.model_validate(asset)
        int8 = store.get(stored.key, stored.sha256)
    return predictor_of(data, int8, device)


def predictor_of(data: bytes, int8: bytes | None, device: Device) -> Predictor:
    """Return the predictor of a weights file, and of its int8 file if the device can use it; log which and why.

    Args:
        data: the weights file; it may be hostile.
        int8: the int8 file, its checksum compared; None if there is none.
        device: where to compute.

    Raises:
        BadWeights: a file is invalid.
        SettingsError: torch is needed and not installed.
    """
    if int8 is not None and device.int8 is not None:
        weights_id = id_from_hash("w", sha256_of(data))
        predictor: Predictor = Int8Predictor(
            int8, read_meta(read_weights_header(data)), weights_id, threads=device.threads
        )
        why = f"they have an int8 file and the CPU has {device.int8}"
    else:
        predictor = _in_torch(data, device)
        why = (
            f"int8 is switched off, or this {device.kind} cannot sum it exactly"
            if device.int8 is None
            else "no int8 file was published with them"
        )
    log.info("weights %s predict in %s: %s", predictor.weights_id, predictor.arithmetic, why)
    return predictor


def _in_torch(data: bytes, device: Device) -> Predictor:
    if device.provisional:
        device = choose_device("cpu", threads=device.threads)
    from cloudseg.model.torch_predictor import TorchPredictor
    from cloudseg.model.weights import load_weights

    return TorchPredictor(load_weights(data, device.torch), device)
