"""Makes the int8 companion of published weights from their ONNX twin, and says how well it agrees with them.

Static quantisation: QDQ nodes, unsigned 8-bit activations, signed 8-bit weights with a scale a channel (Jacob et al.
2018, arXiv:1712.05877), ranges of activations from the smallest and largest values on calibration chips.
Pre-processing, up-convolutions (ONNX Runtime has no int8 kernel for them), the first stage of EfficientUNet, the last
convolution and the sigmoid stay float32: so the probability has all its steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.model.device import cpu_flags, int8_unit, usable_cpus
from cloudseg.model.export import export_onnx
from cloudseg.model.golden import REFERENCE_DEVICE
from cloudseg.model.int8 import Int8Net
from cloudseg.model.normalize import observed
from cloudseg.model.predictor import Predictor
from cloudseg.model.weights import LoadedModel, WeightsMeta
from cloudseg.scratch import scratch_directory

INT8_FILE: Final = "model-int8.onnx"
CALIBRATION_CHIPS: Final = 16
"""Ranges were settled with this many: the mask's IoU against fp32 was 0.9997 (docs/decisions/0015_int8.md)."""
MIN_MASK_IOU: Final = 0.99
MAX_LABEL_CHANGE: Final = 0.005
"""Of the IoU against the labels.

The margin below which a champion would not be exchanged either (field study, PostHog #89135).
"""

_KINDS: Final = ("Conv", "Relu", "Clip", "MaxPool", "Concat")
"""Relu and Clip, so that the range of a convolution is that of what passes them.

Unclipped it is several times as wide.
"""

Ranges = Literal["widest", "averaged"]
RANGES: Final[tuple[Ranges, ...]] = get_args(Ranges)
Chip = npt.NDArray[np.uint16]
Label = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Agreement:
    """What int8 changes, at the threshold, on chips that were not used for calibration."""

    mask_iou: float
    """IoU of cloud between the int8 mask and the fp32 mask, pixels of all chips pooled."""
    label_iou: float
    """IoU of cloud between the int8 mask and the labels."""
    label_iou_fp32: float
    """The same of the fp32 mask."""
    chips: int

    @property
    def is_good(self) -> bool:
        """Return whether the int8 net may be published."""
        return self.mask_iou >= MIN_MASK_IOU and abs(self.label_iou - self.label_iou_fp32) <= MAX_LABEL_CHANGE

    def __str__(self) -> str:
        labels = f"IoU against labels {self.label_iou:.4f} (fp32 {self.label_iou_fp32:.4f})"
        return f"mask IoU against fp32 {self.mask_iou:.4f}, {labels}, {self.chips} validation chips"


def quantize(loaded: LoadedModel, chips: Sequence[Chip], ranges: Ranges = "widest") -> bytes:
    """Return the int8 ONNX file of a net: same input and output as its twin; equal input gives equal bytes.

    `chips` are canonical uint16 `(band, row, col)`, sides multiples of `meta.multiple`; about sixteen of what the net
    will see. `ranges` of activations: the widest of all chips, or averaged over them, so that one odd pixel does not
    widen the steps of all. Which is better depends on the net: 0.988 and 0.994 of an EfficientUNet's mask, 0.997 and
    0.659 of a SimpleUNet's. Memory: a few times the activations of one chip. Raises ValueError without chips.
    """
    if not chips:
        raise ValueError("int8 ranges need calibration chips")
    model = onnx.load_from_string(export_onnx(loaded))
    # Its graph is prepared already (folded, no dead nodes): without this mark the quantiser warns.
    onnx.helper.set_model_props(model, _props(model) | {"onnx.quant.pre_process": "onnxruntime.quant"})
    with scratch_directory("int8") as folder:
        path = folder / INT8_FILE
        quantize_static(
            model,
            path,
            _Chips(chips),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(_KINDS),
            nodes_to_exclude=[node.name for node in model.graph.node if _stays_float(node, loaded.meta)],
            extra_options={"CalibMovingAverage": ranges == "averaged"},
        )
        quantized = onnx.load(path)
    onnx.helper.set_model_props(quantized, dict(sorted(_props(quantized).items())))
    return bytes(quantized.SerializeToString(deterministic=True))


def _stays_float(node: onnx.NodeProto, meta: WeightsMeta) -> bool:
    """The last convolution gives the logits, and the first stage of EfficientUNet holds numbers of 70 beside such of 0.1."""
    if node.op_type != "Conv":
        return False
    first = "bottleneck.0." if len(meta.widths) == 1 else "enc1."
    return node.input[1] == "final.weight" or (meta.architecture == "EfficientUNet" and node.input[1].startswith(first))


class _Chips(CalibrationDataReader):  # type: ignore[misc]
    """Hands the chips to the quantiser one at a time."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self._left: Iterator[Chip] = iter(chips)

    def get_next(self) -> dict[str, Chip] | None:
        chip = next(self._left, None)
        return None if chip is None else {"dn": chip[None]}


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def agreement(loaded: LoadedModel, int8: bytes, chips: Sequence[tuple[Chip, Label]]) -> Agreement:
    """Compare the masks of the int8 file with those of the net in fp32, and both with labels.

    `chips` are pairs of numbers `(band, row, col)` and label `(row, col)` (255 not labelled), sides multiples of
    `meta.multiple`. On a CPU that cannot sum int8 exactly it is computed step by step.
    """
    reference = Predictor(loaded, REFERENCE_DEVICE)
    fast = Int8Net(int8, loaded.meta, threads=usable_cpus(), fused=int8_unit(cpu_flags()) is not None)
    sums = np.zeros((3, 2), np.int64)
    for dn, label in chips:
        valid = observed(dn)
        exact = reference.probability(dn[None], valid[None])[0] >= loaded.meta.threshold
        quick = fast.probability(dn[None])[0] >= loaded.meta.threshold
        labelled, cloud = valid & (label != MASK_NO_DATA), label == MASK_CLOUD
        sums += [_overlap(quick, exact, valid), _overlap(quick, cloud, labelled), _overlap(exact, cloud, labelled)]
    # Without cloud in either there is nothing to disagree on.
    mask_iou, label_iou, label_iou_fp32 = (round(both / either, 6) if either else 1.0 for both, either in sums.tolist())
    return Agreement(mask_iou, label_iou, label_iou_fp32, len(chips))


def _overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the pixels that are cloud in both and in either."""
    return int((one & other & where).sum()), int(((one | other) & where).sum())
