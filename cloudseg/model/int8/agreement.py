"""Agreement of int8 with fp32, which determines whether and how it is published."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.metrics import share
from cloudseg.model.device import cpu_flags, int8_unit, usable_cpus
from cloudseg.model.int8.net import Int8Net
from cloudseg.model.int8.quantization import RANGES, quantize
from cloudseg.model.normalize import observed
from cloudseg.model.weights import LoadedModel

MIN_MASK_IOU: Final = 0.99
MAX_LABEL_CHANGE: Final = 0.005
"""Of the IoU against the labels.

The margin below which a champion would not be replaced either (field study, PostHog #89135).
"""

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
        return self.mask_iou >= MIN_MASK_IOU and abs(self.label_iou - self.label_iou_fp32) <= MAX_LABEL_CHANGE

    def __str__(self) -> str:
        labels = f"IoU against labels {self.label_iou:.4f} (fp32 {self.label_iou_fp32:.4f})"
        return f"mask IoU against fp32 {self.mask_iou:.4f}, {labels}, {self.chips} validation chips"


def make_int8(
    loaded: LoadedModel,
    reference: Reference,
    calibration: Sequence[npt.NDArray[np.uint16]],
    compared: Sequence[LabeledPixels],
) -> tuple[bytes, Agreement]:
    """Quantize a net with both methods of choosing ranges, and return the file that agrees better.

    Args:
        loaded: the net.
        reference: the same net in fp32.
        calibration: training chips, uint16 `(band, row, col)`.
        compared: validation chips with labels.
    """
    files = [quantize(loaded, calibration, ranges) for ranges in RANGES]
    measured = [(int8, measure_agreement(loaded, reference, int8, compared)) for int8 in files]
    return max(measured, key=lambda found: found[1].mask_iou)


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
    for dn, label in chips:
        valid = observed(dn)
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
