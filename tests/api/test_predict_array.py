"""Arrays: what numbers mean, where there are no data, and errors that say what to type."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloudseg
from cloudseg.errors import InputError
from cloudseg.model.device import Device
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import pack_weights
from tests.predict.conftest import make_loaded, make_numbers

RGB = ["red", "green", "blue"]
FP32 = Device(kind="cpu", precision="fp32", threads=1, reason="test")


@pytest.fixture
def model(runtime_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cloudseg.Model:
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    loaded = make_loaded((4, 6), working_resolution_m=20.0)
    (tmp_path / "w.safetensors").write_bytes(pack_weights(loaded.net, loaded.meta))
    return cloudseg.load(tmp_path / "w.safetensors")


def test_the_result_is_that_of_the_net(runtime_env: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with the net itself, without windows or encoding."""
    loaded = make_loaded((4, 6))
    model = cloudseg.Model(TorchPredictor(loaded, FP32))
    numbers = make_numbers(70, 90, count=3, seed=3)
    numbers[:, 60:, :] = 0
    numbers[1, :5, :7] = 0  # dark in one band only: an observation
    found = model.predict(numbers, bands=RGB)
    valid = (numbers != 0).any(axis=0)
    expected = TorchPredictor(loaded, FP32).probability(np.maximum(numbers, 1)[None], valid[None])[0]
    assert found.mask.dtype == np.uint8
    assert found.probability.dtype == np.float32
    assert np.abs(found.probability[valid] - expected[valid]).max() <= 0.5 / 250 + 1e-5
    assert expected[valid].std() > 0.05, "a flat picture would prove nothing"
    assert (found.mask[~valid] == 255).all()
    assert np.isnan(found.probability[~valid]).all()
    assert not np.isnan(found.probability[valid]).any()
    assert (found.mask[valid] == (found.probability[valid] >= found.threshold)).all()
    assert found.cloud_fraction == pytest.approx((found.mask == 1).sum() / valid.sum())


def test_bands_are_chosen_by_name(model: cloudseg.Model) -> None:
    numbers = make_numbers(60, 60, seed=1)
    expected = model.predict(numbers[:3], bands=RGB, resolution_m=10).mask
    turned = model.predict(numbers[[3, 2, 1, 0]], bands=["nir", "blue", "green", "red"], resolution_m=10)
    without = model.predict(numbers[[3, 2, 1, 0]], bands=["-", "blue", "green", "red"], resolution_m=10)
    wrong = model.predict(numbers[[2, 1, 0]], bands=RGB, resolution_m=10).mask
    assert (turned.mask == expected).all()
    assert (without.mask == expected).all()
    assert (wrong != expected).any(), "else the order would prove nothing"


def test_the_resolution_matters(model: cloudseg.Model) -> None:
    numbers = make_numbers(60, 60, count=3, seed=1)
    fine, coarse = (model.predict(numbers, bands=RGB, resolution_m=size) for size in (10, 20))
    assert model.resolution_m == 20
    assert (fine.probability != coarse.probability).any()


def test_reflectance_and_digital_numbers_agree(model: cloudseg.Model) -> None:
    numbers = make_numbers(60, 60, count=3, seed=1)
    numbers[:, 10:20, 10:20] = 0
    expected = model.predict(numbers, bands=RGB, resolution_m=10)
    reflectance = np.where(numbers == 0, np.nan, numbers / 10_000)
    with_offset = np.where(numbers == 0, 0, numbers + 1000).astype(np.uint16)
    marked = np.where(numbers == 0, -9999, numbers).astype(np.int16)
    for given, more in (
        (reflectance.astype(np.float32), {}),
        (reflectance, {}),
        (with_offset, {"scale": 1e-4, "offset": -0.1}),
        (with_offset, {"offset": -0.1}),
        (marked, {"nodata": -9999}),
    ):
        found = model.predict(given, bands=RGB, resolution_m=10, **more)
        assert (found.mask == expected.mask).all(), more
        assert np.array_equal(found.probability, expected.probability, equal_nan=True), more
    assert (expected.mask[10:20, 10:20] == 255).all()


def test_an_array_without_any_data_has_no_mask(model: cloudseg.Model) -> None:
    found = model.predict(np.zeros((3, 40, 30), np.uint16), bands=RGB, resolution_m=10)
    assert (found.mask == 255).all()
    assert np.isnan(found.probability).all()
    assert np.isnan(found.cloud_fraction)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": None}, r"the model reads red, green, blue.*bands=\['red', 'green', 'blue'\]"),
        ({"bands": ["red", "green", "nir"]}, r"the model reads blue \(found red, green, nir.*bands=\["),
        ({"bands": ["red", "green", "green"]}, "two bands have the name green"),
        ({"bands": ["red", "green", "blue", "B08"]}, "unknown bands.*B08.*nir"),
        ({"bands": "red"}, "the model reads|unknown bands"),
        ({"bands": [*RGB, "nir"]}, r"does not fit its band names.*shape \(3, 60, 60\), 4 bands"),
        ({"resolution_m": None}, r"the size of a pixel is unknown.*works at 20 m.*resolution_m=10"),
        ({"resolution_m": -1}, "not a pixel size"),
        ({"scale": 7.0}, "scale and offset .* not plausible"),
    ],
)
def test_a_wrong_argument_says_what_to_type(model: cloudseg.Model, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(make_numbers(60, 60, count=3), **{"bands": RGB, "resolution_m": 10, **change})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (make_numbers(60, 60, count=3).astype(np.float32), r"cannot be reflectance.*Pass scale=0\.0001"),
        (make_numbers(60, 60, count=3) * np.uint16(8), r"cannot be reflectance"),
        (make_numbers(60, 60, count=3).astype(np.int64), r"unsupported data type.*int64"),
        (np.moveaxis(make_numbers(60, 60, count=3), 0, -1), r"moveaxis"),
        (make_numbers(60, 60, count=1)[0], r"does not fit its band names"),
    ],
)
def test_a_wrong_array_says_what_to_do(model: cloudseg.Model, array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.predict(array, bands=RGB, resolution_m=10)


def test_the_progress_is_told(model: cloudseg.Model) -> None:
    seen: list[tuple[int, int]] = []
    model.predict(
        make_numbers(60, 60, count=3),
        bands=RGB,
        resolution_m=10,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 1)]
