"""Read polygons of interest: GeoJSON, GeoPackage, FlatGeobuf, Shapefile or GeoParquet, in any CRS."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform as transform_points
from shapely.geometry.base import BaseGeometry

from cloudseg.errors import BadScene, InputError
from cloudseg.gis.extras import import_extra
from cloudseg.raster.footprint import polygons_to_lonlat

_PARQUET: Final = (".parquet", ".geoparquet")
_SUFFIXES: Final = (".geojson", ".json", ".gpkg", ".fgb", ".shp", *_PARQUET)
_NAME_COLUMNS: Final = ("name", "id", "fid", "code")
"""Columns that name a polygon, the first one that the file has; in any case."""
_EQUAL_AREA: Final = "EPSG:6933"
"""Cylindrical equal area on the ellipsoid of WGS 84 (NSIDC EASE-Grid 2.0): areas in it are areas on the ground."""
_EDGE_DEGREES: Final = 0.01
"""Longest edge that is projected as a whole: 1.1 km, whose arc is 3 cm off its chord at a latitude of 45°."""
_MOST_PARTS: Final = 20_000
"""Parts that the longest side of a file's extent is cut into, at most."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Area:
    """A polygon of interest."""

    name: str
    feature_id: int
    """In its file, as QGIS shows it."""
    geometry: BaseGeometry
    """(Multi)polygon in `crs`."""
    crs: CRS
    lonlat: BaseGeometry
    """The same in lon/lat (EPSG:4326), cut at 180°, with edges of at most about a kilometer."""
    area_m2: float
    """On the WGS 84 ellipsoid."""


def read_areas(path: Path, name_column: str | None = None) -> list[Area]:
    """Return the polygons of a file, in its order.

    Args:
        path: its suffix names the format; of a GeoPackage the first layer with geometries is read.
        name_column: column with the names; None: `name`, `id`, `fid` or `code`, else the feature ids.

    Raises:
        InputError: the file cannot be read, has no CRS, or holds something else than valid polygons.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            "not a format of polygons",
            subject=str(path),
            found=path.suffix or "no suffix",
            expected=" ".join(_SUFFIXES),
        )
    if not path.is_file():
        raise InputError("there is no such file", subject=str(path))
    read = _read_parquet if path.suffix.lower() in _PARQUET else _read_with_gdal
    wkb, crs, fields, ids = read(path)
    if len(wkb) == 0:
        raise InputError("the file has no polygon", subject=str(path), next_step="Draw or export polygons into it.")
    shapes = _polygons(wkb, ids, path)
    names = _names(fields, ids, name_column, path)
    return [
        make_area(name, shape, crs, feature_id=number, source=str(path))
        for name, number, shape in zip(names, ids, shapes, strict=True)
    ]


def make_area(name: str, geometry: BaseGeometry, crs: CRS, *, feature_id: int = 0, source: str = "polygon") -> Area:
    """Return an area for a valid (multi)polygon of a CRS.

    Raises:
        InputError: its coordinates are not on the Earth.
    """
    try:
        lonlat = polygons_to_lonlat(shapely.segmentize(geometry, _longest_edge(geometry, crs)), crs.to_wkt())
    except BadScene as error:
        raise InputError(
            f"polygon {name} cannot be projected to lon/lat",
            subject=source,
            found=error.found or error.what,
            next_step="Check the CRS of the file.",
        ) from error
    return Area(name, feature_id, geometry, crs, lonlat, ground_area(lonlat))


def bbox_area(bbox: Sequence[float]) -> Area:
    """Return the area of a box west, south, east, north in lon/lat; west > east where it crosses 180°.

    Raises:
        InputError: it is no box on the Earth.
    """
    west, south, east, north = bbox
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
        raise InputError(
            "not a bounding box",
            subject="bbox",
            found=",".join(f"{value:g}" for value in bbox),
            expected="west,south,east,north in degrees, south < north; west > east across 180°",
        )
    return make_area("bbox", shapely.box(west, south, east if west < east else east + 360, north), CRS.from_epsg(4326))


def ground_area(lonlat: BaseGeometry) -> float:
    """Return the area in square meters of polygons in lon/lat on the WGS 84 ellipsoid."""
    return float(shapely.area(project(lonlat, "EPSG:4326", _EQUAL_AREA)))


def project(geometry: BaseGeometry, source: str | CRS, target: str | CRS) -> BaseGeometry:
    """Return a geometry in another CRS; its edges are straight between their vertices."""

    def move(points: Points) -> Points:
        x, y = transform_points(source, target, points[:, 0].tolist(), points[:, 1].tolist())
        return np.column_stack([x, y])

    return shapely.transform(geometry, move)


def _longest_edge(geometry: BaseGeometry, crs: CRS) -> float:
    """Return the length, in units of the CRS, to which edges are cut before they are projected."""
    west, south, east, north = geometry.bounds
    unit: float = 1.0 if crs.is_geographic else 111_000 / float(crs.linear_units_factor[1] or 1.0)
    return float(max(_EDGE_DEGREES * unit, max(east - west, north - south) / _MOST_PARTS))


_Layer = tuple[npt.NDArray[np.object_], CRS, Mapping[str, Sequence[Any]], Sequence[int]]


def _read_with_gdal(path: Path) -> _Layer:
    import pyogrio
    import pyogrio.raw

    try:
        layers = [str(name) for name, geometry in pyogrio.list_layers(path) if geometry is not None]
        if not layers:
            raise InputError("the file has no layer with geometries", subject=str(path))
        meta, ids, wkb, values = pyogrio.raw.read(path, layer=layers[0], force_2d=True, return_fids=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error
    fields = dict(zip((str(name) for name in meta["fields"]), values, strict=True))
    return wkb, _crs(meta["crs"], path), fields, [int(number) for number in ids]


def _read_parquet(path: Path) -> _Layer:
    """Read GeoParquet 1.x with WKB geometries; GDAL's wheels lack its driver."""
    parquet = import_extra("pyarrow.parquet")
    try:
        table = parquet.read_table(path)
        geo = json.loads(table.schema.metadata[b"geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
        wkb = np.asarray(table[name].to_pylist(), object)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error
    if column.get("encoding") != "WKB":
        raise InputError("geometries are not WKB", subject=str(path), found=column.get("encoding"), expected="WKB")
    # GeoParquet 1.1: an absent CRS is OGC:CRS84, lon/lat; null is unknown.
    crs = (
        _crs(json.dumps(column["crs"]) if column.get("crs") else None, path) if "crs" in column else CRS.from_epsg(4326)
    )
    others = [field for field in table.column_names if field not in geo["columns"]]
    return wkb, crs, {field: table[field].to_pylist() for field in others}, range(table.num_rows)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        "the polygons cannot be read",
        subject=str(path),
        found=" ".join(str(error).split())[:200],
        next_step="Save them again as a GeoPackage with a polygon layer.",
    )


def _crs(text: str | None, path: Path) -> CRS:
    if not text:
        raise InputError(
            "the polygons have no coordinate reference system",
            subject=str(path),
            next_step="Save them with one: EPSG:4326 for lon/lat. A Shapefile has it in its .prj file.",
        )
    try:
        return CRS.from_user_input(json.loads(text) if text.startswith("{") else text)
    except (CRSError, ValueError) as error:
        raise InputError(
            "the coordinate reference system of the polygons is unknown", subject=str(path), found=text[:200]
        ) from error


def _polygons(wkb: npt.NDArray[np.object_], ids: Sequence[int], path: Path) -> list[BaseGeometry]:
    """Return valid polygons.

    Raises:
        InputError: a feature has no, another or an invalid geometry.
    """
    shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    kinds = shapely.get_type_id(shapes)
    polygon = np.isin(kinds, (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    _raise_at(
        ~polygon | shapely.is_empty(shapes), "a feature is not a polygon", lambda at: _kind(shapes[at]), ids, path
    )
    _raise_at(
        ~shapely.is_valid(shapes),
        "a polygon is invalid",
        lambda at: shapely.is_valid_reason(shapes[at])[:100],
        ids,
        path,
    )
    return list(shapely.force_2d(shapes))


def _raise_at(bad: npt.NDArray[np.bool_], what: str, why: Any, ids: Sequence[int], path: Path) -> None:
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(
            what,
            subject=str(path),
            found=f"feature {ids[at]}: {why(at)}; {int(bad.sum())} of {len(bad)} features",
            expected="valid polygons and multipolygons",
            next_step="Delete or repair it (in QGIS: Processing > Fix geometries).",
        )


def _kind(shape: Any) -> str:
    if shape is None:
        return "no geometry, or a curve"
    return "an empty geometry" if shape.is_empty else str(shape.geom_type)


def _names(fields: Mapping[str, Sequence[Any]], ids: Sequence[int], name_column: str | None, path: Path) -> list[str]:
    """Return a name for every feature: its value in the name column, its feature id where that is empty.

    Raises:
        InputError: the file lacks the column.
    """
    if name_column is not None and name_column not in fields:
        raise InputError(
            "the file lacks the name column",
            subject=str(path),
            found=", ".join(fields) or "no columns",
            expected=name_column,
        )
    known = {field.lower(): field for field in reversed(list(fields))}
    column = name_column or next((known[name] for name in _NAME_COLUMNS if name in known), None)
    values = fields[column] if column is not None else [None] * len(ids)
    return [str(number) if _is_missing(value) else str(value) for value, number in zip(values, ids, strict=True)]


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value  # NaN differs from itself
