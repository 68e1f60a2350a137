"""Post-training quantization of a net to int8, from its ONNX export.

Static quantization: QDQ nodes, unsigned 8-bit activations, signed 8-bit weights with one scale per channel (Jacob et
al. 2018, arXiv:1712.05877), ranges of activations from the smallest and largest values on calibration chips.
Preprocessing, up-convolutions (ONNX Runtime has no int8 kernel for them), the first stage of EfficientUNet, the last
convolution and the sigmoid stay float32: with an 8-bit sigmoid the probability would have fewer steps.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from cloudseg.model.export import export_onnx
from cloudseg.model.int8.net import INT8_FILE
from cloudseg.model.weights import LoadedModel, WeightsMeta
from cloudseg.scratch import scratch_directory

CALIBRATION_CHIPS: Final = 16
"""With this many the mask's IoU against fp32 was 0.9997 (docs/decisions/0015_int8.md)."""

_OP_TYPES: Final = ("Conv", "Relu", "Clip", "MaxPool", "Concat")
"""Relu and Clip too, so that the range of a convolution is that of what passes them: unclipped it is several times as
wide."""

Ranges = Literal["widest", "averaged"]
"""Of activations: the widest of all chips, or averaged over them, so that one odd pixel does not widen all steps."""
RANGES: Final[tuple[Ranges, ...]] = get_args(Ranges)
Pixels = npt.NDArray[np.uint16]
"""Canonical digital numbers of a chip, `(band, row, col)`."""


def quantize(loaded: LoadedModel, chips: Sequence[Pixels], ranges: Ranges = "widest") -> bytes:
    """Return the int8 ONNX file of a net: same input and output as its ONNX export; equal input produces equal bytes.

    Which ranges are better depends on the net: mask IoU 0.988 (widest) and 0.994 (averaged) of an EfficientUNet, 0.997
    and 0.659 of a SimpleUNet. Memory: a few times the activations of one chip.

    Args:
        loaded: the net.
        chips: about sixteen of what the net will see, uint16 `(band, row, col)`, sides multiples of `meta.multiple`.
        ranges: how the ranges of the chips are combined.

    Raises:
        ValueError: no chips.
    """
    if not chips:
        raise ValueError("int8 ranges need calibration chips")
    model = onnx.load_from_string(export_onnx(loaded))
    # Its graph is already prepared (fused, no dead nodes): without this mark the quantizer warns.
    onnx.helper.set_model_props(model, _props(model) | {"onnx.quant.pre_process": "onnxruntime.quant"})
    with scratch_directory("int8") as folder:
        path = folder / INT8_FILE
        quantize_static(
            model,
            path,
            _CalibrationChips(chips),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=list(_OP_TYPES),
            nodes_to_exclude=[node.name for node in model.graph.node if _stays_float(node, loaded.meta)],
            extra_options={"CalibMovingAverage": ranges == "averaged"},
        )
        quantized = onnx.load(path)
    onnx.helper.set_model_props(quantized, dict(sorted(_props(quantized).items())))
    return bytes(quantized.SerializeToString(deterministic=True))


def _stays_float(node: onnx.NodeProto, meta: WeightsMeta) -> bool:
    """Return whether a node is the last convolution, which outputs the logits, or in EfficientUNet's first stage.

    In the latter some channels reach 70 and others 0.1: one range cannot serve both.
    """
    if node.op_type != "Conv":
        return False
    first = "bottleneck.0." if len(meta.widths) == 1 else "enc1."
    return node.input[1] == "final.weight" or (meta.architecture == "EfficientUNet" and node.input[1].startswith(first))


class _CalibrationChips(CalibrationDataReader):  # type: ignore[misc]
    """Reader that passes the chips to the quantizer one at a time."""

    def __init__(self, chips: Sequence[Pixels]) -> None:
        self._left: Iterator[Pixels] = iter(chips)

    def get_next(self) -> dict[str, Pixels] | None:
        chip = next(self._left, None)
        return None if chip is None else {"dn": chip[None]}


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
