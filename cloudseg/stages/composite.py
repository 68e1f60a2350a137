"""Stage: a cloud-free composite from published masks and their scenes."""

import time
from collections.abc import Sequence
from datetime import datetime as Moment  # `datetime` is an argument, as in STAC
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cloudseg.catalog import names
from cloudseg.errors import InputError
from cloudseg.records import CompositeRecord, utc_iso
from cloudseg.runtime import open_runtime
from cloudseg.stages import log

if TYPE_CHECKING:
    from cloudseg.gis.areas import Area
    from cloudseg.gis.mask_of_scene import MaskOfScene

_MOST_METERS = 1_000_000.0


def composite(
    out: str,
    *,
    datetime: str,
    bbox: Sequence[float] | None = None,
    aoi: str | None = None,
    method: Literal["clearest", "median"] = "clearest",
    date: str | None = None,
    bands: Sequence[str] = (),
    buffer_m: float = 0.0,
    distance_cap_m: float = 1000.0,
    meters_per_day: float = 10.0,
    resolution_m: float | None = None,
    crs: str | None = None,
    weights_id: str | None = None,
    as_of: str | None = None,
    overwrite: bool = False,
) -> CompositeRecord:
    """Write a composite of the clear pixels of several dates as a cloud-optimized GeoTIFF.

    Beside `out` (reflectance × 10 000 as uint16, 0 no data) there are `<stem>.count.tif`, the number of clear
    observations, and for `clearest` `<stem>.scene.tif`, the chosen scene and its day. Masks and scenes are read by
    windows; memory does not grow with the area. Needs the extra `gis`.

    Args:
        out: the file, `.tif`.
        datetime: interval of acquisition, `2024-06-01/2024-06-30`.
        bbox: west, south, east, north in degrees; west > east across 180°. Either this or `aoi`.
        aoi: file of polygons; what is outside of them has no data.
        method: `clearest`, by the score in `cloudseg.gis.composite`, or `median` of the clear pixels.
        date: wanted day of the clearest pixel; by default the middle of the interval, or of the scenes found if an end
            is open.
        bands: names; by default those that every scene has.
        buffer_m: pixels at most this far from cloud or no data do not count as clear.
        distance_cap_m: distance to cloud beyond which a pixel is as clear as it can be.
        meters_per_day: distance to cloud that a day farther from the wanted day has to bring.
        resolution_m: side of a pixel; by default the commonest of the scenes.
        crs: in meters; by default the commonest of the scenes.
        weights_id: whose masks (`w-…`, `v31`, `champion`); by default those that readers see.
        as_of: use what readers saw at this moment (ISO 8601 with zone), such as 2026-11-22T02:00:00Z; None is now.
        overwrite: replace files that exist.

    Raises:
        InputError: an argument is unusable, or a file cannot be written.
        SettingsError: the extra is not installed.
        NotInCatalog: the weights are unknown, or readers see no masks yet.
        DataError: no mask covers the place in this time, or a scene lacks a band.
        StoreError: a mask or a scene cannot be read.
    """
    from cloudseg.catalog.times import parse_interval, parse_moment
    from cloudseg.gis.composite import common_bands, write_composite
    from cloudseg.gis.composite_grid import choose_grid, cover
    from cloudseg.gis.observations import over_grid
    from cloudseg.gis.plan import Plan
    from cloudseg.gis.selection import Wanted, nothing_found, select_masks

    began = time.monotonic()
    log.started(
        "composite", out=out, datetime=datetime, bbox=bbox, aoi=aoi, method=method, weights_id=weights_id, as_of=as_of
    )
    _check_numbers(buffer_m, distance_cap_m, meters_per_day, resolution_m)
    path = _check_output(out, method, overwrite)
    since, until = parse_interval(datetime)
    moment = parse_moment(as_of, "as_of") if as_of is not None else None
    areas = _areas(bbox, aoi)
    catalog = open_runtime().catalog
    with catalog.read() as db:
        whose = names.get_id(db, "weights", weights_id) if weights_id is not None else None
    wanted = Wanted(since, until, whose, moment)
    masks = select_masks(catalog, areas, wanted)
    grid = choose_grid(masks, areas, crs=crs, resolution_m=resolution_m)
    if aoi is None:  # the grid is a rectangle in its CRS, whose corners reach beyond the box
        masks = select_masks(catalog, [grid.area()], wanted)
    masks = over_grid(masks, grid)
    if not masks:  # outlines have a margin
        raise nothing_found(catalog, areas, wanted)
    plan = Plan(
        grid=grid,
        masks=masks,
        bands=common_bands(masks, bands),
        method=method,
        target=_target(date, since, until, masks),
        buffer_m=buffer_m,
        cap_m=distance_cap_m,
        meters_per_day=meters_per_day,
        inside=cover(areas, grid) if aoi is not None else None,
    )
    tags = {"CLOUDSEG_DATETIME": datetime} | ({"CLOUDSEG_AS_OF": utc_iso(moment)} if moment is not None else {})
    written = write_composite(path, open_runtime().store, plan, tags=tags, on_progress=log.progress("composite"))
    record = CompositeRecord(
        out=str(path),
        files=[str(file) for file in written.files],
        method=method,
        crs=grid.crs.to_string(),
        resolution_m=grid.resolution_m,
        height=grid.height,
        width=grid.width,
        bands=list(plan.bands),
        masks=[mask.mask_id for mask in masks],
        filled_fraction=written.filled_fraction,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("composite", record)
    return record


def _check_numbers(buffer_m: float, distance_cap_m: float, meters_per_day: float, resolution_m: float | None) -> None:
    limits = {
        "buffer_m": (buffer_m, 0.0),
        "distance_cap_m": (distance_cap_m, 1.0),
        "meters_per_day": (meters_per_day, 0.0),
        "resolution_m": (1.0 if resolution_m is None else resolution_m, 0.01),
    }
    for name, (value, least) in limits.items():
        if not least <= value <= _MOST_METERS:
            raise InputError("out of range", subject=name, found=value, expected=f"{least:g} to {_MOST_METERS:g}")


def _check_output(out: str, method: str, overwrite: bool) -> Path:
    """Return the path of the output after checking that every file can be written."""
    from cloudseg.gis.output_file import check_output
    from cloudseg.gis.plan import METHODS, output_files

    if method not in METHODS:
        raise InputError("no such method", subject="method", found=method, expected=", ".join(METHODS))
    path = Path(out).absolute()
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError("the output is a GeoTIFF", subject=out, found=path.suffix or "no suffix", expected=".tif")
    for file in output_files(path, method).values():
        check_output(file, overwrite=overwrite)
    return path


def _areas(bbox: Sequence[float] | None, aoi: str | None) -> "list[Area]":
    from cloudseg.gis.areas import bbox_area, read_areas

    if (bbox is None) == (aoi is None):
        raise InputError(
            "pass either a bounding box or a file of polygons",
            subject="bbox, aoi",
            found="neither" if bbox is None else "both",
            expected="--bbox or --aoi",
        )
    return [bbox_area(bbox)] if bbox is not None else read_areas(Path(aoi or ""))


def _target(date: str | None, since: Moment | None, until: Moment | None, masks: "Sequence[MaskOfScene]") -> Moment:
    """Return the wanted time: the middle of the wanted day, of the interval, or of the scenes found."""
    from cloudseg.catalog.times import parse_interval

    if date is not None:
        since, until = parse_interval(date)
    if since is None or until is None:
        times = [mask.acquired_at for mask in masks if mask.acquired_at is not None]
        since, until = min(times), max(times)
    return since + (until - since) / 2
