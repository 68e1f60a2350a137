"""Decodes an untrusted mask into the canonical label of a scene: uint8, 0 clear, 1 cloud, 255 none.

Runs in the bounded child.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.errors import BadLabel, BadScene
from cloudseg.grid import Window, iter_windows
from cloudseg.ingest.candidate import BINARY, BINARY_255
from cloudseg.ingest.georeference import Grid, place_on_ground, same_grid, to_grid
from cloudseg.ingest.job import LabelFacts, LabelJob
from cloudseg.ingest.untrusted import READ_ERRORS, open_untrusted, read_error
from cloudseg.raster.cog import create_tiled, write_cog
from cloudseg.raster.read import GDAL_ENV, open_raster, read_scene

_WINDOW: Final = 1024
_MOST_VALUES: Final = 32
"""A mask of classes has a handful of values; an image taken for one has thousands."""
_LARGEST_CODE: Final = 65_535
"""Beyond this a nodata value (-3.4e38 is common) is no class code that could occur."""

Mapping = dict[int, int]


def decode_label(job: LabelJob) -> LabelFacts:
    """Write the canonical COG of a label to `job.out` and return its facts.

    Pixels without data in the scene become 255.

    Raises BadLabel: unreadable, of another size or place than its scene, unknown values, nothing labelled.
    """
    try:
        with (
            rasterio.Env(**GDAL_ENV),
            open_raster(job.scene) as scene,
            open_untrusted(job.path, job.shown, max_pixels=job.max_pixels, memory_mb=job.memory_mb) as dataset,
        ):
            return _decode(job, scene, dataset)
    except BadScene as error:
        raise BadLabel(
            error.what,
            subject=error.subject or job.shown,
            found=error.found,
            expected=error.expected,
            next_step=error.next_step,
        ) from error


def _decode(job: LabelJob, scene: Any, dataset: Any) -> LabelFacts:
    grid = Grid(scene.crs, scene.transform, scene.height, scene.width)
    view = _on_grid(dataset, grid, job)
    mapping = choose_mapping(
        _values(view, grid, job.shown), dataset.nodata, [dict(pairs) for pairs in job.mappings], job.shown
    )
    tiled = Path(job.folder) / "tiled-label.tif"
    with create_tiled(
        tiled,
        height=grid.height,
        width=grid.width,
        count=1,
        dtype="uint8",
        crs=grid.crs_text(),
        transform=grid.transform,
        nodata=MASK_NO_DATA,
        descriptions=["label"],
    ) as out:
        for window in iter_windows(grid.height, grid.width, _WINDOW):
            classes = _classes(_read(view, window, job.shown), mapping)
            _, valid = read_scene(scene, window, scene.descriptions)
            classes[~valid] = MASK_NO_DATA
            out.write(classes, 1, window=_as_rasterio(window))
    labelled, cloud = _count(tiled, grid)
    if labelled == 0:
        raise BadLabel(
            "no valid pixel of the scene is labelled",
            subject=job.shown,
            found="only unlabelled or nodata pixels",
            expected="some pixels that are clear or cloud",
            next_step="Check that it is the label of this scene.",
        )
    write_cog(Path(job.out), tiled, resampling="mode", tags={"CONTENT": "0 clear, 1 cloud, 255 none"})
    tiled.unlink()
    source = dataset.tags().get("LABEL_SOURCE", "").strip()[:100]
    shown_mapping = {str(value): target for value, target in sorted(mapping.items())}
    return LabelFacts(
        source=source if source.isprintable() and source else job.source,
        mapping=shown_mapping,
        cloud_fraction=cloud / labelled,
        labelled_fraction=labelled / (grid.height * grid.width),
    )


def choose_mapping(values: set[int], nodata: float | None, mappings: list[Mapping], shown: str) -> Mapping:
    """Return the first mapping that knows every value.

    The file's nodata value is 255 where the mapping does not know it.

    255 alone is ambiguous between "cloud" and "no label": beside {0, 1, 255} it means no label only where the file
    calls it nodata or also has 1. Raises BadLabel.
    """
    for mapping in mappings:
        known = dict(mapping)
        if nodata is not None and abs(nodata) <= _LARGEST_CODE and nodata == int(nodata):
            known.setdefault(int(nodata), MASK_NO_DATA)
        ambiguous = (
            mapping == BINARY.as_dict() and BINARY_255.as_dict() in mappings and 255 in values and 1 not in values
        )
        if values <= set(known) and not (ambiguous and nodata != 255):
            return known
    raise BadLabel(
        "the label has values that its mapping does not know",
        subject=shown,
        found=", ".join(map(str, sorted(values)))[:200],
        expected=" or ".join("{" + ", ".join(map(str, sorted(mapping))) + "}" for mapping in mappings),
        next_step="Convert the label to 0 clear, 1 cloud, 255 none.",
    )


def _on_grid(dataset: Any, grid: Grid, job: LabelJob) -> Any:
    """Check that the label covers its scene pixel by pixel.

    A south-up label of a scene that was turned is turned too.
    """
    if dataset.shape != grid.shape and not (dataset.crs and grid.crs and not _is_north_up(dataset)):
        raise BadLabel(
            "the label has another size than its scene",
            subject=job.shown,
            found=f"{dataset.height} x {dataset.width} pixels",
            expected=f"{grid.height} x {grid.width} pixels",
            next_step="Cut label and scene to the same grid.",
        )
    if dataset.crs is None and grid.crs is not None and job.needs_georeference:
        raise BadLabel(
            "a label that comes without its scene must say itself where it lies",
            subject=job.shown,
            found="no coordinate reference system",
            expected=str(grid.crs)[:40],
            next_step="Save it with the georeference of its scene, or put the scene beside it.",
        )
    if dataset.crs is None or grid.crs is None:
        return dataset  # without a georeference of its own a label lies on the pixels of its scene
    view, own, _ = place_on_ground(dataset, job.shown, needed=True, max_pixels=job.max_pixels)
    if not same_grid(grid, own):
        raise BadLabel(
            "the label lies elsewhere than its scene",
            subject=job.shown,
            found=f"{own.crs_text()} {list(own.transform)[:6]}"[:200],
            expected=f"{grid.crs_text()} {list(grid.transform)[:6]}"[:200],
            next_step="Cut label and scene to the same grid.",
        )
    return view if view is dataset else to_grid(dataset, grid, Resampling.nearest)


def _is_north_up(dataset: Any) -> bool:
    transform = dataset.transform
    return bool(transform.b == 0 and transform.d == 0 and transform.a > 0 and transform.e < 0)


def _values(view: Any, grid: Grid, shown: str) -> set[int]:
    """Return every value of the label. Raises BadLabel for an image taken for a label."""
    found: set[int] = set()
    for window in iter_windows(grid.height, grid.width, _WINDOW):
        numbers = _read(view, window, shown)
        finite = numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers
        values = np.unique(finite)
        if len(values) > _MOST_VALUES or numbers.dtype.kind not in "iuf" or not np.array_equal(values, np.rint(values)):
            raise BadLabel(
                "this is no mask of classes",
                subject=shown,
                found=f"{len(values)} values of {numbers.dtype}",
                expected="a few whole numbers",
                next_step="Check that image and label were not swapped.",
            )
        found |= {int(value) for value in values}
    return found


def _classes(numbers: npt.NDArray[Any], mapping: Mapping) -> npt.NDArray[np.uint8]:
    classes = np.full(numbers.shape, MASK_NO_DATA, np.uint8)
    for value, target in mapping.items():
        classes[numbers == value] = target
    return classes


def _count(tiled: Path, grid: Grid) -> tuple[int, int]:
    labelled = cloud = 0
    with open_raster(str(tiled)) as written:
        for window in iter_windows(grid.height, grid.width, _WINDOW):
            classes = written.read(1, window=_as_rasterio(window))
            labelled += int((classes != MASK_NO_DATA).sum())
            cloud += int((classes == MASK_CLOUD).sum())
    return labelled, cloud


def _read(view: Any, window: Window, shown: str) -> npt.NDArray[Any]:
    try:
        found: npt.NDArray[Any] = view.read(1, window=_as_rasterio(window))
    except READ_ERRORS as error:
        raise read_error(error, shown) from error
    return found


def _as_rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col_off, window.row_off, window.width, window.height)
