"""Pixels of a user's own raster file, read as ingest reads a file that is one scene.

The file is opened in this process, not in the sandboxed decoder: the user who names it is the one who runs the process.
The limits are those of ingest: GeoTIFF and JPEG 2000 by their first bytes, no virtual format, no file that a file
names, no network, bounded pixels and blocks.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray

from cloudseg.api.grid import PixelGrid, check_bands
from cloudseg.errors import InputError
from cloudseg.grid import Window, iter_strips
from cloudseg.ingest.block_cache import room_for_blocks
from cloudseg.ingest.inbox_file import InboxFile, escape_name
from cloudseg.ingest.job import RasterJob, SceneJob
from cloudseg.ingest.layer import Layer, align_layers, open_layer, read_layers
from cloudseg.ingest.layouts.multiband import single_file_scene
from cloudseg.ingest.offset_check import check_offset
from cloudseg.ingest.pipeline import parse_bands
from cloudseg.ingest.plausibility import check_distribution
from cloudseg.raster.read import GDAL_ENV

if TYPE_CHECKING:
    from cloudseg.predict.window_pixels import ReadPixels
    from cloudseg.settings import Settings

_STRIP_ROWS: Final = 128
_SAMPLE: Final = 256
_SAMPLES_PER_SIDE: Final = 4


@dataclass(frozen=True)
class UserRaster:
    """What a user's file says about itself."""

    grid: PixelGrid
    bands: list[str]
    radiometry: str
    """Where scale and offset come from."""
    job: SceneJob

    @contextmanager
    def open(self) -> "Iterator[ReadPixels]":
        """Yield how a window is read; see `cloudseg.predict.window_pixels.ReadPixels`."""
        with rasterio.Env(**GDAL_ENV), ExitStack() as stack:
            layers = [open_layer(stack, self.job, self.job.files[0])]
            align_layers(stack, self.job, layers)
            cache = room_for_blocks([layers[0].dataset], _STRIP_ROWS, self.grid.width, self.job.memory_mb)
            stack.enter_context(cache)

            def read(window: Window, bands: tuple[str, ...]) -> NDArray[np.uint16]:
                wanted = [self.bands.index(band) for band in bands]
                # By strips: every band of the file is converted in order to know where it has no data.
                parts = [read_layers(layers, [], strip)[0][wanted] for strip in iter_strips(window, _STRIP_ROWS)]
                return np.concatenate(parts, axis=1)

            yield read


def describe_file(
    path: Path,
    wanted: Sequence[str],
    settings: "Settings",
    *,
    optional: Sequence[str] = (),
    bands: Sequence[str] | None = None,
    resolution_m: float | None = None,
) -> UserRaster:
    """Read what a file says about its grid, bands and scale, and check a sample of its values.

    Args:
        path: of the file.
        wanted: bands that the model reads.
        settings: limits of size.
        optional: those of the wanted bands that the file may lack.
        bands: names in file order, `-` for one that is not wanted; by default from descriptions, codes and colors.
        resolution_m: ground size of a pixel in meters; by default from the georeference.

    Raises:
        InputError: the file is missing, or lacks a band.
        BadScene: it is not a usable raster, or its values cannot be reflectance.
    """
    if not path.is_file():
        raise InputError("no such file", subject=str(path), next_step="Check the path.")
    job, is_product = _job(path, parse_bands(bands), settings)
    with rasterio.Env(**GDAL_ENV), ExitStack() as stack:
        layers = [open_layer(stack, job, job.files[0])]
        names = layers[0].names
        check_bands(names, wanted, str(path), optional=optional)
        grid = align_layers(stack, job, layers)
        _check_sample(layers, grid, job, is_product=is_product)
        sources = dict.fromkeys(scale.radiometry.source for scale in layers[0].scales)
        return UserRaster(
            PixelGrid(
                str(path),
                grid.height,
                grid.width,
                resolution_m if resolution_m is not None else grid.resolution_m(),
                grid.crs_text(),
                list(grid.transform)[:6],
            ),
            names,
            "; ".join(sources),
            job,
        )


def _job(path: Path, bands: tuple[str | None, ...] | None, settings: "Settings") -> tuple[SceneJob, bool]:
    """Return the file as the only one of a scene, with what a product id in its name says."""
    candidate = single_file_scene(InboxFile(escape_name(path.name), path.absolute().as_uri()), "multiband", bands)
    known, is_product = candidate.files[0].radiometry, candidate.sensor != "unknown"
    file = RasterJob(
        path=str(path),
        display_name=escape_name(path.name),
        bands=None if bands is None else list(bands),
        radiometry=(known.scale, known.offset, known.fill, known.source, known.guessed) if known else None,
    )
    job = SceneJob(
        name=candidate.name,
        files=[file],
        needs_georeference=False,
        time_in_tags=False,
        is_product=is_product,
        sensor=candidate.sensor,
        out="",
        folder="",
        max_pixels=settings.max_scene_pixels,
        memory_mb=settings.decode_memory_mb,
    )
    return job, is_product


def _check_sample(layers: list[Layer], grid: Any, job: SceneJob, *, is_product: bool) -> None:
    """Check as ingest does, on a sample, that the values are reflectance with the scale and offset in use.

    Raises:
        BadScene: they cannot be.
    """
    names = layers[0].names
    counts = np.zeros((len(names), 65536), np.int64)
    for window in _sample_windows(grid.height, grid.width):
        for band, values in enumerate(read_layers(layers, [], window)[0]):
            counts[band] += np.bincount(values.ravel(), minlength=65536)
    counts[:, 0] = 0
    if counts.any():
        scales = dict(zip(names, layers[0].scales, strict=True))
        check_distribution(counts, scales, job.name, is_product=is_product)
        check_offset(counts, scales, layers, grid, job.name)


def _sample_windows(height: int, width: int) -> Iterator[Window]:
    """Yield squares evenly over the raster; all of a small one."""
    rows, cols = (
        [
            round(start)
            for start in np.linspace(0, max(0, length - _SAMPLE), min(_SAMPLES_PER_SIDE, -(-length // _SAMPLE)))
        ]
        for length in (height, width)
    )
    for row in rows:
        for col in cols:
            yield Window(row, col, min(_SAMPLE, height - row), min(_SAMPLE, width - col))
