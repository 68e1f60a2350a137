"""Published masks as a cube: what is in the files, scaled, with NaN, lazily."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr

import cloudseg
from cloudseg import stages
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.runtime import open_runtime
from tests.api.conftest import Home, add_weights, make_champion
from tests.predict.conftest import World, make_numbers


def masks_of(home: Home) -> dict[str, Any]:
    return {entry["scene"]: entry for entry in stages.masks(limit=None)}


def files_of(home: Home, entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, Any]:
    store = home.folder / "store"
    with (
        rasterio.open(store / entry["key"]) as mask,
        rasterio.open(store / entry["companions"]["probability"]["key"]) as probability,
    ):
        return mask.read(1), probability.read(1), mask


def scene_named(name: str) -> dict[str, Any]:
    return next(scene for scene in stages.scenes(limit=None) if scene["name"] == name)


def box_of(scene: dict[str, Any]) -> list[float]:
    return [scene["min_lon"], scene["min_lat"], scene["max_lon"], scene["max_lat"]]


MARSH = "synthetic_marsh_007"


def test_one_scene_is_what_its_files_hold(home: Home) -> None:
    """The scene with the edge of a swath: beyond it there are no data."""
    scene = scene_named(MARSH)
    cube = cloudseg.open_masks(datetime=scene["acquired_at"])
    mask, probability, file = files_of(home, masks_of(home)[MARSH])
    assert dict(cube.sizes) == {"time": 1, "y": 150, "x": 150}
    assert cube.odc.geobox.crs == file.crs
    assert cube.odc.geobox.affine == file.transform
    valid = mask != 255
    assert set(np.unique(mask)) == {0, 1, 255}
    assert cube.mask.dtype == cube.probability.dtype == np.float32
    found = cube.compute().isel(time=0)
    assert np.isnan(found.mask.values[~valid]).all()
    assert np.isnan(found.probability.values[~valid]).all()
    assert (found.mask.values[valid] == mask[valid]).all()
    assert found.probability.values[valid] == pytest.approx(probability[valid] / 250, abs=1e-6)
    assert float(found.mask.mean()) == pytest.approx(masks_of(home)[MARSH]["cloud_fraction"], abs=1e-6)
    assert float(found.probability.mean()) == pytest.approx(probability[valid].mean() / 250, abs=1e-5)


def test_the_cube_is_lazy_and_ends_at_the_box(home: Home) -> None:
    scene = scene_named(MARSH)
    west, south, east, north = box_of(scene)
    middle = [west + 0.4 * (east - west), south + 0.4 * (north - south), west + 0.6 * (east - west), north]
    cube = cloudseg.open_masks(bbox=middle)
    assert cube.mask.chunks is not None
    assert cube.sizes["x"] < 60
    assert cube.sizes["y"] < 110
    small = cloudseg.open_masks(bbox=middle, chunks={"x": 16, "y": 16})
    assert max(small.mask.chunks[2]) == 16
    whole = cloudseg.open_masks(bbox=box_of(scene))
    assert set(np.unique(cube.mask)) - {0.0, 1.0} != set() or whole.mask.notnull().any()
    inside = whole.sel(x=cube.x, y=cube.y, method="nearest", tolerance=1.0)
    assert np.array_equal(cube.mask, inside.mask, equal_nan=True)


def test_a_coarser_cube_keeps_classes_and_averages_probability(home: Home) -> None:
    scene = scene_named(MARSH)
    fine, coarse = (
        cloudseg.open_masks(bbox=box_of(scene), crs="EPSG:32615", resolution=size).compute() for size in (30, 90)
    )
    values = np.unique(coarse.mask)
    assert set(values[~np.isnan(values)]) == {0.0, 1.0}
    assert float(coarse.probability.max()) <= 1
    assert float(coarse.probability.mean()) == pytest.approx(float(fine.probability.mean()), abs=0.01)


def test_bbox_and_datetime_select(home: Home) -> None:
    scene = scene_named(MARSH)
    assert cloudseg.open_masks(bbox=box_of(scene), datetime="../2100").sizes["time"] == 1
    with pytest.raises(NotInCatalog, match="no masks are found"):
        cloudseg.open_masks(bbox=box_of(scene), datetime="2000-01")
    with pytest.raises(NotInCatalog, match=r"no masks are found \(found bbox \[0\.0, 0\.0, 1\.0, 1\.0\]"):
        cloudseg.open_masks(bbox=[0, 0, 1, 1])
    with pytest.raises(InputError, match="more masks are found than the limit"):
        cloudseg.open_masks(limit=3)
    with pytest.raises(InputError, match=r"the masks are far apart.*Pass bbox="):
        cloudseg.open_masks()
    with pytest.raises(InputError, match="no grid for the cube"):
        cloudseg.open_masks(bbox=box_of(scene), crs="EPSG:0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bbox": [1, 2, 3]}, "not a bounding box"),
        ({"bbox": [10, 50, 5, 40]}, "not a bounding box"),
        ({"bbox": [170, -20, -170, -10]}, r"cannot cross 180°.*bbox=\[-180"),
        ({"datetime": "May"}, "not a time interval.*2024-06-01/2024-06-30"),
        ({"datetime": "2024-06-30/2024-05-01"}, "ends before it begins"),
        ({"weights": "nothing.safetensors"}, "no such weights"),
    ],
)
def test_a_wrong_argument_is_named(home: Home, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cloudseg.open_masks(**arguments)


def test_several_dates_are_stacked_and_other_weights_are_not(
    world: World, runtime_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    monkeypatch.setenv("CLOUDSEG_STORE_URL", str(world.store.root))
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", str(world.catalog.engine.url))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    for day in (1, 11, 21):
        numbers = make_numbers(40, 40, seed=day)
        numbers[:, :day] = 0
        world.add_scene(numbers, name=f"day {day}", acquired_at=datetime(2024, 5, day, 10, tzinfo=UTC))
    world.add_scene(make_numbers(40, 40, seed=99), name="no time", acquired_at=None)
    first, second = (add_weights(seed=seed, with_int8=False) for seed in (1, 2))
    make_champion(first)
    stages.predict(new=True)
    stages.predict(new=True, weights_id=second.weights_id)
    cube = cloudseg.open_masks().compute()
    assert [str(time)[:10] for time in cube.time.values] == ["2024-05-01", "2024-05-11", "2024-05-21"]
    assert [int(np.isnan(cube.mask[step]).sum()) for step in range(3)] == [40, 440, 840]
    other = cloudseg.open_masks(weights="v2", datetime="2024-05-02/2024-05-11").compute()
    assert other.sizes["time"] == 1
    assert not np.array_equal(other.mask[0], cube.mask[1], equal_nan=True)
    frequency = cube.mask.mean("time")
    assert float(frequency.max()) <= 1
    assert np.isnan(frequency[0]).all(), "no date has data there"
    assert not np.isnan(frequency[30]).any(), "all dates have"


def static_catalog(home: Home, folder: Path) -> Path:
    """Write a catalog with a collection `masks` whose items lie beside copies of the files."""
    masks = pystac.Collection(
        "masks",
        "test",
        pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]])),
    )
    for entry in stages.masks(limit=None):
        source = home.folder / "store" / entry["companions"]["item"]["key"]
        item = pystac.Item.from_file(source)
        item.clear_links()
        item.set_self_href(str(source))
        item.make_asset_hrefs_absolute()
        item.assets = {name: item.assets[name] for name in ("mask", "probability", "thumbnail")}
        masks.add_item(item)
    root = pystac.Catalog("root", "test")
    root.add_child(masks)
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def test_a_static_catalog_gives_the_same_cube(home: Home, no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSEG_HOME", str(home.folder))
    scene = scene_named(MARSH)
    wanted = cloudseg.open_masks(bbox=box_of(scene)).compute()
    catalog = static_catalog(home, no_home / "catalog")
    monkeypatch.delenv("CLOUDSEG_HOME")
    found = cloudseg.open_masks(url=str(catalog), bbox=box_of(scene)).compute()
    xr.testing.assert_equal(found, wanted)
    ids = {"weights": home.weights.weights_id}
    with pytest.raises(NotInCatalog, match="no masks are found"):
        cloudseg.open_masks(url=str(catalog), bbox=box_of(scene), datetime="2000")
    assert cloudseg.open_masks(url=str(catalog), bbox=box_of(scene), **ids).sizes["time"] == 1
    (no_home / "x.json").write_text(json.dumps({"type": "nothing"}))
    with pytest.raises(InputError, match="not a STAC API or catalog"):
        cloudseg.open_masks(url=str(no_home / "x.json"))


def test_masks_are_opened_without_torch(home: Home, tmp_path: Path) -> None:
    code = "import sys, cloudseg; print(float(cloudseg.open_masks(bbox=BOX).mask.mean()))\n".replace(
        "BOX", str(box_of(scene_named(MARSH)))
    )
    code += "assert 'torch' not in sys.modules"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "CLOUDSEG_HOME": str(home.folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


def test_masks_on_s3_are_opened(s3_env: dict[str, str], home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = cloudseg.open_masks(datetime=scene_named(MARSH)["acquired_at"]).compute()
    entry = masks_of(home)[MARSH]
    for name, value in s3_env.items():
        if not name.startswith("CLOUDSEG_CATALOG"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLOUDSEG_HOME", str(home.folder))
    store = open_runtime().store
    for key in (entry["key"], entry["companions"]["probability"]["key"]):
        store.put(key, (home.folder / "store" / key).read_bytes())
    found = cloudseg.open_masks(datetime=scene_named(MARSH)["acquired_at"]).compute()
    xr.testing.assert_equal(found, wanted)
