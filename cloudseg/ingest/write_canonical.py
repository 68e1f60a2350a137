"""Write the canonical COG of a scene or label from plain pixels. Runs in the sandboxed writer process.

The writer opens no file of a sender. What is stored is what GDAL wrote here, from numbers, and what the catalog says
about it was measured here on those numbers: the process that decoded the file can choose the pixels, and nothing else.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from cloudseg.bands import MASK_CLEAR, MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import BadLabel, BadScene
from cloudseg.grid import Window
from cloudseg.ingest.georeference import Grid
from cloudseg.ingest.job import (
    OUTPUT_NAME,
    LabelJob,
    SceneJob,
    ScenePixels,
    WindowedPixels,
    WrittenLabel,
    WrittenScene,
    is_epsg,
)
from cloudseg.ingest.pixel_stream import PixelReceiver, windows_of
from cloudseg.ingest.untrusted import rasterio_window
from cloudseg.raster.cog import create_cog
from cloudseg.raster.footprint import OVERVIEW_SIZE, footprint_bounds, footprint_of
from cloudseg.raster.read import GDAL_ENV, open_raster, read_valid

Bool = npt.NDArray[np.bool_]


class TextToParse(Exception):
    """The CRS is not the number of a known one but text, which a parser would have to read."""


def write_scene(
    job: SceneJob, pixels: PixelReceiver, folder: Path, max_bytes: int, *, may_parse: bool = True
) -> WrittenScene:
    """Write the scene that comes through the pipe to `OUTPUT_NAME` in `folder` and return what was measured on it.

    Args:
        job: The scene.
        pixels: Reflectance x 10 000 as uint16; 0 in any band: no data.
        folder: The writer's own, empty folder.
        max_bytes: Most bytes of the pixels without compression.
        may_parse: Whether the CRS may be text.

    Raises:
        TextToParse: It is text, and may not be.
        BadScene: The pixels do not make such a scene.
        EOFError: The decoder ended early; its own answer says why.
    """
    with rasterio.Env(**GDAL_ENV):
        head = pixels.begin(ScenePixels)
        _check_size(head, job, max_bytes)
        if head.crs is not None and not may_parse and not is_epsg(head.crs):
            raise TextToParse
        grid = Grid(
            CRS.from_user_input(head.crs) if head.crs else None, Affine(*head.transform), head.height, head.width
        )
        overview, step, valid_count = _receive_scene(head, grid, pixels, folder)
        return _measured(head, grid, overview, step, valid_count / (grid.height * grid.width))


def _check_size(head: ScenePixels, job: SceneJob, max_bytes: int) -> None:
    size = 2 * head.height * head.width * len(head.bands)
    if head.height * head.width > job.max_pixels or size > max_bytes:
        raise BadScene(
            "the scene is larger than allowed",
            subject=job.name,
            found=f"{head.height} x {head.width} pixels x {len(head.bands)} bands, {size >> 20} MB",
            expected=f"at most {job.max_pixels} pixels and {max_bytes >> 20} MB",
            next_step="Split it into tiles, or raise CLOUDSEG_MAX_SCENE_PIXELS and CLOUDSEG_MAX_FILE_MB.",
        )


def _receive_scene(head: ScenePixels, grid: Grid, pixels: PixelReceiver, folder: Path) -> tuple[Bool, int, int]:
    """Write the canonical raster.

    Returns:
        Overview of the valid pixels `(row, col)`, its step in pixels, and the number of valid pixels.
    """
    step = max(1, -(-max(grid.shape) // OVERVIEW_SIZE))
    overview = np.zeros((-(-grid.height // step), -(-grid.width // step)), bool)
    valid_count = 0
    with create_cog(
        folder / OUTPUT_NAME,
        folder,
        height=grid.height,
        width=grid.width,
        count=len(head.bands),
        dtype="uint16",
        crs=head.crs,
        transform=grid.transform,
        nodata=0,
        descriptions=head.bands,
        resampling="average",
        tags={"CONTENT": "reflectance x 10000, 0 = no data"} | dict(head.tags),
        compression="ZSTD",
        predictor=True,
        halve=not any(side % 2 for side in (grid.height, grid.width, head.rows, head.cols)),
    ) as out:
        for window in windows_of(grid.height, grid.width, head):
            dn = pixels.receive((len(head.bands), window.height, window.width), np.uint16)
            valid: Bool = dn[0] != 0
            for band in dn[1:]:
                valid &= band != 0
            if not valid.all():
                dn *= valid
            out.write(dn, window=rasterio_window(window))
            _mark_valid(overview, valid, window, step)
            valid_count += int(valid.sum())
        pixels.finish()
    return overview, step, valid_count


def _mark_valid(overview: Bool, valid: Bool, window: Window, step: int) -> None:
    """Set the overview pixels that contain a valid pixel of the window."""
    if valid.all():
        ends = window.row_off + window.height, window.col_off + window.width
        overview[window.row_off // step : -(-ends[0] // step), window.col_off // step : -(-ends[1] // step)] = True
        return
    rows, cols = (
        np.arange(start, start + length) // step
        for start, length in ((window.row_off, window.height), (window.col_off, window.width))
    )
    row_starts, col_starts = (np.flatnonzero(np.diff(positions, prepend=-1)) for positions in (rows, cols))
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(valid, row_starts, axis=0), col_starts, axis=1)
    overview[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] |= coarse


def _measured(head: ScenePixels, grid: Grid, overview: Bool, step: int, valid_fraction: float) -> WrittenScene:
    footprint = None
    if grid.crs is not None:
        extent = grid.height / step, grid.width / step
        coarse = Affine(grid.transform.a * step, 0, grid.transform.c, 0, grid.transform.e * step, grid.transform.f)
        footprint = footprint_of(overview, coarse, str(head.crs), extent=extent)
    return WrittenScene(
        crs=head.crs,
        transform=list(grid.transform)[:6],
        height=grid.height,
        width=grid.width,
        resolution_m=grid.resolution_m(),
        bands=head.bands,
        footprint_wkb_hex=shapely.to_wkb(footprint, hex=True) if footprint is not None else None,
        bounds=list(footprint_bounds(footprint)) if footprint is not None else None,
        center=list(grid.center()) if grid.crs else None,
        valid_fraction=valid_fraction,
    )


def write_label(job: LabelJob, pixels: PixelReceiver, folder: Path) -> WrittenLabel:
    """Write the label that comes through the pipe to `OUTPUT_NAME` in `folder` and return what was counted on it.

    It has the grid of its scene, and 255 where the scene has no data.

    Args:
        job: The label and its scene.
        pixels: Classes as uint8.
        folder: The writer's own, empty folder.

    Raises:
        BadLabel: No pixel is labeled where the scene has data, or a value is no class.
        EOFError: The decoder ended early; its own answer says why.
    """
    with rasterio.Env(**GDAL_ENV), open_raster(job.scene) as scene:
        head = pixels.begin(WindowedPixels)
        labeled, cloud = _receive_label(head, scene, pixels, folder, job)
        return WrittenLabel(cloud_fraction=cloud / labeled, labelled_fraction=labeled / (scene.height * scene.width))


def _receive_label(
    head: WindowedPixels, scene: Any, pixels: PixelReceiver, folder: Path, job: LabelJob
) -> tuple[int, int]:
    """Write the canonical raster; return the number of labeled pixels and of cloud pixels."""
    labeled = cloud = 0
    grid = Grid(scene.crs, scene.transform, scene.height, scene.width)
    with create_cog(
        folder / OUTPUT_NAME,
        folder,
        height=grid.height,
        width=grid.width,
        count=1,
        dtype="uint8",
        crs=grid.crs_text(),
        transform=grid.transform,
        nodata=MASK_NO_DATA,
        descriptions=["label"],
        resampling="mode",
        tags={"CONTENT": "0 clear, 1 cloud, 255 none"},
    ) as out:
        for window in windows_of(grid.height, grid.width, head):
            classes = pixels.receive((window.height, window.width), np.uint8)
            if np.any((classes != MASK_CLEAR) & (classes != MASK_CLOUD) & (classes != MASK_NO_DATA)):
                raise BadLabel(
                    "the decoder sent a value that is no class",
                    subject=job.display_name,
                    next_step="Inspect the file before trying again: it may be malicious.",
                )
            classes[~read_valid(scene, window)] = MASK_NO_DATA
            out.write(classes[np.newaxis], window=rasterio_window(window))
            labeled += int((classes != MASK_NO_DATA).sum())
            cloud += int((classes == MASK_CLOUD).sum())
        pixels.finish()
        if labeled == 0:
            raise BadLabel(
                "the label has no clear or cloud pixel where the scene has data",
                subject=job.display_name,
                found="only unlabeled or nodata pixels",
                expected="at least one clear or cloud pixel",
                next_step="Check that the label belongs to this scene.",
            )
    return labeled, cloud
