"""Read an untrusted file of polygons: GeoJSON, GeoPackage, FlatGeobuf or Shapefile. Runs in the decoder process only.

pyogrio brings its own GDAL. It is imported with every vector driver switched off but these four, so that no file is
probed as another format; the file's first bytes must be those of the format that its suffix names.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from cloudseg.errors import BadLabel
from cloudseg.ingest.label_errors import NothingDrawn
from cloudseg.ingest.label_tags import TAG_NAMES

DRIVERS: Final = {"geojson": "GeoJSON", "gpkg": "GPKG", "fgb": "FlatGeobuf", "shp": "ESRI Shapefile"}
"""Driver by suffix."""
# What pyogrio 0.13.0 has besides; `_load` checks that none is left.
_OTHER_DRIVERS: Final = (
    *("MEM", "PCIDSK", "PDS4", "VICAR", "PDF", "MBTiles", "EEDA", "OGCAPI", "GDALG", "MapInfo File", "LVBAG", "S57"),
    *("DGN", "OGR_VRT", "CSV", "GML", "GPX", "LIBKML", "KML", "GeoJSONSeq", "ESRIJSON", "TopoJSON", "OGR_GMT"),
    *("SQLite", "WAsP", "OpenFileGDB", "DXF", "GeoRSS", "VFK", "PGDUMP", "OSM", "GPSBabel", "OGR_PDS", "WFS", "OAPIF"),
    *("EDIGEO", "Idrisi", "ODS", "XLSX", "Elasticsearch", "Carto", "AmigoCloud", "SXF", "Selafin", "JML", "PLSCENES"),
    *("CSW", "VDV", "MVT", "NGW", "MapML", "GTFS", "PMTiles", "JSONFG", "MiraMonVector", "ADBC", "AVCBin", "AVCE00"),
    *("AIVector", "HTTP"),
)
MAX_BYTES: Final = 64 << 20
MAX_FEATURES: Final = 50_000
MAX_VERTICES: Final = 1_000_000
_GPKG_IDS: Final = (b"GPKG", b"GP10", b"GP11")
"""`application_id` of the SQLite header, OGC 12-128r18 (GeoPackage), requirement 2, and versions 1.0 and 1.1."""
_SHP_POLYGONS: Final = (0, 5, 15, 25)
"""Null shape, Polygon, PolygonZ, PolygonM (ESRI Shapefile Technical Description, 1998)."""
LAYER: Final = "labels"
"""The layer of a GeoPackage that is read if it has several."""


@dataclass(frozen=True)
class Polygons:
    """The features of one layer."""

    shapes: npt.NDArray[np.object_]
    """shapely polygons and multipolygons, in `crs`."""
    crs: CRS | None
    fields: Mapping[str, npt.NDArray[Any]]
    """Values of each attribute, in the order of the shapes."""
    ids: Sequence[int]
    """Feature ids, as QGIS shows them."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Metadata of file and layer, and attributes that are called like a tag."""


def read_polygons(path: str, display_name: str) -> Polygons:
    """Return the polygons of a file.

    Args:
        path: The private copy; its suffix names the format.
        display_name: The file's name, for messages.

    Raises:
        NothingDrawn: The layer has no feature.
        BadLabel: The file is not of its format, too large, or not every feature is a valid polygon.
    """
    _check_content(Path(path), display_name)
    pyogrio = _load()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a newer version of a format, of M values: polygons are checked below
            layer = _layer(pyogrio, path, display_name)
            info = pyogrio.read_info(path, layer=layer, force_feature_count=True)
            _check_layer(info, path, display_name)
            meta, ids, wkb, values = pyogrio.raw.read(
                path, layer=layer, force_2d=True, return_fids=True, max_features=MAX_FEATURES + 1
            )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, RuntimeError) as error:
        raise BadLabel(
            "the polygons cannot be read",
            subject=display_name,
            found=" ".join(str(error).replace(str(path), "the file").split())[:200],
            next_step="Save them again as a GeoPackage with a polygon layer.",
        ) from error
    if len(wkb) == 0:
        raise NothingDrawn(
            "the layer has no polygon yet", subject=display_name, next_step="Draw polygons with the attribute class."
        )
    fields = dict(zip((str(name) for name in meta["fields"]), values, strict=True))
    numbers = [int(number) for number in ids]
    shapes = _shapes(wkb, numbers, display_name)
    metadata = {**(info.get("dataset_metadata") or {}), **(info.get("layer_metadata") or {})}
    return Polygons(shapes, _crs(meta["crs"], display_name), fields, numbers, _tags(metadata, fields, display_name))


def _load() -> Any:
    """Import pyogrio with four drivers, and return it.

    Raises:
        RuntimeError: It has another driver, which would be tried on the file.
    """
    os.environ["GDAL_SKIP"] = ",".join(_OTHER_DRIVERS)  # read once, while its GDAL registers its drivers
    try:
        import pyogrio
        import pyogrio.raw
    finally:
        del os.environ["GDAL_SKIP"]
    if others := set(pyogrio.list_drivers()) - set(DRIVERS.values()):
        raise RuntimeError(f"pyogrio has further drivers: {', '.join(sorted(others))}")
    return pyogrio


def _check_content(path: Path, display_name: str) -> None:
    """Check the size and the first bytes of a file against the format that its suffix names.

    Raises:
        BadLabel: They do not fit.
    """
    size, suffix = path.stat().st_size, path.suffix.removeprefix(".")
    if size > MAX_BYTES:
        raise BadLabel(
            "the file of polygons is larger than allowed",
            subject=display_name,
            found=f"{size} bytes",
            expected=f"at most {MAX_BYTES} bytes",
            next_step="Save only the polygons of this scene.",
        )
    with path.open("rb") as handle:
        head = handle.read(4096)
    if not _SIGNATURES[suffix](head):
        raise BadLabel(
            f"the file is not a {DRIVERS[suffix]} file of polygons",
            subject=display_name,
            found="other content under this suffix" if head else "an empty file",
            expected=f"the first bytes of {DRIVERS[suffix]}",
            next_step="Save the polygons again as GeoPackage, GeoJSON, FlatGeobuf or Shapefile, with its own suffix.",
        )


def _is_gpkg(head: bytes) -> bool:
    return head.startswith(b"SQLite format 3\0") and head[68:72] in _GPKG_IDS


def _is_geojson(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith(b"{")


def _is_shapefile(head: bytes) -> bool:
    return (
        len(head) >= 100
        and head.startswith(b"\0\0\x27\x0a")
        and head[28:32] == b"\xe8\x03\0\0"
        and int.from_bytes(head[32:36], "little") in _SHP_POLYGONS
    )


_SIGNATURES: Final = {
    "geojson": _is_geojson,
    "gpkg": _is_gpkg,
    "fgb": lambda head: head.startswith(b"fgb\x03fgb"),
    "shp": _is_shapefile,
}


def _layer(pyogrio: Any, path: str, display_name: str) -> str:
    """Return the layer to read: `labels`, or the only one with geometries.

    Raises:
        BadLabel: There is none, or more than one.
    """
    layers = [str(name) for name, geometry in pyogrio.list_layers(path) if geometry is not None]
    if LAYER in layers:
        return LAYER
    if len(layers) == 1:
        return layers[0]
    raise BadLabel(
        f"the file has {len(layers)} layers with geometries",
        subject=display_name,
        found=", ".join(layers)[:200] or "none",
        expected=f"one layer, or one called {LAYER}",
        next_step=f"Save the polygons in a layer called {LAYER}.",
    )


def _check_layer(info: Mapping[str, Any], path: str, display_name: str) -> None:
    """Check driver and number of features before the features are read.

    Raises:
        BadLabel: They do not fit.
    """
    expected = DRIVERS[Path(path).suffix.removeprefix(".")]
    if info["driver"] != expected:
        raise BadLabel(
            f"the file was not recognized as {expected}", subject=display_name, found=info["driver"], expected=expected
        )
    if info["features"] > MAX_FEATURES:
        raise _too_many("features", info["features"], MAX_FEATURES, display_name)


def _too_many(what: str, found: int, limit: int, display_name: str) -> BadLabel:
    return BadLabel(
        f"the label has more {what} than allowed",
        subject=display_name,
        found=found,
        expected=f"at most {limit}",
        next_step="Simplify the polygons, or save the label as a raster.",
    )


def _shapes(wkb: npt.NDArray[np.object_], ids: Sequence[int], display_name: str) -> npt.NDArray[np.object_]:
    """Return valid polygons.

    Raises:
        BadLabel: A feature has no, another or an invalid geometry, or there are too many vertices.
    """
    if len(wkb) > MAX_FEATURES:
        raise _too_many("features", len(wkb), MAX_FEATURES, display_name)
    shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    if (vertices := int(shapely.get_num_coordinates(shapes).sum())) > MAX_VERTICES:
        raise _too_many("vertices", vertices, MAX_VERTICES, display_name)
    kinds = shapely.get_type_id(shapes)
    polygon = np.isin(kinds, (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    good = polygon & ~shapely.is_empty(shapes)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise BadLabel(
            "a feature is not a polygon",
            subject=display_name,
            found=f"feature {ids[at]}: {_kind(shapes[at])}; {int((~good).sum())} of {len(shapes)} features",
            expected="polygons and multipolygons",
            next_step="Delete the feature, or draw it as a polygon.",
        )
    valid = shapely.is_valid(shapes)
    if not valid.all():
        at = int(np.flatnonzero(~valid)[0])
        raise BadLabel(
            "a polygon is invalid",
            subject=display_name,
            found=f"feature {ids[at]}: {shapely.is_valid_reason(shapes[at])[:100]}; "
            f"{int((~valid).sum())} of {len(shapes)} features",
            expected="polygons whose outline does not cross itself",
            next_step="Repair them (in QGIS: Processing > Fix geometries).",
        )
    return np.asarray(shapes, object)


def _kind(shape: Any) -> str:
    if shape is None:
        return "no geometry, or a curve"
    return "an empty geometry" if shape.is_empty else str(shape.geom_type)


def _crs(text: str | None, display_name: str) -> CRS | None:
    if not text:
        return None
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise BadLabel(
            "the coordinate reference system of the polygons is unknown",
            subject=display_name,
            found=str(text)[:200],
            expected="an EPSG code",
            next_step="Save the polygons with the CRS of the scene.",
        ) from error


def _tags(metadata: Mapping[str, str], fields: Mapping[str, npt.NDArray[Any]], display_name: str) -> dict[str, str]:
    """Return the metadata, and the attributes of text that are called like a tag.

    Raises:
        BadLabel: Such an attribute differs between features, so that the polygons belong to several scenes.
    """
    tags = {str(name).upper(): str(text) for name, text in metadata.items()}
    for name, values in fields.items():
        if name.upper() not in TAG_NAMES:
            continue
        texts = sorted({value.strip() for value in values if isinstance(value, str) and value.strip()})
        if len(texts) > 1 and name.upper() != "LABEL_SOURCE":
            raise BadLabel(
                f"the polygons have different values of {name}",
                subject=display_name,
                found=", ".join(texts)[:200],
                expected="one scene in a file",
                next_step="Save the polygons of each scene in a file of their own.",
            )
        if texts:
            tags[name.upper()] = ", ".join(texts)[:100]
    return tags
