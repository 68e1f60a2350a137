"""Scale the channels of a map to about equal ranges before they share one int8 scale; what a net computes stays.

A map is quantized with one scale, so a channel that reaches 0.1 beside one that reaches 70 gets a single step. Between
convolutions with nothing but ReLU, sums, pooling, upsampling and concatenation, a channel may be divided by any
positive number if the weights that read it are multiplied by it (Nagel et al. 2019, "Data-Free Quantization Through
Weight Equalization and Bias Correction", arXiv:1906.04721; here by the ranges of the activations, as in SmoothQuant,
Xiao et al. 2022, arXiv:2211.10438, with alpha 1: weights have a scale per channel already). Not through ReLU6, whose 6
is absolute. The numbers are powers of two, so float32 computes the same bits.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

_CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
_SCALED_THROUGH: Final = ("Relu", "MaxPool", "Resize")
"""Operators with f(s x) = s f(x) for a positive s, channel by channel."""
_MOST: Final = 10.0
"""Largest exponent: a channel that is nearly always 0 may stay small."""


def equalize(model: onnx.ModelProto, chips: Sequence[npt.NDArray[np.uint16]]) -> onnx.ModelProto:
    """Return the graph with equalized channels; it computes the same.

    Args:
        model: the export of a net; it is not changed.
        chips: what the ranges are measured on, uint16 `(band, row, col)`.
    """
    streams = _Streams(model)
    exponents = streams.exponents(_ranges(model, streams.maps_read(), chips))
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    arrays = {tensor.name: tensor for tensor in changed.graph.initializer}
    for node in {node.input[1]: node for node in model.graph.node if node.op_type in _CONVOLUTIONS}.values():
        weight = numpy_helper.to_array(arrays[node.input[1]])
        outputs, inputs = (1, 0) if node.op_type == "ConvTranspose" else (0, 1)
        written = np.exp2(exponents[streams.channels[node.output[0]]])
        weight = weight / _along(outputs, written)
        if node.input[0] in streams.channels and _groups(node) == 1:
            weight = weight * _along(inputs, np.exp2(exponents[streams.channels[node.input[0]]]))
        bias = numpy_helper.to_array(arrays[node.input[2]]) / written
        for name, values in ((node.input[1], weight), (node.input[2], bias)):
            arrays[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return changed


class _Streams:
    """Channels that must be divided by the same number, found by following the outputs of convolutions.

    Attributes:
        channels: of each map behind convolutions, the numbers of its channels' streams.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.channels: dict[str, list[int]] = {}
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self._of_weight: dict[str, list[int]] = {}
        self._same_as: list[int] = []
        self._fixed: set[int] = set()
        self._read: set[str] = set()
        for node in model.graph.node:
            self._follow(node)

    def maps_read(self) -> list[str]:
        """Return the maps that convolutions read: those whose ranges count."""
        return sorted(self._read)

    def exponents(self, ranges: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
        """Return for each stream the power of two by which its channels are divided.

        Args:
            ranges: largest absolute value of each channel of the maps that are read.
        """
        largest = np.zeros(len(self._same_as))
        for name, values in ranges.items():
            np.maximum.at(largest, [self._find(stream) for stream in self.channels[name]], values)
        fixed = {self._find(stream) for stream in self._fixed}
        found = np.clip(np.round(np.log2(np.where(largest > 0, largest, 1))), -_MOST, _MOST)
        roots = [self._find(stream) for stream in range(len(found))]
        return np.array([0.0 if root in fixed else found[root] for root in roots])

    def _follow(self, node: onnx.NodeProto) -> None:
        given = [self.channels[name] for name in node.input if name in self.channels]
        if node.op_type in _CONVOLUTIONS:
            if given and _groups(node) == 1:
                self._read.add(node.input[0])
            else:
                self._fix(given)
            self.channels[node.output[0]] = self._outputs(node)
        elif node.op_type in _SCALED_THROUGH and given:
            self.channels[node.output[0]] = given[0]
        elif node.op_type == "Concat" and given and len(given) == len(node.input):
            self.channels[node.output[0]] = [stream for part in given for stream in part]
        elif node.op_type == "Add" and len(given) == 2:
            for one, other in zip(*given, strict=True):
                self._same_as[self._find(other)] = self._find(one)
            self.channels[node.output[0]] = given[0]
        else:
            self._fix(given)

    def _outputs(self, node: onnx.NodeProto) -> list[int]:
        """Return the streams that a convolution writes: the same where its weights are used again, mirrored."""
        weight = node.input[1]
        if weight not in self._of_weight:
            count = self._shapes[weight][1 if node.op_type == "ConvTranspose" else 0]
            first = len(self._same_as)
            self._same_as += range(first, first + count)
            self._of_weight[weight] = list(range(first, first + count))
        return self._of_weight[weight]

    def _fix(self, maps: list[list[int]]) -> None:
        self._fixed |= {stream for streams in maps for stream in streams}

    def _find(self, stream: int) -> int:
        while self._same_as[stream] != stream:
            stream = self._same_as[stream]
        return stream


def _ranges(
    model: onnx.ModelProto, maps: list[str], chips: Sequence[npt.NDArray[np.uint16]]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the largest absolute value of each channel of some maps, averaged over the chips."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    for number, name in enumerate(maps):
        size, largest = f"size_{number}", f"largest_{number}"
        probe.graph.node.append(helper.make_node("Abs", [name], [size]))
        probe.graph.node.append(helper.make_node("ReduceMax", [size], [largest], axes=[0, 2, 3], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(largest, onnx.TensorProto.FLOAT, ["channel"]))
    session: Any = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(None, {"dn": chip[None]}) for chip in chips]
    return {name: np.mean([values[number] for values in found], axis=0) for number, name in enumerate(maps)}


def _groups(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def _along(axis: int, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values along one of the four axes of a convolution's weights."""
    return values.reshape([-1 if number == axis else 1 for number in range(4)])
