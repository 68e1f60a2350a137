"""Weights files: round trip, equal bytes, hostile ones are refused; golden sample and ONNX export agree with torch."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save

from cloudseg.errors import BadWeights
from cloudseg.model.device import Device, bf16_unit, choose_device, keep_activations_mapped
from cloudseg.model.export import export_onnx
from cloudseg.model.fuse import fuse_conv_bn
from cloudseg.model.golden import TOLERANCE, golden_difference, pack_golden, read_golden
from cloudseg.model.import_baseline_weights import read_baseline_weights
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.nets import build_model
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.pixels import Scaling, observed
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.unet import SimpleUNetV2, UNet, count_parameters
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.recipe import Model
from cloudseg.stages import import_weights, models

CPU = Device(kind="cpu", precision="fp32", threads=1, reason="test")


def make(
    *, widths: tuple[int, ...] = (4, 8, 12), architecture: str = "SimpleUNetV2", **facts: Any
) -> tuple[UNet, WeightsMeta]:
    """Return a seeded net whose BatchNorm statistics are not the initial ones, and its metadata."""
    torch.manual_seed(3)
    model = Model(architecture=architecture, bands=("red", "green"), widths=widths, dropout=0.3)  # type: ignore[arg-type]
    net = build_model(model)
    net(torch.rand(4, 2, 32, 32))
    values = {
        "architecture": architecture,
        "bands": ("red", "green"),
        "widths": widths,
        "dropout": 0.3,
        "total_parameters": count_parameters(net),
        "clip": 0.6,
        "mean": (0.1, 0.2),
        "std": (0.3,),
        "working_resolution_m": None,
        "threshold": 0.4,
        "tta_flip": False,
        "chip_size": 32,
    }
    return net.eval(), WeightsMeta.model_validate({**values, **facts})


def loaded(**facts: Any) -> LoadedModel:
    return load_weights(pack_weights(*make(**facts)))


def scene(height: int = 32, width: int = 32, *, seed: int = 0) -> np.ndarray:
    dn = np.random.default_rng(seed).integers(1, 9000, (1, 2, height, width)).astype(np.uint16)
    dn[:, :, 5:9, 3:12] = 0
    return dn


@pytest.mark.parametrize("flip", [False, True])
def test_weights_of_an_earlier_release_open(flip: bool) -> None:
    net, meta = make(tta_flip=flip)
    values = meta.model_dump(mode="json")
    values["flip_at_prediction"] = values.pop("tta_flip")
    data = save(
        {name: value.contiguous() for name, value in net.state_dict().items()}, {"cloudseg": json.dumps(values)}
    )
    assert load_weights(data).meta == meta


def test_round_trip_and_equal_bytes() -> None:
    net, meta = make(metrics={"validation_iou": 0.5}, sources=("b", "a"))
    data = pack_weights(net, meta)
    assert data == pack_weights(net, meta)
    back = load_weights(data)
    assert back.meta == meta
    assert not back.net.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in back.net.state_dict().items())
    assert back.weights_id is not None
    assert back.weights_id.startswith("w-")


def with_header(data: bytes, change: Any) -> bytes:
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    packed = json.dumps(change(header) or header).encode()
    return struct.pack("<Q", len(packed)) + packed + data[8 + length :]


def change_meta(**values: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        block = json.loads(header["__metadata__"]["cloudseg"])
        header["__metadata__"]["cloudseg"] = json.dumps({**block, **values})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_meta(extra=1), "extra"),
        (change_meta(threshold=2), "threshold"),
        (change_meta(std=[0.0]), "std"),
        (change_meta(widths=[10**9, 10**9]), "widths"),
        (change_meta(widths=[4, 8, 16]), "do not fit the net"),
        (change_meta(architecture="os.system"), "architecture"),
        (lambda header: header.pop("__metadata__") and None, "no cloudseg metadata"),
        (lambda header: header.update(__metadata__={"cloudseg": "["}), "unusable"),
        (lambda header: header.pop("final.bias") and None, "do not fit the net"),
        (
            lambda header: header.update(more={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
            "do not fit the net",
        ),
        (lambda header: header["final.bias"].update(dtype="F16"), "another type"),
        (lambda header: header["final.bias"].update(data_offsets=[0, 2**60]), "not a safetensors file"),
        (lambda header: [1, 2], "not an object"),
    ],
)
def test_hostile_headers_are_refused(change: Any, message: str) -> None:
    with pytest.raises(BadWeights, match=message):
        load_weights(with_header(pack_weights(*make()), change))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 4 << 20) + b"[" * (4 << 20),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(BadWeights):
        load_weights(data)


def test_parameters_that_are_not_finite_are_refused() -> None:
    net, meta = make()
    with torch.no_grad():
        net.final.bias.fill_(float("nan"))
    with pytest.raises(BadWeights, match="not finite"):
        load_weights(pack_weights(net, meta))


def test_a_negative_variance_is_refused() -> None:
    """It is finite, and what the net computes with it is not."""
    net, meta = make()
    variance = next(module.running_var for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))
    variance[1] = -1.0
    with pytest.raises(BadWeights, match=r"a variance is negative \(found .*running_var"):
        load_weights(pack_weights(net, meta))


@pytest.mark.parametrize(
    "facts", [{"std": (5e-324,)}, {"std": (-0.3,)}, {"std": (1e300,)}, {"mean": (1e300,)}, {"std": (1.5e-38,)}]
)
def test_scaling_that_float32_cannot_do_is_refused(facts: dict[str, Any]) -> None:
    ((name, _),) = facts.items()
    with pytest.raises(BadWeights, match=name):
        load_weights(with_header(pack_weights(*make()), change_meta(**facts)))


def _published(tmp_path: Path, change: Any) -> Path:
    """Return a file like the baseline's after a change of its state."""
    torch.manual_seed(0)
    state = SimpleUNetV2().state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def _name(state: dict[str, torch.Tensor], end: str) -> str:
    return next(name for name in state if name.endswith(end))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state[_name(state, "running_var")].fill_(-1.0), "a variance is negative"),
        (lambda state: state.update({"final.bias": state["final.bias"].to(torch.complex64)}), "complex64"),
        (lambda state: state.update({"final.bias": torch.tensor([1e300], dtype=torch.float64)}), "is not finite"),
        (lambda state: [state[name].fill_(1e30) for name in state if name.endswith("weight")], "is not finite"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_an_import_refuses_a_net_that_makes_no_numbers(
    tmp_path: Path, runtime_env: Path, change: Any, message: str, dry_run: bool
) -> None:
    with pytest.raises(BadWeights, match=message):
        import_weights(str(_published(tmp_path, change)), dry_run=dry_run)
    if not dry_run:
        assert models() == []


def test_an_import_accepts_what_the_baseline_project_may_publish(tmp_path: Path, runtime_env: Path) -> None:
    record = import_weights(str(_published(tmp_path, lambda state: state["final.bias"].fill_(0.5))))
    assert [weights["weights_id"] for weights in models()] == [record.weights_id]


def test_normalize_clips_scales_and_zeroes() -> None:
    dn = np.array([[[[0, 2500]], [[0, 9000]]]], np.uint16)
    x = normalize(to_reflectance(dn), torch.from_numpy(observed(dn)), Scaling(0.6, (0.1, 0.2), (0.5, 0.1)))
    torch.testing.assert_close(x, torch.tensor([[[[0.0, 0.3]], [[0.0, 4.0]]]]))


def test_fusing_batch_norm_changes_nothing() -> None:
    net, _ = make()
    x = torch.rand(2, 2, 32, 32)
    torch.testing.assert_close(fuse_conv_bn(net)(x), net(x), atol=1e-5, rtol=1e-5)
    assert not any(
        isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout2d) for module in fuse_conv_bn(net).modules()
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (3, 5)])
def test_prediction_of_any_size(size: tuple[int, int]) -> None:
    dn = scene(*size)
    probability = TorchPredictor(loaded(), CPU).probability(dn, observed(dn))
    assert probability.shape == (1, *size)
    assert probability.dtype == np.float32
    assert 0 <= probability.min() <= probability.max() <= 1


def test_flip_is_the_mean_of_both_views() -> None:
    dn = scene(32, 32)
    plain, flipped = (TorchPredictor(loaded(tta_flip=flip), CPU) for flip in (False, True))
    mirrored = plain.probability(dn[..., ::-1].copy(), observed(dn)[..., ::-1].copy())[..., ::-1]
    expected = (plain.probability(dn, observed(dn)) + mirrored) / 2
    np.testing.assert_allclose(flipped.probability(dn, observed(dn)), expected, atol=1e-6)


def test_bf16_agrees_with_fp32() -> None:
    dn = scene(32, 32)
    model = loaded()
    exact, fast = (
        TorchPredictor(model, Device("cpu", precision, 1, "test")).probability(dn, observed(dn))
        for precision in ("fp32", "bf16")
    )  # type: ignore[arg-type]
    np.testing.assert_allclose(fast, exact, atol=0.03)


@pytest.mark.parametrize("widths", [(4,), (4, 6, 8)])
def test_receptive_radius_is_exact(widths: tuple[int, ...]) -> None:
    net, meta = make(widths=widths)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_().add_(0.01)
    x = torch.ones(1, 2, 96, 96, requires_grad=True)
    y = net(x)
    reach = 0
    for row in range(48, 48 + meta.multiple):
        (gradient,) = torch.autograd.grad(y[0, 0, row, row], x, retain_graph=True)
        rows = gradient[0].abs().sum(dim=(0, 2)).nonzero().flatten()
        reach = max(reach, row - int(rows[0]), int(rows[-1]) - row)
    assert reach == meta.receptive_radius


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"tta_flip": True},
        {"architecture": "SimpleUNet", "widths": (4, 6)},
        {"mean": (0.1,), "std": (0.2, 0.3)},
    ],
)
def test_onnx_export_equals_torch(facts: dict[str, Any]) -> None:
    model = loaded(**facts)
    data = export_onnx(model)
    assert data == export_onnx(model)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for size in ((32, 32), (16, 48)):
        dn = np.concatenate([scene(*size), scene(*size, seed=1)])
        expected = TorchPredictor(model, CPU).probability(dn, observed(dn))
        np.testing.assert_allclose(session.run(None, {"dn": dn})[0], expected, atol=1e-5)
    props = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert WeightsMeta.model_validate_json(props["cloudseg"]) == model.meta


def test_golden_sample() -> None:
    model = loaded()
    golden = read_golden(pack_golden(model))
    assert golden.weights_id == model.weights_id
    assert golden_difference(model, golden) <= 1e-6
    other, meta = make()
    with torch.no_grad():
        other.final.bias.add_(0.5)
    assert golden_difference(load_weights(pack_weights(other, meta)), golden) > TOLERANCE
    for broken in (b"", b"{}" * 20, pack_golden(model)[:-4]):
        with pytest.raises(BadWeights):
            read_golden(broken)


def test_device_is_explained() -> None:
    device = choose_device("cpu", "auto", 1)
    assert device.kind == "cpu"
    assert "cpu was requested" in device.reason
    assert device.precision == ("bf16" if bf16_unit("cpu") else "fp32")
    assert choose_device("cpu", "fp32").precision == "fp32"
    assert isinstance(keep_activations_mapped(), bool)


def test_baseline_weights_are_read_and_predict_with_their_own_preprocessing(shared_data: Path) -> None:
    net, meta = read_baseline_weights(shared_data / "seed_weights" / "simple_unet_v2_subset100_epoch10.pth")
    assert (meta.total_parameters, meta.bands) == (468_097, ("red", "green", "blue", "nir"))
    landsat = np.random.default_rng(0).integers(6000, 40_000, (1, 4, 32, 32))
    reflectance = landsat * 2e-5 - 0.1
    dn = np.maximum(np.rint(reflectance * 10_000), 1).astype(np.uint16)
    with torch.inference_mode():
        theirs = torch.sigmoid(net(torch.from_numpy((landsat / 65_535).astype(np.float32))))[:, 0].numpy()
    ours = TorchPredictor(load_weights(pack_weights(net, meta)), CPU).probability(dn, np.ones((1, 32, 32), bool))
    np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_anything_but_the_baseline_weights_is_refused(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(BadWeights):
        read_baseline_weights(shared_data / "bad" / "git_lfs_pointer.pth")
    torch.save({"final.bias": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadWeights, match="not the baseline's weights"):
        read_baseline_weights(tmp_path / "other.pth")
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    with pytest.raises(BadWeights):
        read_baseline_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(BadWeights, match="cannot be read"):
        read_baseline_weights(tmp_path / "absent.pth")
