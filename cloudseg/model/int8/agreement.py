"""Agreement of int8 with fp32, which determines whether and how it is published."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.metrics import INT8_MAX_LABEL_CHANGE, INT8_MIN_MASK_IOU, share
from cloudseg.model.device import cpu_flags, int8_unit, usable_cpus
from cloudseg.model.int8.quantization import METHODS, Method, quantize
from cloudseg.model.int8_net import Int8Net
from cloudseg.model.pixels import observed
from cloudseg.model.weights import LoadedModel

log = logging.getLogger(__name__)
LabeledPixels = tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]
"""Canonical digital numbers `(band, row, col)` and label `(row, col)`, 255 where not labeled."""


class Reference(Protocol):
    """The net in fp32: a `cloudseg.model.predictor.Predictor`, which imports this package."""

    def probability(self, dn: npt.NDArray[np.uint16], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return the probability of cloud `(batch, row, col)`."""


@dataclass(frozen=True)
class Agreement:
    """The effect of int8, at the threshold, on chips that were not used for calibration."""

    mask_iou: float
    """IoU of cloud between the int8 mask and the fp32 mask, pixels of all chips pooled."""
    label_iou: float
    """IoU of cloud between the int8 mask and the labels."""
    label_iou_fp32: float
    """The same of the fp32 mask."""
    chips: int

    @property
    def is_good(self) -> bool:
        """Whether the int8 net may be published."""
        return self.mask_iou >= INT8_MIN_MASK_IOU and abs(self.label_iou - self.label_iou_fp32) <= INT8_MAX_LABEL_CHANGE

    def __str__(self) -> str:
        labels = f"IoU against labels {self.label_iou:.4f} (fp32 {self.label_iou_fp32:.4f})"
        return f"mask IoU against fp32 {self.mask_iou:.4f}, {labels}, {self.chips} validation chips"


@dataclass(frozen=True)
class Quantized:
    """An int8 file, how it was made and how it agrees."""

    data: bytes
    method: Method
    agreement: Agreement


def make_int8(
    loaded: LoadedModel,
    reference: Reference,
    calibration: Sequence[npt.NDArray[np.uint16]],
    compared: Sequence[LabeledPixels],
) -> Quantized:
    """Quantize a net by one method after the other until a file agrees; return that one, else the one that agrees most.

    All methods must reach the same agreement: which of them does depends on the net.

    Args:
        loaded: the net.
        reference: the same net in fp32.
        calibration: training chips, uint16 `(band, row, col)`.
        compared: validation chips with labels.
    """
    tried = []
    for method in METHODS:
        int8 = quantize(loaded, calibration, method)
        tried.append(Quantized(int8, method, measure_agreement(loaded, reference, int8, compared)))
        log.info("int8, %s: %s", method, tried[-1].agreement)
        if tried[-1].agreement.is_good:
            break
    return max(tried, key=lambda found: (found.agreement.is_good, found.agreement.mask_iou))


def measure_agreement(
    loaded: LoadedModel, reference: Reference, int8: bytes, chips: Sequence[LabeledPixels]
) -> Agreement:
    """Compare the masks of the int8 file with those of the net in fp32, and both with labels.

    On a CPU that cannot sum int8 exactly the int8 net is computed node by node in float32.

    Args:
        loaded: the net.
        reference: the same net in fp32.
        int8: what `quantize` returned for the net.
        chips: pixels and labels, sides multiples of `meta.multiple`.
    """
    net = Int8Net(int8, loaded.meta, threads=usable_cpus(), fused=int8_unit(cpu_flags()) is not None)
    sums = np.zeros((3, 2), np.int64)
    required = [loaded.meta.bands.index(band) for band in loaded.meta.required_bands]
    for dn, label in chips:
        valid = observed(dn[required])
        in_fp32 = reference.probability(dn[None], valid[None])[0] >= loaded.meta.threshold
        in_int8 = net.probability(dn[None])[0] >= loaded.meta.threshold
        labeled, cloud = valid & (label != MASK_NO_DATA), label == MASK_CLOUD
        sums += [
            _overlap(in_int8, in_fp32, valid),
            _overlap(in_int8, cloud, labeled),
            _overlap(in_fp32, cloud, labeled),
        ]
    mask_iou, label_iou, label_iou_fp32 = (round(share(both, either), 6) for both, either in sums.tolist())
    return Agreement(mask_iou, label_iou, label_iou_fp32, len(chips))


def _overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the pixels that are cloud in both and in either."""
    return int((one & other & where).sum()), int(((one | other) & where).sum())
