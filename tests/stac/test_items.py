"""Items and collections: valid by the schemas, joined with each other, and true to the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio

from cloudseg.catalog.extent import NO_EXTENT
from cloudseg.catalog.stac_rows import find_models, months_of_models
from cloudseg.stac.items import model_item
from cloudseg.stac.links import href
from tests.stac.conftest import Published, StacWorld
from tests.stac_schemas import validate_extensions

pytestmark = pytest.mark.filterwarnings("ignore::pystac.errors.DeprecatedWarning")


def documents(stac: StacWorld) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(stac.root.rglob("*.json"))]


def link(item: pystac.Item, rel: str) -> str | None:
    found = item.get_single_link(rel)
    return found.href if found else None


def test_every_document_is_valid_by_the_core_schemas(published: StacWorld) -> None:
    kinds = []
    for values in documents(published):
        pystac.read_dict({**values, "stac_extensions": []}).validate()  # the core schema, offline
        kinds.append(values["type"])
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"Catalog": 9, "Collection": 4, "Feature": 10}


def test_items_follow_the_schemas_of_their_extensions(published: StacWorld, shared_data: Path) -> None:
    used: dict[str, set[str]] = {}
    for values in documents(published):
        if values["type"] != "Feature":
            continue
        for asset in values["assets"].values():
            asset.pop("eo:bands", None)  # EO 2.0, whose schema is at hand, does away with it
        # The schemas at hand are of classification 1.1.0 and EO 2.0.0: what the versions share.
        found = validate_extensions(values, shared_data / "stac_schemas", classification="2.0.0", eo="1.1.0")
        used.setdefault(values["collection"], set()).update(found)
    scenes = {"eo", "file", "projection", "raster"}
    assert used == {
        "scenes": scenes,
        "masks": {*scenes, "classification", "processing", "version"},
        "models": {"classification", "file", "mlm", "version"},
        "snapshots": set(),
    }


def test_links_place_every_item_in_the_catalog(published: StacWorld) -> None:
    root = str(published.root / "catalog.json")
    for values in documents(published):
        if values["type"] != "Feature":
            continue
        hrefs = {entry["rel"]: entry["href"] for entry in values["links"]}
        own = Path(hrefs["self"])
        assert json.loads(own.read_text()) == values
        assert own.name == f"{values['id']}.json"
        assert hrefs["root"] == root
        assert hrefs["parent"] == str(own.parent / "catalog.json")
        assert json.loads(Path(hrefs["collection"]).read_text())["id"] == values["collection"]
        named = [entry["href"] for entry in values["links"]] + [a["href"] for a in values["assets"].values()]
        missing = [href for href in named if not Path(href).is_file()]
        assert [Path(href).name for href in missing] == (
            ["manifest.json"] if values["collection"] == "snapshots" else []
        )


def test_scenes_and_masks_are_joined_both_ways(published: StacWorld) -> None:
    scenes = {item.id: item for item in published.items("scenes")}
    masks = published.items("masks")
    assert len(scenes) == 3, "the scene without a place has no item"
    assert len(masks) == 4
    back = {
        scene.self_href: {entry.href for entry in scene.links if entry.rel == "related"} for scene in scenes.values()
    }
    for mask in masks:
        scene = scenes[mask.properties["cloudseg:scene_id"]]
        assert link(mask, "derived_from") == scene.self_href
        assert mask.self_href in back[scene.self_href]
        assert mask.assets["image"].href == scene.assets["image"].href
    assert sorted(map(len, back.values())) == [1, 1, 2]


def test_masks_of_one_scene_are_versions_of_each_other(published: StacWorld) -> None:
    scene_id = published.scenes[0].scene_id
    old, new = sorted(
        (item for item in published.items("masks") if item.properties["cloudseg:scene_id"] == scene_id),
        key=lambda item: item.properties["version"],
    )
    assert [(item.properties["version"], item.properties["deprecated"]) for item in (old, new)] == [
        ("1", True),
        ("2", False),
    ]
    assert (link(old, "predecessor-version"), link(new, "predecessor-version")) == (None, old.self_href)
    assert (link(old, "successor-version"), link(new, "successor-version")) == (new.self_href, None)
    assert {link(old, "latest-version"), link(new, "latest-version")} == {new.self_href}
    single = next(item for item in published.items("masks") if item.properties["title"].endswith("of two"))
    assert (single.properties["deprecated"], link(single, "latest-version")) == (False, single.self_href)


def test_models_are_versions_of_each_other(published: StacWorld) -> None:
    old, new = sorted(published.items("models"), key=lambda item: item.properties["version"])
    assert (old.properties["deprecated"], new.properties["deprecated"]) == (True, False)
    assert link(old, "successor-version") == new.self_href == link(old, "latest-version")
    assert link(new, "predecessor-version") == old.self_href
    assert {link(item, "mlm:model") for item in published.items("masks")} == {old.self_href, new.self_href}


def test_a_mask_says_what_its_files_say(published: StacWorld) -> None:
    for item in published.items("masks"):
        assets = item.assets
        with rasterio.open(assets["mask"].href) as dataset, rasterio.open(assets["image"].href) as image:
            classes = dataset.read(1)
            assert list(dataset.transform) == item.properties["proj:transform"]
            assert list(dataset.shape) == item.properties["proj:shape"]
            assert f"EPSG:{dataset.crs.to_epsg()}" == item.properties["proj:code"]
            assert [band["name"] for band in assets["image"].extra_fields["bands"]] == list(image.descriptions)
            assert image.dtypes[0] == assets["image"].extra_fields["bands"][0]["data_type"]
        counts = {entry["value"]: entry["count"] for entry in assets["mask"].extra_fields["classification:classes"]}
        assert counts == {value: int(np.count_nonzero(classes == value)) for value in (0, 1, 255)}
        share = (classes == 1).sum() / (classes != 255).sum()
        assert item.properties["eo:cloud_cover"] == pytest.approx(100 * share, abs=1e-4)
    roles = {name: asset.roles for name, asset in assets.items()}
    assert roles == {
        "mask": ["data", "cloud", "data-mask"],
        "probability": ["data", "cloud", "probability"],
        "thumbnail": ["thumbnail", "overview"],
        "image": ["data", "reflectance"],
        "mask_style": ["style"],
        "probability_style": ["style"],
    }
    names = [band["name"] for name in ("mask", "probability") for band in assets[name].extra_fields["bands"]]
    assert names == ["mask", "probability"]


def test_where_an_image_comes_from_and_who_publishes(published: StacWorld) -> None:
    one, two, three = (
        next(item.properties for item in published.items("scenes") if item.id == scene.scene_id)
        for scene in published.scenes[:3]
    )
    assert (one["platform"], one["constellation"], one["instruments"]) == ("sentinel-2a", "sentinel-2", ["msi"])
    assert (two["platform"], two["constellation"], two["instruments"]) == ("landsat-8", "landsat", ["oli", "tirs"])
    assert "platform" not in three
    office = {"name": "Test Office", "url": "https://office.example", "roles": ["processor", "host"]}
    assert one["providers"][0]["name"] == "ESA"
    assert one["providers"][1] == office
    assert three["providers"] == [office]
    assert (one["license"], one["cloudseg:source"]) == ("CC-BY-4.0", "cite me")
    collection = json.loads((published.root / "masks" / "collection.json").read_text())
    assert (collection["license"], collection["providers"]) == ("CC-BY-4.0", [office])


def test_a_license_by_its_address_is_a_link(stac: StacWorld) -> None:
    object.__setattr__(
        stac.site, "settings", Published(stac_license="https://office.example/terms", stac_provider="Us")
    )
    stac.publish()
    values = json.loads((stac.root / "masks" / "collection.json").read_text())
    pystac.Collection.from_dict(values).validate()
    assert values["license"] == "other"
    assert values["providers"] == [{"name": "Us", "roles": ["processor", "host"]}]
    assert [e["href"] for e in values["links"] if e["rel"] == "license"] == ["https://office.example/terms"]


def test_addresses_are_those_of_the_public_url(stac: StacWorld) -> None:
    stac.publish()
    object.__setattr__(stac.site, "settings", Published(public_url="https://data.example/clouds/"))
    stac.publish()
    for values in documents(stac):
        hrefs = [entry["href"] for entry in values["links"] + list(values.get("assets", {}).values())]
        assert [href for href in hrefs if not href.startswith("https://data.example/clouds/")] == []
    mask = next(values for values in documents(stac) if values.get("collection") == "masks")
    key = mask["assets"]["mask"]["href"].removeprefix("https://data.example/clouds/")
    assert stac.store.exists(key)


def test_an_address_is_public_or_that_of_the_store(stac: StacWorld) -> None:
    assert href(stac.store, Published(), "a/b.tif") == str(stac.world.store.root / "a/b.tif")
    assert href(stac.store, Published(public_url="https://x.example"), "a/b.tif") == "https://x.example/a/b.tif"


def test_extents_cover_the_items(published: StacWorld) -> None:
    root = pystac.Catalog.from_file(published.site.root())
    collections = {child.id: child for child in root.get_children()}
    for name in ("scenes", "masks"):
        extent = collections[name].extent
        boxes = np.array([item.bbox for item in published.items(name)])
        west, south, east, north = extent.spatial.bboxes[0]
        assert [west, south] == pytest.approx(boxes[:, :2].min(axis=0), abs=1e-9)
        assert [east, north] == pytest.approx(boxes[:, 2:].max(axis=0), abs=1e-9)
        times = [item.datetime for item in published.items(name) if item.datetime]
        assert extent.temporal.intervals == [[min(times), max(times)]]
    summaries = collections["masks"].summaries.to_dict()
    covers = [item.properties["eo:cloud_cover"] for item in published.items("masks")]
    assert summaries["version"] == ["1", "2"]
    assert summaries["eo:cloud_cover"] == {"minimum": min(covers), "maximum": max(covers)}
    assert [child.id for child in collections["masks"].get_children()] == [
        "masks-2024-05",
        "masks-2024-06",
        "masks-undated",
    ]


def test_old_weights_without_a_recipe_have_an_item(published: StacWorld) -> None:
    """Weights that were imported have no recipe, no snapshot and no encoder."""
    plain = {"architecture", "bands", "clip", "mean", "std", "threshold"}
    old = published.weights[0].model_copy(
        update={"metadata": {name: value for name, value in published.weights[0].metadata.items() if name in plain}}
    )
    with published.catalog.read() as db:
        item = model_item(published.site, old, NO_EXTENT, find_models(db), months_of_models(db))
    pystac.Item.from_dict({**item.to_dict(transform_hrefs=False), "stac_extensions": []}).validate()
