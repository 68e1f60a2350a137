"""Write polygons to a GeoPackage, a FlatGeobuf or a GeoParquet file: in batches, and whole or not at all.

A GeoPackage grows batch by batch. The other two are written from a temporary GeoPackage at the end, because the index
of a FlatGeobuf stands before its polygons and GDAL as packaged here writes no Parquet.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyogrio.raw
import shapely
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from cloudseg.errors import InputError, SettingsError
from cloudseg.scratch import scratch_directory

FORMATS: Final = {".gpkg": "GeoPackage", ".fgb": "FlatGeobuf", ".parquet": "GeoParquet"}
LONLAT: Final = "EPSG:4326"
_UTC: Final = 100
"""How GDAL marks a time in UTC (`OGRFeature::SetField`, argument nTZFlag)."""
_BATCH: Final = 10_000
_GEOMETRY: Final = "geometry"


@dataclass(frozen=True)
class Column:
    """An attribute of a layer."""

    name: str
    kind: type
    """`str`, `int`, `float` or `datetime`; each value may be None."""


class PolygonWriter:
    """Collects polygons and writes them in batches to a layer of a GeoPackage."""

    def __init__(self, path: Path, layer: str, columns: Sequence[Column], crs: str, about: Mapping[str, str]) -> None:
        self._path, self._layer, self._columns, self._crs = path, layer, columns, crs
        self._geometries: list[bytes] = []
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0
        self._write(layer_metadata=dict(about))

    def add(self, geometry: BaseGeometry, row: tuple[Any, ...]) -> None:
        """Add a polygon with the values of its columns."""
        self._geometries.append(shapely.to_wkb(geometry))
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._rows:
            self._write(append=True)
            self._geometries, self._rows = [], []

    def _write(self, **how: Any) -> None:
        values = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(self._columns)
        fields = [_array(column, part) for column, part in zip(self._columns, values, strict=True)]
        times = [column.name for column in self._columns if column.kind is datetime]
        pyogrio.raw.write(
            self._path,
            np.array(self._geometries, object),
            fields,
            np.array([column.name for column in self._columns], object),
            field_mask=[_missing(part) for part in values],
            layer=self._layer,
            driver="GPKG",
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            crs=self._crs,
            gdal_tz_offsets={name: np.full(len(self._rows), _UTC) for name in times},
            **how,
        )


@contextmanager
def polygon_file(
    path: Path,
    layer: str,
    columns: Sequence[Column],
    crs: str,
    about: Mapping[str, str],
    *,
    overwrite: bool,
) -> Iterator[PolygonWriter]:
    """Yield a writer of a new file, which appears under its name when the block ends without an error.

    Args:
        path: `.gpkg`, `.fgb` or `.parquet`.
        layer: name of the layer.
        columns: attributes.
        crs: 'EPSG:n' or WKT; polygons in EPSG:4326 have longitude before latitude.
        about: facts about the whole file, as metadata of the layer.
        overwrite: replace a file that exists.

    Raises:
        InputError: the file exists, cannot be written, or has another suffix.
        SettingsError: GeoParquet needs a library that is not installed.
    """
    check_output(path, overwrite=overwrite)
    with _beside(path) as beside:
        if path.suffix == ".gpkg":
            writer = PolygonWriter(beside, layer, columns, crs, about)
            yield writer
            writer.flush()
        else:
            with scratch_directory("export") as folder:
                writer = PolygonWriter(folder / "polygons.gpkg", layer, columns, crs, about)
                yield writer
                writer.flush()
                _convert(folder / "polygons.gpkg", beside, layer, crs, about)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise an error if a file cannot be written, before any work is done.

    Raises:
        InputError: the file exists or has another suffix.
        SettingsError: GeoParquet needs a library that is not installed.
    """
    if path.suffix not in FORMATS:
        raise InputError(
            "no format of polygons has this suffix",
            subject=str(path),
            found=path.suffix or "none",
            expected=", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items()),
        )
    if path.exists() and not overwrite:
        raise InputError(
            "the file exists", subject=str(path), next_step="Choose another name, or replace it with --overwrite."
        )
    if path.suffix == ".parquet":
        _pyarrow()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder that becomes the file, or is removed after an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise InputError(
            "the file cannot be written", subject=str(path), found=error.strerror, next_step="Choose another folder."
        ) from error
    beside = folder / path.name
    try:
        yield beside
        beside.replace(path)
    finally:
        for left in folder.iterdir():  # SQLite's journal too
            left.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _convert(source: Path, out: Path, layer: str, crs: str, about: Mapping[str, str]) -> None:
    """Write the layer of a GeoPackage as FlatGeobuf or GeoParquet, batch by batch."""
    with pyogrio.raw.open_arrow(source, layer=layer, batch_size=_BATCH) as (info, stream):
        if out.suffix == ".fgb":
            pyogrio.raw.write_arrow(
                stream,
                out,
                layer=layer,
                driver="FlatGeobuf",
                geometry_type="MultiPolygon",
                geometry_name=info["geometry_name"],
                crs=crs,
                layer_metadata=dict(about),
            )
        else:
            _write_parquet(stream, out, info["geometry_name"], crs, about)


def _write_parquet(stream: Any, out: Path, geometry: str, crs: str, about: Mapping[str, str]) -> None:
    """Write GeoParquet 1.1 (geoparquet.org/releases/v1.1.0): WKB, one row group a batch."""
    pyarrow, parquet = _pyarrow()
    reader = pyarrow.RecordBatchReader.from_stream(stream)
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon"],
        "orientation": "counterclockwise",
    }
    if crs != LONLAT:  # without it the default holds: OGC:CRS84, longitude before latitude
        column["crs"] = CRS.from_user_input(crs).to_dict(projjson=True)
    geo = {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}
    fields = [
        pyarrow.field(_GEOMETRY, pyarrow.binary()) if field.name == geometry else field.remove_metadata()
        for field in reader.schema
    ]
    schema = pyarrow.schema(fields, {"geo": json.dumps(geo), **about})
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in reader:
            arrays = [
                array.cast(field.type) if array.type != field.type else array
                for array, field in zip((_storage(array) for array in batch.columns), schema, strict=True)
            ]
            writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))


def _storage(array: Any) -> Any:
    """Return the plain values of a column with an extension type, as a geometry may have."""
    return getattr(array, "storage", array)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SettingsError(
            "GeoParquet needs a library that is not installed",
            subject="pyarrow",
            next_step="Install the extra gis: pip install 'cloudseg[gis]'. GeoPackage and FlatGeobuf need nothing.",
        ) from error
    return pyarrow, parquet


def _array(column: Column, values: Sequence[Any]) -> Any:
    if column.kind is datetime:
        return np.array([_plain(value) for value in values], "datetime64[ms]")
    if column.kind is str:
        return np.array(values, object)
    return np.array([0 if value is None else value for value in values], np.int64 if column.kind is int else np.float64)


def _plain(value: datetime | None) -> Any:
    return np.datetime64("NaT") if value is None else value.replace(tzinfo=None)


def _missing(values: Sequence[Any]) -> Any:
    return np.array([value is None for value in values], np.bool_)
