"""Write Cloud-Optimized GeoTIFFs: first a tiled file by windows, then a pass that adds overviews and orders the tiles.

Two passes, because a COG has its overviews before its pixels; memory stays at GDAL's block cache (`GDAL_ENV`). The same
pixels and tags produce the same bytes: one thread, no time stamp, no software tag.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cloudseg.raster.read import GDAL_ENV

BLOCK_SIZE: Final = 512
"""Side in pixels of a tile in every file that the service writes."""

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
    """
    with rasterio.Env(**GDAL_ENV), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # 38-Cloud patches have no georeference
        options = {
            "tiled": True,
            "blockxsize": BLOCK_SIZE,
            "blockysize": BLOCK_SIZE,
            "BIGTIFF": "IF_SAFER",
            "INTERLEAVE": "PIXEL",
        }
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            compress="ZSTD",
            zstd_level=1,
            photometric="MINISBLACK",
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
    source: Path,
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
        source: the tiled GeoTIFF; its tags are changed.
        resampling: of the overviews; classes need `mode` or `nearest`.
        tags: added to those of the source.
        band_tags: added to those of the first band, such as its statistics.
        compression: of tiles and overviews.
        predictor: store differences of neighboring pixels: smaller for reflectance, larger for classes.
    """
    with rasterio.Env(**GDAL_ENV), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(source, "r+", driver="GTiff") as dataset:
            dataset.update_tags(**tags)
            dataset.update_tags(1, **(band_tags or {}))
        rasterio.shutil.copy(
            str(source),
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
