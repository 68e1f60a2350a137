"""Open published masks of an area and a time as a lazy cube."""

import logging
from collections.abc import Mapping, Sequence
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
        weights: whose masks, a weights id or version (`v31`); by default the champion's, or at a `url` those that are
            not called deprecated.
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
    from cloudseg.api.find_masks import parse_box, parse_interval

    box, interval = parse_box(bbox), parse_interval(datetime)
    if box is not None and box[0] > box[2]:
        raise InputError(
            "a cube cannot cross 180°",
            subject="bbox",
            found=list(box),
            expected="west below east",
            next_step="Open both sides: bbox=[west, south, 180, north] and bbox=[-180, south, east, north].",
        )
    if url is None:
        items, options = _of_home(box, interval, weights, limit)
    else:
        from cloudseg.api.stac_search import search_masks

        items, options = search_masks(url, box, interval, weights=weights, limit=limit), {}
    if not items:
        raise NotInCatalog(
            "no masks are found",
            subject=url or "this home",
            found=f"bbox {list(box) if box else 'any'}, datetime {datetime or 'any'}, weights {weights or 'champion'}",
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


def _of_home(box: Any, interval: Any, weights: str | None, limit: int) -> "tuple[list[pystac.Item], dict[str, str]]":
    """Return the items of this home's masks, and the options by which GDAL opens their files."""
    from cloudseg.api.find_masks import count_without_time, find_masks, mask_items
    from cloudseg.api.find_weights import CatalogWeights, find_weights
    from cloudseg.runtime import open_runtime

    found_weights = find_weights(weights)
    if not isinstance(found_weights, CatalogWeights):
        raise InputError("weights of this home are named by id or version", subject=weights or "", expected="v31")
    runtime, weights_id = open_runtime(), found_weights.row.weights_id
    with runtime.catalog.read() as db:
        found = find_masks(db, box, interval, weights_id=weights_id, limit=limit + 1)
        without_time = count_without_time(db, box, weights_id=weights_id)
    check_count(len(found), limit)
    if without_time:
        log.warning("%d masks there are left out: their scenes have no time", without_time)
    options = dict(runtime.store.gdal_path(found[0][0].key).options) if found else {}
    return mask_items(found, runtime.store), options


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
