"""Stage: cloud statistics of polygons."""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cloudseg.catalog import names
from cloudseg.errors import CloudsegError, InputError
from cloudseg.records import AreaDateRow, AreaRow, Json, StatsRecord
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import log

if TYPE_CHECKING:
    from cloudseg.gis.area_stats import MaskResult
    from cloudseg.gis.areas import Area
    from cloudseg.gis.mask_of_scene import MaskOfScene


def stats(
    aoi: str,
    *,
    datetime: str | None = None,
    weights_id: str | None = None,
    as_of: str | None = None,
    name_column: str | None = None,
    by: Literal["scene", "date"] = "scene",
    out: str | None = None,
    overwrite: bool = False,
) -> StatsRecord:
    """Return the share of cloud inside polygons, for each polygon, scene and date.

    Only windows of published masks are read. A mask that cannot be read is listed under `failed`, and the others are
    measured. Needs the extra `gis`.

    Args:
        aoi: file of polygons: GeoJSON, GeoPackage, FlatGeobuf, Shapefile or GeoParquet, in any CRS.
        datetime: interval of acquisition, `2024-06-01/2024-06-30`; None: any time.
        weights_id: whose masks (`w-…`, `v31`, `champion`); by default those that readers see.
        as_of: use what readers saw at this moment (ISO 8601 with zone), such as 2026-11-22T02:00:00Z; None is now.
        name_column: column with the polygons' names; by default `name`, `id`, `fid` or `code`.
        by: rows for each scene, or for each day: then ground under several scenes of a day counts once.
        out: file for the rows, `.csv`, `.json` or `.parquet`; by default they are in the record.
        overwrite: replace that file.

    Raises:
        InputError: the file of polygons, the interval, the moment or `out` is unusable.
        SettingsError: the extra is not installed.
        NotInCatalog: the weights are unknown, or readers see no masks yet.
        DataError: no mask covers the place in this time.
    """
    from cloudseg.catalog.times import parse_interval, parse_moment
    from cloudseg.gis import table_file
    from cloudseg.gis.areas import read_areas
    from cloudseg.gis.output_file import check_output
    from cloudseg.gis.selection import Wanted, count_wanted, iter_wanted, nothing_found

    began = time.monotonic()
    log.started("stats", aoi=aoi, datetime=datetime, weights_id=weights_id, as_of=as_of, out=out)
    if by not in ("scene", "date"):
        raise InputError("no such rows", subject="by", found=by, expected="scene, date")
    since, until = parse_interval(datetime) if datetime is not None else (None, None)
    moment = parse_moment(as_of, "as_of") if as_of is not None else None
    if out is not None:
        table_file.check_suffix(Path(out))
        check_output(Path(out), overwrite=overwrite)
    areas = read_areas(Path(aoi), name_column)
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        whose = names.get_id(db, "weights", weights_id) if weights_id is not None else None
    wanted = Wanted(since, until, whose, moment)
    total = count_wanted(runtime.catalog, areas, wanted)
    seen = _Seen()
    masks = iter_wanted(runtime.catalog, areas, wanted)
    remaining = _iter_rows(runtime, masks, total, areas, seen, by)
    first = list(itertools.islice(remaining, 1))
    if not first and not seen.failed:
        raise nothing_found(runtime.catalog, areas, wanted)
    rows = itertools.chain(first, remaining)
    kept = list(rows) if out is None else []
    kind = AreaRow if by == "scene" else AreaDateRow
    count = len(kept) if out is None else table_file.write_rows(Path(out), rows, kind)
    record = StatsRecord(
        by=by,
        areas=len(areas),
        masks=seen.masks,
        count=count,
        rows=kept,
        uncovered=[area.name for area in areas if area.feature_id not in seen.features],
        failed=seen.failed,
        out=str(Path(out).absolute()) if out is not None else None,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("stats", record)
    return record


@dataclass
class _Seen:
    """What has been read so far."""

    masks: int = 0
    features: set[int] = field(default_factory=set)
    failed: Json = field(default_factory=dict)

    def fail(self, mask_id: str, error: CloudsegError) -> None:
        log.log.warning("mask %s is left out: %s", mask_id, error)
        self.failed[mask_id] = error.as_record()


def _iter_rows(
    runtime: Runtime, masks: "Iterator[MaskOfScene]", total: int, areas: "Sequence[Area]", seen: _Seen, by: str
) -> Iterator[AreaRow | AreaDateRow]:
    """Yield the rows in the order of acquisition."""
    from cloudseg.gis.area_stats import iter_days, iter_results

    results = _noted(iter_results(runtime.store, masks, areas, once_a_day=by == "date"), total, seen)
    if by == "date":
        yield from iter_days(results)
    else:
        yield from itertools.chain.from_iterable(result.rows for result in results)


def _noted(results: "Iterator[MaskResult]", total: int, seen: _Seen) -> "Iterator[MaskResult]":
    """Yield the results, and note what they are."""
    report_progress = log.progress("stats")
    for number, result in enumerate(results, start=1):
        if result.error is not None:
            seen.fail(result.mask.mask_id, result.error)
        seen.masks += 1 if result.rows else 0
        seen.features.update(row.feature_id for row in result.rows)
        yield result
        report_progress(number, total, "masks")
