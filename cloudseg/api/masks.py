"""Open published masks of an area and a time as a lazy cube."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime as Moment  # `datetime` is an argument, as in STAC
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

from cloudseg.bands import MASK_NO_DATA
from cloudseg.errors import InputError, NotInCatalog, SettingsError

if TYPE_CHECKING:
    import pystac
    import xarray

log = logging.getLogger(__name__)
_STAC_CONFIG: Final = {"*": {"assets": {"*": {"data_type": "uint8", "nodata": 255}}}}
"""What both rasters of every mask have, so that a catalog that does not say it is read rightly too."""
_CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Options that rasterio takes from a session only."""
_BANDS: Final = ("mask", "probability")
MAX_PIXELS: Final = 1_000_000_000
"""Rows × columns of a cube: eight tiles of Sentinel-2 at 10 m. Masks of a whole catalog are scattered over the Earth:
a grid around all of them would have millions of chunks, nearly all of them empty."""
_CHUNKS: Final = {"time": 1, "x": 2048, "y": 2048}


def open_masks(
    *,
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    weights: str | None = None,
    as_of: str | None = None,
    url: str | None = None,
    crs: str | None = None,
    resolution: float | None = None,
    chunks: Mapping[str, int | Literal["auto"]] | None = None,
    limit: int = 1000,
) -> "xarray.Dataset":
    """Return published masks as a lazy cube `(time, y, x)`; pixels are read when they are computed.

    Both variables are float32 with NaN where there are no data, so that means and sums need no care: `mask` is 0 where
    clear and 1 where cloud (its mean over `time` is the cloud frequency), `probability` is 0..1. When the cube has
    another grid than the files, a mask pixel is the majority of what it covers, a probability the average.

    Args:
        bbox: west, south, east, north in degrees; the cube ends there. By default all masks.
        datetime: when the scenes were acquired, as in a STAC search: `2024-05-01`, `2024-05`,
            `2024-05-01/2024-06-30`, `../2024-06-30`.
        weights: whose masks, a weights id or version (`v31`); by default those that readers see, at a `url` those that
            it shows and does not call deprecated.
        as_of: open what readers saw at this moment (ISO 8601 with zone), such as `2026-11-22T02:00:00Z`; by default
            now. Masks that were made later are left out, also with `weights`. A static catalog has no past.
        url: a STAC API or a static STAC catalog to search instead of this home: `http://host/stac/`, or the address or
            path of its `catalog.json`; its collection `masks`. Requests go to this server and to public ones, and to
            hosts of CLOUDSEG_STAC_PRIVATE_HOSTS. GDAL opens the GeoTIFFs that the items refer to.
        crs: of the cube, `EPSG:n`; by default that of most of the masks.
        resolution: of the cube in units of its CRS; by default that of the masks.
        chunks: sizes of dask chunks; by default one date and 2048 x 2048 pixels.
        limit: most masks; more are an error, not a part of the answer.

    Raises:
        SettingsError: odc-stac is not installed.
        InputError: an argument cannot be used, an address is not allowed, or too many masks are found.
        StoreUnreachable: the server of `url` does not answer.
        NotInCatalog: nothing is found, or there is no catalog here and no `url`.
    """
    try:
        import odc.stac

        from cloudseg.api.cube import with_encoding
    except ModuleNotFoundError as error:
        raise SettingsError(
            "opening masks needs odc-stac and xarray",
            subject=str(error.name),
            found="not installed",
            next_step="Install the extra: pip install 'cloudseg[gis]'.",
        ) from error
    from cloudseg.catalog.times import parse_interval, parse_moment

    box, interval = _parse_box(bbox), parse_interval(datetime) if datetime is not None else (None, None)
    moment = parse_moment(as_of, "as_of") if as_of is not None else None
    if box is not None and box[0] > box[2]:
        raise InputError(
            "a cube cannot cross 180°",
            subject="bbox",
            found=list(box),
            expected="west below east",
            next_step="Open both sides: bbox=[west, south, 180, north] and bbox=[-180, south, east, north].",
        )
    if url is None:
        items, options = _of_home(box, interval, weights, moment, limit)
    else:
        from cloudseg.api.stac_search import search_masks

        items, options = search_masks(url, box, interval, weights=weights, as_of=as_of, limit=limit), {}
    if not items:
        raise NotInCatalog(
            "no masks are found",
            subject=url or "this home",
            found=f"bbox {list(box) if box else 'any'}, datetime {datetime or 'any'}, "
            f"weights {weights or 'that readers see'}, as of {as_of or 'now'}",
            next_step="`cloudseg masks` lists what is published.",
        )
    gdal: dict[str, Any] = {**_gdal_options(), **{k: v for k, v in options.items() if k not in _CREDENTIALS}}
    credentials = {name.lower(): options[name] for name in _CREDENTIALS if options.get(name)}
    odc.stac.configure_rio(aws=credentials or None, **gdal)
    cube = odc.stac.load(
        items,
        _BANDS,
        chunks=dict(chunks or _CHUNKS),
        geobox=_geobox(items, box, crs, resolution),
        resampling={"mask": "mode", "probability": "average"},
        stac_cfg=_STAC_CONFIG,
        dtype="uint8",
        nodata=MASK_NO_DATA,
    )
    return with_encoding(_scaled(cube))


def _geobox(items: "list[pystac.Item]", box: Any, crs: str | None, resolution: float | None) -> Any:
    """Return the grid of the cube.

    Raises:
        InputError: the CRS is unknown, or the grid has more pixels than anybody can read.
    """
    import odc.stac
    from pyproj.exceptions import CRSError

    parsed = list(odc.stac.parse_items(items, cfg=_STAC_CONFIG))
    more: dict[str, Any] = {"crs": crs} if crs is not None else {}
    try:
        grid = odc.stac.output_geobox(parsed, _BANDS, bbox=box, resolution=resolution, **more)
    except (CRSError, ValueError) as error:
        raise InputError(
            "no grid for the cube",
            subject=f"crs {crs}, resolution {resolution}",
            found=str(error)[:200],
            expected="a CRS like EPSG:32631 and a resolution in its units",
        ) from error
    height, width = grid.shape if grid is not None else (0, 0)
    if height * width > MAX_PIXELS:
        raise InputError(
            "the cube would be too large: the masks are far apart",
            subject="open_masks",
            found=f"{height} x {width} pixels for each date",
            expected=f"at most {MAX_PIXELS:.0e}",
            next_step="Pass bbox=[west, south, east, north], or a coarser resolution=.",
        )
    return grid


def _parse_box(bbox: Sequence[float] | None) -> tuple[float, float, float, float] | None:
    """Return west, south, east, north in degrees; west may be greater than east, across 180°.

    Raises:
        InputError: it has not four numbers in range.
    """
    if bbox is None:
        return None
    numbers = [float(value) for value in bbox]
    if len(numbers) == 4:
        west, south, east, north = numbers
        if -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east:
            return west, south, east, north
    raise InputError(
        "not a bounding box", subject="bbox", found=list(bbox), expected="west, south, east, north in degrees"
    )


def _of_home(
    box: Any, interval: Any, weights: str | None, as_of: Moment | None, limit: int
) -> "tuple[list[pystac.Item], dict[str, str]]":
    """Return the items of this home's masks, and the options by which GDAL opens their files."""
    import pystac

    from cloudseg.api.find_weights import CatalogWeights, find_weights, require_catalog
    from cloudseg.catalog import mask_query as mq
    from cloudseg.catalog import mask_search as ms
    from cloudseg.catalog import reader_rows
    from cloudseg.catalog.search_area import area_of_box
    from cloudseg.runtime import open_runtime, read_settings
    from cloudseg.stac.links import Site
    from cloudseg.stac.static import documents

    require_catalog(read_settings(), weights)
    runtime = open_runtime()
    if weights is None:
        with runtime.catalog.read() as db:
            weights_id = reader_rows.get_shown(db, as_of)
    else:
        found_weights = find_weights(weights)
        if not isinstance(found_weights, CatalogWeights):
            raise InputError("weights of this home are named by id or version", subject=weights, expected="v31")
        weights_id = found_weights.row.weights_id
    since, until = interval
    query = mq.Query(
        ("masks",),
        area=None if box is None else area_of_box(box),
        since=since,
        until=until,
        undated=False,
        weights_id=weights_id,
        as_of=as_of,
        sort=mq.OLDEST_FIRST,
    )
    found = list(islice(ms.iter_found(runtime.catalog, query), limit + 1))
    check_count(len(found), limit)
    _warn_of_undated(runtime.catalog, query)

    class GdalSite(Site):
        """Names objects by the paths by which GDAL opens them."""

        def object(self, key: str) -> str:
            return str(self.store.gdal_path(key))

    site = GdalSite(runtime.store, runtime.settings)
    ids = [row.id for row in found]
    pages = [ids[at : at + mq.MAX_LIMIT] for at in range(0, len(ids), mq.MAX_LIMIT)]
    items = []
    for page in pages:
        with runtime.catalog.read() as db:
            found_items = documents(site, db, "masks", page, as_of)
        for item in found_items:
            item["properties"].pop("deprecated", None)  # pystac would warn of what was asked for
            items.append(pystac.Item.from_dict(item))
    options = dict(runtime.store.gdal_path(found[0].mask.key).options) if found and found[0].mask else {}
    return [item for item in items if keep_rasters(item)], options


def _warn_of_undated(catalog: Any, query: Any) -> None:
    """Log how many masks are left out because the time of their scene is unknown."""
    from dataclasses import replace

    from cloudseg.catalog import mask_search as ms

    with catalog.read() as db:
        everything = ms.count_masks(db, replace(query, since=None, until=None, undated=True)).masks
        dated = ms.count_masks(db, replace(query, since=None, until=None)).masks
    if everything > dated:
        log.warning("%d masks there are left out: their scenes have no time", everything - dated)


def keep_rasters(item: "pystac.Item") -> bool:
    """Keep of an item only the mask and its probability; return False if it lacks one of them."""
    if not set(_BANDS) <= item.assets.keys():
        log.warning("%s is left out: it has not both rasters", item.id)
        return False
    item.assets = {name: item.assets[name] for name in _BANDS}
    return True


def check_count(count: int, limit: int) -> None:
    """Check that no mask is left out.

    Raises:
        InputError: there are more than the limit.
    """
    if count > limit:
        raise InputError(
            "more masks are found than the limit",
            subject="limit",
            found=f"more than {limit}",
            next_step="Narrow bbox or datetime, or pass a larger limit.",
        )


def _gdal_options() -> dict[str, str]:
    """Return options under which GDAL looks at no file beside a mask, and waits for no server for long."""
    bounded = {"GDAL_HTTP_CONNECTTIMEOUT": "10", "GDAL_HTTP_TIMEOUT": "60", "GDAL_HTTP_MAX_RETRY": "2"}
    bounded["CPL_VSIL_CURL_USE_HEAD"] = "NO"  # signed addresses and small servers know GET only
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO", **bounded}


def _scaled(cube: "xarray.Dataset") -> "xarray.Dataset":
    """Return both variables as float32 with NaN where there are no data, and the probability as 0..1."""
    import numpy as np

    from cloudseg.raster.probability import STEPS

    for name, steps in (("mask", 1), ("probability", STEPS)):
        stored = cube[name]
        values = stored.astype(np.float32).where(stored != MASK_NO_DATA) / np.float32(steps)
        values.attrs = {}
        cube[name] = values
    return cube
