"""Masks that are cleaned when they are made: what is in them, which id they have, and which one readers see."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from scipy import ndimage
from sqlalchemy import column, select, text

from cloudseg import stages
from cloudseg.api.model import Model
from cloudseg.catalog import change_rows, model_rows, reader_rows
from cloudseg.catalog.mask_query import Query
from cloudseg.catalog.mask_search import search
from cloudseg.errors import InputError
from cloudseg.export.choose import Selection, iter_chosen
from cloudseg.model.weights import LoadedModel
from cloudseg.predict import mask_id_of, predict_scene
from cloudseg.raster.cleaning import Cleaning
from cloudseg.records import Mask, Promotion
from tests.predict.test_predict_scene import numbers_of
from tests.raster.test_clean import by_pairs

CROSS = ndimage.generate_binary_structure(2, 1)


@pytest.fixture
def made(world: Any, make_net: Callable[..., LoadedModel]) -> Iterator[Any]:
    """A scene with no data on its right, and weights; `mask(…)` masks it."""
    numbers = numbers_of(600, 130)
    numbers[:, :, 120:] = 0
    scene = world.add_scene(numbers)
    weights, predictor = world.add_weights(make_net((4, 6), threshold=0.4))

    def mask(cleaning: Cleaning | None = None, **how: Any) -> Mask:
        wanted: dict[str, Any] = {"scene_id": scene.scene_id, "weights_id": weights.weights_id, "predictor": predictor}
        wanted |= {} if cleaning is None else {"cleaning": cleaning, "exact": True}
        return predict_scene(world.store, world.catalog, **(wanted | how))

    world.mask, world.scene, world.weights, world.predictor = mask, scene, weights, predictor
    return world


def read(world: Any, mask: Mask, name: str = "mask") -> tuple[np.ndarray, dict[str, str]]:
    key = mask.key if name == "mask" else mask.companions[name]["key"]
    with rasterio.open(world.store.gdal_path(key)) as dataset:
        return dataset.read(1), dataset.tags()


def by_scipy(classes: np.ndarray, min_area: int, min_hole: int) -> np.ndarray:
    """Remove clouds, then clear areas that a cloud touches, of fewer pixels, over the whole array at once."""
    out = classes.copy()
    for value, least in ((1, min_area), (0, min_hole)):
        labels, count = ndimage.label(out == value, CROSS)
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(count + 1))
        beside = np.unique(labels[ndimage.binary_dilation(out == 1, CROSS)])
        small = [n for n in range(1, count + 1) if sizes[n] < least and (value == 1 or n in beside)]
        out[np.isin(labels, small)] = 1 - value
    return out


def test_a_mask_is_cleaned_as_one_array_and_says_how(made: Any) -> None:
    """600 rows are more than a strip has: an area across the border of two strips counts whole."""
    drawn, _ = read(made, made.mask())
    wanted = Cleaning(min_area_m2=3000, min_hole_m2=2000, buffer_m=35)
    mask = made.mask(wanted)
    found, tags = read(made, mask)
    assert np.array_equal(found, by_pairs(by_scipy(drawn, 30, 20), 10, 10, 35))
    assert ((found == 255) == (drawn == 255)).all()
    assert (found != drawn).sum() > 100
    assert mask.cloud_fraction == pytest.approx((found == 1).sum() / (found != 255).sum())
    assert json.loads(mask.cleaning) == {"buffer_m": 35, "min_area_m2": 3000, "min_hole_m2": 2000}
    assert Cleaning.parse(mask.cleaning) == wanted
    assert {name: tags[f"CLOUDSEG_{name}"] for name in ("CLEANED", "BUFFER_M", "MIN_AREA_M2", "MIN_HOLE_M2")} == {
        "CLEANED": "yes",
        "BUFFER_M": "35",
        "MIN_AREA_M2": "3000",
        "MIN_HOLE_M2": "2000",
    }
    assert tags["CLOUDSEG_MASK_ID"] == mask.mask_id
    item = json.loads(made.store.get(mask.companions["item"]["key"]))
    assert item["id"] == mask.mask_id
    assert item["properties"]["cloudseg:buffer_m"] == 35
    assert item["properties"]["cloudseg:min_area_m2"] == 3000
    assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * mask.cloud_fraction, abs=1e-4)
    assert item["assets"]["mask"]["bands"][0]["statistics"]["mean"] == pytest.approx(mask.cloud_fraction)


def test_another_threshold_is_that_of_the_row_the_file_and_the_item(made: Any) -> None:
    mask = made.mask(Cleaning(threshold=0.6))
    steps, tags = read(made, mask, "probability")
    assert np.array_equal(read(made, mask)[0], np.where(steps == 255, 255, steps / 250 >= 0.6))
    assert (mask.threshold, tags["CLOUDSEG_THRESHOLD"], tags["CLOUDSEG_MODEL_THRESHOLD"]) == (0.6, "0.6", "0.4")
    item = json.loads(made.store.get(mask.companions["item"]["key"]))
    assert item["properties"]["cloudseg:threshold"] == 0.6


def test_ids_hold_the_settings_and_those_without_stay() -> None:
    """The ids of earlier releases, and of this one: a change would publish every mask a second time."""
    assert mask_id_of("sc-0", "w-0") == "mk-38e1f25a2e8daa81dee3"
    assert mask_id_of("sc-0", "w-0", Cleaning()) == mask_id_of("sc-0", "w-0")
    assert mask_id_of("sc-0", "w-0", Cleaning(buffer_m=60)) == "mk-39239d3a29ac73e9ec95"
    ids = {
        mask_id_of("sc-0", "w-0", Cleaning(*values)) for values in ((0.6,), (None, 9), (None, 0, 9), (None, 0, 0, 9))
    }
    assert len(ids) == 4


def test_nothing_to_clean_is_the_same_bytes(made: Any) -> None:
    """The threshold of the model is no other one, and 0 m are none."""
    plain = made.mask()
    assert made.mask(Cleaning(threshold=0.4)) == made.mask(Cleaning()) == plain
    assert (plain.cleaning, plain.is_variant) == ("", False)
    assert not {"CLOUDSEG_CLEANED", "CLOUDSEG_BUFFER_M"} & set(read(made, plain)[1])


def test_readers_go_on_seeing_the_first_mask_of_a_model(made: Any) -> None:
    first = made.mask(Cleaning(buffer_m=60), exact=False)
    other, plain = made.mask(Cleaning(buffer_m=90)), made.mask(Cleaning())
    assert made.mask(Cleaning(buffer_m=90)) == other, "the same settings: the same mask"
    assert made.mask() == first, "without a wish the mask that is there will do"
    assert [mask.is_variant for mask in (first, other, plain)] == [False, True, True]
    assert plain.mask_id == mask_id_of(made.scene.scene_id, made.weights.weights_id)
    weights_id = made.weights.weights_id
    with made.catalog.begin() as db:
        model_rows.add_promotion(
            db,
            Promotion(
                generation=1,
                weights_id=weights_id,
                previous_weights_id=None,
                action="promote",
                verdict_id=None,
                actor="test",
                reason="test",
                created_at=first.created_at,
            ),
        )
    with made.catalog.read() as db:
        assert [mask.mask_id for mask in reader_rows.list_shown_masks(db)] == [first.mask_id]
        assert reader_rows.count_masks(db, weights_id) == 1
        assert [row.id for row in search(db, Query(("masks",), weights_id=weights_id)).rows] == [first.mask_id]
        twice = change_rows.list_masked_twice(db, weights_id, weights_id, limit=9)
        assert [(row.before_mask_id, row.after_mask_id) for row in twice] == [(first.mask_id, first.mask_id)]
        for view in ("current_mask", "published_mask WHERE NOT is_variant", "mask_version WHERE is_current"):
            found = db.execute(select(column("mask_id")).select_from(text(view)))
            assert list(found.scalars()) == [first.mask_id]
        versions = reader_rows.find_versions(db, [other.mask_id])[other.mask_id]
        assert (versions.current_mask_id, versions.is_current) == (first.mask_id, False)
        assert [row.id for row in search(db, Query(("masks",))).rows] == [first.mask_id]
        by_id = Query(("masks",), ids=(other.mask_id, plain.mask_id))
        assert {row.id for row in search(db, by_id).rows} == {other.mask_id, plain.mask_id}
    assert [found.id for found in iter_chosen(made.catalog, Selection())] == [first.mask_id]
    assert [found.id for found in iter_chosen(made.catalog, Selection(mask_ids=[plain.mask_id]))] == [plain.mask_id]


def test_two_processes_that_publish_at_once_leave_one_mask_for_readers(made: Any) -> None:
    first = made.mask(Cleaning(buffer_m=60))
    racing = first.model_copy(update={"mask_id": "mk-racing", "cleaning": '{"buffer_m":70.0}'})
    with made.catalog.begin() as db:
        assert model_rows.add_mask(db, racing)
        assert not model_rows.add_mask(db, racing)
        assert model_rows.get_mask(db, "mk-racing").is_variant


def test_settings_clean_new_masks_and_options_override_them(
    made: Any, runtime_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSEG_STORE_URL", str(made.store.root))
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", str(made.catalog.engine.url))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    monkeypatch.setenv("CLOUDSEG_BUFFER_M", "60")
    scene_id, weights_id = made.scene.scene_id, made.weights.weights_id

    def row(mask_id: str) -> Mask:
        with made.catalog.read() as db:
            return model_rows.get_mask(db, mask_id)

    first = stages.drain(weights_id=weights_id)
    assert (row(first.masks[0]).cleaning, first.created) == ('{"buffer_m":60.0}', 1)
    assert stages.plan_drain(2, weights_id=weights_id) == []
    monkeypatch.setenv("CLOUDSEG_BUFFER_M", "80")
    assert stages.predict([scene_id], weights_id=weights_id).masks == first.masks, "a new setting is for new masks"
    assert len(stages.plan_drain(2, weights_id=weights_id, min_area_m2=900)) == 1
    record = stages.drain(weights_id=weights_id, min_area_m2=900)
    assert json.loads(row(record.masks[0]).cleaning) == {"buffer_m": 80, "min_area_m2": 900}
    assert stages.plan_drain(2, weights_id=weights_id, min_area_m2=900) == []
    assert stages.predict([scene_id], weights_id=weights_id, buffer_m=0).masks == [mask_id_of(scene_id, weights_id)]
    catalog_item = json.loads(made.store.get(f"stac/masks/2024-05/{record.masks[0]}.json"))
    assert catalog_item["properties"]["cloudseg:min_area_m2"] == 900
    assert catalog_item["properties"]["deprecated"] is True
    latest = [link["href"] for link in catalog_item["links"] if link["rel"] == "latest-version"]
    assert latest[0].endswith(f"{first.masks[0]}.json")


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32631", Affine(10.0, 0, 5e5, 0, -10.0, 5.4e6) * Affine.rotation(30)),
        ("EPSG:4326", Affine(1e-4, 0, 3.0, 0, -1e-4, 60.0)),
    ],
)
def test_array_file_and_scene_are_cleaned_alike(
    made: Any, tmp_path: Path, crs: str, transform: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = numbers_of(60, 70, seed=3)
    scene = made.add_scene(numbers, crs=crs, transform=transform)
    cleaning = {"threshold": 0.5, "min_area_m2": 2000.0, "min_hole_m2": 1000.0, "buffer_m": 40.0}
    published, _ = read(made, made.mask(Cleaning(**cleaning), scene_id=scene.scene_id))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    model = Model(made.predictor)
    if crs == "EPSG:4326":  # a rotated file is warped first
        record = model.predict_file(made.store.gdal_path(scene.key), tmp_path / "out.tif", **cleaning)
        with rasterio.open(tmp_path / "out.tif") as dataset:
            assert np.array_equal(dataset.read(1), published)
            assert dataset.tags()["CLOUDSEG_BUFFER_M"] == "40"
        assert record.threshold == 0.5
        assert record.cloud_fraction == pytest.approx((published == 1).mean())
        return
    bands = ["red", "green", "blue", "nir"]
    found = model.predict(numbers, bands=bands, resolution_m=10, **cleaning)
    assert np.array_equal(found.mask, published)
    assert found.threshold == 0.5
    with pytest.raises(InputError, match="size of a pixel"):
        model.predict(numbers, bands=bands, buffer_m=40)
