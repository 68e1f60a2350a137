"""The items of the catalog, from its rows: scenes, masks, models and snapshots.

Versioning: the masks of one scene are versions of each other, numbered like the models that made them, and so are the
models. `deprecated` says that readers should follow the link `latest-version` (Version extension 1.2).
"""

from typing import Final

import pystac

from cloudseg import keys
from cloudseg.bands import NO_DATA, REFLECTANCE_SCALE
from cloudseg.catalog.extent import Extent
from cloudseg.catalog.stac_rows import Family, MaskRef, month_of
from cloudseg.raster.cleaning import Cleaning
from cloudseg.records import Json, Mask, Promise, Scene, Snapshot, StoredObject, Weights, utc_iso
from cloudseg.stac.assets import add_asset
from cloudseg.stac.links import GEOJSON, Site
from cloudseg.stac.mask import EO, MaskFacts, carried_tags, describe_mask, place_item, warning_of
from cloudseg.stac.model import span_item, weights_item
from cloudseg.stac.sensors import describe_sensor, producer_of

VERSION: Final = "https://stac-extensions.github.io/version/v1.2.0/schema.json"


def scene_item(site: Site, scene: Scene, masks: Family) -> pystac.Item:
    """Return the item of a scene, with links to its masks.

    Args:
        site: where the catalog is.
        scene: a scene with a place (`footprint_wkb`).
        masks: its masks.
    """
    properties: Json = {
        "title": scene.name,
        **warning_of(scene, "A synthetic scene"),
        **({"gsd": round(scene.resolution_m, 3)} if scene.resolution_m else {}),
        **_common(site, scene),
        "created": utc_iso(scene.created_at),
        "cloudseg:place": scene.place,
        "cloudseg:sensor": scene.sensor,
        "cloudseg:radiometry": scene.radiometry,
        "cloudseg:valid_fraction": round(scene.valid_fraction, 6),
        **{f"cloudseg:{name}": text for name, text in carried_tags(scene).items()},
    }
    item = place_item(scene.scene_id, scene, properties)
    item.stac_extensions.append(EO)
    _add_image(site, item, scene)
    month = month_of(scene.acquired_at)
    picture = site.object(keys.stac_thumbnail(month, scene.scene_id))
    roles = ["thumbnail", "overview"]
    item.add_asset("thumbnail", pystac.Asset(picture, "Scene in true color", media_type="image/webp", roles=roles))
    for ref in masks.masks:
        title = f"Cloud mask by model version {ref.version}"
        item.add_link(pystac.Link("related", site.item("masks", month, ref.mask_id), GEOJSON, title))
    for ref in masks.variants:
        title = f"Cloud mask by model version {ref.version}, cleaned in another way"
        item.add_link(pystac.Link("related", site.item("masks", month, ref.mask_id), GEOJSON, title))
    return _placed(site, item, "scenes", month)


def mask_item(site: Site, mask: Mask, scene: Scene, weights: Weights, masks: Family, model_month: str) -> pystac.Item:
    """Return the item of a mask: its files, the image that it masks, and links to scene, model and other versions.

    Args:
        site: where the catalog is.
        mask: the mask.
        scene: what was masked.
        weights: what masked it.
        masks: all masks of the scene.
        model_month: the month in which the model was registered.
    """
    pixels = scene.height * scene.width
    valid = round(mask.valid_fraction * pixels)
    cloud = round(mask.cloud_fraction * valid)
    companions = {name: StoredObject.model_validate(stored) for name, stored in mask.companions.items()}
    item = describe_mask(
        mask_id=mask.mask_id,
        scene=scene,
        weights=weights,
        facts=MaskFacts(
            mask.threshold,
            cloud=cloud,
            valid=valid,
            pixels=pixels,
            arithmetic=None,
            cleaning=Cleaning.parse(mask.cleaning),
            brightness=mask.brightness,
            promise=Promise.model_validate(mask.promise) if mask.promise else None,
            missing_bands=weights.missing_bands(scene.bands),
        ),
        assets={"mask": StoredObject(key=mask.key, sha256=mask.sha256, size=mask.size), **companions},
        href=site.object,
    )
    item.properties |= {**_common(site, scene), "created": utc_iso(mask.created_at)}
    if mask.is_variant:
        item.properties["cloudseg:variant"] = True
    _add_image(site, item, scene)
    month = month_of(scene.acquired_at)
    item.add_link(
        pystac.Link("derived_from", site.item("scenes", month, scene.scene_id), GEOJSON, f"Scene {scene.name}")
    )
    model = site.item("models", model_month, weights.weights_id)
    for rel in ("processing-expression", "mlm:model"):
        item.add_link(pystac.Link(rel, model, GEOJSON, f"Model version {weights.version}"))
    if record := companions.get("item"):
        title = "Item written with the mask: arithmetic and software that made it"
        item.add_link(pystac.Link("via", site.object(record.key), GEOJSON, title))
    _add_versions(
        site, item, "masks", mask.mask_id, masks, {ref.mask_id: month for ref in (*masks.masks, *masks.variants)}
    )
    return _placed(site, item, "masks", month)


def model_item(site: Site, weights: Weights, extent: Extent, models: Family, months: dict[str, str]) -> pystac.Item:
    """Return the item of a model, with links to other versions.

    Args:
        site: where the catalog is.
        weights: the model.
        extent: bounds and times of the scenes that it was trained on.
        models: all models.
        months: the month of each model, by weights id.
    """
    companions = {name: StoredObject.model_validate(stored) for name, stored in weights.companions.items()}
    record = companions.pop("item", None)
    item = weights_item(
        weights=StoredObject(key=weights.key, sha256=weights.sha256, size=weights.size),
        companions=companions,
        metadata=weights.metadata,
        extent=extent,
        href=site.object,
    )
    item.properties |= {**_published_by(site, None), "created": utc_iso(weights.created_at)}
    if record:
        item.add_link(pystac.Link("via", site.object(record.key), GEOJSON, "Item written with the weights"))
    _add_versions(site, item, "models", weights.weights_id, models, months)
    return _placed(site, item, "models", month_of(weights.created_at))


def snapshot_item(site: Site, snapshot: Snapshot, extent: Extent) -> pystac.Item:
    """Return the item of a snapshot: the frozen list of chips that models are trained and evaluated on.

    Args:
        site: where the catalog is.
        snapshot: the snapshot.
        extent: bounds and times of its training scenes.
    """
    properties: Json = {
        "title": f"Snapshot {snapshot.snapshot_id}",
        "description": "Chips with labels and their split into training, validation and held-out places.",
        **_published_by(site, None),
        "created": utc_iso(snapshot.created_at),
        "cloudseg:chip_size": snapshot.chip_size,
        "cloudseg:bands": snapshot.bands,
        "cloudseg:working_resolution_m": snapshot.working_resolution_m,
        "cloudseg:counts": snapshot.counts,
    }
    item = span_item(snapshot.snapshot_id, extent, properties, [])
    item.add_asset(
        "manifest",
        pystac.Asset(
            site.object(snapshot.manifest_key), "Manifest", media_type=pystac.MediaType.JSON, roles=["metadata"]
        ),
    )
    return _placed(site, item, "snapshots", month_of(snapshot.created_at))


def _placed(site: Site, item: pystac.Item, collection: str, month: str) -> pystac.Item:
    item.collection_id = collection
    links, item.links = item.links, []
    item.add_links([*site.structure(collection, month, item.id), *links])
    return item


def _common(site: Site, scene: Scene) -> Json:
    return {**describe_sensor(scene), **_published_by(site, scene)}


def _published_by(site: Site, scene: Scene | None) -> Json:
    """Return license and providers: who made the image, where it is known, then who publishes."""
    producer = producer_of(scene) if scene else None
    return {"license": license_id(site), "providers": [*([producer] if producer else []), publisher(site)]}


def publisher(site: Site) -> Json:
    """Return the STAC provider that the settings name."""
    name, _, url = site.settings.stac_provider.rpartition(" ")
    if not name or "://" not in url:
        return {"name": site.settings.stac_provider, "roles": ["processor", "host"]}
    return {"name": name, "url": url, "roles": ["processor", "host"]}


def license_id(site: Site) -> str:
    """Return the license of the settings; `other` if they hold the address of its text (STAC collection, `license`)."""
    return "other" if "://" in site.settings.stac_license else site.settings.stac_license


def _add_image(site: Site, item: pystac.Item, scene: Scene) -> None:
    """Add the scene's image with its bands; the name of a band is its common name (`cloudseg.bands`)."""
    scale = {"raster:scale": 1 / REFLECTANCE_SCALE, "raster:offset": 0.0}
    bands = [
        {"name": name, "eo:common_name": name, "data_type": "uint16", "nodata": NO_DATA, **scale}
        for name in scene.bands
    ]
    stored = StoredObject(key=scene.key, sha256=scene.sha256, size=scene.size)
    image = pystac.Asset(
        site.object(scene.key),
        f"Reflectance x {REFLECTANCE_SCALE}",
        media_type=pystac.MediaType.COG,
        roles=["data", "reflectance"],
        extra_fields={"bands": bands, "eo:bands": [{"name": name} for name in scene.bands]},
    )
    add_asset(item, "image", stored, image)


def _add_versions(
    site: Site, item: pystac.Item, collection: str, item_id: str, family: Family, months: dict[str, str]
) -> None:
    """Add the fields and links of the Version extension."""
    item.stac_extensions.append(VERSION)
    own = next(ref for ref in (*family.masks, *family.variants) if ref.mask_id == item_id)
    is_latest = family.latest is None or family.latest.mask_id == item_id
    item.properties |= {"version": str(own.version), "deprecated": not is_latest}

    def link(rel: str, ref: MaskRef | None) -> None:
        if ref is not None:
            address = site.item(collection, months[ref.mask_id], ref.mask_id)
            item.add_link(pystac.Link(rel, address, GEOJSON, f"Version {ref.version}"))

    link("predecessor-version", family.neighbor(item_id, -1))
    link("successor-version", family.neighbor(item_id, 1))
    link("latest-version", family.latest)
