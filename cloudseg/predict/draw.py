"""Draw the two rasters of a mask window by window, as files or as arrays; reading, computing and writing overlap.

Memory: one forward pass (`budget_bytes`), two queued windows of input and two of output, and GDAL's block cache.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import MASK_CLOUD, MASK_NO_DATA
from cloudseg.grid import Window, decimation, iter_strips
from cloudseg.model.predictor import Predictor
from cloudseg.model.windows import BUDGET_BYTES, PaddedWindow, plan_windows
from cloudseg.predict.pipeline import read_ahead, write_behind
from cloudseg.raster.cog import BLOCK_SIZE, create_tiled
from cloudseg.raster.probability import STEPS, classify, encode_probability
from cloudseg.raster.read import open_raster, read_scene
from cloudseg.raster.resample import scene_window, working_shape
from cloudseg.raster.statistics import BandStatistics, count_values
from cloudseg.raster.style import mask_colormap
from cloudseg.records import GdalPath
from cloudseg.stac.mask import MaskFacts

log = logging.getLogger(__name__)


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

ReadPixels = Callable[[Window, tuple[str, ...], int], tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]]
"""Read a window of working pixels: window, bands, scene pixels per working pixel; returns what `read_scene` does."""
OpenPixels = Callable[[], AbstractContextManager[ReadPixels]]
"""Open the pixels of a scene; called, and read from, in the thread that reads ahead."""


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


@dataclass(frozen=True)
class _Block:
    """The data of one window on their way through the three threads."""

    window: PaddedWindow
    target: Window
    """The core in scene pixels."""
    valid_bits: npt.NDArray[np.uint8]
    """Validity of `(target.height, target.width)` scene pixels, eight per byte along a row.

    Packed, because at a coarse working resolution the core of one window may be most of the scene.
    """
    dn: npt.NDArray[np.uint16] | None
    """`(band, row, col)` over `window.padded`; None where nothing in the core was observed."""
    observed: npt.NDArray[np.bool_] | None
    """`(row, col)` over `window.padded`."""
    probability: npt.NDArray[np.float32] | None = None
    """The same shape, after the forward pass."""


def plan_scene(
    scene: Target, predictor: Predictor, *, budget_bytes: int = BUDGET_BYTES, core: int | None = None
) -> WindowGrid:
    """Return the windows of a scene, as large as one forward pass may be.

    Args:
        scene: to be masked.
        predictor: the weights; their receptive field determines the overlap of the windows.
        budget_bytes: memory of one forward pass.
        core: side of the cores in working pixels, instead of the largest that the budget allows.
    """
    factor = decimation(scene.resolution_m, predictor.meta.working_resolution_m)
    height, width = working_shape(scene.height, scene.width, factor)
    windows = plan_windows(predictor, height, width, factor, budget_bytes=budget_bytes, core=core)
    return WindowGrid(factor, windows, predictor.meta.bands)


def stored_pixels(source: GdalPath | str) -> OpenPixels:
    """Return how the canonical raster of a scene is read; `source` is what `Store.gdal_path` returns."""

    @contextmanager
    def opened() -> Iterator[ReadPixels]:
        with open_raster(source) as dataset:
            yield lambda window, bands, factor: read_scene(dataset, window, bands, factor)

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
        writer = _Writer(classes, steps, predictor.meta.threshold, grid.factor, subject)
        write = stack.enter_context(write_behind(writer.write))
        blocks = stack.enter_context(read_ahead(_read_blocks(pixels, scene, grid)))
        skipped = 0
        for done, block in enumerate(blocks, start=1):
            skipped += block.dn is None
            write(_predicted(block, predictor))
            if on_progress is not None:
                on_progress(PredictionProgress(scene.scene_id, done, len(grid.windows), skipped))
    return MaskFacts(
        predictor.meta.threshold,
        cloud=int(writer.counts["mask"][MASK_CLOUD]),
        valid=int(writer.counts["mask"].sum() - writer.counts["mask"][MASK_NO_DATA]),
        pixels=scene.height * scene.width,
        arithmetic=predictor.arithmetic,
        statistics={
            name: found
            for name, counts in writer.counts.items()
            if (found := BandStatistics.from_counts(counts, MASK_NO_DATA)) is not None
        },
    )


def _predicted(block: _Block, predictor: Predictor) -> _Block:
    if block.dn is None or block.observed is None:
        return block
    probability = predictor.probability(block.dn[None], block.observed[None])[0]
    return _Block(block.window, block.target, block.valid_bits, None, block.observed, probability)


def _read_blocks(pixels: OpenPixels, scene: Target, grid: WindowGrid) -> Iterator[_Block]:
    with pixels() as read:
        for window in grid.windows:
            target = scene_window(window.core, grid.factor, scene.height, scene.width)
            bits = [np.packbits(read(strip, grid.bands, 1)[1], axis=1) for strip in iter_strips(target, BLOCK_SIZE)]
            valid_bits = np.concatenate(bits)
            if not valid_bits.any():
                yield _Block(window, target, valid_bits, None, None)
                continue
            dn, observed = _read_by_strips(read, window.padded, grid)
            yield _Block(window, target, valid_bits, dn, observed)


def _read_by_strips(
    read: ReadPixels, window: Window, grid: WindowGrid
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Return reflectance and validity of a window of working pixels, as `read_scene` does.

    It is read by strips, because the mean needs `factor`² scene pixels for each working pixel.
    """
    dn = np.empty((len(grid.bands), window.height, window.width), np.uint16)
    observed = np.empty((window.height, window.width), np.bool_)
    for strip in iter_strips(window, max(1, BLOCK_SIZE // grid.factor)):
        rows, _ = strip.within(window)
        dn[:, rows], observed[rows] = read(strip, grid.bands, grid.factor)
    return dn, observed


class _Writer:
    """Writer of the two rasters that also counts pixels; `write` runs in one thread."""

    def __init__(self, mask: Any, probability: Any, threshold: float, factor: int, subject: str) -> None:
        self._mask, self._probability, self._threshold, self._factor = mask, probability, threshold, factor
        self._subject = subject
        self.counts = {name: np.zeros(256, np.int64) for name in ("mask", "probability")}

    def write(self, block: _Block) -> None:
        """Write the core of a block by strips: at full resolution it may be most of the scene."""
        for strip in iter_strips(block.target, BLOCK_SIZE):
            steps = self._steps(block, strip)
            classes = classify(steps, self._threshold)
            self.counts["mask"] += count_values(classes)
            self.counts["probability"] += count_values(steps)
            window = RasterioWindow(strip.col_off, strip.row_off, strip.width, strip.height)
            self._mask.write(classes, 1, window=window)
            self._probability.write(steps, 1, window=window)

    def _steps(self, block: _Block, strip: Window) -> npt.NDArray[np.uint8]:
        """Return the encoded probability of a strip of scene pixels."""
        if block.probability is None or block.observed is None:
            return np.full((strip.height, strip.width), MASK_NO_DATA, np.uint8)
        bits = block.valid_bits[strip.within(block.target)[0]]
        valid = np.unpackbits(bits, axis=1, count=strip.width).astype(np.bool_)
        probability = block.window.upsample(block.probability, block.observed, strip, self._factor)
        return encode_probability(probability, valid, subject=self._subject)


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
