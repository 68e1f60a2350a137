"""The STAC item of a published mask: plain JSON, no date of its making, relative links.

The same mask gives the same bytes.

STAC 1.1 with the projection 2.0, raster 2.0, EO 2.0, classification 2.0, file 2.1 and processing 1.2 extensions. STAC
1.1 holds the bands of an asset in `bands`; raster 2.0 adds `raster:*` fields there, which replace `raster:bands` of
earlier versions.
"""

import math
import posixpath
from dataclasses import dataclass
from typing import Any, Final

import shapely
from rasterio.crs import CRS
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from cloudseg import __version__
from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.raster.probability import STEPS
from cloudseg.records import Json, Scene, StoredObject, Weights, utc_iso

EXTENSIONS: Final = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
]
FIRST_ACQUISITION: Final = "1972-07-23T00:00:00Z"
"""Launch of Landsat 1: no scene of this kind is older."""
COLOURS: Final = {MASK_CLEAR: (46, 92, 74), MASK_CLOUD: (245, 245, 245), MASK_NO_DATA: (0, 0, 0)}
"""RGB of the mask's classes: in the file's colour table and as `color_hint`.

No data is drawn transparent where nodata is honoured.
"""

CARRIED: Final = ("synthetic", "georeference", "source", "warped")
"""Tags of a scene that whoever uses its mask has to know: no observation, a place that is not exact, whom to cite."""

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_CLASSES = (
    (MASK_CLEAR, "clear", "Clear", "Ground or water is seen, shadow included."),
    (MASK_CLOUD, "cloud", "Cloud", "Cloud, thick or thin."),
    (MASK_NO_DATA, "no_data", "No data", "Nothing was observed."),
)


@dataclass(frozen=True)
class MaskFacts:
    """What was found out while the mask was made."""

    threshold: float
    cloud: int
    """Valid pixels that are cloud."""
    valid: int
    """Pixels that were observed."""
    pixels: int
    """All pixels of the scene's grid."""
    arithmetic: str
    """fp32, bf16 or int8: two makings of a mask give the same bytes in the same one."""

    @property
    def cloud_fraction(self) -> float:
        """Of the valid pixels; 0 where there is none."""
        return self.cloud / self.valid if self.valid else 0.0

    @property
    def valid_fraction(self) -> float:
        """Of all pixels."""
        return self.valid / self.pixels


def mask_item(
    *, key: str, mask_id: str, scene: Scene, weights: Weights, facts: MaskFacts, assets: dict[str, StoredObject]
) -> Json:
    """Return the item of a mask; `key` is the folder of keys in which it will lie (links are relative to it).

    Geometry and bbox are lon/lat; a footprint across the antimeridian is a MultiPolygon split at 180 and its bbox has
    west > east (RFC 7946, 3.1.9 and 5.2). A scene without time gets `datetime: null` and the interval from the launch
    of Landsat 1 to the moment of its ingest, which is all that is known; STAC asks for one of the two.
    """
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": mask_id,
        "geometry": _geometry(scene),
        "bbox": [scene.min_lon, scene.min_lat, scene.max_lon, scene.max_lat],
        "properties": _properties(scene, weights, facts),
        "links": _links(key, scene, weights),
        "assets": _assets(key, scene, facts, assets),
    }


def _geometry(scene: Scene) -> Json:
    """Return GeoJSON with right-handed rings (RFC 7946, 3.1.6) and centimetres at most (7 decimals)."""
    shape = shapely.set_precision(shapely.from_wkb(scene.footprint_wkb), 1e-7)
    parts = [orient(part, 1.0) for part in getattr(shape, "geoms", [shape])]
    geometry = mapping(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
    return {"type": geometry["type"], "coordinates": _as_lists(geometry["coordinates"])}


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, (tuple, list)) else round(float(value), 7)


def _properties(scene: Scene, weights: Weights, facts: MaskFacts) -> Json:
    return {
        "title": f"Cloud mask of {scene.name}",
        **_warning(scene),
        **_times(scene),
        **({"gsd": round(scene.resolution_m, 3)} if scene.resolution_m else {}),
        "eo:cloud_cover": round(100 * facts.cloud_fraction, 4),
        **_projection(scene),
        "processing:level": "L2",
        "processing:lineage": f"Mask of scene {scene.scene_id} by weights {weights.weights_id} (version {weights.version}).",
        "processing:software": {"cloudseg": __version__},
        "cloudseg:scene_id": scene.scene_id,
        "cloudseg:place": scene.place,
        "cloudseg:weights_id": weights.weights_id,
        "cloudseg:model_version": weights.version,
        "cloudseg:snapshot_id": weights.snapshot_id,
        "cloudseg:recipe_hash": weights.metadata.get("recipe_hash"),
        "cloudseg:threshold": facts.threshold,
        "cloudseg:arithmetic": facts.arithmetic,
        "cloudseg:cloud_fraction": round(facts.cloud_fraction, 6),
        "cloudseg:valid_fraction": round(facts.valid_fraction, 6),
        **{f"cloudseg:{name}": text for name, text in carried_tags(scene).items()},
    }


def _warning(scene: Scene) -> Json:
    """Say in words, where catalog browsers show it, what is not as it seems."""
    tags = carried_tags(scene)
    words = [f"Georeference {tags['georeference']}."] if "georeference" in tags else []
    words += ["Mask of a synthetic scene: nothing of it was observed."] if "synthetic" in tags else []
    return {"description": " ".join(words)} if words else {}


def carried_tags(scene: Scene) -> dict[str, str]:
    """Return those of the scene's tags that the mask and its item repeat."""
    return {name: str(scene.tags[name]) for name in CARRIED if scene.tags.get(name)}


def class_names() -> str:
    """Return the legend of the mask in one line; GeoTIFF holds colours of classes, but no names."""
    return ", ".join(f"{value} {title.lower()}" for value, _, title, _ in _CLASSES)


def _times(scene: Scene) -> Json:
    if scene.acquired_at is not None:
        return {"datetime": utc_iso(scene.acquired_at)}
    return {"datetime": None, "start_datetime": FIRST_ACQUISITION, "end_datetime": utc_iso(scene.created_at)}


def _projection(scene: Scene) -> Json:
    """Return `proj:*`.

    A system without an EPSG code has `proj:code` null and its WKT instead, as the extension asks.
    """
    crs = CRS.from_user_input(scene.crs)
    authority = crs.to_authority()
    code = (
        {"proj:code": ":".join(authority)}
        if authority
        else {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}
    )
    a, b, c, d, e, f = scene.transform
    xs = [c, c + a * scene.width, c + b * scene.height, c + a * scene.width + b * scene.height]
    ys = [f, f + d * scene.width, f + e * scene.height, f + d * scene.width + e * scene.height]
    return {
        **code,
        "proj:shape": [scene.height, scene.width],
        "proj:transform": [a, b, c, d, e, f, 0.0, 0.0, 1.0],
        "proj:bbox": [min(xs), min(ys), max(xs), max(ys)],
    }


def _links(key: str, scene: Scene, weights: Weights) -> list[Json]:
    links = [{"rel": "derived_from", "href": relative(scene.key, key), "type": _COG, "title": f"Scene {scene.name}"}]
    model = weights.companions.get("item")
    if model is not None:
        title = f"Model version {weights.version}"
        href = relative(model["key"], key)
        links += [
            {"rel": rel, "href": href, "type": "application/geo+json", "title": title}
            for rel in ("processing-expression", "mlm:model")
        ]
    return links


def relative(target: str, folder: str) -> str:
    """Return the link from an object in a folder of keys to another key: it holds wherever the store moves."""
    path = posixpath.relpath(target, folder)
    return path if path.startswith("../") else f"./{path}"


def _assets(key: str, scene: Scene, facts: MaskFacts, stored: dict[str, StoredObject]) -> Json:
    grid = {"raster:spatial_resolution": round(scene.resolution_m, 3)} if scene.resolution_m else {}
    mask_band = {"name": "cloud mask", "data_type": "uint8", "nodata": MASK_NO_DATA, "raster:sampling": "area", **grid}
    probability_band = {
        "name": "cloud probability",
        "data_type": "uint8",
        "nodata": MASK_NO_DATA,
        "raster:sampling": "area",
        "raster:scale": 1 / STEPS,
        "raster:offset": 0.0,
        **grid,
    }
    mask = {"title": "Cloud mask", "bands": [mask_band], "classification:classes": _classes(facts)}
    probability = {"title": "Probability of cloud", "bands": [probability_band]}
    return {
        "mask": _file(key, stored["mask"], _COG, ["data"]) | mask,
        "probability": _file(key, stored["probability"], _COG, ["data", "probability"]) | probability,
        "thumbnail": _file(key, stored["thumbnail"], "image/png", ["thumbnail"])
        | {"title": "Scene with clouds outlined"},
    }


def _classes(facts: MaskFacts) -> list[Json]:
    counts = {MASK_CLEAR: facts.valid - facts.cloud, MASK_CLOUD: facts.cloud, MASK_NO_DATA: facts.pixels - facts.valid}
    return [
        {
            "value": value,
            "name": name,
            "title": title,
            "description": description,
            "color_hint": "".join(f"{part:02X}" for part in COLOURS[value]),
            "percentage": math.floor(100 * counts[value] / facts.pixels * 1e4 + 0.5) / 1e4,
            "count": counts[value],
            **({"nodata": True} if value == MASK_NO_DATA else {}),
        }
        for value, name, title, description in _CLASSES
    ]


def _file(key: str, stored: StoredObject, media_type: str, roles: list[str]) -> Json:
    """Describe a file; the checksum is a multihash: 12 (sha2-256), 20 (32 bytes), then the digest."""
    return {
        "href": relative(stored.key, key),
        "type": media_type,
        "roles": roles,
        "file:checksum": f"1220{stored.sha256}",
        "file:size": stored.size,
    }
