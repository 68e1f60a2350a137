"""What the STAC items of a mask hold: the one beside its files, and the one in the catalog.

The item beside the files has no creation date and relative links, so the same mask produces the same bytes.

STAC 1.1 with the projection 2.0, raster 2.0, EO 1.1, classification 2.0, file 2.1 and processing 1.2 extensions. STAC
1.1 holds the bands of an asset in `bands`; raster 2.0 adds `raster:*` fields there, which replace `raster:bands` of
earlier versions. EO 2.0 does away with `eo:bands` in the same way, but odc-stac 0.5 finds bands by name only there, so
items keep EO 1.1. pystac has classes for raster 1.1 and none for processing: those fields are set by name.
"""

import functools
import math
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import pystac
import shapely
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from rasterio.crs import CRS
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from cloudseg import __version__
from cloudseg.bands import FIRST_ACQUISITION, MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.raster.brightness import radiometry_of
from cloudseg.raster.cleaning import Cleaning
from cloudseg.raster.probability import STEPS
from cloudseg.raster.statistics import BandStatistics
from cloudseg.raster.style import COLORS
from cloudseg.records import Json, Promise, Scene, StoredObject, Weights
from cloudseg.stac.assets import add_asset

RASTER: Final = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
EO: Final = "https://stac-extensions.github.io/eo/v1.1.0/schema.json"
PROCESSING: Final = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
CARRIED: Final = ("synthetic", "georeference", "source", "warped")
"""Tags of a scene that matter to users of its mask: synthetic, georeference, source to cite."""

_QML: Final = "application/x-qgis-layer-settings"
"""The media type under which QGIS registers `.qml` with the desktop."""

_CLASSES = (
    (MASK_CLEAR, "clear", "Clear", "Ground or water is seen, shadow included."),
    (MASK_CLOUD, "cloud", "Cloud", "Cloud, thick or thin."),
    (MASK_NO_DATA, "no_data", "No data", "Nothing was observed."),
)


@dataclass(frozen=True)
class MaskFacts:
    """Counts and settings of a mask."""

    threshold: float
    cloud: int
    """Valid pixels that are cloud."""
    valid: int
    """Pixels that were observed."""
    pixels: int
    """Pixels of the scene."""
    arithmetic: str | None
    """fp32, bf16 or int8: a mask is reproduced bit for bit only in the same arithmetic. None: only its file says it."""
    statistics: Mapping[str, BandStatistics] = field(default_factory=dict)
    """Of the rasters `mask` and `probability`, as in their files; none where nothing was observed, or only they say it.
    """

    cleaning: Cleaning = field(default_factory=Cleaning)
    """What was done to the mask that the model draws."""

    brightness: Sequence[float] | None = None
    """Reflectance at the percentiles of the scene's brightness (`cloudseg.raster.brightness`); None: not measured."""
    promise: Promise | None = None
    """The thresholds of the weights with what they miss, on held-out places; None: these were not evaluated, or the
    mask was made without a band that they were evaluated with."""
    missing_bands: Sequence[str] = ()
    """Optional bands of the weights that the scene lacks: the net saw 0 there."""

    @property
    def cloud_fraction(self) -> float:
        """Cloudy share of the valid pixels; 0 if there is none."""
        return self.cloud / self.valid if self.valid else 0.0

    @property
    def bands_tags(self) -> dict[str, str]:
        """The tag of a mask that was made without an optional band, none of any other."""
        return {"CLOUDSEG_MISSING_BANDS": ", ".join(self.missing_bands)} if self.missing_bands else {}

    @property
    def valid_fraction(self) -> float:
        """Valid share of all pixels."""
        return self.valid / self.pixels


def item_beside(
    *, key: str, mask_id: str, scene: Scene, weights: Weights, facts: MaskFacts, assets: Mapping[str, StoredObject]
) -> pystac.Item:
    """Return the item that is stored beside the files of a mask: the record of how it was made.

    Args:
        key: the key prefix of the item; its links are relative to it.
        mask_id: id of the item.
        scene: what was masked.
        weights: what masked it.
        facts: counts, threshold and arithmetic.
        assets: the stored `mask`, `probability`, `thumbnail` and the two styles.
    """
    item = describe_mask(
        mask_id=mask_id,
        scene=scene,
        weights=weights,
        facts=facts,
        assets=assets,
        href=lambda target: relative(target, key),
    )
    item.properties["processing:software"] = {"cloudseg": __version__}
    item.add_links(_links(key, scene, weights))
    return item


def describe_mask(
    *,
    mask_id: str,
    scene: Scene,
    weights: Weights,
    facts: MaskFacts,
    assets: Mapping[str, StoredObject],
    href: Callable[[str], str],
) -> pystac.Item:
    """Return the item of a mask, without links.

    Args:
        mask_id: id of the item.
        scene: what was masked.
        weights: what masked it.
        facts: counts, threshold and arithmetic.
        assets: the stored `mask`, `probability` and `thumbnail`; masks of earlier releases have no styles.
        href: returns the address of a stored object by its key.
    """
    item = place_item(mask_id, scene, _properties(scene, weights, facts))
    item.stac_extensions += [EO, PROCESSING]
    grid = {"raster:spatial_resolution": round(scene.resolution_m, 3)} if scene.resolution_m else {}
    band = {"data_type": "uint8", "nodata": MASK_NO_DATA, "raster:sampling": "area", **grid}
    for name, asset in ((name, asset) for name, asset in MASK_ASSETS.items() if name in assets):
        scale = {"raster:scale": 1 / STEPS, "raster:offset": 0.0} if name == "probability" else {}
        described = {"bands": [{"name": name, **band, **scale, **_statistics(facts, name)}]}
        bands = described if name in ("mask", "probability") else {}
        # A new format of the thumbnail does not change the name of the asset.
        media_type = _THUMBNAILS[assets[name].key.rpartition(".")[2]] if name == "thumbnail" else asset["type"]
        add_asset(
            item,
            name,
            assets[name],
            pystac.Asset(
                href(assets[name].key), asset["title"], media_type=media_type, roles=asset["roles"], extra_fields=bands
            ),
        )
    ClassificationExtension.ext(item.assets["mask"], add_if_missing=True).apply(_classes(facts))
    return item


_THUMBNAILS: Final = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
MASK_ASSETS: Final[dict[str, Json]] = {
    "mask": {"title": "Cloud mask", "type": pystac.MediaType.COG, "roles": ["data", "cloud", "data-mask"]},
    "probability": {
        "title": "Probability of cloud",
        "type": pystac.MediaType.COG,
        "roles": ["data", "cloud", "probability"],
    },
    "thumbnail": {
        "title": "Scene with clouds outlined",
        "type": "image/webp",
        "roles": ["thumbnail", "overview"],
    },
    "mask_style": {"title": "QGIS style of the mask", "type": _QML, "roles": ["style"]},
    "probability_style": {"title": "QGIS style of the probability", "type": _QML, "roles": ["style"]},
}
"""Assets of a mask by name. `cloud` and `data-mask` are roles of STAC's best practices; clients such as odc-stac use a
raster as an image unless its role is `thumbnail` or `overview`."""


def place_item(item_id: str, scene: Scene, properties: Json) -> pystac.Item:
    """Return an item with the place, the grid and the time of a scene.

    Geometry and bbox are lon/lat; a footprint across the antimeridian is a MultiPolygon split at 180 and its bbox has
    west > east (RFC 7946, 3.1.9 and 5.2). A scene without time gets `datetime: null` and the interval from the launch
    of Landsat 1 to the moment of its ingest, which is all that is known; STAC requires one of the two.
    """
    item = pystac.Item(
        id=item_id,
        geometry=_geometry(scene),
        bbox=cast("list[float]", [scene.min_lon, scene.min_lat, scene.max_lon, scene.max_lat]),
        datetime=scene.acquired_at,
        start_datetime=None if scene.acquired_at else FIRST_ACQUISITION,
        end_datetime=None if scene.acquired_at else scene.created_at,
        properties=properties,
        stac_extensions=[RASTER],
    )
    _apply_projection(item, scene)
    return item


def _geometry(scene: Scene) -> Json:
    """Return GeoJSON with right-handed rings (RFC 7946, 3.1.6) and centimetres at most (7 decimals)."""
    shape = shapely.set_precision(shapely.from_wkb(scene.footprint_wkb), 1e-7)
    parts = [orient(part, 1.0) for part in getattr(shape, "geoms", [shape])]
    geometry = mapping(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
    return {"type": geometry["type"], "coordinates": _as_lists(geometry["coordinates"])}


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, (tuple, list)) else round(float(value), 7)


def _properties(scene: Scene, weights: Weights, facts: MaskFacts) -> Json:
    without = f", without {', '.join(facts.missing_bands)}" if facts.missing_bands else ""
    return {
        "title": f"Cloud mask of {scene.name}",
        **warning_of(scene, "Mask of a synthetic scene"),
        **({"gsd": round(scene.resolution_m, 3)} if scene.resolution_m else {}),
        "eo:cloud_cover": round(100 * facts.cloud_fraction, 4),
        "processing:level": "L2",
        "processing:lineage": (
            f"Mask of scene {scene.scene_id} by weights {weights.weights_id} (version {weights.version}){without}."
        ),
        "cloudseg:scene_id": scene.scene_id,
        "cloudseg:place": scene.place,
        "cloudseg:weights_id": weights.weights_id,
        "cloudseg:model_version": weights.version,
        "cloudseg:snapshot_id": weights.snapshot_id,
        "cloudseg:recipe_hash": weights.metadata.get("recipe_hash"),
        **({"cloudseg:missing_bands": list(facts.missing_bands)} if facts.missing_bands else {}),
        "cloudseg:threshold": facts.threshold,
        **facts.cleaning.properties(),
        **(facts.promise.properties() if facts.promise else {}),
        **radiometry_of(weights.metadata, facts.brightness).properties(),
        **({"cloudseg:arithmetic": facts.arithmetic} if facts.arithmetic else {}),
        "cloudseg:cloud_fraction": round(facts.cloud_fraction, 6),
        "cloudseg:valid_fraction": round(facts.valid_fraction, 6),
        **{f"cloudseg:{name}": text for name, text in carried_tags(scene).items()},
    }


def warning_of(scene: Scene, synthetic: str) -> Json:
    """Return a description, which catalog browsers show, of a scene that is synthetic or not exactly placed.

    Args:
        scene: the scene.
        synthetic: what the item describes if the scene is synthetic.
    """
    tags = carried_tags(scene)
    words = [f"Georeference {tags['georeference']}."] if "georeference" in tags else []
    words += [f"{synthetic}: nothing of it was observed."] if "synthetic" in tags else []
    return {"description": " ".join(words)} if words else {}


def carried_tags(scene: Scene) -> dict[str, str]:
    """Return the tags of a scene that its mask and the item of the mask repeat."""
    return {name: str(scene.tags[name]) for name in CARRIED if scene.tags.get(name)}


def class_names() -> str:
    """Return the legend of the mask in one line; GeoTIFF stores colors of classes, but no names."""
    return ", ".join(f"{value} {title.lower()}" for value, _, title, _ in _CLASSES)


def _apply_projection(item: pystac.Item, scene: Scene) -> None:
    """Set `proj:*`; a CRS without an authority code has `proj:code` null and its WKT, as the extension requires."""
    code, wkt2 = _crs(scene.crs or "")
    a, b, c, d, e, f = scene.transform
    xs = [c, c + a * scene.width, c + b * scene.height, c + a * scene.width + b * scene.height]
    ys = [f, f + d * scene.width, f + e * scene.height, f + d * scene.width + e * scene.height]
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=code,
        wkt2=wkt2,
        shape=[scene.height, scene.width],
        transform=[a, b, c, d, e, f, 0.0, 0.0, 1.0],
        bbox=[min(xs), min(ys), max(xs), max(ys)],
    )


@functools.lru_cache(maxsize=256)
def _crs(text: str) -> tuple[str | None, str | None]:
    """Return authority code and WKT2 of a CRS, one of the two None."""
    crs = CRS.from_user_input(text)
    authority = crs.to_authority()
    return (":".join(authority), None) if authority else (None, crs.to_wkt(version="WKT2_2019"))


def _links(key: str, scene: Scene, weights: Weights) -> list[pystac.Link]:
    scene_href = relative(scene.key, key)
    links = [pystac.Link("derived_from", scene_href, pystac.MediaType.COG, f"Scene {scene.name}")]
    if (model := weights.companions.get("item")) is not None:
        href, title = relative(model["key"], key), f"Model version {weights.version}"
        links += [
            pystac.Link(rel, href, pystac.MediaType.GEOJSON, title) for rel in ("processing-expression", "mlm:model")
        ]
    return links


def relative(target: str, folder: str) -> str:
    """Return the relative href from an object in a folder of keys to another key."""
    path = posixpath.relpath(target, folder)
    return path if path.startswith("../") else f"./{path}"


def _statistics(facts: MaskFacts, name: str) -> Json:
    """Return the field `statistics` of a band (STAC 1.1, common metadata), of stored values as those of GDAL are."""
    found = facts.statistics.get(name)
    if found is None:
        return {}
    names = {"minimum": found.minimum, "maximum": found.maximum, "mean": found.mean, "stddev": found.stddev}
    return {"statistics": {**names, "count": found.valid, "valid_percent": 100 * found.valid / found.pixels}}


def _classes(facts: MaskFacts) -> list[Classification]:
    counts = {MASK_CLEAR: facts.valid - facts.cloud, MASK_CLOUD: facts.cloud, MASK_NO_DATA: facts.pixels - facts.valid}
    return [
        Classification.create(
            value=value,
            name=name,
            title=title,
            description=description,
            color_hint="".join(f"{part:02X}" for part in COLORS[value]),
            percentage=math.floor(100 * counts[value] / facts.pixels * 1e4 + 0.5) / 1e4,
            count=counts[value],
            nodata=True if value == MASK_NO_DATA else None,
        )
        for value, name, title, description in _CLASSES
    ]
