"""The GeoParquet file of a month: one row an item, as stac-geoparquet defines it.

DuckDB, GeoPandas and QGIS read it without following links. The columns are those that stac-geoparquet derives from the
items; properties are columns of their own, `assets` and `links` are nested.
"""

import functools
import importlib.util
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from cloudseg.keys import canonical_json, sha256_of
from cloudseg.records import Json
from cloudseg.scratch import scratch_directory

INDEXED: Final = ("scenes", "masks")
"""Collections that have an index. Models and snapshots are few, and stac-geoparquet reads no item without geometry."""
_log = logging.getLogger(__name__)
_STATES: Final = b"cloudseg:states"
"""Key in the metadata of the column `id`: the hash of what the rows were written from."""
_ROWS: Final = 8192
"""Rows of a row group: readers skip those whose bounds do not match."""


@functools.cache
def can_index() -> bool:
    """Return whether stac-geoparquet is installed; if not, say so once in a process."""
    if importlib.util.find_spec("stac_geoparquet") is not None:
        return True
    _log.warning(
        "the static STAC catalog gets no GeoParquet index, because stac-geoparquet is not installed: "
        "pip install 'cloudseg[gis]', then `cloudseg maintain --apply`"
    )
    return False


def index_bytes(
    items: Iterable[Json], states: Mapping[str, str], *, old: bytes | None = None, kept: Collection[str] = ()
) -> bytes:
    """Return a GeoParquet file of items, by id; the same items produce the same bytes, whatever was kept.

    Args:
        items: those to write anew, as plain JSON with absolute addresses.
        states: what each item is written from, by id; the file holds a hash of them (`states_of`).
        old: the file before.
        kept: ids of the rows of `old` to take over; making an item costs a hundred times more.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    logging.getLogger("stac_geoparquet").setLevel(logging.WARNING)  # it logs its memory for every file
    parts = []
    if old is not None and kept:
        before = pq.read_table(pa.BufferReader(old))
        parts.append(before.filter(pc.is_in(before["id"], pa.array(sorted(kept)))))
    if new := list(items):
        parts.append(parse_stac_items_to_arrow(new).read_all())
    table = _normalized(pa.concat_tables(parts, promote_options="permissive").sort_by("id"))
    written = {item_id: states[item_id] for item_id in table["id"].to_pylist()}
    place = table.schema.get_field_index("id")
    noted = table.schema.field(place).with_metadata({_STATES: _digest(written)})
    table = pa.Table.from_arrays(table.columns, schema=table.schema.set(place, noted))
    with scratch_directory("index") as folder:
        path = folder / "items.parquet"
        to_parquet(table.to_reader(max_chunksize=_ROWS), path, compression="zstd")
        return path.read_bytes()


def holds(file: bytes | None, states: Mapping[str, str]) -> bool:
    """Return whether a GeoParquet file is readable and its rows were written from exactly these states."""
    if file is None:
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        noted = pq.read_schema(pa.BufferReader(file)).field("id").metadata or {}
    except (pa.ArrowException, KeyError):  # damaged, or another program's
        return False
    return bool(noted.get(_STATES) == _digest(states))


def _digest(states: Mapping[str, str]) -> bytes:
    return sha256_of(canonical_json(dict(states))).encode()


def _normalized(table: Any) -> Any:
    """Return a table whose schema follows from its values, not from the order in which they were added.

    Fields are sorted by name at every depth, and those without a value are left out, but `datetime`, which STAC
    requires.
    """
    import pyarrow as pa

    table = table.combine_chunks()
    fields, columns = [], []
    for name in sorted(table.column_names):
        values = pa.concat_arrays(table[name].chunks)
        if values.null_count == len(values) and name != "datetime":
            continue
        columns.append(_sorted_fields(values))
        given = table.schema.field(name).metadata or {}
        # How a geometry is encoded, but not the numbers of fields that reading a file adds.
        metadata = {key: value for key, value in given.items() if key.startswith(b"ARROW:extension")}
        fields.append(pa.field(name, columns[-1].type, metadata=metadata or None))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _sorted_fields(values: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_list(values.type):
        missing = values.is_null() if values.null_count else None
        return pa.ListArray.from_arrays(values.offsets, _sorted_fields(values.values), mask=missing)
    if not pa.types.is_struct(values.type):
        return values
    parts = {field.name: values.field(field.name) for field in values.type}
    parts = {name: _sorted_fields(parts[name]) for name in sorted(parts) if parts[name].null_count < len(values)}
    return pa.StructArray.from_arrays(list(parts.values()), names=list(parts), mask=values.is_null())
