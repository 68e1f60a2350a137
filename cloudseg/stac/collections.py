"""The catalog above the items: the root, four collections, and one list of items for each month.

A collection links to months, not to items: a million items are never one list.
"""

from typing import Any, Final

import pystac

from cloudseg import keys
from cloudseg.catalog.stac_rows import COLLECTIONS, UNDATED, Collection, Member, Overview
from cloudseg.records import Json
from cloudseg.stac.items import license_id, publisher
from cloudseg.stac.links import GEOJSON, JSON, Site
from cloudseg.stac.mask import MASK_ASSETS

PARQUET: Final = "application/vnd.apache.parquet"
STATES: Final = "cloudseg:states"
"""In the list of a month: what each item was written from, by id (`cloudseg.stac.static`)."""
INDEXED: Final = "cloudseg:indexed"
"""In the list of a month: whether its GeoParquet file holds the same items."""
_WORLD: Final = [-180.0, -90.0, 180.0, 90.0]
_TITLES: Final[dict[Collection, tuple[str, str]]] = {
    "scenes": (
        "Scenes",
        "Satellite images as they were ingested: reflectance on the grid of the source, one cloud-optimized GeoTIFF "
        "each.",
    ),
    "masks": (
        "Cloud masks",
        "Cloud masks of the scenes and the probability of cloud. Masks of one scene by several models are versions of "
        "each other; those that are not `deprecated` are the ones to use.",
    ),
    "models": ("Models", "Weights that make the masks, with ONNX exports and model cards."),
    "snapshots": ("Snapshots", "Frozen sets of labeled chips that the models are trained and evaluated on."),
}
_IMAGE: Final[Json] = {
    "title": "Reflectance",
    "type": pystac.MediaType.COG,
    "roles": ["data", "reflectance"],
}
_ITEM_ASSETS: Final[dict[Collection, Json]] = {
    "scenes": {"image": _IMAGE},
    "masks": {**MASK_ASSETS, "image": _IMAGE},
    "models": {},
    "snapshots": {"manifest": {"title": "Manifest", "type": pystac.MediaType.JSON, "roles": ["metadata"]}},
}


def root_catalog(site: Site) -> Json:
    """Return the root catalog."""
    catalog = pystac.Catalog(
        "cloudseg", "Cloud masks with the scenes, models and training data behind them.", "Cloud masks"
    )
    catalog.clear_links()
    catalog.add_link(pystac.Link("self", site.root(), JSON))
    catalog.add_link(pystac.Link("root", site.root(), JSON))
    for name in COLLECTIONS:
        catalog.add_link(pystac.Link("child", site.collection(name), JSON, _TITLES[name][0]))
    return _plain(catalog)


def collection_of(site: Site, name: Collection, seen: Overview, indexed: list[str]) -> Json:
    """Return a collection with its extent, summaries, months and indexes.

    Args:
        site: where the catalog is.
        name: of the collection.
        seen: what summarizes it.
        indexed: the months that have a GeoParquet file.
    """
    title, description = _TITLES[name]
    collection = pystac.Collection(
        id=name,
        title=title,
        description=description,
        extent=pystac.Extent(
            pystac.SpatialExtent([list(seen.bounds) if seen.bounds else _WORLD]),
            pystac.TemporalExtent([[seen.begins_at, seen.ends_at]]),
        ),
        license=license_id(site),
    )
    collection.clear_links()
    collection.add_link(pystac.Link("self", site.collection(name), JSON))
    for rel in ("root", "parent"):
        collection.add_link(pystac.Link(rel, site.root(), JSON))
    if "://" in site.settings.stac_license:
        collection.add_link(pystac.Link("license", site.settings.stac_license, None, "License"))
    for month, count in seen.months.items():
        collection.add_link(pystac.Link("child", site.parent(name, month), JSON, f"{_name(month)}: {count} items"))
    for month in indexed:
        href = site.object(keys.stac_index(name, month))
        asset = pystac.Asset(href, f"Items of {_name(month)}", media_type=PARQUET, roles=["stac-items"])
        collection.add_asset(f"items-{month}", asset)
    plain = _plain(collection)
    plain["providers"] = [publisher(site)]
    plain["summaries"] = _summaries(seen)
    plain["item_assets"] = _ITEM_ASSETS[name]
    return plain


def month_catalog(
    site: Site, collection: Collection, month: str, members: list[Member], states: dict[str, str], *, indexed: bool
) -> Json:
    """Return the list of the items of a month.

    Args:
        site: where the catalog is.
        collection: of the items.
        month: of the items.
        members: the items.
        states: what each was written from, by id.
        indexed: whether a GeoParquet file holds the same items.
    """
    own = site.parent(collection, month)
    links: list[Json] = [
        {"rel": "self", "href": own, "type": JSON.value},
        {"rel": "root", "href": site.root(), "type": JSON.value},
        {"rel": "parent", "href": site.collection(collection), "type": JSON.value},
    ]
    if indexed:
        index = site.object(keys.stac_index(collection, month))
        links.append({"rel": "items", "href": index, "type": PARQUET, "title": "The same items as GeoParquet"})
    # Not through pystac: a month of a large store has tens of thousands of links.
    links += [
        {
            "rel": "item",
            "href": site.item(collection, month, member.item_id),
            "type": GEOJSON.value,
            "title": member.title,
        }
        for member in members
    ]
    title = _TITLES[collection][0]
    return {
        "type": "Catalog",
        "stac_version": pystac.get_stac_version(),
        "id": f"{collection}-{month}",
        "title": f"{title}, {_name(month)}",
        "description": f"{title}, {_name(month)}.",
        "links": links,
        STATES: states,
        INDEXED: indexed,
    }


def _name(month: str) -> str:
    return "without a date" if month == UNDATED else month


def _summaries(seen: Overview) -> dict[str, Any]:
    summaries: dict[str, Any] = {}
    if seen.sensors:
        summaries["cloudseg:sensor"] = seen.sensors
    if seen.versions:
        summaries["version"] = seen.versions
    if seen.cloud_cover:
        low, high = seen.cloud_cover
        summaries["eo:cloud_cover"] = {"minimum": round(low, 4), "maximum": round(high, 4)}
    return summaries


def _plain(catalog: pystac.Catalog) -> Json:
    return catalog.to_dict(include_self_link=True, transform_hrefs=False)
