"""Count cloud inside polygons, pixel by pixel, with partly covered pixels counted by their covered part.

The polygons are moved to the pixel grid of a mask, never the mask to another grid. exactextract (Baston, ISciences)
computes which part of each pixel a polygon covers and reads the mask by windows of at most `_MOST_CELLS`.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import CloudsegError
from cloudseg.gis.areas import Area, ground_area, project
from cloudseg.gis.extras import import_extra
from cloudseg.gis.mask_of_scene import MaskOfScene
from cloudseg.raster.footprint import polygons_to_lonlat
from cloudseg.raster.read import decoded, open_raster
from cloudseg.records import AreaDateRow, AreaRow
from cloudseg.storage import Store

_MOST_CELLS: Final = 4_000_000
"""Pixels of a window that is read at once; about 40 MB with the covered parts."""
_MARGIN_DEGREES: Final = 0.02
"""Clipping in lon/lat leaves this much around the grid; the exact clip follows in pixels."""
_EDGE_PIXELS: Final = 100.0
"""Edges are cut to this many pixels before they are projected."""
_EDGE_PARTS: Final = 32
"""Parts of a side of the grid when it is projected to lon/lat, as for footprints."""


@dataclass(frozen=True)
class MaskResult:
    """What was found under one mask: rows, or the error that reading it ended with."""

    mask: MaskOfScene
    rows: Sequence[AreaRow]
    error: CloudsegError | None = None


class AreaIndex:
    """Finds the areas that a scene may cover."""

    def __init__(self, areas: Sequence[Area]) -> None:
        self.areas = areas
        self._tree = shapely.STRtree([area.lonlat for area in areas])

    def meeting(self, outline: BaseGeometry) -> list[Area]:
        """Return the areas that meet an outline in lon/lat, in the order of the file."""
        return [self.areas[at] for at in sorted(self._tree.query(outline, predicate="intersects"))]


def iter_results(
    store: Store, masks: Iterator[MaskOfScene], areas: Sequence[Area], *, once_a_day: bool = False
) -> Iterator[MaskResult]:
    """Yield the statistics of every mask, without a row where it meets no area.

    A mask that cannot be read becomes a result with an error.

    Args:
        store: of the masks.
        masks: in the order of acquisition.
        areas: the polygons.
        once_a_day: count ground that lies in the footprint of an earlier mask of the same day with that mask only.

    Raises:
        SettingsError: exactextract is not installed.
        StoreUnreachable: the store does not respond; a retry can help.
    """
    import_extra("exactextract")
    index = AreaIndex(areas)
    for _, group in itertools.groupby(masks, key=day_of):
        counted: BaseGeometry | None = None
        for mask in group:
            try:
                outline = grid_outline(mask)
                yield MaskResult(mask, measure(store, mask, index.meeting(outline), outline, without=counted))
            except CloudsegError as error:
                if error.retry_helps:
                    raise
                yield MaskResult(mask, [], error)
            else:
                footprint = shapely.from_wkb(mask.footprint_wkb)
                if once_a_day:
                    counted = footprint if counted is None else shapely.union(counted, footprint)


def day_of(mask: MaskOfScene) -> str:
    """Return the day of an acquisition in UTC, or the id of the mask if the time is unknown."""
    return mask.acquired_at.astimezone(UTC).date().isoformat() if mask.acquired_at else mask.mask_id


def iter_days(results: Iterator[MaskResult]) -> Iterator[AreaDateRow]:
    """Yield a row for each area and day from the results of `iter_results` with `once_a_day`.

    The rows of a day are in the order in which its masks meet the areas.
    """
    for _, group in itertools.groupby(results, key=lambda result: day_of(result.mask)):
        rows: dict[int, list[AreaRow]] = {}
        for row in itertools.chain.from_iterable(result.rows for result in group):
            rows.setdefault(row.feature_id, []).append(row)
        yield from (_put_together(found) for found in rows.values())


def _put_together(rows: Sequence[AreaRow]) -> AreaDateRow:
    valid, cloud = sum(row.valid_m2 for row in rows), sum(row.cloud_m2 for row in rows)
    first = rows[0]
    return AreaDateRow(
        area=first.area,
        feature_id=first.feature_id,
        date=first.date,
        cloud_fraction=cloud / valid if valid > 0 else None,
        valid_fraction=min(1.0, valid / first.area_m2),
        area_m2=first.area_m2,
        valid_m2=valid,
        cloud_m2=cloud,
        masks=len(rows),
        mask_ids=" ".join(row.mask_id for row in rows),
    )


def grid_outline(mask: MaskOfScene) -> BaseGeometry:
    """Return the outline of a mask's grid in lon/lat, cut at 180°, a little larger than it is.

    Raises:
        BadScene: the grid is not on the Earth.
    """
    frame = shapely.segmentize(shapely.box(0, 0, mask.width, mask.height), max(mask.width, mask.height) / _EDGE_PARTS)
    return polygons_to_lonlat(_move(frame, Affine(*mask.transform)), mask.crs).buffer(_MARGIN_DEGREES)


def measure(
    store: Store,
    mask: MaskOfScene,
    areas: Sequence[Area],
    outline: BaseGeometry,
    *,
    without: BaseGeometry | None = None,
) -> list[AreaRow]:
    """Return a row for every area that the grid of a mask covers a part of.

    Args:
        store: of the mask, which is read by windows.
        mask: the mask.
        areas: may lie outside.
        outline: of the mask's grid, `grid_outline`.
        without: ground in lon/lat that does not count.

    Raises:
        StoreError: the mask cannot be read.
    """
    parts = [(area, part) for area in areas if (part := on_grid(area, mask, outline, without)) is not None]
    if not parts:
        return []
    with open_raster(store.gdal_path(mask.mask_key)) as dataset:
        counted = count_classes(dataset, [part for _, part in parts])
    rows = (_row(area, mask, part, counts) for (area, part), counts in zip(parts, counted, strict=True))
    return [row for row in rows if row is not None]


def on_grid(
    area: Area, mask: MaskOfScene, outline: BaseGeometry, without: BaseGeometry | None = None
) -> BaseGeometry | None:
    """Return the part of an area inside the grid of a mask, in pixels `(col, row)`; None if there is none.

    An area in the CRS of the mask is not projected, so polygons along pixel edges stay there.
    """
    crs, to_pixels = CRS.from_user_input(mask.crs), ~Affine(*mask.transform)
    near: BaseGeometry
    if without is not None and not without.intersects(area.lonlat):
        without = None
    if area.crs == crs and without is None:
        moved = _move(area.geometry, to_pixels)
    else:
        near = shapely.intersection(area.lonlat, outline)
        near = near if without is None else shapely.difference(near, without)
        if near.is_empty:
            return None
        moved = shapely.union_all([_move(project(part, "EPSG:4326", crs), to_pixels) for part in _polygons(near)])
    inside = shapely.intersection(moved, shapely.box(0, 0, mask.width, mask.height))
    polygons = _polygons(inside)
    return shapely.multipolygons(polygons) if polygons else None


@dataclass(frozen=True)
class Counts:
    """Pixels inside a polygon, partly covered ones by their covered part."""

    covered: float
    valid: float
    cloud: float


def count_classes(dataset: rasterio.DatasetReader, polygons: Sequence[BaseGeometry]) -> list[Counts]:
    """Count the pixels of each class of a mask inside polygons.

    Args:
        dataset: the mask, uint8: 0 clear, 1 cloud, 255 no data.
        polygons: in pixels `(col, row)`, inside of the grid.

    Raises:
        ObjectCorrupt: the pixels cannot be read.
    """
    extract = import_extra("exactextract").exact_extract
    flip = Affine(1, 0, 0, 0, -1, dataset.height)  # exactextract counts y upwards
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(_move(polygon, flip))}
        for polygon in polygons
    ]
    found = extract(_source(dataset), features, ["count", "unique", "frac"], max_cells_in_memory=_MOST_CELLS)
    return [_counts(feature["properties"]) for feature in found]


def _counts(found: dict[str, Any]) -> Counts:
    covered = float(found["count"])
    share = dict(zip((int(value) for value in found["unique"]), (float(part) for part in found["frac"]), strict=True))
    no_data = share.get(MASK_NO_DATA, 0.0)
    return Counts(covered, covered * (1.0 - no_data), covered * share.get(MASK_CLOUD, 0.0))


def _source(dataset: rasterio.DatasetReader) -> Any:
    """Return a mask as a source for exactextract, in pixel coordinates: rotated grids have no other axes."""
    base: Any = import_extra("exactextract.raster").RasterSource

    class Classes(base):  # type: ignore[misc]
        def res(self) -> tuple[float, float]:
            return 1.0, 1.0

        def extent(self) -> tuple[float, float, float, float]:
            return 0.0, 0.0, float(dataset.width), float(dataset.height)

        def nodata_value(self) -> None:
            """No data is counted like a class."""

        def srs_wkt(self) -> None:
            """Pixels have no CRS."""

        def read_window(self, x0: int, y0: int, nx: int, ny: int) -> npt.NDArray[np.uint8]:
            with decoded(dataset):
                classes: npt.NDArray[np.uint8] = dataset.read(1, window=Window(x0, y0, nx, ny))
            return classes

    return Classes()


def _row(area: Area, mask: MaskOfScene, part: BaseGeometry, counts: Counts) -> AreaRow | None:
    if counts.covered <= 0:
        return None
    pixel_m2 = _pixel_area(mask, part)
    moment = mask.acquired_at.astimezone(UTC) if mask.acquired_at else None
    return AreaRow(
        area=area.name,
        feature_id=area.feature_id,
        date=moment.date().isoformat() if moment else None,
        cloud_fraction=counts.cloud / counts.valid if counts.valid > 0 else None,
        covered_fraction=min(1.0, counts.covered * pixel_m2 / area.area_m2),
        no_data_fraction=max(0.0, 1.0 - counts.valid / counts.covered),
        area_m2=area.area_m2,
        valid_m2=counts.valid * pixel_m2,
        cloud_m2=counts.cloud * pixel_m2,
        sensor=mask.sensor,
        scene_id=mask.scene_id,
        scene_name=mask.scene_name,
        acquired_at=moment,
        mask_id=mask.mask_id,
        weights_id=mask.weights_id,
        model_version=mask.model_version,
    )


def _pixel_area(mask: MaskOfScene, part: BaseGeometry) -> float:
    """Return the mean area on the ground, in square meters, of the pixels inside a polygon of pixel coordinates.

    A pixel of a projected CRS has not exactly the area of its sides: 0.08 % less at the center of a UTM zone.
    """
    dense = shapely.segmentize(part, _EDGE_PIXELS)
    lonlat = polygons_to_lonlat(_move(dense, Affine(*mask.transform)), mask.crs)
    return ground_area(lonlat) / float(shapely.area(part))


def _move(geometry: BaseGeometry, by: Affine) -> BaseGeometry:
    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        return np.column_stack([by.a * x + by.b * y + by.c, by.d * x + by.e * y + by.f])

    return shapely.transform(geometry, move)


def _polygons(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return the polygons of any geometry, without the points and lines that a clip leaves."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return [part for part in parts if part.geom_type == "Polygon" and part.area > 0]
