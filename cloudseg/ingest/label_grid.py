"""The grid of a label raster: the same as its scene's, or the label is refused with the difference and what to type.

Runs in the sandboxed decoder process.
"""

from typing import Any, Final

from rasterio.enums import Resampling

from cloudseg.errors import BadLabel
from cloudseg.ingest.georeference import Grid, same_grid, to_grid, to_north_up
from cloudseg.ingest.job import LabelJob

_SAME_SIZE: Final = 1e-3
"""Relative difference of pixel sizes below which they are equal; the extent is compared afterwards."""


def on_scene_grid(dataset: Any, grid: Grid, job: LabelJob) -> Any:
    """Return the label's pixels on the scene's grid: the dataset, or a warped VRT if it is not north-up.

    A label without CRS is assumed to match its scene pixel by pixel, unless the job needs a georeference.

    Raises:
        BadLabel: CRS, pixel size, size or extent differ from the scene's.
    """
    if dataset.crs is None and grid.crs is not None and job.needs_georeference:
        raise BadLabel(
            "a label without its scene needs a georeference",
            subject=job.display_name,
            found="no coordinate reference system",
            expected=str(grid.crs)[:40],
            next_step=f"Save the label with the georeference of its scene, call it {job.scene_id}, or add the scene.",
        )
    if dataset.crs is None or grid.crs is None:
        _check_shape(dataset.shape, grid, job)
        return dataset
    if dataset.crs != grid.crs:
        raise BadLabel(
            "the label has another coordinate reference system than its scene",
            subject=job.display_name,
            found=_crs_name(Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)),
            expected=_crs_name(grid),
            next_step=_warp_command(grid),
        )
    view, own, _ = to_north_up(dataset, job.display_name, needs_georeference=True, max_pixels=job.max_pixels)
    _check_pixel_size(own, grid, job)
    _check_shape(own.shape, grid, job)
    if not same_grid(grid, own):
        raise BadLabel(
            "the label's extent differs from its scene's",
            subject=job.display_name,
            found=f"{own.crs_text()} {list(own.transform)[:6]}"[:200],
            expected=f"{grid.crs_text()} {list(grid.transform)[:6]}"[:200],
            next_step=_warp_command(grid),
        )
    return view if view is dataset else to_grid(dataset, grid, Resampling.nearest)


def _check_pixel_size(own: Grid, grid: Grid, job: LabelJob) -> None:
    sizes = [(abs(one.transform.a), abs(one.transform.e)) for one in (own, grid)]
    if all(abs(a - b) <= _SAME_SIZE * b for a, b in zip(*sizes, strict=True)):
        return
    found, expected = (f"{x:g} x {y:g}" for x, y in sizes)
    raise BadLabel(
        "the label's pixels have another size than its scene's",
        subject=job.display_name,
        found=f"pixels of {found} in units of {_crs_name(grid)}",
        expected=f"pixels of {expected}",
        next_step=_warp_command(grid),
    )


def _check_shape(shape: tuple[int, int], grid: Grid, job: LabelJob) -> None:
    if shape == grid.shape:
        return
    raise BadLabel(
        "the label's size differs from its scene's",
        subject=job.display_name,
        found=f"{shape[0]} x {shape[1]} pixels",
        expected=f"{grid.height} x {grid.width} pixels",
        next_step="Crop label and scene to the same grid.",
    )


def _crs_name(grid: Grid) -> str:
    return (grid.crs_text() or "none")[:200]


def _warp_command(grid: Grid) -> str:
    """Return what to type to save a label on the scene's grid, nearest neighbor: classes must not be interpolated."""
    crs = _crs_name(grid)
    if not crs.startswith("EPSG:"):
        return "Save the label on the grid of its scene, nearest neighbor (GDAL: gdalwarp -r near)."
    west, north = grid.transform.c, grid.transform.f
    east, south = west + grid.width * grid.transform.a, north + grid.height * grid.transform.e
    extent = " ".join(repr(float(value)) for value in (west, south, east, north))
    return (
        f"Save it on the grid of its scene: gdalwarp -r near -dstnodata 255 -t_srs {crs} -te {extent} "
        f"-ts {grid.width} {grid.height} <label> <new label>."
    )
