"""Burn labeled polygons onto the grid of their scene. Runs in the sandboxed decoder process.

A pixel is inside a polygon if its center is (GDALRasterizeGeometries without ALL_TOUCHED). Clear polygons first, then
cloud, so that a cloud drawn on a clear area counts; what no polygon covers is 255, not labeled. In another CRS the
vertices are transformed and the edges between them are straight on the scene's grid, as QGIS draws them.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.transform import array_bounds
from rasterio.warp import transform

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import BadLabel
from cloudseg.ingest.georeference import Grid
from cloudseg.ingest.polygon_file import Polygons

CLASS_FIELD: Final = "class"
CLASSES: Final = {"clear": MASK_CLEAR, "cloud": MASK_CLOUD}
_VALUES: Final = {**CLASSES, "0": MASK_CLEAR, "1": MASK_CLOUD}
_SHOWN_IDS: Final = 10


def burn(polygons: Polygons, grid: Grid, display_name: str) -> npt.NDArray[np.uint8]:
    """Return the classes of the scene's pixels: 0 clear, 1 cloud, 255 not labeled; `(height, width)`.

    Args:
        polygons: The features.
        grid: The scene's grid.
        display_name: The file's name, for messages.

    Raises:
        BadLabel: A feature has no class, the polygons have no georeference, or none of them covers a pixel.
    """
    classes = _classes(polygons, display_name)
    shapes = _on_crs(polygons, grid, display_name)
    out = np.full(grid.shape, MASK_NO_DATA, np.uint8)
    for value in (MASK_CLEAR, MASK_CLOUD):
        chosen = [(shape, value) for shape in shapes[classes == value]]
        if chosen:
            rasterize(chosen, out=out, transform=grid.transform)
    if bool((out == MASK_NO_DATA).all()):
        raise _outside(shapes, grid, display_name)
    return out


def _classes(polygons: Polygons, display_name: str) -> npt.NDArray[np.uint8]:
    """Return the class of every feature.

    Raises:
        BadLabel: The attribute is missing, or a feature has another value.
    """
    names = [name for name in polygons.fields if name == CLASS_FIELD] or [
        name for name in polygons.fields if name.lower() == CLASS_FIELD
    ]
    if len(names) != 1:
        raise BadLabel(
            f"the polygons have no attribute {CLASS_FIELD}" if not names else "the attribute class exists twice",
            subject=display_name,
            found=", ".join(names or polygons.fields)[:200] or "no attribute",
            expected=f"an attribute {CLASS_FIELD}: cloud or clear",
            next_step=f"Add the attribute {CLASS_FIELD} to the layer, and fill in cloud or clear for every polygon.",
        )
    values = polygons.fields[names[0]]
    found = [_VALUES.get(_text(value)) for value in values]
    wrong = [index for index, value in enumerate(found) if value is None]
    if wrong:
        texts = sorted({_text(values[index]) or "empty" for index in wrong})
        ids = ", ".join(str(polygons.ids[index]) for index in wrong[:_SHOWN_IDS])
        more = f" and {len(wrong) - _SHOWN_IDS} more" if len(wrong) > _SHOWN_IDS else ""
        raise BadLabel(
            f"the attribute {CLASS_FIELD} is empty or unknown",
            subject=display_name,
            found=f"{', '.join(texts)[:100]} in feature {ids}{more}",
            expected="cloud or clear (or 1, 0)",
            next_step=f"Fill in {CLASS_FIELD} for these features. An area without opinion needs no polygon.",
        )
    return np.array(found, np.uint8)


def _text(value: object) -> str:
    """Return an attribute's value as it is compared; a boolean says neither cloud nor clear."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return "" if value is None else str(value)
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:g}"
    return str(value).strip().lower()


def _on_crs(polygons: Polygons, grid: Grid, display_name: str) -> npt.NDArray[np.object_]:
    """Return the polygons in the scene's CRS.

    Raises:
        BadLabel: Scene or polygons have no CRS, or coordinates cannot be transformed.
    """
    if grid.crs is None or polygons.crs is None:
        raise BadLabel(
            "polygons need a coordinate reference system",
            subject=display_name,
            found="no CRS of the " + ("scene" if grid.crs is None else "polygons"),
            expected=(grid.crs_text() or "a scene with a georeference")[:100],
            next_step="Save the label as a raster of the scene's pixels."
            if grid.crs is None
            else "Save the polygons with their CRS (for a Shapefile: its .prj file).",
        )
    source = polygons.crs
    box = shapely.total_bounds(polygons.shapes)
    if source.is_geographic and not (abs(box[[0, 2]]).max() <= 360 and abs(box[[1, 3]]).max() <= 90):
        raise BadLabel(
            "the coordinates of the polygons are no longitudes and latitudes",
            subject=display_name,
            found=", ".join(f"{value:g}" for value in box),
            expected="degrees: GeoJSON without `crs` is EPSG:4326 (RFC 7946)",
            next_step="Save the polygons as a GeoPackage, or as GeoJSON in EPSG:4326.",
        )
    shapes = polygons.shapes if source == grid.crs else _transformed(polygons.shapes, source, grid.crs, display_name)
    if not np.isfinite(shapely.get_coordinates(shapes)).all():
        raise _not_transformed(source, grid.crs, display_name, "coordinates that are not finite")
    return shapes


def _transformed(
    shapes: npt.NDArray[np.object_], source: CRS, target: CRS, display_name: str
) -> npt.NDArray[np.object_]:
    def to_target(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transform(source, target, points[:, 0], points[:, 1])[:2])

    try:
        return np.asarray(shapely.transform(shapes, to_target), object)
    except (CRSError, RuntimeError, ValueError) as error:
        raise _not_transformed(source, target, display_name, str(error)) from error


def _not_transformed(source: CRS, target: CRS, display_name: str, found: str) -> BadLabel:
    return BadLabel(
        "the polygons cannot be transformed to the scene's coordinate reference system",
        subject=display_name,
        found=" ".join(f"{source.to_string()}: {found}".split())[:200],
        expected=target.to_string()[:100],
        next_step="Save the polygons with the CRS of the scene.",
    )


def _outside(shapes: npt.NDArray[np.object_], grid: Grid, display_name: str) -> BadLabel:
    def text(box: Any) -> str:
        return ", ".join(f"{value:.8g}" for value in box)

    return BadLabel(
        "no polygon covers the center of a pixel of the scene",
        subject=display_name,
        found=f"polygons in {text(shapely.total_bounds(shapes))}",
        expected=f"inside {text(array_bounds(*grid.shape, grid.transform))} (west, south, east, north)",
        next_step="Check that the label belongs to this scene.",
    )
