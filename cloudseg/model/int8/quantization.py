"""Post-training quantization of a net to int8, from its ONNX export.

Static quantization: QDQ nodes, unsigned 8-bit activations, signed 8-bit weights with one scale per channel (Jacob et
al. 2018, arXiv:1712.05877), ranges of activations from the smallest and largest values on calibration chips.
Preprocessing, up-convolutions (ONNX Runtime has no int8 kernel for them), the first stage of EfficientUNet, the last
convolution and the sigmoid stay float32: with an 8-bit sigmoid the probability would have fewer steps.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from cloudseg.model.export import export_onnx
from cloudseg.model.int8.equalize import equalize
from cloudseg.model.int8_net import INT8_FILE
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.weights import LoadedModel
from cloudseg.scratch import scratch_directory

CALIBRATION_CHIPS: Final = 16
"""With this many the mask's IoU against fp32 was 0.9997 (docs/decisions/0015_int8.md)."""

_OP_TYPES: Final = ("Conv", "Relu", "Clip", "MaxPool", "Concat")
"""Relu and Clip too, so that the range of a convolution is that of what passes them: unclipped it is several times as
wide."""

_QUANTIZER: Final = ("qdq_quantizer", "onnx_quantizer", "base_quantizer")
"""Modules of ONNX Runtime whose notes are left out."""


class Method(NamedTuple):
    """How the int8 scales of activations are chosen."""

    equalized: bool
    """Whether channels get about equal ranges before (`cloudseg.model.int8.equalize`)."""
    averaged: bool
    """Whether a range is averaged over the chips, so that one odd pixel does not widen all steps; else the widest."""

    def __str__(self) -> str:
        return f"{'equalized' if self.equalized else 'plain'}, {'averaged' if self.averaged else 'widest'} ranges"


METHODS: Final = (Method(True, True), Method(True, False), Method(False, True), Method(False, False))
"""In the order in which they are tried."""
Pixels = npt.NDArray[np.uint16]
"""Canonical digital numbers of a chip, `(band, row, col)`."""


def quantize(loaded: LoadedModel, chips: Sequence[Pixels], method: Method = METHODS[0]) -> bytes:
    """Return the int8 ONNX file of a net: same input and output as its ONNX export; equal input produces equal bytes.

    Memory: a few times the activations of one chip.

    Args:
        loaded: the net.
        chips: about sixteen of what the net will see, uint16 `(band, row, col)`, sides multiples of `meta.multiple`.
        method: how the scales are chosen.

    Raises:
        ValueError: no chips.
    """
    if not chips:
        raise ValueError("int8 ranges need calibration chips")
    model = onnx.load_from_string(export_onnx(loaded))
    if method.equalized:
        model = equalize(model, chips)
    # Its graph is already prepared (fused, no dead nodes): without this mark the quantizer warns.
    onnx.helper.set_model_props(model, _props(model) | {"onnx.quant.pre_process": "onnxruntime.quant"})
    with scratch_directory("int8") as folder:
        path = folder / INT8_FILE
        with _without_notes():
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
                extra_options={"CalibMovingAverage": method.averaged},
            )
        quantized = onnx.load(path)
    onnx.helper.set_model_props(quantized, dict(sorted(_props(quantized).items())))
    return bytes(quantized.SerializeToString(deterministic=True))


@contextmanager
def _without_notes() -> Iterator[None]:
    """Keep the quantizer's notes about widened scales, which it gives to the root logger, out of the log."""

    def is_ours(record: logging.LogRecord) -> bool:
        return record.module not in _QUANTIZER

    root = logging.getLogger()
    root.addFilter(is_ours)
    try:
        yield
    finally:
        root.removeFilter(is_ours)


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
