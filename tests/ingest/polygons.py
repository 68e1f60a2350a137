"""Files of polygons on the grid of `tiles`, written by the tests that need them."""

import json
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from rasterio.warp import transform_geom
from shapely.geometry import Polygon, box

from cloudseg.ingest.polygon_file import DRIVERS

WEST, NORTH = 500_000, 5_600_000
Features = list[tuple[object, dict]]


def pixels(row: int, col: int, height: int, width: int) -> Polygon:
    """Return the outline of whole pixels of the scene."""
    return box(WEST + col * 10, NORTH - (row + height) * 10, WEST + (col + width) * 10, NORTH - row * 10)


AREAS: Features = [
    (pixels(10, 10, 10, 10), {"class": "cloud"}),
    (pixels(0, 0, 20, 20), {"class": "clear"}),
    (shapely.difference(pixels(30, 30, 10, 10), pixels(33, 33, 4, 4)), {"class": "Cloud"}),
]


def geojson(path: Path, features: Features, crs: str | None = "EPSG:4326") -> Path:
    """Write features in the scene's CRS as GeoJSON in another CRS; `crs` None: without transforming them."""
    found = [
        {
            "type": "Feature",
            "properties": properties,
            "geometry": transform_geom("EPSG:32631", crs or "EPSG:32631", shapely.geometry.mapping(shape))
            if shape
            else None,
        }
        for shape, properties in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    return path


def save(path: Path, features: Features, crs: str | None = "EPSG:32631", **more: object) -> Path:
    """Write features with pyogrio, in the driver of the suffix."""
    names = list(features[0][1]) if features else ["class"]
    pyogrio.raw.write(
        path,
        np.array([shapely.to_wkb(shape) if shape else None for shape, _ in features], object),
        [np.array([values[name] for _, values in features], object) for name in names],
        names,
        geometry_type=more.pop("geometry_type", "Polygon"),
        crs=crs,
        driver=DRIVERS[path.suffix.removeprefix(".")],
        **more,
    )
    return path
