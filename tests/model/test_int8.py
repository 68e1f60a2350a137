"""The int8 file agrees with the net, has equal bytes, is used only where it may be, and is refused when damaged."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from cloudseg.catalog import Catalog
from cloudseg.errors import BadWeights, ObjectCorrupt
from cloudseg.model.device import Device, choose_device, choose_int8, cpu_flags, int8_unit
from cloudseg.model.golden import REFERENCE_DEVICE
from cloudseg.model.int8 import METHODS, Agreement, measure_agreement, quantize
from cloudseg.model.int8_net import INT8_FILE, Int8Net
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.pixels import observed
from cloudseg.model.predictor import Predictor, open_predictor, predictor_of
from cloudseg.model.safetensors_header import METADATA_KEY
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.model.windows import PaddedWindow, plan_windows
from cloudseg.recipe import Model
from cloudseg.records import Weights
from cloudseg.registry import register
from cloudseg.storage import LocalStore

FP32 = Device(kind="cpu", precision="fp32", threads=1, reason="test")
INT8 = dataclasses.replace(FP32, int8="test")


def make_loaded(*, seed: int = 0, widths: tuple[int, ...] = (8, 12, 16), **facts: Any) -> LoadedModel:
    """Return a net whose probability uses its whole range, as that of a trained net does."""
    torch.manual_seed(seed)
    model = Model(bands=("red", "green"), widths=widths)
    net = build_model(model)
    with torch.no_grad():
        net(torch.rand(4, 2, 32, 32))  # BatchNorm has seen something
        net.eval()
        logits = net(torch.randn(2, 2, 64, 64))
        net.final.weight.mul_(1.5 / logits.std())
        net.final.bias.copy_((net.final.bias - logits.mean()) * 1.5 / logits.std())
    meta = {
        "architecture": "SimpleUNet",
        "bands": model.bands,
        "widths": widths,
        "dropout": 0.0,
        "total_parameters": 1,
        "clip": 0.6,
        "mean": (0.3,),
        "std": (0.2,),
        "working_resolution_m": None,
        "threshold": 0.4,
        "tta_flip": False,
        "chip_size": 64,
    }
    return load_weights(pack_weights(net, WeightsMeta.model_validate(meta | facts)))


def make_chip(seed: int, side: int = 64) -> np.ndarray:
    """Return blobs with noise, and a corner without data."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(500, 6000, (2, side // 8, side // 8)).repeat(8, axis=1).repeat(8, axis=2)
    dn = (coarse + rng.integers(0, 400, coarse.shape)).astype(np.uint16)
    dn[:, :5, :9] = 0
    return dn


CHIPS = [make_chip(seed) for seed in range(4)]


def choose(loaded: LoadedModel, device: Device, int8: bytes | None) -> Predictor:
    return predictor_of(pack_weights(loaded.net, loaded.meta), int8, device)


def labeled(loaded: LoadedModel, *, other: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return new chips, labeled by the net itself or by its opposite."""
    chips = [make_chip(seed) for seed in range(10, 14)]
    masks = [
        TorchPredictor(loaded, FP32).probability(dn[None], observed(dn)[None])[0] >= loaded.meta.threshold
        for dn in chips
    ]
    return [(dn, (mask ^ other).astype(np.uint8)) for dn, mask in zip(chips, masks, strict=True)]


@pytest.mark.parametrize("facts", [{}, {"tta_flip": True}])
def test_it_agrees_and_equal_input_gives_equal_bytes(facts: dict[str, Any]) -> None:
    loaded = make_loaded(**facts)
    data = quantize(loaded, CHIPS)
    assert data == quantize(loaded, CHIPS)
    found = measure_agreement(loaded, TorchPredictor(loaded, FP32), data, labeled(loaded))
    assert found.mask_iou > 0.95, "random parameters crowd the probability around the threshold"
    assert found.label_iou_fp32 == 1
    assert found.label_iou == found.mask_iou
    kinds = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Sigmoid"} <= kinds


def test_it_is_published_only_when_it_agrees() -> None:
    assert Agreement(0.995, 0.800, 0.804, 9).is_good
    assert not Agreement(0.989, 0.800, 0.800, 9).is_good
    assert not Agreement(0.995, 0.800, 0.806, 9).is_good
    assert not Agreement(0.995, 0.806, 0.800, 9).is_good, "better by chance is another net too"
    loaded = make_loaded()
    blind = quantize(loaded, [np.zeros_like(CHIPS[0])])  # ranges of empty chips: everything above is cut off
    assert not measure_agreement(loaded, TorchPredictor(loaded, FP32), blind, labeled(loaded)).is_good
    with pytest.raises(ValueError, match="calibration"):
        quantize(loaded, [])


def test_without_cloud_there_is_nothing_to_disagree_on() -> None:
    loaded = make_loaded(threshold=1.0)
    empty = [(dn, np.zeros(dn.shape[1:], np.uint8)) for dn in CHIPS]
    assert measure_agreement(loaded, TorchPredictor(loaded, FP32), quantize(loaded, CHIPS), empty) == Agreement(
        1.0, 1.0, 1.0, 4
    )


@pytest.mark.usefixtures("exact_int8")
def test_the_optimized_graph_equals_the_node_by_node_one() -> None:
    loaded = make_loaded()
    data = quantize(loaded, CHIPS, METHODS[-1])
    fused, by_node = (
        Int8Net(data, loaded.meta, threads=1, fused=way).probability(make_chip(9)[None]) for way in (True, False)
    )
    # Where a sum is between two steps either may be taken, which changes the layers after it.
    np.testing.assert_allclose(fused, by_node, atol=0.03)
    assert np.abs(fused - by_node).mean() < 3e-3


@pytest.mark.parametrize(
    ("flags", "unit"),
    [
        ("fpu sse4_2 avx2 avx512f avx512_vnni", "avx512_vnni"),
        ("avx2 avx_vnni", "avx_vnni"),
        ("asimd asimddp", "asimddp"),
        ("asimddp i8mm", "i8mm"),
        ("avx2 avx512f avx512bw", None),
        ("asimd", None),
        ("", None),
    ],
)
def test_only_cpus_that_sum_exactly(flags: str, unit: str | None) -> None:
    assert int8_unit(frozenset(flags.split())) == unit


def test_the_setting_and_the_reference() -> None:
    assert choose_device("cpu", int8="off").int8 is None
    assert choose_device("cpu", int8="auto").int8 == int8_unit(cpu_flags())
    assert REFERENCE_DEVICE.int8 is None, "golden samples are fp32"


@pytest.mark.usefixtures("exact_int8")
def test_a_prediction_in_int8_asks_torch_only_where_a_gpu_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidiactl"
    monkeypatch.setattr("cloudseg.model.device.GPU_FILES", (driver,))
    chosen = choose_int8()
    assert chosen is not None
    assert (chosen.kind, chosen.int8, chosen.provisional) == ("cpu", int8_unit(cpu_flags()), True)
    assert "this machine has no GPU driver; int8: the CPU has" in chosen.reason
    assert choose_int8(int8="off") is None
    assert choose_int8("cuda") is None
    driver.touch()
    assert choose_int8() is None, "a GPU is preferred to int8"
    assert choose_int8("cpu") is not None
    monkeypatch.setattr("cloudseg.model.device.CPUINFO", tmp_path / "none")
    assert choose_int8("cpu") is None


@pytest.mark.usefixtures("exact_int8")
def test_weights_without_an_int8_file_choose_the_precision_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_loaded()
    device = choose_int8("cpu", threads=1)
    assert device is not None
    monkeypatch.setattr("cloudseg.model.device.bf16_unit", lambda kind: "a unit")
    assert choose(loaded, device, None).arithmetic == "bf16"
    assert choose(loaded, device, quantize(loaded, CHIPS)).arithmetic == "int8"


def test_the_predictor_uses_it_only_where_the_device_can() -> None:
    loaded, dn = make_loaded(), make_chip(5)[None]
    data = quantize(loaded, CHIPS)
    plain, refused, fast = (
        choose(loaded, INT8, None),
        choose(loaded, FP32, data),
        choose(loaded, INT8, data),
    )
    assert (plain.arithmetic, refused.arithmetic, fast.arithmetic) == ("fp32", "fp32", "int8")
    exact, same = (predictor.probability(dn, observed(dn)) for predictor in (plain, refused))
    np.testing.assert_array_equal(exact, same)


@pytest.mark.usefixtures("exact_int8")
def test_the_predictor_computes_in_int8() -> None:
    loaded, dn = make_loaded(), make_chip(5)[None]
    data = quantize(loaded, CHIPS)
    exact, quick = (choose(loaded, INT8, file).probability(dn, observed(dn)) for file in (None, data))
    assert 0 < np.abs(quick - exact)[observed(dn)].mean() < 0.02


def test_windows_of_an_int8_net_do_not_depend_on_the_precision_of_the_cpu() -> None:
    """The masks of one scene would differ by rounding between CPUs with and without bf16."""
    loaded, bf16 = make_loaded(), dataclasses.replace(INT8, precision="bf16")
    data = quantize(loaded, CHIPS)

    def windows(device: Device, file: bytes | None) -> list[PaddedWindow]:
        return plan_windows(choose(loaded, device, file), 3000, 3000, 1, budget_bytes=64 << 20)

    assert windows(INT8, data) == windows(bf16, data)
    assert windows(INT8, None) != windows(bf16, None)
    assert windows(INT8, data) != windows(INT8, None)


@pytest.mark.usefixtures("exact_int8")
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (3, 5)])
def test_prediction_of_any_size(size: tuple[int, int]) -> None:
    loaded = make_loaded(tta_flip=True)
    dn = np.ascontiguousarray(make_chip(6)[None, :, -size[0] :, -size[1] :])
    valid = observed(dn)
    valid[0, 0, 0] = False
    exact, quick = (choose(loaded, INT8, data).probability(dn, valid) for data in (None, quantize(loaded, CHIPS)))
    assert quick.shape == (1, *size)
    assert quick.dtype == np.float32
    assert np.abs(quick - exact)[valid].mean() < 0.02


def test_hostile_files_are_refused() -> None:
    loaded = make_loaded()
    data = quantize(loaded, CHIPS)
    for wrong in (b"", b"\xff" * 40, data[:-50]):
        with pytest.raises(BadWeights):
            Int8Net(wrong, loaded.meta, threads=1)
    with pytest.raises(BadWeights, match="other weights"):
        Int8Net(data, make_loaded(threshold=0.5).meta, threads=1)
    model = onnx.load_from_string(data)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(BadWeights, match="other files"):
        Int8Net(model.SerializeToString(), loaded.meta, threads=1)


def test_a_file_published_under_an_old_name_of_the_metadata_opens() -> None:
    loaded = make_loaded()
    model = onnx.load_from_string(quantize(loaded, CHIPS))
    meta = loaded.meta.model_dump(mode="json")
    meta["flip_at_prediction"] = meta.pop("tta_flip")
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(meta, sort_keys=True)})
    assert Int8Net(model.SerializeToString(), loaded.meta, threads=1, fused=False)
    for text in ("", "[]", json.dumps({**meta, "flip_at_prediction": True})):
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        with pytest.raises(BadWeights, match="other weights"):
            Int8Net(model.SerializeToString(), loaded.meta, threads=1, fused=False)


def publish(store: LocalStore, catalog: Catalog, loaded: LoadedModel, int8: bytes | None) -> Weights:
    assets = {} if int8 is None else {"int8": (INT8_FILE, int8)}
    return register(
        store,
        catalog,
        weights=pack_weights(loaded.net, loaded.meta),
        metadata=loaded.meta.model_dump(mode="json"),
        companions=assets,
        run_id=None,
        snapshot_id=None,
        architecture=loaded.meta.architecture,
    )


def test_published_weights_open_with_their_int8_file(
    store: LocalStore, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    loaded = make_loaded()
    weights = publish(store, catalog, loaded, quantize(loaded, CHIPS))
    assert open_predictor(store, weights, INT8).arithmetic == "int8"
    assert "int8: they have an int8 file and the CPU has test" in caplog.text
    assert open_predictor(store, weights, FP32).arithmetic == "fp32"
    assert "switched off" in caplog.text
    assert open_predictor(store, publish(store, catalog, make_loaded(seed=1), None), INT8).arithmetic == "fp32"
    assert "no int8 file" in caplog.text
    path = Path(store.gdal_path(weights.companions["int8"]["key"]))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ObjectCorrupt):
        open_predictor(store, weights, INT8)
