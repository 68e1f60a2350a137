"""One made observation, written as the products of several sensors: reflectance as in `TRUTH`, and one round cloud."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cloudseg.grid import Window
from cloudseg.raster.read import open_raster, read_scene
from tests.ingest.conftest import Service
from tests.ingest.tiles import SIZE, write

TRUTH = {
    "coastal": 0.07,
    "blue": 0.06,
    "green05": 0.075,
    "green": 0.081,
    "yellow": 0.07,
    "red": 0.05,
    "rededge": 0.2,
    "nir": 0.303,
    "nir08": 0.303,
    "swir16": 0.22,
    "swir22": 0.12,
    "cirrus": 0.01,
    "pan": 0.06,
    "lwir": 0.4,
    "lwir11": 0.4,
    "lwir12": 0.4,
    "rededge071": 0.15,
    "rededge075": 0.25,
    "rededge078": 0.28,
    "nir09": 0.3,
}


def reflectance(band: str, size: int = SIZE) -> np.ndarray:
    """Return a band `(row, col)`: `TRUTH`, and a cloud of 0.6 over an eighth of the pixels."""
    rows, cols = np.mgrid[:size, :size] - size / 2
    return np.where(np.hypot(rows, cols) < 0.2 * size, 0.6, TRUTH[band])


def write_bands(
    path: Path,
    bands: Sequence[str],
    to_dn: Callable[[np.ndarray], np.ndarray],
    *,
    dtype: str = "uint16",
    descriptions: Sequence[str] | None = None,
    **more: object,
) -> Path:
    """Write bands of the observation as digital numbers and return the path."""
    pixels = np.stack([to_dn(reflectance(band)) for band in bands])
    whole = np.rint(pixels) if not dtype.startswith("float") else pixels
    return write(path, whole.astype(dtype), names=descriptions, **more)  # type: ignore[arg-type]


def times_10000(values: np.ndarray) -> np.ndarray:
    """Return reflectance x 10000."""
    return values * 10_000


def medians(service: Service, name: str) -> dict[str, float]:
    """Return the median reflectance of the valid pixels of a scene, by band, rounded to thousandths."""
    scene = service.scenes()[name]
    with open_raster(service.store.gdal_path(scene.key)) as dataset:
        pixels, valid = read_scene(dataset, Window(0, 0, scene.height, scene.width), scene.bands)
    return {
        band: round(float(np.median(each[valid])) / 10_000, 3) for band, each in zip(scene.bands, pixels, strict=True)
    }


def truth(*bands: str) -> dict[str, float]:
    """Return `TRUTH` of the bands."""
    return {band: TRUTH[band] for band in bands}
