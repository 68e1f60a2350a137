"""Decode an untrusted label into the pixels of the canonical label of a scene: uint8, 0 clear, 1 cloud, 255 none.

Runs in the sandboxed decoder process; what it sends is written by another process
(`cloudseg.ingest.write_canonical`). Rasters: `label_bands` (which band), `label_grid`, `label_values`; polygons:
`polygon_file`, `label_polygons`.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from cloudseg.bands import MASK_NO_DATA
from cloudseg.errors import BadLabel, BadScene
from cloudseg.grid import Window, iter_windows
from cloudseg.ingest.georeference import Grid
from cloudseg.ingest.job import LabelJob, LabelReading, LabelTags, LabelTagsJob, WindowedPixels, is_epsg
from cloudseg.ingest.label_bands import LabelBands, find_class_band
from cloudseg.ingest.label_grid import on_scene_grid
from cloudseg.ingest.label_masks import MaskComparison
from cloudseg.ingest.label_polygons import CLASSES, burn
from cloudseg.ingest.label_tags import label_tags
from cloudseg.ingest.label_values import Mapping, choose_mapping, collect_values, mark_nodata, to_classes
from cloudseg.ingest.pixel_stream import PixelSender, windows_of
from cloudseg.ingest.polygon_file import DRIVERS, read_polygons
from cloudseg.ingest.untrusted import open_untrusted, read_window
from cloudseg.raster.read import GDAL_ENV, open_raster

_WINDOW: Final = 1024


class _Classes(Protocol):
    """A label on its scene's grid."""

    @property
    def mapping(self) -> dict[str, int]:
        """The class by the source's own values, as text."""
        ...

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """Return the classes of a window."""
        ...


def decode_label(job: LabelJob, pixels: PixelSender) -> LabelReading:
    """Send the classes of a label to the writer and return what the file says besides.

    Args:
        job: The file, its scene and limits.
        pixels: The pipe to the writer, which makes pixels without data in the scene 255.

    Raises:
        NothingDrawn: A layer of polygons is empty.
        BadLabel: The file is unreadable, its grid differs from the scene's, it has not one band of classes or unknown
            values, it belongs to another scene, or it is a published mask unchanged.
    """
    try:
        with rasterio.Env(**GDAL_ENV), ExitStack() as stack:
            grid = _grid_of_scene(job)
            classes, tags = _open_polygons(job, grid) if _has_polygons(job) else _open_raster(stack, job, grid)
            _check_scene(job, tags)
            return _send(job, grid, classes, tags, MaskComparison(job, stack), pixels)
    except BadScene as error:
        raise _as_bad_label(error, job.display_name) from error


def _grid_of_scene(job: LabelJob) -> Grid:
    """Return the grid of the scene; the text of a CRS is read as the scene's file has it."""
    known = job.grid
    if known is not None and (known.crs is None or is_epsg(known.crs)):
        crs = None if known.crs is None else CRS.from_user_input(known.crs)
        return Grid(crs, Affine(*known.transform), known.height, known.width)
    with open_raster(job.scene) as scene:
        return Grid(scene.crs, scene.transform, scene.height, scene.width)


def read_label_tags(job: LabelTagsJob) -> LabelTags:
    """Return what a label says about itself.

    Raises:
        NothingDrawn: A layer of polygons is empty.
        BadLabel: The file is unreadable.
    """
    try:
        with rasterio.Env(**GDAL_ENV):
            if _has_polygons(job):
                return label_tags(read_polygons(job.path, job.display_name).tags, job.display_name)
            with _open(job) as dataset:
                tags = label_tags(dataset.tags(), job.display_name)
                transform = [float(value) for value in list(dataset.transform)[:6]]
                if dataset.crs is None or not np.isfinite(transform).all():
                    return tags
                return tags.model_copy(update={"shape": dataset.shape, "transform": transform})
    except BadScene as error:
        raise _as_bad_label(error, job.display_name) from error


def _has_polygons(job: LabelJob | LabelTagsJob) -> bool:
    return Path(job.path).suffix.removeprefix(".") in DRIVERS


def _open(job: LabelJob | LabelTagsJob, suffix: str = "") -> Any:
    return open_untrusted(
        job.path + suffix, job.display_name + suffix, max_pixels=job.max_pixels, memory_mb=job.memory_mb, png=not suffix
    )


def _check_scene(job: LabelJob, tags: LabelTags) -> None:
    """Refuse a label that lies beside one scene and says in its tags that it belongs to another.

    Raises:
        BadLabel: It does.
    """
    if tags.scene is not None and tags.scene.startswith("sc-") and tags.scene != job.scene_id:
        raise BadLabel(
            "the label names another scene than the one that it lies beside",
            subject=job.display_name,
            found=f"tag {tags.scene}",
            expected=job.scene_id,
            next_step="Remove the tags SCENE_ID and CLOUDSEG_SCENE_ID, or put the label alone into a folder labels/.",
        )


@dataclass(frozen=True)
class _BurntPolygons:
    mapping: dict[str, int]
    classes: npt.NDArray[np.uint8]

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        rows = slice(window.row_off, window.row_off + window.height)
        return self.classes[rows, window.col_off : window.col_off + window.width].copy()


def _open_polygons(job: LabelJob, grid: Grid) -> tuple[_Classes, LabelTags]:
    polygons = read_polygons(job.path, job.display_name)
    classes = burn(polygons, grid, job.display_name)
    return _BurntPolygons(dict(CLASSES), classes), label_tags(polygons.tags, job.display_name)


@dataclass(frozen=True)
class _RasterClasses:
    mapping: dict[str, int]
    raster: "_LabelRaster"
    by_value: Mapping

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        pixels, labeled = self.raster.read(window)
        classes = to_classes(pixels, self.by_value)
        classes[~labeled] = MASK_NO_DATA
        return classes


@dataclass(frozen=True)
class _LabelRaster:
    """A label raster on its scene's grid, with its mask file."""

    dataset: Any
    view: Any
    mask_file: Any | None
    bands: LabelBands
    display_name: str

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return values, and which pixels are labeled; the nodata value is left to the class mapping if it can be."""
        pixels = read_window(self.view, self.bands.classes, window, self.display_name)
        labeled = self.bands.labeled(self.view, self.dataset, window, self.display_name)
        labeled &= ~mark_nodata(pixels, self.bands.nodata)
        if self.mask_file is not None:
            labeled &= read_window(self.mask_file, 1, window, f"{self.display_name}.msk") != 0
        return pixels, labeled


def _open_raster(stack: ExitStack, job: LabelJob, grid: Grid) -> tuple[_Classes, LabelTags]:
    dataset = stack.enter_context(_open(job))
    bands = find_class_band(dataset, job.path, job.display_name)
    view = on_scene_grid(dataset, grid, job)
    raster = _LabelRaster(dataset, view, _open_mask_file(stack, job, dataset, view), bands, job.display_name)
    values = collect_values(_labeled_values(raster, grid), job.display_name)
    tags = label_tags(dataset.tags(), job.display_name)
    mapping = choose_mapping(
        values,
        bands.nodata,
        [dict(pairs) for pairs in job.mappings],
        job.display_name,
        has_our_classes=tags.mask_id is not None,
    )
    by_text = {str(value): target for value, target in sorted(mapping.items())}
    return _RasterClasses(by_text, raster, mapping), tags


def _open_mask_file(stack: ExitStack, job: LabelJob, dataset: Any, view: Any) -> Any | None:
    """Return the mask file (`.msk`) beside a label, or None.

    Raises:
        BadLabel: It does not fit the label.
    """
    if not Path(f"{job.path}.msk").is_file():
        return None
    mask = stack.enter_context(_open(job, ".msk"))
    if mask.shape != dataset.shape or view is not dataset:
        raise BadLabel(
            "the mask file beside the label does not fit it",
            subject=f"{job.display_name}.msk",
            found=f"{mask.height} x {mask.width} pixels",
            expected=f"{dataset.height} x {dataset.width} pixels, north-up",
            next_step="Write 255 where the label says nothing, and remove the .msk file.",
        )
    return mask


def _labeled_values(raster: _LabelRaster, grid: Grid) -> Iterator[npt.NDArray[Any]]:
    for window in iter_windows(grid.height, grid.width, _WINDOW):
        pixels, labeled = raster.read(window)
        yield pixels[labeled]


def _send(
    job: LabelJob,
    grid: Grid,
    label: _Classes,
    tags: LabelTags,
    masks: MaskComparison,
    pixels: PixelSender,
) -> LabelReading:
    head = WindowedPixels(rows=_WINDOW, cols=_WINDOW)
    pixels.begin(head)
    for window in windows_of(grid.height, grid.width, head):
        classes = label.read(window)
        pixels.send(classes)
        masks.add(window, classes)
    corrects = masks.corrected_mask(tags, is_drawn=_has_polygons(job))
    pixels.commit()
    return LabelReading(
        source=tags.source[:100] if tags.source else job.source, mapping=label.mapping, corrects_mask_id=corrects
    )


def _as_bad_label(error: BadScene, display_name: str) -> BadLabel:
    return BadLabel(
        error.what,
        subject=error.subject or display_name,
        found=error.found,
        expected=error.expected,
        next_step=error.next_step,
    )
