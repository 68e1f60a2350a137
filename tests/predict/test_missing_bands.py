"""Weights with optional bands mask scenes that lack them, as the net was trained: it sees 0 there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import rasterio
import torch

from cloudseg import load, stages
from cloudseg.bands import NO_DATA
from cloudseg.catalog import Catalog, backfill_rows, lease_rows, model_rows, scene_rows
from cloudseg.catalog.lease_rows import Wanted
from cloudseg.errors import DataError, InputError
from cloudseg.model.device import Device
from cloudseg.model.export import export_onnx
from cloudseg.model.int8 import measure_agreement, quantize
from cloudseg.model.meta import WeightsMeta
from cloudseg.model.normalize import normalize, to_reflectance
from cloudseg.model.pixels import fill_missing
from cloudseg.model.predictor import Predictor
from cloudseg.model.torch_predictor import TorchPredictor
from cloudseg.model.weights import LoadedModel, load_weights, pack_weights
from cloudseg.predict import predict_scene
from cloudseg.predict.draw import draw_rasters, plan_scene
from cloudseg.raster.probability import encode_probability
from cloudseg.records import Promise, Scene, StoredObject, Weights
from cloudseg.registry.card import model_card
from cloudseg.runtime import open_runtime
from cloudseg.stac.model import weights_item

RGB = ("red", "green", "blue")
RGBN = (*RGB, "nir")
FP32 = Device(kind="cpu", precision="fp32", threads=1, reason="test")


@pytest.fixture
def catalog(any_catalog: Catalog) -> Catalog:
    """Return a migrated catalog, as the one of `world`, on both databases."""
    return any_catalog


sqlite_only = pytest.mark.parametrize("any_catalog", ["sqlite"], indirect=True)


def zeros_in_nir(loaded: LoadedModel, dn: np.ndarray) -> np.ndarray:
    """Return the probability `(row, col)` of RGB pixels as the training step computes it: x with zeros in nir."""
    four = np.concatenate([dn, np.full_like(dn[:1], 4321)])  # any number: it is replaced behind the normalization
    x = normalize(to_reflectance(four[None]), torch.from_numpy((dn != 0).all(axis=0)[None]), loaded.meta.scaling)
    x[:, 3] = 0
    with torch.inference_mode():
        return torch.sigmoid(TorchPredictor(loaded, FP32)._net(x.contiguous(memory_format=torch.channels_last)))[
            0, 0
        ].numpy()


def mask_of(served: Any, scene: Scene, weights: Weights, predictor: Predictor) -> tuple[np.ndarray, Any, Any, Any]:
    """Predict and return the probability's values, the row, the tags and the properties of the item beside it."""
    mask = predict_scene(
        served.store, served.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    with rasterio.open(served.store.gdal_path(mask.companions["probability"]["key"]).path) as dataset:
        values, tags = dataset.read(1), dataset.tags()
    return values, mask, tags, json.loads(served.store.get(mask.companions["item"]["key"]))["properties"]


@sqlite_only
def test_a_scene_without_nir_is_masked_as_the_net_with_zeros(
    world: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    loaded = make_net(bands=RGBN, optional_bands=("nir",))
    weights, predictor = world.add_weights(loaded)
    numbers = make_pixels(64, 64)
    numbers[:, 10:20, 30:40] = NO_DATA
    scene = world.add_scene(numbers[:3], name="rgb", bands=RGB)
    values, mask, tags, item = mask_of(world, scene, weights, predictor)
    expected = encode_probability(zeros_in_nir(loaded, numbers[:3]), (numbers[:3] != 0).all(axis=0), subject="test")
    assert values.tobytes() == expected.tobytes()
    assert len(np.unique(values)) > 50
    assert (tags["CLOUDSEG_MISSING_BANDS"], item["cloudseg:missing_bands"]) == ("nir", ["nir"])
    assert item["processing:lineage"].endswith(f"(version {weights.version}), without nir.")
    with world.catalog.read() as db:
        assert model_rows.get_mask(db, mask.mask_id).promise is None

    whole = world.add_scene(numbers, name="rgbn", bands=RGBN)
    with_nir, _, tags, item = mask_of(world, whole, weights, predictor)
    assert not np.array_equal(with_nir, values)
    assert "CLOUDSEG_MISSING_BANDS" not in tags
    assert "cloudseg:missing_bands" not in item
    # With all bands the same net without optional bands draws the same bytes.
    strict, strict_predictor = world.add_weights(make_net(bands=RGBN))
    assert mask_of(world, whole, strict, strict_predictor)[0].tobytes() == with_nir.tobytes()
    with pytest.raises(DataError, match=r"the scene lacks nir, which the model reads \(found red, green, blue"):
        mask_of(world, scene, strict, strict_predictor)


@sqlite_only
def test_a_required_band_is_still_required(
    world: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    weights, predictor = world.add_weights(make_net(bands=RGBN, optional_bands=("nir",)))
    scene = world.add_scene(make_pixels(64, 64)[:3], bands=("red", "green", "nir"))
    with pytest.raises(DataError, match=r"the scene lacks blue, which the model reads .*expected red, green, blue\)"):
        mask_of(world, scene, weights, predictor)


@sqlite_only
def test_windows_and_working_pixels_do_not_change_a_mask_without_nir(
    world: Any, tmp_path: Path, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    """Optional bands in any position; what is read is what the scene has."""
    loaded = make_net((4, 6), bands=("nir", "red", "swir16", "green"), optional_bands=("nir", "swir16"))
    predictor = TorchPredictor(loaded, FP32)
    scene = world.add_scene(make_pixels(300, 200, count=3), bands=("green", "red", "nir"), resolution_m=10.0)
    source = world.store.gdal_path(scene.key).path
    drawn = []
    for core in (32, 256):
        grid = plan_scene(scene, predictor, bands=scene.bands, core=core)
        assert grid.bands == ("nir", "red", "green")
        paths = {name: tmp_path / f"{name}-{core}.tif" for name in ("mask", "probability")}
        facts = draw_rasters(source, scene, predictor, grid, **paths)
        assert facts.missing_bands == ("swir16",)
        with rasterio.open(paths["probability"]) as dataset:
            drawn.append(dataset.read(1))
    assert np.abs(drawn[0].astype(int) - drawn[1].astype(int)).max() <= 1  # float32 sums differ with the window


def test_waiting_scenes_are_those_with_the_required_bands(
    world: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    optional, _ = world.add_weights(make_net((4, 6), bands=RGBN, optional_bands=("nir",)))
    strict, _ = world.add_weights(make_net((4, 6), bands=RGBN))
    numbers = make_pixels(40, 40)
    rgb = world.add_scene(numbers[:3], name="rgb", bands=RGB).scene_id
    rgbn = world.add_scene(numbers, name="rgbn", bands=RGBN).scene_id
    world.add_scene(numbers[:2], name="rg", bands=("red", "green"))
    for weights, expected in ((optional, {rgb, rgbn}), (strict, {rgbn})):
        wanted = Wanted(weights.weights_id, bands=weights.required_bands)
        with world.catalog.read() as db:
            listed = scene_rows.list_scenes_without_mask(db, weights.weights_id, bands=weights.required_bands)
            assert {scene.scene_id for scene in listed} == expected
            assert {scene.scene_id for scene in lease_rows.find_waiting(db, wanted)} == expected
            candidates = backfill_rows.iter_waiting(db, weights.weights_id, bands=weights.required_bands)
            assert {scene.scene_id for scene in candidates} == expected


def test_a_drain_serves_scenes_with_and_without_nir(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    numbers = make_pixels(40, 40)
    rgb = served.add_scene(numbers[:3], name="rgb", bands=RGB).scene_id
    rgbn = served.add_scene(numbers, name="rgbn", bands=RGBN).scene_id
    strict, _ = served.add_weights(make_net((4, 6), bands=RGBN))
    optional, _ = served.add_weights(make_net((4, 6), bands=RGBN, optional_bands=("nir",)))
    assert served_by(served, strict, worker="one") == {rgbn}
    assert served_by(served, optional, worker="two") == {rgb, rgbn}
    assert stages.predict(new=True, weights_id=optional.weights_id).created == 0


def served_by(served: Any, weights: Weights, *, worker: str) -> set[str]:
    """Drain and return the scenes that have a mask by the weights."""
    record = stages.drain(weights_id=weights.weights_id, worker=worker)
    assert record.failed == {}
    with served.catalog.read() as db:
        return {mask.scene_id for mask in model_rows.list_masks(db, weights_id=weights.weights_id)}


@sqlite_only
def test_files_and_arrays_may_lack_an_optional_band(
    served: Any, tmp_path: Path, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    loaded = make_net((4, 6), bands=RGBN, optional_bands=("nir",))
    weights, _ = served.add_weights(loaded)
    numbers = make_pixels(64, 64)[:3]
    scene = served.add_scene(numbers, bands=RGB)
    runtime, record = open_runtime(), stages.predict([scene.scene_id], weights_id=weights.weights_id)
    with runtime.catalog.read() as db:
        mask = model_rows.get_mask(db, record.masks[0])
    with rasterio.open(runtime.store.gdal_path(mask.companions["probability"]["key"]).path) as dataset:
        published = dataset.read(1)
    file = tmp_path / "user.tif"
    shutil.copy(served.store.gdal_path(scene.key).path, file)
    model = load(weights.weights_id)
    assert model.optional_bands == ("nir",)
    record = model.predict_file(file, tmp_path / "mask.tif", probability=tmp_path / "probability.tif")
    assert (record.bands, record.missing_bands) == (list(RGB), ["nir"])
    with rasterio.open(tmp_path / "probability.tif") as dataset:
        assert dataset.read(1).tobytes() == published.tobytes()
        assert dataset.tags()["CLOUDSEG_MISSING_BANDS"] == "nir"
    found = model.predict(numbers, bands=RGB, resolution_m=10)
    assert np.array_equal(np.rint(found.probability * 250).astype(np.uint8), published)
    with pytest.raises(InputError, match=r"the model reads blue .*expected red, green, blue, nir \(optional\)"):
        model.predict(numbers, bands=["red", "green", "nir"], resolution_m=10)


@sqlite_only
def test_a_promise_is_for_masks_with_all_bands(
    served: Any, tmp_path: Path, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    from tests.predict.promised import evaluate_as

    weights, _ = served.add_weights(make_net((4, 6), bands=RGBN, optional_bands=("nir",)))
    assert isinstance(evaluate_as(served, weights), Promise)
    numbers = make_pixels(40, 40)
    scenes = [served.add_scene(numbers[:3], bands=RGB), served.add_scene(numbers, name="rgbn", bands=RGBN)]
    record = stages.predict([scene.scene_id for scene in scenes], weights_id=weights.weights_id)
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        without, with_nir = (model_rows.get_mask(db, mask_id) for mask_id in record.masks)
    assert without.promise is None
    assert with_nir.promise is not None
    items = [json.loads(runtime.store.get(key)) for key in runtime.store.list_keys("stac/") if key.endswith(".json")]
    found = {item["id"]: item["properties"].get("cloudseg:missing_bands") for item in items if "properties" in item}
    assert [found[mask_id] for mask_id in record.masks] == [["nir"], None]
    model = load(weights.weights_id)
    tags = []
    for scene in scenes:
        model.predict_file(runtime.store.gdal_path(scene.key).path, tmp_path / "mask.tif")
        with rasterio.open(tmp_path / "mask.tif") as dataset:
            tags.append(dataset.tags())
    assert [any("CAREFUL" in name for name in found) for found in tags] == [False, True]


def test_the_onnx_export_and_int8_take_zeros_for_a_missing_band(
    make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    loaded = make_net((4, 6), bands=("nir", *RGB), optional_bands=("nir",), tta_flip=True)
    numbers = make_pixels(64, 64)[:3]
    numbers[:, 5:9, 7:30] = NO_DATA
    filled = fill_missing(numbers, RGB, loaded.meta.bands)
    assert not filled[0].any()
    valid = (numbers != 0).all(axis=0)
    predictor = TorchPredictor(loaded, FP32)
    session = onnxruntime.InferenceSession(export_onnx(loaded), providers=["CPUExecutionProvider"])
    with_nir = fill_missing(np.concatenate([numbers[:1], numbers]), ("nir", *RGB), loaded.meta.bands)
    for dn in (filled, with_nir):
        (found,) = session.run(None, {"dn": dn[None]})
        expected = predictor.probability(dn[None], valid[None])
        assert np.abs(found - expected)[0][valid].max() < 1e-4
    dropped = [make_pixels(64, 64, seed=number) for number in range(4)]
    dropped += [fill_missing(dn[1:], RGB, loaded.meta.bands) for dn in dropped]
    agreement = measure_agreement(
        loaded, predictor, quantize(loaded, dropped), [(dn, (dn[1] > 3000).astype(np.uint8)) for dn in dropped]
    )
    assert agreement.mask_iou > 0.95


def test_weights_without_optional_bands_keep_their_bytes(make_net: Callable[..., LoadedModel]) -> None:
    """Neither metadata nor graph of weights that exist changes: their ids and exports are as before."""
    loaded = make_net((4, 6), bands=RGBN)
    assert "optional_bands" not in loaded.meta.model_dump(mode="json")
    assert b"optional_bands" not in pack_weights(loaded.net, loaded.meta)
    export = export_onnx(loaded)
    assert b"optional_bands" not in export
    assert b"required_bands" not in export
    assert b"Gather" not in export


def test_optional_bands_travel_with_the_weights(make_net: Callable[..., LoadedModel]) -> None:
    loaded = make_net((4, 6), bands=RGBN, optional_bands=("nir",))
    again = load_weights(pack_weights(loaded.net, loaded.meta))
    assert (again.meta.optional_bands, again.meta.required_bands) == (("nir",), RGB)
    metadata = loaded.meta.model_dump(mode="json")
    assert "| Bands that a scene may lack | nir |" in model_card(metadata, {})
    stored = StoredObject(key="models/x/weights.safetensors", sha256="a" * 64, size=1)
    item = weights_item(weights=stored, companions={"onnx": stored}, metadata=metadata)
    assert "A scene may lack nir: a missing band is 0 after both." in item.properties["mlm:input"][0]["description"]
    assert "0 there, in all pixels, means that the band is missing" in (item.assets["onnx"].description or "")
    facts = loaded.meta.model_dump()
    for wrong, message in (({"optional_bands": ("swir16",)}, "none of the bands"), ({"optional_bands": RGBN}, "every")):
        with pytest.raises(ValueError, match=message):
            WeightsMeta.model_validate(facts | wrong)
