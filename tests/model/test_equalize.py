"""Equalized channels: the same bits in float32, about equal ranges, a better int8 file of a net with uneven ones."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cloudseg.model.efficient_unet import EfficientUNet
from cloudseg.model.export import export_onnx
from cloudseg.model.int8 import METHODS, Method, agreement, make_int8, measure_agreement, quantize
from cloudseg.model.int8.equalize import _ranges, equalize
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel
from tests.model.test_int8 import CHIPS, FP32, labeled, make_loaded


def make_uneven(loaded: LoadedModel, factor: float) -> LoadedModel:
    """Return the same net with one channel of a map `factor` times as large, and the weights that read it smaller."""
    with torch.no_grad():
        norm, reader = loaded.net.get_submodule("dec1.conv.1"), loaded.net.get_submodule("dec1.conv.3")
        norm.weight[2] *= factor
        norm.bias[2] *= factor
        reader.weight[:, 2] /= factor
    return loaded


def run(model: onnx.ModelProto, dn: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (probability,) = session.run(None, {"dn": dn[None]})
    return probability


@pytest.mark.parametrize("architecture", ["SimpleUNet", "EfficientUNet"])
def test_it_computes_the_same_bits_with_about_equal_ranges(architecture: str) -> None:
    loaded = make_loaded(tta_flip=True)
    if architecture == "EfficientUNet":
        torch.manual_seed(1)
        net = EfficientUNet(2, (8, 12, 16, 16))
        net(torch.rand(4, 2, 64, 64))
        meta = loaded.meta.model_copy(update={"architecture": "EfficientUNet", "widths": (8, 12, 16, 16)})
        loaded = LoadedModel(net.eval(), meta)
    else:
        loaded = make_uneven(loaded, 64.0)
    model = onnx.load_from_string(export_onnx(loaded))
    equal = equalize(model, CHIPS)
    np.testing.assert_array_equal(run(model, CHIPS[0]), run(equal, CHIPS[0]))
    assert equal.SerializeToString() != model.SerializeToString()
    if architecture == "SimpleUNet":
        read = next(node.input[0] for node in model.graph.node if "dec1.conv.3.weight" in node.input)
        before, after = (_ranges(graph, [read], CHIPS)[read] for graph in (model, equal))
        assert before[2] > 16 * np.median(before)
        assert 0.7 < after[2] < 1.5, "the nearest power of two"


def test_a_net_with_uneven_channels_agrees_only_when_they_are_equalized() -> None:
    loaded = make_uneven(make_loaded(), 300.0)
    reference, compared = TorchPredictor(loaded, FP32), labeled(loaded)
    plain, equal = (
        measure_agreement(loaded, reference, quantize(loaded, CHIPS, Method(equalized, averaged=False)), compared)
        for equalized in (False, True)
    )
    assert plain.mask_iou < 0.9
    assert equal.mask_iou > 0.95


def test_methods_are_tried_until_one_agrees(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    loaded = make_uneven(make_loaded(), 300.0)
    given = loaded, TorchPredictor(loaded, FP32), CHIPS, labeled(loaded)
    made = make_int8(*given)
    assert len(_tried(caplog)) == len(METHODS), "random parameters crowd the probability around the threshold"
    assert not made.agreement.is_good, "none lowers what is asked"
    assert made.method.equalized, "the best is reported"
    assert made.data == quantize(loaded, CHIPS, made.method)
    caplog.clear()
    monkeypatch.setattr(agreement, "INT8_MIN_MASK_IOU", 0.95)
    monkeypatch.setattr(agreement, "INT8_MAX_LABEL_CHANGE", 0.05)
    monkeypatch.setattr(agreement, "METHODS", METHODS[::-1])
    made = make_int8(*given)
    assert made.agreement.is_good
    assert made.method.equalized
    assert 1 < len(_tried(caplog)) <= len(METHODS)


def _tried(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("int8, ")]
