"""Draw the two rasters of a mask window by window, as files or as arrays; reading, computing and writing overlap.

Memory: one forward pass (`budget_bytes`), what reading keeps (`cloudseg.predict.window_pixels`), the probability of one
row of windows, two queued windows of input and two of output, and GDAL's block cache.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.grid import Window, decimation, iter_strips
from cloudseg.model.device import usable_cpus
from cloudseg.model.pixels import fill_missing
from cloudseg.model.predictor import Predictor
from cloudseg.model.windows import BUDGET_BYTES, PaddedWindow, plan_windows
from cloudseg.predict.brightness import BrightnessCount
from cloudseg.predict.pipeline import read_ahead, write_behind
from cloudseg.predict.window_pixels import OpenPixels, ReadPixels, WindowPixels, iter_window_pixels
from cloudseg.raster.cog import BLOCK_SIZE, create_tiled
from cloudseg.raster.probability import STEPS, classify, encode_probability
from cloudseg.raster.read import open_raster, read_bands
from cloudseg.raster.resample import working_shape
from cloudseg.raster.statistics import BandStatistics, count_values
from cloudseg.raster.style import mask_colormap
from cloudseg.records import GdalPath
from cloudseg.stac.mask import MaskFacts

log = logging.getLogger(__name__)
_DRAWN_ROWS: Final = 64
"""Scene rows that are upsampled together: what they need stays in the processor's cache."""


@dataclass(frozen=True)
class PredictionProgress:
    """Progress of the mask of a scene."""

    scene_id: str
    done: int
    """Windows finished, skipped ones included."""
    total: int
    skipped: int
    """Windows without an observed pixel, for which there was no forward pass."""


OnProgress = Callable[[PredictionProgress], None]


class Target(Protocol):
    """What is masked: the row of a scene, or the grid of a raster that is in no catalog."""

    @property
    def scene_id(self) -> str:
        """Its name in progress and errors."""
        ...

    @property
    def crs(self) -> str | None:
        """'EPSG:n' or WKT; None without georeference."""
        ...

    @property
    def transform(self) -> list[float]:
        """Affine a, b, c, d, e, f: CRS units from (col, row)."""
        ...

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def resolution_m(self) -> float | None:
        """Ground size of a pixel in meters; None: it is used as it is."""
        ...


@dataclass(frozen=True)
class WindowGrid:
    """The windows of a scene for certain weights."""

    factor: int
    """Scene pixels per working pixel along an axis."""
    windows: list[PaddedWindow]
    bands: tuple[str, ...]
    """What is read, in the order of the weights' bands; without an optional one that the scene lacks."""


@dataclass(frozen=True)
class _Drawn:
    """A window after its forward pass, on its way to the writer."""

    pixels: WindowPixels
    """Without those of the scene."""
    probability: npt.NDArray[np.float32] | None
    """`(row, col)` over `pixels.window.padded`; None where nothing in the core was observed."""


def plan_scene(
    scene: Target,
    predictor: Predictor,
    *,
    bands: Collection[str] | None = None,
    budget_bytes: int = BUDGET_BYTES,
    core: int | None = None,
) -> WindowGrid:
    """Return the windows of a scene, as large as one forward pass may be.

    Args:
        scene: to be masked.
        predictor: the weights; their receptive field determines the overlap of the windows.
        bands: that the scene has; None: all that the weights read. An optional band that it lacks is not read.
        budget_bytes: memory of one forward pass.
        core: side of the cores in working pixels, instead of the largest that the budget allows.
    """
    factor = decimation(scene.resolution_m, predictor.meta.working_resolution_m)
    height, width = working_shape(scene.height, scene.width, factor)
    windows = plan_windows(predictor, height, width, factor, budget_bytes=budget_bytes, core=core)
    meta = predictor.meta
    return WindowGrid(factor, windows, meta.bands if bands is None else meta.bands_to_read(bands))


def stored_pixels(source: GdalPath | str) -> OpenPixels:
    """Return how the canonical raster of a scene is read; `source` is what `Store.gdal_path` returns."""

    @contextmanager
    def opened() -> Iterator[ReadPixels]:
        with open_raster(source, threads=usable_cpus()) as dataset:
            yield lambda window, bands: read_bands(dataset, window, bands)

    return opened


def draw_rasters(
    source: GdalPath | str | OpenPixels,
    scene: Target,
    predictor: Predictor,
    grid: WindowGrid,
    *,
    mask: Path,
    probability: Path,
    on_progress: OnProgress | None = None,
) -> MaskFacts:
    """Write the mask and the probability of a scene as tiled GeoTIFFs and return the counts.

    There is no forward pass for windows without observed pixels.

    Args:
        source: what `Store.gdal_path` returns for the scene, or how other pixels are read.
        scene: its row, or the grid of those pixels.
        predictor: the weights.
        grid: from `plan_scene`.
        mask: path of the classes.
        probability: path of the probability.
        on_progress: called after every window.

    Raises:
        DataError: the scene lacks a band.
        BadWeights: the net's output is not finite.
        ObjectCorrupt: pixels cannot be read.
    """
    pixels = source if callable(source) else stored_pixels(source)
    with ExitStack() as stack:
        classes = stack.enter_context(_create(mask, scene, "cloud mask", mask_colormap()))
        steps = stack.enter_context(_create(probability, scene, "cloud probability", None))
        steps.scales, steps.offsets = (1 / STEPS,), (0.0,)
        return _draw(pixels, scene, predictor, grid, classes, steps, on_progress)


def draw_arrays(
    pixels: OpenPixels, scene: Target, predictor: Predictor, grid: WindowGrid, *, on_progress: OnProgress | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], MaskFacts]:
    """Return what `draw_rasters` writes: the classes and the encoded probability `(row, col)`, and the counts."""
    classes, steps = (_Plane(scene.height, scene.width) for _ in range(2))
    facts = _draw(pixels, scene, predictor, grid, classes, steps, on_progress)
    return classes.values, steps.values, facts


class _Plane:
    """An array that is written like a band of a raster."""

    def __init__(self, height: int, width: int) -> None:
        self.values = np.full((height, width), MASK_NO_DATA, np.uint8)

    def write(self, values: npt.NDArray[np.uint8], _band: int, *, window: RasterioWindow) -> None:
        """Write a window, as `DatasetWriter.write` does."""
        self.values[window.toslices()] = values


def _draw(
    pixels: OpenPixels,
    scene: Target,
    predictor: Predictor,
    grid: WindowGrid,
    classes: Any,
    steps: Any,
    on_progress: OnProgress | None,
) -> MaskFacts:
    with ExitStack() as stack:
        subject = f"weights {predictor.weights_id} on scene {scene.scene_id}"
        writer = _Writer(classes, steps, predictor.meta.threshold, grid.factor, scene.height, subject)
        write = stack.enter_context(write_behind(writer.write))
        windows = stack.enter_context(read_ahead(_read(pixels, scene, grid)))
        skipped, brightness = 0, BrightnessCount(grid.bands)
        for done, window in enumerate(windows, start=1):
            skipped += window.dn is None
            if window.dn is not None and window.observed is not None:
                brightness.add(window.window, window.dn, window.observed)
            write(_predicted(window, predictor, grid.bands))
            if on_progress is not None:
                on_progress(PredictionProgress(scene.scene_id, done, len(grid.windows), skipped))
    counts = writer.counts()
    return MaskFacts(
        predictor.meta.threshold,
        cloud=int(counts["mask"][MASK_CLOUD]),
        valid=int(counts["mask"].sum() - counts["mask"][MASK_NO_DATA]),
        pixels=scene.height * scene.width,
        arithmetic=predictor.arithmetic,
        brightness=brightness.percentiles,
        missing_bands=tuple(band for band in predictor.meta.bands if band not in grid.bands),
        statistics={
            name: found
            for name, values in counts.items()
            if (found := BandStatistics.from_counts(values, MASK_NO_DATA)) is not None
        },
    )


def _read(pixels: OpenPixels, scene: Target, grid: WindowGrid) -> Iterator[WindowPixels]:
    with pixels() as read:
        yield from iter_window_pixels(read, grid.bands, (scene.height, scene.width), grid.factor, grid.windows)


def _predicted(pixels: WindowPixels, predictor: Predictor, bands: tuple[str, ...]) -> _Drawn:
    if pixels.dn is None or pixels.observed is None:
        return _Drawn(pixels, None)
    dn = fill_missing(pixels.dn, bands, predictor.meta.bands)
    probability = predictor.probability(dn[None], pixels.observed[None])[0]
    # Only what upsampling needs waits for the other windows of the row.
    near = pixels.window.near
    kept = near.padded.within(pixels.window.padded)
    return _Drawn(
        replace(pixels, window=near, dn=None, observed=pixels.observed[kept].copy()), probability[kept].copy()
    )


class _Writer:
    """Writer of the two rasters that also counts pixels; `write` runs in one thread.

    A row of windows is drawn when its last one has come, by strips of whole tiles over its full width: each tile of the
    files is written once, and memory does not grow with a core, which at a coarse working resolution may be most of the
    scene.
    """

    def __init__(self, mask: Any, probability: Any, threshold: float, factor: int, height: int, subject: str) -> None:
        self._mask, self._probability, self._threshold, self._factor = mask, probability, threshold, factor
        self._height, self._subject = height, subject
        self._row: list[_Drawn] = []
        self._steps = np.empty((0, 0), np.uint8)
        """The encoded probability of the strip of tiles that is being filled."""
        self._counts = np.zeros(256, np.int64)

    def counts(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return how many pixels have each value, `(256,)` for each raster."""
        classes = classify(np.arange(256, dtype=np.uint8), self._threshold)
        of_classes = np.bincount(classes, weights=self._counts, minlength=256).astype(np.int64)  # exact below 2 ** 53
        return {"mask": of_classes, "probability": self._counts}

    def write(self, window: _Drawn) -> None:
        """Take the next window."""
        self._row.append(window)
        if window.pixels.ends_row:
            row, self._row = self._row, []
            for strip in iter_strips(row[0].pixels.row, BLOCK_SIZE):
                self._draw(strip, row)

    def _draw(self, strip: Window, row: list[_Drawn]) -> None:
        """Fill rows of a strip of tiles from a row of windows, and write the strip when it is full."""
        top = strip.row_off // BLOCK_SIZE * BLOCK_SIZE
        bottom = min(top + BLOCK_SIZE, self._height)
        if strip.row_off == top:
            self._steps = np.empty((bottom - top, strip.width), np.uint8)
        for part in iter_strips(strip, _DRAWN_ROWS):
            rows = slice(part.row_off - top, part.row_off - top + part.height)
            self._steps[rows] = self._encoded(part, row)
        if strip.row_off + strip.height == bottom:
            window = RasterioWindow(strip.col_off, top, strip.width, bottom - top)
            self._counts += count_values(self._steps)
            self._mask.write(classify(self._steps, self._threshold), 1, window=window)
            self._probability.write(self._steps, 1, window=window)

    def _encoded(self, part: Window, row: list[_Drawn]) -> npt.NDArray[np.uint8]:
        """Return the encoded probability of a few rows of scene pixels."""
        probability = np.zeros((part.height, part.width), np.float32)
        for window in row:
            pixels = window.pixels
            if window.probability is None or pixels.observed is None:
                continue
            target = Window(part.row_off, pixels.target.col_off, part.height, pixels.target.width)
            probability[target.within(part)] = pixels.window.upsample(
                window.probability, pixels.observed, target, self._factor
            )
        return encode_probability(probability, row[0].pixels.valid.part(part), subject=self._subject)


def _create(path: Path, scene: Target, description: str, colormap: dict[int, tuple[int, int, int, int]] | None) -> Any:
    return create_tiled(
        path,
        height=scene.height,
        width=scene.width,
        count=1,
        dtype="uint8",
        crs=scene.crs,
        transform=Affine(*scene.transform),
        nodata=MASK_NO_DATA,
        descriptions=[description],
        colormap=colormap,
    )
