"""Tiny rasters in the real layouts, made by the tests that need them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine, from_origin

SIZE = 48
UTM = from_origin(500_000, 5_600_000, 10, 10)


def random_dn(
    bands: int = 3, size: int = SIZE, seed: int = 0, low: int = 300, high: int = 9000, dtype: str = "uint16"
) -> np.ndarray:
    """Return noise in the range of an observation, `(band, row, col)`."""
    return np.random.default_rng(seed).integers(low, high, (bands, size, size)).astype(dtype)


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    names: Sequence[str] | None = ("red", "green", "blue"),
    crs: str | None = "EPSG:32631",
    transform: Affine | None = UTM,
    nodata: float | None = None,
    tags: dict[str, str] | None = None,
    scale: float | None = None,
    **more: Any,
) -> Path:
    """Write a raster of pixels `(band, row, col)` and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    georeference = {"crs": crs, "transform": transform} if transform is not None else {"crs": crs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(
            path,
            "w",
            driver=more.pop("driver", "GTiff"),
            height=height,
            width=width,
            count=count,
            dtype=pixels.dtype,
            nodata=nodata,
            **georeference,
            **more,
        )
    with dataset:
        dataset.write(pixels)
        if names is not None and len(names) == count:
            dataset.descriptions = tuple(names)
        if scale is not None:
            dataset.scales, dataset.offsets = (scale,) * count, (0.0,) * count
        dataset.update_tags(**(tags or {}))
    return path


def clouds(size: int = SIZE) -> np.ndarray:
    """Return a label whose left half is cloud."""
    classes = np.zeros((1, size, size), np.uint8)
    classes[:, :, : size // 2] = 1
    return classes
