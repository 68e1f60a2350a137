"""The change map of two models whose masks are drawn by hand, so that every figure is known."""

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows, scene_rows, training_rows
from cloudseg.changes.measure import change_classes, count
from cloudseg.errors import DataError, InputError, NotInCatalog
from cloudseg.model.weights import pack_weights
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.records import Label, Mask, Scene, Snapshot, Weights
from cloudseg.registry import register
from cloudseg.stages import changes
from cloudseg.storage import LocalStore
from tests.predict.conftest import UTM, World, make_loaded, make_numbers

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Pair(World):
    """A world with two models, whose masks the tests draw."""

    scene: Scene
    old: Weights
    new: Weights

    def make_model(self, seed: int, snapshot_id: str | None) -> Weights:
        loaded = make_loaded((4, 6), seed=seed)
        return register(
            self.store,
            self.catalog,
            weights=pack_weights(loaded.net, loaded.meta),
            metadata=loaded.meta.model_dump(mode="json"),
            companions={},
            run_id=None,
            snapshot_id=snapshot_id,
            architecture=loaded.meta.architecture,
        )

    def draw(self, scene: Scene, weights: Weights, classes: np.ndarray, transform: Affine = UTM) -> None:
        """Publish a mask with these classes."""
        drawn, cog = self.folder / "drawn.tif", self.folder / "mask.tif"
        height, width = classes.shape
        with create_tiled(
            drawn,
            height=height,
            width=width,
            count=1,
            dtype="uint8",
            crs="EPSG:32631",
            transform=transform,
            nodata=255,
            descriptions=["cloud mask"],
        ) as out:
            out.write(classes, 1)
        write_cog(cog, drawn, resampling="mode", tags={})
        sha256 = keys.sha256_of(cog.read_bytes())
        stored = self.store.put_file(keys.mask(weights.weights_id, scene.scene_id, "mask.tif", sha256), cog)
        mask = Mask(
            mask_id=keys.make_id("mk", scene.scene_id, weights.weights_id),
            scene_id=scene.scene_id,
            weights_id=weights.weights_id,
            threshold=0.5,
            cloud_fraction=0.5,
            valid_fraction=1.0,
            companions={},
            created_at=NOW,
            **stored.model_dump(),
        )
        with self.catalog.begin() as db:
            model_rows.add_mask(db, mask)


def add_label(catalog: Catalog, scene: Scene, number: int) -> Label:
    label = Label(
        label_id=f"lb-{number}",
        scene_id=scene.scene_id,
        version=0,
        source="analyst:ada",
        class_mapping={},
        cloud_fraction=0.5,
        labelled_fraction=1.0,
        source_uri="file:///label.tif",
        source_sha256=f"{number}",
        key=f"labels/{number}.tif",
        sha256=f"{number}",
        size=1,
        created_at=NOW,
    )
    with catalog.begin() as db:
        added = scene_rows.add_label(db, label)
    assert added is not None
    return added


def add_snapshot(catalog: Catalog, name: str, labels: list[Label]) -> str:
    frozen = Snapshot(
        snapshot_id=f"sn-{name}",
        manifest_key=f"snapshots/sn-{name}/manifest.json",
        manifest_sha256="0",
        chip_size=64,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        created_at=NOW,
    )
    with catalog.begin() as db:
        training_rows.add_snapshot(db, frozen, {label.label_id: "train" for label in labels})
    return frozen.snapshot_id


@pytest.fixture
def pair(
    store: LocalStore, catalog: Catalog, tmp_path: Path, runtime_env: Path, monkeypatch: pytest.MonkeyPatch
) -> Pair:
    monkeypatch.setenv("CLOUDSEG_STORE_URL", str(store.root))
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", str(catalog.engine.url))
    pair = Pair(store, catalog, tmp_path)
    pair.scene = pair.add_scene(make_numbers(600, 40), name="<b>desert</b>", sensor="sentinel-2-l1c", place="block:a")
    kept, gone, added = (add_label(catalog, pair.scene, number) for number in (1, 2, 3))
    pair.old = pair.make_model(1, add_snapshot(catalog, "old", [kept, gone]))
    pair.new = pair.make_model(2, add_snapshot(catalog, "new", [kept, added]))
    return pair


def halves(upper: int, lower: int, height: int = 600, width: int = 40) -> np.ndarray:
    classes = np.full((height, width), lower, np.uint8)
    classes[: height // 2] = upper
    return classes


def test_every_pixel_has_its_class():
    before = np.array([[0, 1, 0, 1, 255, 0, 255]], np.uint8)
    after = np.array([[0, 1, 1, 0, 0, 255, 255]], np.uint8)
    found = change_classes(before, after)
    assert found.tolist() == [[0, 1, 2, 3, 255, 255, 255]]
    counts = count(found)
    assert (counts.pixels, counts.clear_to_cloud, counts.cloud_to_clear, counts.flipped_fraction) == (4, 1, 1, 0.5)


def test_maps_figures_and_page(pair: Pair, tmp_path: Path) -> None:
    dark = pair.add_scene(make_numbers(600, 40, seed=5) // 20 + 1, name="lake", sensor="landsat-8-l1", place="block:b")
    old, new = halves(0, 1), halves(0, 1)
    new[0, :10] = 1  # 10 pixels: clear, now cloud
    new[-1, :4] = 0  # 4 pixels: cloud, now clear
    new[5] = 255  # 40 pixels without data in one of them
    pair.draw(pair.scene, pair.old, old)
    pair.draw(pair.scene, pair.new, new)
    pair.draw(dark, pair.old, halves(0, 0))
    pair.draw(dark, pair.new, halves(0, 0))
    only_old = pair.add_scene(make_numbers(40, 40, seed=6), name="only old")
    pair.draw(only_old, pair.old, halves(0, 0, 40, 40))

    folder = tmp_path / "compared"
    record = changes("v1", "v2", out=str(folder))
    assert (record.scenes, record.flipped_scenes, record.failed) == (2, 1, {})
    assert (record.pixels, record.clear_to_cloud, record.cloud_to_clear) == (2 * 24_000 - 40, 10, 4)
    assert (record.labels_added, record.labels_removed) == (1, 1)
    by_sensor = {name: (c["clear_to_cloud"], c["cloud_to_clear"], c["pixels"]) for name, c in record.by_sensor.items()}
    assert by_sensor == {"sentinel-2-l1c": (10, 4, 23_960), "landsat-8-l1": (0, 0, 24_000)}
    assert {name: c["clear_to_cloud"] for name, c in record.by_ground.items()} == {
        "dark, below 0.08": 0,
        "bright, above 0.20": 10,
    }

    with rasterio.open(folder / "maps" / f"{pair.scene.scene_id}.tif") as dataset:
        pixels = dataset.read(1)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (dataset.crs.to_epsg(), dataset.transform, dataset.nodata) == (32631, UTM, 255)
        assert dataset.tags()["CLOUDSEG_AFTER_WEIGHTS_ID"] == pair.new.weights_id
        assert dataset.colormap(1)[2][:3] == (230, 120, 0)
    expected = halves(0, 1)
    expected[0, :10], expected[-1, :4], expected[5] = 2, 3, 255
    assert np.array_equal(pixels, expected)

    figures = json.loads((folder / "changes.json").read_text())
    assert [scene["name"] for scene in figures["scenes"]] == ["<b>desert</b>", "lake"], "most changed first"
    assert [(entry["label_id"], entry["added"], entry["flipped_at_place"]) for entry in figures["labels"]] == [
        ("lb-3", True, 14),
        ("lb-2", False, 14),
    ]
    page = (folder / "changes.html").read_text()
    assert "&lt;b&gt;desert&lt;/b&gt;" in page
    assert "<b>desert" not in page
    assert page.count("data:image/png;base64,") == 1, "a scene without a flipped pixel has no picture"
    assert "http" not in re.sub(r"base64,[^\"]*", "", page), "nothing is loaded from elsewhere"
    for target in re.findall(r'href="([^"]+)"', page):
        assert (folder / target).is_file(), target
    HTMLParser().feed(page)
    assert list(tmp_path.glob(".compared-*")) == [], "nothing is left beside the folder"
    assert list(pair.store.list_keys("masks/")) == sorted(mask.key for mask in _all_masks(pair)), (
        "the store is only read"
    )


def _all_masks(pair: Pair) -> list[Mask]:
    with pair.catalog.read() as db:
        return model_rows.list_masks(db)


def test_a_flipped_pixel_in_a_large_scene_is_in_the_picture(pair: Pair, tmp_path: Path) -> None:
    from cloudseg.changes.measure import read_pictures, write_change_map
    from cloudseg.raster.read import open_raster

    scene = pair.add_scene(make_numbers(1500, 1100, seed=8), name="large")
    old = halves(0, 1, 1500, 1100)
    new = old.copy()
    new[7, 13] = 1
    paths = []
    for weights, classes in ((pair.old, old), (pair.new, new)):
        pair.draw(scene, weights, classes)
        (key,) = pair.store.list_keys(f"masks/{weights.weights_id}/{scene.scene_id}/")
        paths.append(str(pair.store.gdal_path(key).path))
    counts = write_change_map(*paths, tmp_path / "map.tif", tags={})
    assert (counts.clear_to_cloud, counts.pixels) == (1, 1500 * 1100)
    _, classes = read_pictures(str(pair.store.gdal_path(scene.key).path), tmp_path / "map.tif")
    assert (classes == 2).sum() == 1
    with open_raster(str(tmp_path / "map.tif")) as dataset:
        assert dataset.read(1)[7, 13] == 2
    assert sorted(path.name for path in tmp_path.glob("map*")) == ["map.tif"]


def test_a_scene_that_cannot_be_compared_is_named(pair: Pair, tmp_path: Path) -> None:
    other = pair.add_scene(make_numbers(40, 40, seed=6), name="other grid")
    for scene, size in ((pair.scene, (600, 40)), (other, (40, 40))):
        pair.draw(scene, pair.old, halves(0, 1, *size))
    pair.draw(pair.scene, pair.new, halves(0, 1))
    pair.draw(other, pair.new, halves(0, 1, 40, 40), UTM @ Affine.translation(1, 0))
    record = changes("v1", "v2", out=str(tmp_path / "compared"))
    assert (record.scenes, list(record.failed)) == (1, [other.scene_id])
    assert record.failed[other.scene_id]["error"] == DataError.__name__


def test_wrong_arguments(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not differ from itself"):
        changes("v1", pair.old.weights_id, out=str(tmp_path / "new"))
    with pytest.raises(NotInCatalog, match="no mask of both models"):
        changes("v1", "v2", out=str(tmp_path / "new"))
    pair.draw(pair.scene, pair.old, halves(0, 1))
    pair.draw(pair.scene, pair.new, halves(0, 1))
    with pytest.raises(NotInCatalog, match="sc-unknown"):
        changes("v1", "v2", out=str(tmp_path / "new"), scene_ids=["sc-unknown"])
    with pytest.raises(InputError, match="must be new"):
        changes("v1", "v2", out=str(pair.store.root))
    with pytest.raises(NotInCatalog):
        changes("v1", "v9", out=str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
