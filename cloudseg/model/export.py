"""ONNX export of weights: preprocessing, net, flip and sigmoid in one graph that runs without torch.

The graph is built node by node from the fused net, not by `torch.onnx.export`: docs/decisions/0025_onnx_by_hand.md.
Input `dn` uint16 `(batch, band, height, width)`, canonical digital numbers with 0 for "no data", height and width
multiples of `WeightsMeta.multiple`; output `probability` float32 `(batch, height, width)`. A whole band of 0 means that
the scene lacks it, where the weights have it among `WeightsMeta.optional_bands`.
"""

import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cloudseg.bands import REFLECTANCE_SCALE
from cloudseg.model.efficient_unet import EfficientUNet, HalvingConv2d, InvertedResidual
from cloudseg.model.fuse import fuse_conv_bn
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.safetensors_header import METADATA_KEY
from cloudseg.model.unet import DoubleConv, UNet
from cloudseg.model.weights import LoadedModel

OPSET: Final = 17
"""Supported by every ONNX Runtime since 1.12 (2022)."""
_IR_VERSION: Final = 8
_BEFORE_FIRST: Final = -(2**31)
"""End of a Slice with step -1 that includes column 0."""


def export_onnx(loaded: LoadedModel) -> bytes:
    """Return the ONNX bytes, checked by `onnx.checker` with shape inference; equal weights produce equal bytes."""
    graph = _Graph()
    x = _preprocess(graph, loaded.meta)
    net = fuse_conv_bn(loaded.net)
    probability = _probability(graph, net, x, "")
    if loaded.meta.tta_flip:
        mirrored = _probability(graph, net, _mirror(graph, x), "mirrored_")
        both = graph.add("Add", [probability, _mirror(graph, mirrored)])
        probability = graph.add("Mul", [both, graph.constant("half", np.float32(0.5))])
    graph.add("Squeeze", [probability, graph.constant("band_axis", np.array([1]))], output="probability")
    model = graph.finish(len(loaded.meta.bands))
    helper.set_model_props(model, {METADATA_KEY: json.dumps(loaded.meta.model_dump(mode="json"), sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Builder of a graph: collects nodes and constants; `add` returns the name of a node's output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def add(self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def constant(self, name: str, value: npt.NDArray[np.generic] | np.generic) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def finish(self, bands: int) -> onnx.ModelProto:
        given = helper.make_tensor_value_info("dn", TensorProto.UINT16, ["batch", bands, "height", "width"])
        result = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", "height", "width"])
        graph = helper.make_graph(self._nodes, "cloudseg", [given], [result], list(self._constants.values()))
        model = helper.make_model(graph, producer_name="cloudseg", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = _IR_VERSION
        return model


def _preprocess(graph: _Graph, meta: WeightsMeta) -> str:
    """Add what `cloudseg.model.normalize` does: clip, mean, std, and 0 where a band was not observed.

    With optional bands a pixel is observed where no required band is 0, and a band that is 0 there is missing.
    """
    dn = graph.add("Cast", ["dn"], to=TensorProto.FLOAT)
    reflectance = graph.add("Div", [dn, graph.constant("scale", np.float32(REFLECTANCE_SCALE))])
    clipped = graph.add("Min", [reflectance, graph.constant("clip", np.float32(meta.clip))])
    mean, std = (np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (meta.mean, meta.std))
    centered = graph.add("Sub", [clipped, graph.constant("mean", mean)])
    scaled = graph.add("Div", [centered, graph.constant("std", std)])
    needed = dn
    if meta.optional_bands:
        positions = np.array([meta.bands.index(band) for band in meta.required_bands])
        needed = graph.add("Gather", [dn, graph.constant("required_bands", positions)], axis=1)
    darkest = graph.add("ReduceMin", [needed], axes=[1], keepdims=1)
    valid = graph.add("Greater", [darkest, graph.constant("no_data", np.float32(0))])
    if meta.optional_bands:
        valid = graph.add("And", [valid, graph.add("Greater", [dn, "no_data"])])
    return graph.add("Where", [valid, scaled, "no_data"])


def _mirror(graph: _Graph, x: str) -> str:
    ends = ("last", [-1]), ("before_first", [_BEFORE_FIRST]), ("column_axis", [-1]), ("backwards", [-1])
    return graph.add("Slice", [x, *(graph.constant(name, np.array(value, np.int64)) for name, value in ends)])


def _probability(graph: _Graph, net: UNet, x: str, prefix: str) -> str:
    skips: dict[int, str] = {}
    for level in range(1, len(net.widths)):
        skips[level] = _layers(graph, net.get_submodule(f"enc{level}"), f"enc{level}", x)
        x = _layers(graph, net.get_submodule(f"pool{level}"), f"pool{level}", skips[level])
    x = _layers(graph, net.bottleneck, "bottleneck", x)
    for level, name in net.decoder_names:
        x = _layers(graph, net.get_submodule(f"up{name}"), f"up{name}", x)
        joined = graph.add("Concat", [x, skips[level]], axis=1)
        x = _layers(graph, net.get_submodule(f"dec{name}"), f"dec{name}", joined)
    x = _convolution(graph, net.final, "final", x)
    if isinstance(net, EfficientUNet):
        # Of the same shape. ONNX Runtime would keep the one channel in blocks of 16 through upsampling and sigmoid: 128
        # instead of 64 bytes a pixel, and a sixth more time for the whole net in int8.
        x = graph.add("Reshape", [x, graph.constant("same_shape", np.array([0, 1, 0, -1], np.int64))])
        x = _upsample(graph, x, mode="linear", coordinate_transformation_mode="half_pixel")
    return graph.add("Sigmoid", [x], output=f"{prefix}cloud")


def _layers(graph: _Graph, module: nn.Module, name: str, x: str) -> str:
    """Add a module and its children in the order of their execution."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution(graph, module, name, x)
    if isinstance(module, nn.ReLU):
        return graph.add("Relu", [x])
    if isinstance(module, nn.ReLU6):
        ends = graph.constant("zero", np.float32(0)), graph.constant("six", np.float32(6))
        return graph.add("Clip", [x, *ends])
    if isinstance(module, nn.MaxPool2d):
        return graph.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    if isinstance(module, nn.Upsample):
        return _upsample(graph, x, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    if isinstance(module, InvertedResidual):
        out = _layers(graph, module.conv, f"{name}.conv", x)
        return graph.add("Add", [x, out]) if module.is_residual else out
    if isinstance(module, nn.Sequential | DoubleConv):
        for part, layer in module.named_children():
            x = _layers(graph, layer, f"{name}.{part}", x)
        return x
    if isinstance(module, nn.Identity):
        return x
    raise TypeError(f"{name} has no ONNX export: {module}")


def _upsample(graph: _Graph, x: str, **attributes: str) -> str:
    """Double height and width."""
    return graph.add("Resize", [x, "", graph.constant("twice", np.array([1, 1, 2, 2], np.float32))], **attributes)


def _convolution(graph: _Graph, layer: nn.Module, name: str, x: str) -> str:
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or layer.bias is None:
        raise TypeError(f"{name} is not a convolution with bias: {layer}")
    weight = graph.constant(f"{name}.weight", _array(layer.weight))
    bias = graph.constant(f"{name}.bias", _array(layer.bias))
    pad = [int(p) for p in layer.padding]
    pads = [layer.before] * 2 + [layer.after] * 2 if isinstance(layer, HalvingConv2d) else [*pad, *pad]
    kind = "ConvTranspose" if isinstance(layer, nn.ConvTranspose2d) else "Conv"
    group: dict[str, Any] = {"group": layer.groups} if layer.groups > 1 else {}
    return graph.add(
        kind, [x, weight, bias], kernel_shape=list(layer.kernel_size), strides=list(layer.stride), pads=pads, **group
    )


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().contiguous().numpy().astype(np.float32)
    return array
