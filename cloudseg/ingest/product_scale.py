"""Scale of a file's digital numbers from its product, where neither its tags nor metadata state one.

Runs in the sandboxed decoder process.
"""

import re
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import LANDSAT_L2, Radiometry
from cloudseg.errors import BadScene
from cloudseg.ingest.band_codes import has_surface_reflectance_codes

_SAMPLE: Final = 256
"""Rows and columns of the sample that decides between two scales."""


def product_scale(
    dataset: Any, index: int, known: Radiometry | None, sensor: str, display_name: str
) -> Radiometry | None:
    """Return the scale from the product, else from Landsat's band names; None leaves it to the data type.

    Args:
        dataset: The open file.
        index: A band that is wanted, from 1.
        known: Radiometry from the product id or metadata file.
        sensor: The scene's sensor from a product id.
        display_name: The file's name, for messages.

    Raises:
        BadScene: The digital numbers are a product's that has no scale without metadata.
    """
    dtype = dataset.dtypes[index - 1]
    tagged = (dataset.scales[index - 1], dataset.offsets[index - 1]) != (1.0, 0.0)
    if known is not None or tagged or dtype.startswith("float"):
        return known
    _check_without_metadata(sensor, dtype, display_name)
    # One band decides for all: the same file has one scale.
    first = next((at for at, text in enumerate(dataset.descriptions, 1) if has_surface_reflectance_codes([text])), None)
    if first is None or dtype not in ("uint16", "int16"):
        return None
    sample = dataset.read(first, out_shape=(min(dataset.height, _SAMPLE), min(dataset.width, _SAMPLE)))
    return _landsat_surface_reflectance(sample, dataset.nodatavals[first - 1])


def _check_without_metadata(sensor: str, dtype: str, display_name: str) -> None:
    """Check that a product's integers may be reflectance, where neither metadata nor tags state a scale.

    Args:
        sensor: The scene's sensor from a product id.
        dtype: The data type.
        display_name: The file's name, for messages.

    Raises:
        BadScene: They are radiance of Planet, or digital numbers of Landsat 4 to 7, which have 8 bits.
    """
    radiance = sensor in ("planetscope", "rapideye") and dtype != "uint8"
    level_1 = re.match(r"landsat-[457]-l1" if dtype != "uint8" else r"landsat-[457]", sensor)
    if radiance or level_1:
        raise BadScene(
            f"the digital numbers of {sensor} have no scale without the product's metadata",
            subject=display_name,
            found=f"{dtype} without scale tags",
            expected="surface reflectance, or the product's files with its metadata file in one folder",
            next_step="Use the product as it was delivered, or write scale and offset into the file "
            "(GDAL: gdal_edit.py -scale -offset).",
        )


def _landsat_surface_reflectance(sample: npt.NDArray[Any], nodata: float | None) -> Radiometry | None:
    """Return the scale of a file with Landsat's band names of surface reflectance, from its numbers.

    Collection 2 numbers are 7273 at reflectance 0 (LANDSAT_L2). Where most are below, they would be negative, so the
    numbers were converted, and are read like others without scale.

    Args:
        sample: Digital numbers of one band.
        nodata: The band's nodata value.
    """
    seen = sample[(sample != 0) & (sample != nodata)]
    zero = -LANDSAT_L2.offset / LANDSAT_L2.scale
    if seen.size == 0 or np.mean(seen < zero) > 0.5:
        return None
    source = f"{LANDSAT_L2.source} (assumed from band names SR_B and from the numbers)"
    return replace(LANDSAT_L2, source=source, guessed=True)
