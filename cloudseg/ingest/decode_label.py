"""Decode an untrusted mask into the pixels of the canonical label of a scene: uint8, 0 clear, 1 cloud, 255 none.

Runs in the sandboxed decoder process. What it sends is written by another process (`cloudseg.ingest.write_canonical`).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling

from cloudseg.bands import MASK_NO_DATA
from cloudseg.errors import BadLabel, BadScene
from cloudseg.grid import iter_windows
from cloudseg.ingest.class_mappings import BINARY, BINARY_255
from cloudseg.ingest.georeference import Grid, same_grid, to_grid, to_north_up
from cloudseg.ingest.job import LabelJob, LabelReading, WindowedPixels
from cloudseg.ingest.pixel_stream import PixelSender, windows_of
from cloudseg.ingest.untrusted import open_untrusted, read_window
from cloudseg.raster.read import GDAL_ENV, open_raster

_WINDOW: Final = 1024
_MAX_CLASSES: Final = 32
"""A classification has few values; an image has thousands."""
_MAX_CODE: Final = 65_535
"""A nodata value beyond this (-3.4e38 is common) is not a class code."""

Mapping = dict[int, int]


def decode_label(job: LabelJob, pixels: PixelSender) -> LabelReading:
    """Send the classes of a label to the writer and return what the file says besides.

    Args:
        job: The file, its scene and limits.
        pixels: The pipe to the writer, which also sets pixels without data in the scene to 255.

    Raises:
        BadLabel: The file is unreadable, its size or extent differs from the scene's, or it has unknown values.
    """
    try:
        with (
            rasterio.Env(**GDAL_ENV),
            open_raster(job.scene) as scene,
            open_untrusted(job.path, job.display_name, max_pixels=job.max_pixels, memory_mb=job.memory_mb) as dataset,
        ):
            return _decode(job, scene, dataset, pixels)
    except BadScene as error:
        raise BadLabel(
            error.what,
            subject=error.subject or job.display_name,
            found=error.found,
            expected=error.expected,
            next_step=error.next_step,
        ) from error


def _decode(job: LabelJob, scene: Any, dataset: Any, pixels: PixelSender) -> LabelReading:
    grid = Grid(scene.crs, scene.transform, scene.height, scene.width)
    view = _on_grid(dataset, grid, job)
    mapping = choose_mapping(
        _values(view, grid, job.display_name), dataset.nodata, [dict(pairs) for pairs in job.mappings], job.display_name
    )
    head = WindowedPixels(rows=_WINDOW, cols=_WINDOW)
    pixels.begin(head)
    for window in windows_of(grid.height, grid.width, head):
        pixels.send(_classes(read_window(view, 1, window, job.display_name), mapping))
    pixels.commit()
    source = dataset.tags().get("LABEL_SOURCE", "").strip()[:100]
    return LabelReading(
        source=source if source.isprintable() and source else job.source,
        mapping={str(value): target for value, target in sorted(mapping.items())},
    )


def choose_mapping(values: set[int], nodata: float | None, mappings: list[Mapping], display_name: str) -> Mapping:
    """Return the first mapping that covers every value of a label; the nodata value maps to 255 unless it is covered.

    255 alone is ambiguous between "cloud" and "no label". Where both are possible, it means "no label" only if it is
    the file's nodata value or the file also has 1.

    Args:
        values: Every value of the file.
        nodata: The file's nodata value.
        mappings: Source value to class, in order of preference.
        display_name: The file's name, for messages.

    Raises:
        BadLabel: No mapping covers every value.
    """
    for mapping in mappings:
        known = dict(mapping)
        if nodata is not None and abs(nodata) <= _MAX_CODE and nodata == int(nodata):
            known.setdefault(int(nodata), MASK_NO_DATA)
        ambiguous = (
            mapping == BINARY.as_dict() and BINARY_255.as_dict() in mappings and 255 in values and 1 not in values
        )
        if values <= set(known) and not (ambiguous and nodata != 255):
            return known
    raise BadLabel(
        "the label has values with unknown meaning",
        subject=display_name,
        found=", ".join(map(str, sorted(values)))[:200],
        expected=" or ".join("{" + ", ".join(map(str, sorted(mapping))) + "}" for mapping in mappings),
        next_step="Convert the label to 0 clear, 1 cloud, 255 none.",
    )


def _on_grid(dataset: Any, grid: Grid, job: LabelJob) -> Any:
    """Return the label's pixels on the scene's grid: the dataset, or a warped VRT if it is not north-up.

    A label without CRS is assumed to match its scene pixel by pixel, unless the job needs a georeference.

    Raises:
        BadLabel: Size or extent differ from the scene's.
    """
    if dataset.shape != grid.shape and not (dataset.crs and grid.crs and not _is_north_up(dataset)):
        raise BadLabel(
            "the label's size differs from its scene's",
            subject=job.display_name,
            found=f"{dataset.height} x {dataset.width} pixels",
            expected=f"{grid.height} x {grid.width} pixels",
            next_step="Crop label and scene to the same grid.",
        )
    if dataset.crs is None and grid.crs is not None and job.needs_georeference:
        raise BadLabel(
            "a label without its scene needs a georeference",
            subject=job.display_name,
            found="no coordinate reference system",
            expected=str(grid.crs)[:40],
            next_step="Save the label with the georeference of its scene, or add the scene.",
        )
    if dataset.crs is None or grid.crs is None:
        return dataset
    view, own, _ = to_north_up(dataset, job.display_name, needs_georeference=True, max_pixels=job.max_pixels)
    if not same_grid(grid, own):
        raise BadLabel(
            "the label's extent differs from its scene's",
            subject=job.display_name,
            found=f"{own.crs_text()} {list(own.transform)[:6]}"[:200],
            expected=f"{grid.crs_text()} {list(grid.transform)[:6]}"[:200],
            next_step="Crop label and scene to the same grid.",
        )
    return view if view is dataset else to_grid(dataset, grid, Resampling.nearest)


def _is_north_up(dataset: Any) -> bool:
    transform = dataset.transform
    return bool(transform.b == 0 and transform.d == 0 and transform.a > 0 and transform.e < 0)


def _values(view: Any, grid: Grid, display_name: str) -> set[int]:
    """Return every value of the label.

    Raises:
        BadLabel: The file is an image, not a classification.
    """
    found: set[int] = set()
    for window in iter_windows(grid.height, grid.width, _WINDOW):
        dn = read_window(view, 1, window, display_name)
        finite = dn[np.isfinite(dn)] if dn.dtype.kind == "f" else dn
        values = np.unique(finite)
        if len(values) > _MAX_CLASSES or dn.dtype.kind not in "iuf" or not np.array_equal(values, np.rint(values)):
            raise BadLabel(
                "the label is not a classification",
                subject=display_name,
                found=f"{len(values)} different values of type {dn.dtype}",
                expected=f"at most {_MAX_CLASSES} integer values",
                next_step="Check that image and label are not swapped.",
            )
        found |= {int(value) for value in values}
    return found


def _classes(dn: npt.NDArray[Any], mapping: Mapping) -> npt.NDArray[np.uint8]:
    classes = np.full(dn.shape, MASK_NO_DATA, np.uint8)
    for value, target in mapping.items():
        classes[dn == value] = target
    return classes
