"""Read the canonical rasters (scenes, labels, masks) that this service wrote itself, by windows.

Untrusted files are never opened here, only by `cloudseg.ingest.decode`, in a child process with limits. A window is
always in *working* pixels of `factor` × `factor` scene pixels; those of the last row and column may be smaller.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_OpenFailedError
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.session import Session
from rasterio.windows import Window as RasterioWindow

from cloudseg.bands import (
    MASK_CLEAR,
    MASK_CLOUD,
    MASK_NO_DATA,
)
from cloudseg.errors import DataError, ObjectCorrupt, StoreUnreachable
from cloudseg.grid import Window
from cloudseg.raster.resample import block_sums, downsample, scene_window, working_shape
from cloudseg.records import GdalPath

UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]

GDAL_ENV: Final[dict[str, Any]] = {
    # Sidecar files are ignored (.ovr, .msk, .aux.xml, .tfw, world files, MTL): a raster is the bytes of its object.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "VSI_CACHE": "NO",
    # Neighboring tiles of an object in S3 are read by one request.
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32_768,
}
"""GDAL options under which every raster of the service is read and written. The size of its block cache belongs to the
process and not to them: `cloudseg/__init__.py`."""


class _StoreSession(Session):  # type: ignore[misc]
    """The options of a store as a session of rasterio, which accepts credentials from nothing else."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = dict(options)

    def get_credential_options(self) -> dict[str, str]:
        return self._options


@contextmanager
def open_raster(path: GdalPath | str, *, threads: int = 1) -> Iterator[rasterio.DatasetReader]:
    """Open a canonical raster: GeoTIFF only, no sidecar files. A dataset belongs to one thread.

    Args:
        path: a file, or what `Store.gdal_path` returns.
        threads: of GDAL that decode the tiles of a window; with more than one, whole tiles are decoded to the array
            that is returned and leave GDAL's cache alone.

    Raises:
        ObjectCorrupt: the bytes are not a GeoTIFF.
        StoreError: the store does not deliver the bytes.
    """
    source = path if isinstance(path, GdalPath) else GdalPath(path)
    with (
        rasterio.Env(session=_StoreSession(source.options), **GDAL_ENV),
        _store_errors(source),
        _open(source, threads) as dataset,
    ):
        yield dataset


def _open(source: GdalPath, threads: int) -> rasterio.DatasetReader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # 38-Cloud patches have no georeference
            options = {"NUM_THREADS": threads} if threads > 1 else {}
            return rasterio.open(source.path, driver="GTiff", **options)
    except RasterioIOError as error:
        raise ObjectCorrupt(
            "the object is not a readable GeoTIFF",
            subject=source.path,
            found=error,
            next_step="Run `cloudseg maintain`; ingest the scene again.",
        ) from error


@contextmanager
def decoded(dataset: rasterio.DatasetReader) -> Iterator[None]:
    """Raise ObjectCorrupt where the pixels that are read in this block cannot be decoded."""
    try:
        yield
    except RasterioIOError as error:
        raise ObjectCorrupt(
            "the object's pixels cannot be read",
            subject=dataset.name,
            found=error,
            next_step="Run `cloudseg maintain`.",
        ) from error


@contextmanager
def _store_errors(source: GdalPath) -> Iterator[None]:
    """Distinguish a failed store from a damaged object: for GDAL both are a failed read."""
    try:
        yield
    except ObjectCorrupt as error:
        if error.subject != source.path:  # another raster, opened inside of this one
            raise
        source.check()
        if source.options and not _is_no_raster(error):
            raise StoreUnreachable(
                "reading the object failed, although its bytes are intact",
                subject=source.path,
                found=error.found,
                next_step="Try again: the network or the store failed for a moment.",
            ) from error
        raise


def _is_no_raster(error: ObjectCorrupt) -> bool:
    """Return whether GDAL read the bytes and did not recognize a GeoTIFF."""
    return error.__cause__ is not None and isinstance(error.__cause__.__context__, CPLE_OpenFailedError)


def read_scene(
    dataset: rasterio.DatasetReader, window: Window, bands: Sequence[str], factor: int = 1
) -> tuple[UInt16, Bool]:
    """Return reflectance × 10 000 as uint16 `(band, height, width)`, and which pixels are valid, `(height, width)`.

    A working pixel is the rounded mean of its valid scene pixels, valid where it has at least one, and 0 in every band
    otherwise. A scene pixel is valid where no band is 0. Costs `factor`² times the memory of the result, twice.

    Raises:
        DataError: the scene lacks a band.
        ValueError: the window is outside the scene.
    """
    return downsample(read_bands(dataset, _source_window(dataset, window, factor), bands), factor)


def read_bands(dataset: rasterio.DatasetReader, window: Window, bands: Sequence[str]) -> UInt16:
    """Return reflectance × 10 000 as uint16 `(band, height, width)` of scene pixels, as it is stored.

    Raises:
        DataError: the scene lacks a band.
        ValueError: the window is outside the scene.
    """
    found: UInt16 = _read(dataset, _source_window(dataset, window, 1), indexes=band_indexes(dataset, bands))
    return found


def read_valid(dataset: rasterio.DatasetReader, window: Window) -> Bool:
    """Return which pixels of a scene are valid, `(height, width)`: an invalid one is 0 in every band, so one is enough.

    Raises:
        ValueError: the window is outside the scene.
    """
    return np.asarray(_read(dataset, _source_window(dataset, window, 1), indexes=1) != 0)


def read_label(dataset: rasterio.DatasetReader, window: Window, factor: int = 1) -> UInt8:
    """Return the classes of a label or mask as uint8 `(height, width)`: 0 clear, 1 cloud, 255 none.

    A working pixel has the majority class of its labeled pixels; half and half counts as cloud, since a mask that
    misses a cloud does more harm than one that is a pixel too wide.

    Raises:
        ValueError: the window is outside the raster.
    """
    return read_overlay([dataset], window, factor)


def read_overlay(datasets: Sequence[rasterio.DatasetReader], window: Window, factor: int = 1) -> UInt8:
    """Return the classes of labels of one scene laid over each other, reduced as by `read_label`.

    A scene pixel has the class of the newest label that is not 255 there: 255 means "no opinion here".

    Args:
        datasets: the labels, oldest first; at least one.
        window: in working pixels.
        factor: scene pixels along an axis of one working pixel.

    Raises:
        ValueError: the window is outside a raster.
    """
    first, *newer = datasets
    classes: UInt8 = _read(first, _source_window(first, window, factor), indexes=1)
    for dataset in newer:
        above = _read(dataset, _source_window(dataset, window, factor), indexes=1)
        classes = np.where(above != MASK_NO_DATA, above, classes)
    if factor == 1:
        return classes
    labeled = block_sums((classes != MASK_NO_DATA)[np.newaxis], factor)[0]
    cloud = block_sums((classes == MASK_CLOUD)[np.newaxis], factor)[0]
    majority = np.where(2 * cloud >= labeled, MASK_CLOUD, MASK_CLEAR)
    return np.where(labeled > 0, majority, MASK_NO_DATA).astype(np.uint8)


def _source_window(dataset: rasterio.DatasetReader, window: Window, factor: int) -> Window:
    height, width = working_shape(dataset.height, dataset.width, factor)
    ends = window.row_off + window.height, window.col_off + window.width
    if (
        min(window.row_off, window.col_off) < 0
        or min(window.height, window.width) < 1
        or ends[0] > height
        or ends[1] > width
    ):
        raise ValueError(f"{window} is not inside {height} x {width} working pixels of {dataset.name}")
    return scene_window(window, factor, dataset.height, dataset.width)


def _read(dataset: rasterio.DatasetReader, window: Window, indexes: list[int] | int) -> Any:
    with decoded(dataset):
        return dataset.read(indexes, window=RasterioWindow(window.col_off, window.row_off, window.width, window.height))


def band_indexes(dataset: rasterio.DatasetReader, bands: Sequence[str]) -> list[int]:
    """Return the indexes of the named bands, from 1.

    Raises:
        DataError: the scene lacks a band.
    """
    names = list(dataset.descriptions)
    missing = [band for band in bands if band not in names]
    if missing:
        raise DataError(
            f"the scene lacks {', '.join(missing)}",
            subject=dataset.name,
            found=", ".join(str(name) for name in names),
            expected=", ".join(bands),
            next_step="Use a recipe for the bands that it has, or ingest it again with every band.",
        )
    return [names.index(band) + 1 for band in bands]
