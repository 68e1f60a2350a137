"""Write Cloud-Optimized GeoTIFFs: first the pixels by windows, then a pass that adds overviews and orders the tiles.

Two passes, because a COG has its overviews before its pixels. A small raster waits in memory, which takes half the time
of a tiled file; beyond `IN_MEMORY_BYTES` memory stays at GDAL's block cache (`GDAL_ENV`). The same pixels and tags
produce the same bytes either way: one thread, no time stamp, no software tag.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cloudseg.raster.read import GDAL_ENV

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
    """
    options: dict[str, Any] = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": BLOCK_SIZE,
        "blockysize": BLOCK_SIZE,
        "BIGTIFF": "IF_SAFER",
        "INTERLEAVE": "PIXEL",
        "compress": "ZSTD",
        "zstd_level": 1,
        "photometric": "MINISBLACK",
    }
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
    """
    with rasterio.Env(**GDAL_ENV), warnings.catch_warnings():
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
            LEVEL=6 if compression == "DEFLATE" else 3,
            PREDICTOR="YES" if predictor else "NO",
            OVERVIEW_COMPRESS=compression,
            OVERVIEW_PREDICTOR="YES" if predictor else "NO",
            OVERVIEW_RESAMPLING=resampling.upper(),
            WARP_RESAMPLING="NEAREST",
            NUM_THREADS="1",
            BIGTIFF="IF_SAFER",
        )


def _tag(dataset: Any, tags: Mapping[str, str], band_tags: Mapping[str, str]) -> None:
    dataset.update_tags(**tags)
    dataset.update_tags(1, **band_tags)


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
) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a raster to be written by windows, which becomes a COG at the end of the block unless that raises.

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
    """
    tiled = scratch / "tiled.tif"
    in_memory = height * width * count * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES
    with create_tiled(
        tiled,
        height=height,
        width=width,
        count=count,
        dtype=dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
        descriptions=descriptions,
        in_memory=in_memory,
    ) as dataset:
        yield dataset
        if in_memory:
            write_cog(out, dataset, resampling=resampling, tags=tags, compression=compression, predictor=predictor)
    if not in_memory:
        write_cog(out, tiled, resampling=resampling, tags=tags, compression=compression, predictor=predictor)
