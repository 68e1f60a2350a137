"""Write Cloud-Optimized GeoTIFFs: first the pixels by windows, then a pass that adds overviews and orders the tiles.

Two passes, because a COG has its overviews before its pixels. A small raster waits in memory, which takes half the time
of a tiled file; beyond `IN_MEMORY_BYTES` memory stays at GDAL's block cache (`GDAL_ENV`). The same pixels and tags
produce the same bytes either way and with any number of threads: no time stamp, no software tag.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from cloudseg.raster.read import GDAL_ENV
from cloudseg.raster.resample import downsample

BLOCK_SIZE: Final = 512
"""Side in pixels of a tile in every file that the service writes."""
IN_MEMORY_BYTES: Final = 64 << 20
"""Pixels without compression that wait in memory for their COG."""

Resampling = Literal["nearest", "mode", "average"]
Compression = Literal["DEFLATE", "ZSTD"]
Colormap = dict[int, tuple[int, int, int, int]]


@contextmanager
def create_tiled(
    path: Path,
    *,
    height: int,
    width: int,
    count: int,
    dtype: str,
    crs: str | None,
    transform: Affine,
    nodata: float | None,
    descriptions: Sequence[str],
    colormap: Colormap | None = None,
    in_memory: bool = False,
    compressed: bool = True,
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a new tiled GeoTIFF to be written by windows, best aligned to `BLOCK_SIZE`; the source of `write_cog`.

    Args:
        path: of the new file.
        height: in pixels.
        width: in pixels.
        count: number of bands.
        dtype: of every band.
        crs: 'EPSG:n' or WKT.
        transform: from pixels to the CRS.
        nodata: of every band.
        descriptions: one per band.
        colormap: RGBA of the values of the only band; QGIS derives its legend from it.
        in_memory: write no file; the dataset has to become a COG before it is closed.
        compressed: compress its tiles; without that it takes a third of the time and all the space.
    """
    options: dict[str, Any] = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK_SIZE,
        "blockysize": BLOCK_SIZE,
        "BIGTIFF": "IF_SAFER",
        "INTERLEAVE": "PIXEL",
        "photometric": "MINISBLACK",
    }
    if compressed:
        options |= {"compress": "ZSTD", "zstd_level": 1}
    if in_memory:
        options = {"driver": "MEM"}
    with rasterio.Env(**GDAL_ENV), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # 38-Cloud patches have no georeference
        dataset = rasterio.open(
            path,
            "w",
            height=height,
            width=width,
            count=count,
            dtype=dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **options,
        )
        with dataset:
            dataset.descriptions = tuple(descriptions)
            if colormap is not None:
                dataset.write_colormap(1, colormap)
            else:
                # Without this GDAL takes the fourth of four bands for alpha.
                dataset.colorinterp = tuple(
                    ColorInterp.gray if band == 0 else ColorInterp.undefined for band in range(count)
                )
            yield dataset


def write_cog(
    out: Path,
    source: Path | rasterio.io.DatasetWriter,
    *,
    resampling: Resampling,
    tags: dict[str, str],
    band_tags: Mapping[str, str] | None = None,
    compression: Compression = "DEFLATE",
    predictor: bool = False,
    threads: int | None = None,
) -> None:
    """Turn a tiled GeoTIFF into a Cloud-Optimized one with 512-pixel tiles and overviews that ignore nodata.

    Args:
        out: path of the COG.
        source: what `create_tiled` made: the path of the closed file, or the open dataset; its tags are changed.
        resampling: of the overviews; classes need `mode` or `nearest`.
        tags: added to those of the source.
        band_tags: added to those of the first band, such as its statistics.
        compression: of tiles and overviews.
        predictor: store differences of neighboring pixels: smaller for reflectance, larger for classes.
        threads: that make overviews and compress tiles; None: one for each CPU of this process.
    """
    made = isinstance(source, Path) and _overviews(source).exists()
    # Else GDAL makes the overviews: no file of that name may count that was not made here.
    environment = GDAL_ENV | ({"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"} if made else {})
    with rasterio.Env(**environment), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        if isinstance(source, Path):
            with rasterio.open(source, "r+", driver="GTiff") as dataset:
                _tag(dataset, tags, band_tags or {})
        else:
            _tag(source, tags, band_tags or {})
        rasterio.shutil.copy(
            str(source) if isinstance(source, Path) else source,
            str(out),
            driver="COG",
            BLOCKSIZE=BLOCK_SIZE,
            COMPRESS=compression,
            LEVEL=6
            if compression == "DEFLATE"
            else 1,  # ZSTD 3: 1.4 % smaller pixels of Sentinel-2, 2.5 times the time
            PREDICTOR="YES" if predictor else "NO",
            OVERVIEW_COMPRESS=compression,
            OVERVIEW_PREDICTOR="YES" if predictor else "NO",
            OVERVIEW_RESAMPLING=resampling.upper(),
            WARP_RESAMPLING="NEAREST",
            NUM_THREADS=str(threads or "ALL_CPUS"),
            BIGTIFF="IF_SAFER",
        )


def _tag(dataset: Any, tags: Mapping[str, str], band_tags: Mapping[str, str]) -> None:
    dataset.update_tags(**tags)
    dataset.update_tags(1, **band_tags)


class CogWriter:
    """A raster that is written by windows and becomes a COG, with its first overview where that is made meanwhile."""

    def __init__(self, dataset: rasterio.io.DatasetWriter, half: rasterio.io.DatasetWriter | None) -> None:
        self._dataset, self._half = dataset, half

    def write(self, values: NDArray[Any], *, window: RasterioWindow | None = None) -> None:
        """Write `(band, row, col)` of every band to a window, by default the whole raster.

        Raises:
            ValueError: the first overview is made meanwhile, and its pixels do not fill the window.
        """
        self._dataset.write(values, window=window)
        if self._half is None:
            return
        top, left = (window.row_off, window.col_off) if window else (0, 0)
        rows, cols = values.shape[1:]
        if any(number % 2 for number in (top, left, rows, cols)):
            raise ValueError(f"the overview needs windows of even offset and size, not {window}")
        self._half.write(downsample(values, 2)[0], window=RasterioWindow(left // 2, top // 2, cols // 2, rows // 2))


@contextmanager
def create_cog(
    out: Path,
    scratch: Path,
    *,
    height: int,
    width: int,
    count: int,
    dtype: str,
    crs: str | None,
    transform: Affine,
    nodata: float | None,
    descriptions: Sequence[str],
    resampling: Resampling,
    tags: dict[str, str],
    compression: Compression = "DEFLATE",
    predictor: bool = False,
    halve: bool = False,
) -> Iterator[CogWriter]:
    """Open a raster to be written by windows, which becomes a COG at the end of the block unless that raises.

    In one thread: the sandboxed process that calls it may start no other.

    Args:
        out: path of the COG.
        scratch: folder for the pixels of a raster of more than `IN_MEMORY_BYTES`.
        height: as in `create_tiled`, like those that follow.
        width: in pixels.
        count: number of bands.
        dtype: of every band.
        crs: 'EPSG:n' or WKT.
        transform: from pixels to the CRS.
        nodata: of every band.
        descriptions: one per band.
        resampling: as in `write_cog`, like those that follow.
        tags: of the COG.
        compression: of tiles and overviews.
        predictor: store differences of neighboring pixels.
        halve: make the first overview while the windows are written, and the others from it: the same pixels in a third
            of the time. For uint16, nodata 0 in every band, `average`, and windows of even offset and size.
    """
    translate = partial(
        write_cog, out, resampling=resampling, tags=tags, compression=compression, predictor=predictor, threads=1
    )
    tiled = scratch / "tiled.tif"
    in_memory = height * width * count * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES
    create = partial(
        create_tiled, count=count, dtype=dtype, crs=crs, nodata=nodata, descriptions=descriptions, compressed=False
    )
    with ExitStack() as stack:
        dataset = stack.enter_context(
            create(tiled, height=height, width=width, transform=transform, in_memory=in_memory)
        )
        half = None
        if halve and not in_memory:
            coarse = transform @ Affine.scale(2)
            half = stack.enter_context(
                create(_overviews(tiled), height=height // 2, width=width // 2, transform=coarse)
            )
        yield CogWriter(dataset, half)
        if in_memory:
            translate(dataset)
    if not in_memory:
        if halve:
            _add_overviews(_overviews(tiled))
        translate(tiled)


def _overviews(path: Path) -> Path:
    """Return the name under which GDAL looks for the overviews of a raster."""
    return path.with_name(f"{path.name}.ovr")


def _add_overviews(path: Path) -> None:
    """Halve a raster, which is the first overview of another, until it fits into a tile, as the COG driver does."""
    with rasterio.Env(**GDAL_ENV), rasterio.open(path, "r+", driver="GTiff") as dataset:
        factors: list[int] = []
        while max(dataset.height, dataset.width) >> len(factors) > BLOCK_SIZE:
            factors.append(2 << len(factors))
        if factors:
            dataset.build_overviews(factors, rasterio.enums.Resampling.average)
