"""The GeoParquet file of a month: one row an item, as stac-geoparquet defines it.

DuckDB, GeoPandas and QGIS read it without following links. The columns are those that stac-geoparquet derives from the
items; properties are columns of their own, `assets` and `links` are nested.
"""

import functools
import importlib.util
import logging
from collections.abc import Iterable
from typing import Final

from cloudseg.records import Json
from cloudseg.scratch import scratch_directory

INDEXED: Final = ("scenes", "masks")
"""Collections that have an index. Models and snapshots are few, and stac-geoparquet reads no item without geometry."""
_log = logging.getLogger(__name__)


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


def index_bytes(items: Iterable[Json]) -> bytes:
    """Return a GeoParquet file of items; the same items produce the same bytes.

    Args:
        items: at least one item as plain JSON with absolute addresses.
    """
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    logging.getLogger("stac_geoparquet").setLevel(logging.WARNING)  # it logs its memory for every file
    with scratch_directory("index") as folder:
        path = folder / "items.parquet"
        to_parquet(parse_stac_items_to_arrow(items), path, compression="zstd")
        return path.read_bytes()
