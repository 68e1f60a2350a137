"""A published mask: what is in the files, once and the same again, and what is refused."""

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from PIL import Image
from rasterio.errors import RasterioDeprecationWarning
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from cloudseg.catalog import model_rows
from cloudseg.errors import DataError, ObjectExists, StateError
from cloudseg.model.weights import LoadedModel
from cloudseg.predict import mask_id_of, predict_scene
from cloudseg.raster.read import open_raster
from cloudseg.records import Mask, Scene, Weights
from cloudseg.storage import LocalStore
from tests.stac_schemas import validate_extensions


def numbers_of(height: int, width: int, seed: int = 0, count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blobs = (
        rng.random((count, height // 16 + 2, width // 16 + 2)).repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    )
    return (500 + 6000 * blobs + rng.integers(0, 300, (count, height, width))).astype(np.uint16)


@pytest.fixture
def published(world: Any, make_net: Callable[..., LoadedModel]) -> tuple[Any, Scene, Weights, Any, Mask]:
    numbers = numbers_of(600, 700)
    numbers[:, :, 650:] = 0
    scene = world.add_scene(numbers)
    weights, predictor = world.add_weights(make_net((4, 6), threshold=0.4))
    mask = predict_scene(
        world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    return world, scene, weights, predictor, mask


def test_mask_file(published: Any) -> None:
    world, scene, weights, _, mask = published
    path = world.store.gdal_path(mask.key)
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as dataset:
        classes = dataset.read(1)
        assert (dataset.dtypes, dataset.nodata, dataset.shape) == (("uint8",), 255.0, (600, 700))
        assert dataset.crs.to_epsg() == 32631
        assert list(dataset.transform)[:6] == scene.transform
        assert dataset.descriptions == ("cloud mask",)
        assert dataset.overviews(1) == [2]
        assert dataset.block_shapes == [(512, 512)]
        colors = dataset.colormap(1)
        assert (colors[0][:3], colors[1][:3]) == ((46, 92, 74), (245, 245, 245))
        tags = dataset.tags()
    assert set(np.unique(classes)) == {0, 1, 255}
    assert (classes[:, 650:] == 255).all()
    assert mask.cloud_fraction == pytest.approx((classes == 1).sum() / (classes != 255).sum())
    assert mask.valid_fraction == pytest.approx(650 / 700)
    assert tags["CLOUDSEG_WEIGHTS_ID"] == weights.weights_id
    assert tags["CLOUDSEG_MODEL_VERSION"] == "1"
    assert tags["CLOUDSEG_THRESHOLD"] == "0.4"
    assert tags["CLOUDSEG_ARITHMETIC"] == "fp32"
    assert tags["CLOUDSEG_RECIPE_HASH"] == "ab" * 32
    assert tags["CLOUDSEG_CLASSES"] == "0 clear, 1 cloud, 255 no data"
    assert not {"CLOUDSEG_GEOREFERENCE", "CLOUDSEG_SYNTHETIC"} & set(tags)
    assert float(tags["CLOUDSEG_CLOUD_FRACTION"]) == pytest.approx(mask.cloud_fraction, abs=1e-6)


def test_overviews_of_the_mask_are_by_majority(published: Any) -> None:
    world, _, _, _, mask = published
    path = world.store.gdal_path(mask.key)
    with rasterio.open(path) as dataset, rasterio.open(path, OVERVIEW_LEVEL=0) as overview:
        full, half = dataset.read(1), overview.read(1)
    blocks = full.reshape(300, 2, 350, 2).transpose(0, 2, 1, 3).reshape(300, 350, 4)
    most = (blocks == 1).sum(axis=2) >= 3
    assert (half[most] == 1).all()
    assert (half[(blocks == 0).sum(axis=2) >= 3] == 0).all()


def test_probability_file_makes_the_mask_again(published: Any) -> None:
    world, _, _, _, mask = published
    path = world.store.gdal_path(mask.companions["probability"]["key"])
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as dataset, rasterio.open(world.store.gdal_path(mask.key)) as classes:
        steps = dataset.read(1)
        assert (dataset.scales, dataset.offsets, dataset.nodata) == ((1 / 250,), (0.0,), 255.0)
        assert dataset.descriptions == ("cloud probability",)
        assert dataset.overviews(1) == [2]
        again = np.where(steps == 255, 255, (steps * dataset.scales[0] >= 0.4 - 1e-9).astype(np.uint8))
        assert (again == classes.read(1)).all()


def test_thumbnail_is_a_small_picture(published: Any) -> None:
    world, scene, _, _, mask = published
    data = world.store.get(mask.companions["thumbnail"]["key"])
    assert mask.companions["thumbnail"]["key"].endswith(".webp")
    assert len(data) <= 40_000 < scene.size
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "WEBP"
    assert picture.size == (384, 329), "noise of a net that was never trained: it fits in a smaller picture only"
    colors = np.asarray(picture).astype(int)
    assert (np.abs(colors - (255, 0, 170)).max(axis=2) < 60).sum() > 100, "clouds are outlined"
    gray = np.abs(colors - (96, 96, 96)).max(axis=2) < 12
    assert gray[:, 362:].mean() > 0.95
    assert gray[:, :350].mean() < 0.2


def test_readers_find_statistics_in_the_file_and_write_nothing_beside_it(published: Any, tmp_path: Path) -> None:
    """What `gdalinfo -stats` and QGIS do: take the statistics, or compute and save them in `<file>.aux.xml`."""
    world, _, _, _, mask = published
    for key in (mask.key, mask.companions["probability"]["key"]):
        path = tmp_path / "alone" / Path(key).name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(world.store.get(key))
        with rasterio.open(path) as dataset:
            assert {name for name in dataset.tags(1) if name.startswith("STATISTICS_")} == {
                f"STATISTICS_{name}" for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV", "VALID_PERCENT")
            }
            with pytest.warns(RasterioDeprecationWarning):  # its successor does not look for the stored ones
                found = dataset.statistics(1)
            pixels = dataset.read(1)
        valid = pixels[pixels != 255].astype(float)
        assert (found.min, found.max) == (valid.min(), valid.max())
        assert (found.mean, found.std) == pytest.approx((valid.mean(), valid.std()), rel=1e-12)
        assert list(path.parent.iterdir()) == [path], "no .aux.xml"
        path.unlink()


def test_qgis_finds_a_style_under_the_name_of_each_raster(published: Any) -> None:
    world, _, _, _, mask = published
    styles = {}
    for name, raster in (("mask", mask.key), ("probability", mask.companions["probability"]["key"])):
        key = mask.companions[f"{name}_style"]["key"]
        assert key == raster.removesuffix(".tif") + ".qml"
        text = world.store.get(key).decode()
        assert text.startswith("<!DOCTYPE qgis")
        styles[name] = ET.fromstring(text)  # noqa: S314 - this code wrote it
    entries = [entry.attrib for entry in styles["mask"].findall("pipe/rasterrenderer[@type='paletted']//paletteEntry")]
    assert [(e["value"], e["label"], e["color"], e["alpha"]) for e in entries] == [
        ("0", "Clear", "#2e5c4a", "0"),
        ("1", "Cloud", "#f5f5f5", "200"),
    ]
    items = [item.attrib for item in styles["probability"].findall("pipe/rasterrenderer//item")]
    assert (items[0]["value"], items[0]["alpha"], items[-1]["value"]) == ("0.0", "0", "1.0")
    assert [item["label"] for item in items] == ["0 % cloud", "5 %", "25 %", "50 %", "75 %", "100 %"]


def test_item_follows_the_schemas_of_its_extensions(published: Any, shared_data: Path) -> None:
    world, _, _, _, mask = published
    item = json.loads(world.store.get(mask.companions["item"]["key"]))
    # The schema of classification at hand is 1.1.0: what the two versions share.
    used = validate_extensions(item, shared_data / "stac_schemas", classification="2.0.0", eo="1.1.0")
    assert used == {"classification", "eo", "file", "processing", "projection", "raster"}


def test_item_is_valid_and_says_what_the_files_say(published: Any) -> None:
    world, scene, weights, _, mask = published
    stored = mask.companions["item"]
    item = json.loads(world.store.get(stored["key"], stored["sha256"]))
    pystac.Item.from_dict({**item, "stac_extensions": []}).validate()  # core schema, offline
    p = item["properties"]
    assert item["id"] == mask.mask_id == mask_id_of(scene.scene_id, weights.weights_id)
    assert (p["proj:code"], p["proj:shape"], p["datetime"]) == ("EPSG:32631", [600, 700], "2024-05-01T10:30:00Z")
    assert p["proj:transform"] == [10.0, 0.0, 500000.0, 0.0, -10.0, 5400000.0, 0.0, 0.0, 1.0]
    assert p["proj:bbox"] == [500000.0, 5394000.0, 507000.0, 5400000.0]
    assert p["eo:cloud_cover"] == pytest.approx(100 * mask.cloud_fraction, abs=1e-3)
    west, south, east, north = item["bbox"]
    assert west < east
    assert south < north
    ring = np.array(item["geometry"]["coordinates"][0])
    area = np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]) / 2
    assert area > 0, "right-handed"
    classes = item["assets"]["mask"]["classification:classes"]
    assert [(c["value"], c["name"], c.get("nodata")) for c in classes] == [
        (0, "clear", None),
        (1, "cloud", None),
        (255, "no_data", True),
    ]
    assert all(len(c["color_hint"]) == 6 and not c["color_hint"].startswith("#") for c in classes)
    assert sum(c["count"] for c in classes) == 600 * 700
    assert item["assets"]["probability"]["bands"][0]["raster:scale"] == 1 / 250
    for name, asset in item["assets"].items():
        row = {"sha256": mask.sha256, "size": mask.size} if name == "mask" else mask.companions[name]
        assert asset["file:checksum"] == "1220" + row["sha256"]
        assert asset["file:size"] == row["size"]


def test_links_of_the_item_lead_to_objects_of_the_store(published: Any) -> None:
    world, scene, weights, _, mask = published
    item = json.loads(world.store.get(mask.companions["item"]["key"]))
    folder = Path(world.store.gdal_path(mask.companions["item"]["key"])).parent
    hrefs = {link["rel"]: link["href"] for link in item["links"]} | {
        name: asset["href"] for name, asset in item["assets"].items()
    }
    found = {name: (folder / href).resolve() for name, href in hrefs.items()}
    assert found["derived_from"] == Path(world.store.gdal_path(scene.key)).resolve()
    assert found["mlm:model"] == Path(world.store.gdal_path(weights.companions["item"]["key"])).resolve()
    assert found["mask"] == Path(world.store.gdal_path(mask.key)).resolve()
    assert all(path.is_file() for path in found.values())


def test_again_changes_nothing(published: Any) -> None:
    world, scene, weights, predictor, mask = published
    before = list(world.store.list_keys())
    again = predict_scene(
        world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    assert again == mask
    assert list(world.store.list_keys()) == before


def _draw_again(published: Any, folder: Path, **how: Any) -> tuple[LocalStore, Any]:
    """Mask the scene into an empty store, as if nobody had done it; return the store and the row."""
    world, scene, weights, predictor, _ = published
    other = LocalStore(folder / "other")
    other.put(scene.key, world.store.get(scene.key))
    with world.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask")
    return other, predict_scene(
        other, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor, **how
    )


def test_same_scene_and_weights_give_the_same_bytes(published: Any, tmp_path: Path) -> None:
    _, again = _draw_again(published, tmp_path)
    assert again.model_dump(exclude={"created_at"}) == published[-1].model_dump(exclude={"created_at"})


def test_other_windows_give_the_same_probability_to_a_step_of_its_raster(published: Any, tmp_path: Path) -> None:
    """A sum of other windows may be rounded to the other side of half a step: seen once, in one of many runs."""
    world, mask = published[0], published[-1]
    other, again = _draw_again(published, tmp_path, budget_bytes=1)
    steps = []
    for store, found in ((world.store, mask), (other, again)):
        with rasterio.open(store.gdal_path(found.companions["probability"]["key"])) as dataset:
            steps.append(dataset.read(1).astype(int))
    difference = np.abs(steps[0] - steps[1])
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1e-4 * difference.size


class Killed(BaseException):
    """As if the process had ended here."""


def test_killed_between_bytes_and_row(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    scene = world.add_scene(numbers_of(40, 50))
    weights, predictor = world.add_weights(make_net((4, 6)))
    names = {"scene_id": scene.scene_id, "weights_id": weights.weights_id, "predictor": predictor}

    class DyingStore(LocalStore):
        def put(self, key: str, data: bytes) -> Any:
            stored = super().put(key, data)
            if "/item." in key:
                raise Killed
            return stored

    with pytest.raises(Killed):
        predict_scene(DyingStore(world.store.root), world.catalog, **names)
    orphans = list(world.store.list_keys("masks/"))
    assert len(orphans) == 6
    with world.catalog.read() as db:
        assert model_rows.find_mask(db, scene.scene_id, weights.weights_id) is None
    mask = predict_scene(world.store, world.catalog, **names)
    assert sorted([mask.key, *(companion["key"] for companion in mask.companions.values())]) == orphans


def test_a_damaged_object_under_the_key_is_not_taken_for_ours(published: Any) -> None:
    world, scene, weights, predictor, mask = published
    path = Path(world.store.gdal_path(mask.key))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with world.catalog.begin() as db:
        db.exec_driver_sql("DELETE FROM mask")
    with pytest.raises(ObjectExists):
        predict_scene(
            world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
        )


def test_scene_across_the_antimeridian(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    # UTM 1 south reaches 180 degrees at about 324 km east at 16.5 degrees south: this scene lies on both sides.
    scene = world.add_scene(
        numbers_of(64, 64), crs="EPSG:32701", transform=Affine(300, 0, 170_000, 0, -300, 8_180_000), resolution_m=300.0
    )
    weights, predictor = world.add_weights(make_net((4, 6)))
    mask = predict_scene(
        world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    item = json.loads(world.store.get(mask.companions["item"]["key"]))
    pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
    west, _, east, _ = item["bbox"]
    assert west > 0 > east, "west of the bbox is in the eastern hemisphere (RFC 7946)"
    assert item["geometry"]["type"] == "MultiPolygon"
    sides = [np.sign(np.mean([lon for lon, _ in part[0]])) for part in item["geometry"]["coordinates"]]
    assert sorted(sides) == [-1, 1]
    assert max(abs(lon) for part in item["geometry"]["coordinates"] for lon, _ in part[0]) <= 180


def test_scene_without_time_gets_the_interval_that_is_known(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    scene = world.add_scene(numbers_of(40, 40), acquired_at=None, created_at=datetime(2024, 6, 1, tzinfo=UTC))
    weights, predictor = world.add_weights(make_net((4, 6)))
    mask = predict_scene(
        world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    item = json.loads(world.store.get(mask.companions["item"]["key"]))
    pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
    p = item["properties"]
    assert (p["datetime"], p["start_datetime"], p["end_datetime"]) == (
        None,
        "1972-07-23T00:00:00Z",
        "2024-06-01T00:00:00Z",
    )


def test_what_is_not_as_it_seems_is_said_in_file_and_item(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    said = {
        "georeference": "approximate: somewhere in its square",
        "synthetic": "YES",
        "source": "cite me",
        "ground": "fields",
    }
    scene = world.add_scene(numbers_of(40, 40), tags=said)
    weights, predictor = world.add_weights(make_net((4, 6)))
    mask = predict_scene(
        world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    with rasterio.open(world.store.gdal_path(mask.key)) as dataset:
        tags = dataset.tags()
    assert tags["CLOUDSEG_GEOREFERENCE"] == "approximate: somewhere in its square"
    assert (tags["CLOUDSEG_SYNTHETIC"], tags["CLOUDSEG_SOURCE"]) == ("YES", "cite me")
    item = json.loads(world.store.get(mask.companions["item"]["key"]))
    pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
    p = item["properties"]
    assert p["description"].startswith("Georeference approximate: somewhere in its square. Mask of a synthetic scene")
    assert (p["cloudseg:georeference"], p["cloudseg:source"]) == ("approximate: somewhere in its square", "cite me")
    assert "cloudseg:ground" not in p


def test_refused_scenes_say_why_and_leave_nothing(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    patch = world.add_scene(numbers_of(40, 40), crs=None, transform=Affine.identity(), name="38-cloud patch")
    gray = world.add_scene(numbers_of(40, 40, seed=1, count=1))
    good = world.add_scene(numbers_of(40, 40, seed=2))
    weights, predictor = world.add_weights(make_net((4, 6)))
    other, _ = world.add_weights(make_net((4, 6), seed=1))
    names = {"weights_id": weights.weights_id, "predictor": predictor}
    with pytest.raises(StateError, match="38-cloud patch"):
        predict_scene(world.store, world.catalog, scene_id=patch.scene_id, **names)
    with pytest.raises(DataError, match="lacks green, blue"):
        predict_scene(world.store, world.catalog, scene_id=gray.scene_id, **names)
    with pytest.raises(StateError, match="other weights"):
        predict_scene(
            world.store, world.catalog, scene_id=good.scene_id, weights_id=other.weights_id, predictor=predictor
        )
    assert list(world.store.list_keys("masks/")) == []
    assert predict_scene(world.store, world.catalog, scene_id=good.scene_id, **names).scene_id == good.scene_id


def test_coarser_working_pixels_give_a_mask_on_the_scene_grid(world: Any, make_net: Callable[..., LoadedModel]) -> None:
    scene = world.add_scene(numbers_of(130, 90))
    weights, predictor = world.add_weights(make_net((4, 6), working_resolution_m=40.0))
    mask = predict_scene(
        world.store, world.catalog, scene_id=scene.scene_id, weights_id=weights.weights_id, predictor=predictor
    )
    with open_raster(world.store.gdal_path(mask.key)) as dataset:
        assert dataset.shape == (130, 90)
        assert set(np.unique(dataset.read(1))) == {0, 1}
