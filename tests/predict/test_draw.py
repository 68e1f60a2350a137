"""Windowed equals whole; nothing observed means nothing computed; the rasters say what the net said."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudseg.errors import DataError
from cloudseg.grid import Window
from cloudseg.model.device import Device
from cloudseg.model.int8 import quantize
from cloudseg.model.predictor import Int8Predictor, Predictor
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel
from cloudseg.predict.draw import PredictionProgress, draw_arrays, draw_rasters, plan_scene, stored_pixels
from cloudseg.raster.probability import classify, encode_probability, first_cloud_step
from cloudseg.raster.read import open_raster, read_bands, read_scene, read_valid
from cloudseg.raster.resample import scene_window
from cloudseg.stac.mask import MaskFacts

FP32 = Device(kind="cpu", precision="fp32", threads=1, reason="test")
Drawn = tuple[np.ndarray, np.ndarray, MaskFacts, list[PredictionProgress]]


def numbers_of(height: int, width: int, seed: int, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blobs = rng.random((count, height // 8 + 2, width // 8 + 2)).repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (500 + 6000 * blobs + rng.integers(0, 800, (count, height, width))).astype(np.uint16)


def draw(world: Any, scene: Any, predictor: Predictor, core: int | None) -> Drawn:
    mask, probability = world.folder / "m.tif", world.folder / "p.tif"
    seen: list[PredictionProgress] = []
    plan = plan_scene(scene, predictor, core=core)
    facts = draw_rasters(
        world.store.gdal_path(scene.key),
        scene,
        predictor,
        plan,
        mask=mask,
        probability=probability,
        on_progress=seen.append,
    )
    with rasterio.open(mask) as m, rasterio.open(probability) as p:
        return m.read(1), p.read(1), facts, seen


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(height=120, width=100, levels=1, factor=2, flip=False, core=16, seed=0)  # upsampling looks beyond the margin
@given(
    height=st.integers(40, 150),
    width=st.integers(40, 150),
    levels=st.integers(1, 4),
    factor=st.sampled_from([1, 2, 3]),
    flip=st.booleans(),
    core=st.sampled_from([16, 32, 64]),
    seed=st.integers(0, 5),
)
def test_windowed_equals_whole(
    world: Any,
    make_net: Callable[..., LoadedModel],
    height: int,
    width: int,
    levels: int,
    factor: int,
    flip: bool,
    core: int,
    seed: int,
) -> None:
    numbers = numbers_of(height, width, seed)
    numbers[:, : height // 4, : width // 3] = 0
    scene = world.add_scene(numbers)
    loaded = make_net((4,) * levels, seed=seed, tta_flip=flip, working_resolution_m=10.0 * factor)
    predictor = TorchPredictor(loaded, FP32)
    whole, windowed = (draw(world, scene, predictor, side) for side in (1024, core))
    assert len(whole[3]) == 1
    assert len(windowed[3]) >= 1
    steps = np.abs(whole[1].astype(int) - windowed[1].astype(int))
    assert steps.max() <= 1, "more than rounding"
    assert whole[1][whole[0] != 255].std() > 10, "a flat picture would prove nothing"
    apart = whole[0] != windowed[0]
    border = np.minimum(whole[1], windowed[1]) == first_cloud_step(loaded.meta.threshold) - 1
    assert not (apart & ~border).any(), "the mask differs away from the threshold"
    assert whole[2].valid == windowed[2].valid


@pytest.mark.usefixtures("exact_int8")
@pytest.mark.parametrize(("core", "flip", "factor"), [(16, False, 1), (32, True, 1), (16, False, 3)])
def test_windowed_equals_whole_in_int8(
    world: Any, make_net: Callable[..., LoadedModel], core: int, flip: bool, factor: int
) -> None:
    numbers = numbers_of(150 * factor, 131 * factor, core)
    numbers[:, :30, :40] = 0
    scene = world.add_scene(numbers)
    loaded = make_net((6, 8, 8), tta_flip=flip, working_resolution_m=10.0 * factor)
    companion = quantize(loaded, [numbers[:, :64, :64], numbers[:, 64:128, 64:128]])
    predictor = Int8Predictor(companion, loaded.meta, loaded.weights_id)
    assert predictor.arithmetic == "int8"
    whole, windowed = (draw(world, scene, predictor, side) for side in (1024, core))
    assert len(windowed[3]) > len(whole[3]) == 1
    assert np.abs(whole[1].astype(int) - windowed[1].astype(int)).max() <= 1, "more than rounding"
    assert whole[1][whole[0] != 255].std() > 10, "a flat picture would prove nothing"
    assert whole[2].arithmetic == "int8"


def test_probability_is_what_the_net_says_of_the_whole_scene(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    numbers = numbers_of(70, 90, 3)
    numbers[:, 60:, :] = 0
    scene = world.add_scene(numbers)
    predictor = TorchPredictor(make_net((4, 6, 8)), FP32)
    mask, probability, facts, _ = draw(world, scene, predictor, 32)
    valid = (numbers != 0).all(axis=0)
    expected = predictor.probability(numbers[None], valid[None])[0]
    assert np.abs(probability[valid] / 250 - expected[valid]).max() <= 0.5 / 250 + 1e-5
    assert expected[valid].std() > 0.05, "a flat picture would prove nothing"
    assert (probability[~valid] == 255).all()
    assert (mask[~valid] == 255).all()
    assert (mask[valid] == (probability[valid] / 250 >= 0.5)).all()
    assert (facts.valid, facts.cloud, facts.pixels) == (valid.sum(), (mask == 1).sum(), 70 * 90)


def test_windows_without_pixels_cost_no_forward_pass(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    numbers = numbers_of(96, 96, 1)
    numbers[:, :, :45] = 0
    scene = world.add_scene(numbers)
    mask, _, facts, seen = draw(world, scene, TorchPredictor(make_net((4, 4)), FP32), 32)
    assert [(step.done, step.total) for step in seen] == [(n, 9) for n in range(1, 10)]
    assert seen[-1].skipped == 3
    assert (mask[:, :45] == 255).all()
    assert facts.valid == 96 * 51


def test_a_missing_band_is_named_and_the_threads_end(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    scene = world.add_scene(numbers_of(40, 40, 1))
    predictor = TorchPredictor(make_net((4, 4), bands=("red", "swir16")), FP32)
    with pytest.raises(DataError, match="swir16"):
        draw(world, scene, predictor, None)


@pytest.mark.parametrize("factor", [1, 3])
def test_the_rasters_are_those_of_windows_that_are_read_one_by_one(
    world: Any, make_net: Callable[..., LoadedModel], factor: int
) -> None:
    numbers = numbers_of(1100, 400, 7)
    numbers[:, 300:700, 150:] = 0
    numbers[:, 5, 7] = 0
    scene = world.add_scene(numbers)
    predictor = TorchPredictor(make_net((4, 6, 8), working_resolution_m=10.0 * factor), FP32)
    mask, probability, facts, _ = draw(world, scene, predictor, 64)
    plan = plan_scene(scene, predictor, core=64)
    expected = np.empty_like(probability)
    with open_raster(world.store.gdal_path(scene.key)) as dataset:
        for window in plan.windows:
            dn, seen = read_scene(dataset, window.padded, plan.bands, factor)
            target = scene_window(window.core, factor, scene.height, scene.width)
            fine = window.upsample(predictor.probability(dn[None], seen[None])[0], seen, target, factor)
            expected[target.slices] = encode_probability(fine, read_valid(dataset, target))
    assert len(plan.windows) > 9
    assert np.array_equal(probability, expected)
    assert np.array_equal(mask, classify(expected, 0.5))
    assert (facts.cloud, facts.valid) == ((mask == 1).sum(), (mask != 255).sum())
    assert facts.statistics["probability"].mean == expected[expected != 255].mean()
    assert facts.statistics["mask"].mean == pytest.approx(facts.cloud / facts.valid)


def test_every_tile_is_read_and_written_once(
    world: Any, make_net: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = world.add_scene(numbers_of(1300, 700, 2))
    predictor = TorchPredictor(make_net((4, 6, 8), working_resolution_m=30.0), FP32)
    read, written = np.zeros((2, 1300, 700), int)
    from_row = set()

    def counted_read(dataset: Any, window: Window, bands: Any) -> Any:
        read[window.slices] += 1
        from_row.add(window.row_off)
        return read_bands(dataset, window, bands)

    def counted_write(plane: Any, values: Any, band: int, *, window: Any) -> None:
        written[window.toslices()] += 1
        from_row.add(window.row_off)

    monkeypatch.setattr("cloudseg.predict.draw.read_bands", counted_read)
    monkeypatch.setattr("cloudseg.predict.draw._Plane.write", counted_write)
    plan = plan_scene(scene, predictor, core=64)
    draw_arrays(stored_pixels(world.store.gdal_path(scene.key)), scene, predictor, plan)
    assert len(plan.windows) > 9
    assert (read == 1).all()
    assert (written == 2).all(), "once in each raster"
    assert from_row == {0, 512, 1024}


def test_memory_follows_the_working_pixels_not_the_scene(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    import tracemalloc

    side, factor = 3000, 10
    row, col = np.ogrid[0:side, 0:side]
    scene = world.add_scene(np.broadcast_to((2000 + row + col).astype(np.uint16), (3, side, side)))
    predictor = TorchPredictor(make_net((4, 4), working_resolution_m=10.0 * factor), FP32)
    tracemalloc.start()
    draw_rasters(
        world.store.gdal_path(scene.key),
        scene,
        predictor,
        plan_scene(scene, predictor),
        mask=world.folder / "m.tif",
        probability=world.folder / "p.tif",
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A strip of 512 rows takes 9 MB as uint16 and a few times as much on its way; the scene would take 54 MB and 36 MB
    # a float.
    assert peak < 60 << 20
