"""Scale of a raster's digital numbers, and their conversion to canonical ones."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import (
    REFLECTANCE,
    REFLECTANCE_SCALE,
    RGB,
    TRUE_COLOR,
    TRUE_COLOR_CATALOGUE,
    Radiometry,
)
from cloudseg.errors import BadScene

_LOWEST: Final = -0.5
"""Reflectance below which a pixel is fill.

Corrected products reach -0.2 (USGS Landsat Collection 2, valid range of surface reflectance); undeclared fill values
(-9999, -3.4e38) are far lower.
"""
_LOWEST_FULL_SCALE: Final = 0.1
"""Reflectance that a scale for 8-bit numbers reaches at 255."""
_CATALOGUE: Final = re.compile(r"Sentinel-2 Cloud Mask Catalogue|zenodo\D{1,20}4172871", re.I | re.A)
"""Tag SOURCE of the one collection of 8-bit images whose stretch is known to differ from ESA's true-color image."""


@dataclass(frozen=True)
class BandScale:
    """How the digital numbers of one band become reflectance."""

    radiometry: Radiometry
    fills: tuple[float, ...]
    """Digital numbers that mean "not observed", besides NaN."""
    assumed: bool
    """Whether the scale follows from the data type only."""
    shared_fills: tuple[float, ...] = ()
    """Digital numbers that mean "not observed" only where every band of the scene has one."""


def eight_bit_stretch(source: str) -> Radiometry:
    """Return the radiometry of an 8-bit image.

    Args:
        source: The file's tag SOURCE; empty if it has none.
    """
    return TRUE_COLOR_CATALOGUE if _CATALOGUE.search(source) else TRUE_COLOR


def band_scale(
    name: str,
    dtype: str,
    known: Radiometry | None,
    tagged: tuple[float, float],
    nodata: float | None,
    display_name: str,
    *,
    source: str = "",
    may_have_offset: bool = False,
) -> BandScale:
    """Return scale and offset from the file's own tags, else from the product id, else from the data type.

    Args:
        name: The band's name.
        dtype: The band's data type.
        known: Radiometry from the product id or metadata file.
        tagged: Scale and offset of the file; (1, 0) if it has none.
        nodata: The band's nodata value.
        display_name: The file's name, for messages.
        source: The file's tag SOURCE.
        may_have_offset: Whether the file is from Sentinel-2, whose numbers may have an offset: an assumed scale is
            then a guess, which the values check.

    Raises:
        BadScene: The digital numbers have no known scale.
    """
    fills, shared = _fills(nodata, known.fill if known and not dtype.startswith("float") else None)
    if tagged != (1.0, 0.0):
        radiometry = _from_tags(tagged, dtype, known, display_name)
        return BandScale(radiometry, fills, assumed=False, shared_fills=shared)
    if dtype == "uint8" and not (known is not None and _is_for_8_bits(known)):
        if name not in RGB:
            raise BadScene(
                f"the 8-bit band {name} has no known scale",
                subject=display_name,
                expected="red, green and blue of a true-color image",
                next_step="Use the original 16-bit bands, or leave the band out: --bands red,green,blue,-",
            )
        # In 8 bits every value is also a brightness: one band alone does not tell that a pixel was not observed.
        black = 0.0 if nodata is None else float(nodata)
        return BandScale(eight_bit_stretch(source), (), assumed=False, shared_fills=(black,))
    if dtype.startswith("float"):
        return BandScale(REFLECTANCE, fills, assumed=False, shared_fills=shared)
    if known is not None:
        return BandScale(known, fills, assumed=False, shared_fills=shared)
    source = "assumed: reflectance x 10000 (16-bit numbers without scale tag or product id)"
    radiometry = Radiometry(1 / REFLECTANCE_SCALE, 0.0, 0, source, guessed=may_have_offset)
    return BandScale(radiometry, fills, assumed=True, shared_fills=shared)


def _is_for_8_bits(known: Radiometry) -> bool:
    """Return whether a product's scale is for 8-bit numbers: Level-1 of Landsat 4 to 7.

    Those reach reflectance 0.3 to 1.1 at 255 (USGS, MTL files); a scale for 16 bits stays below 0.03.
    """
    return 255 * known.scale + known.offset > _LOWEST_FULL_SCALE


def _from_tags(tagged: tuple[float, float], dtype: str, known: Radiometry | None, display_name: str) -> Radiometry:
    """Return the radiometry of a file with scale and offset tags.

    Raises:
        BadScene: The tags are outside of any plausible range.
    """
    scale, offset = tagged
    if not (math.isfinite(scale) and math.isfinite(offset) and 0 < scale <= 1 and abs(offset) <= 1):
        raise BadScene(
            "scale and offset of the file are not plausible",
            subject=display_name,
            found=f"scale {scale:g}, offset {offset:g}",
            expected="scale in (0, 1], offset in [-1, 1]",
            next_step="Correct them (GDAL: gdal_edit.py -scale -offset).",
        )
    if known is not None and offset == 0 and math.isclose(scale, known.scale, rel_tol=1e-6):
        return known  # Sentinel-2 files often have the scale 0.0001 but not the offset of their baseline
    fill = 0 if dtype == "uint16" else None
    return Radiometry(scale, offset, fill, f"scale {scale:g} and offset {offset:g} of the file's tags")


def _fills(nodata: float | None, of_product: float | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the digital numbers that mean "not observed": in one band, and where every band of the scene has one.

    What the file declares comes first: with a nodata value of -9999 a 0 is an observation (dark water after a
    correction of the atmosphere). The fill of a product's specification remains, but next to another declared value
    only where every band has it. 0 is a fill by custom only where neither says anything, and only in every band at
    once.

    Args:
        nodata: The band's declared value; NaN and infinities are never observations anyway.
        of_product: The fill of the product's specification.
    """
    if nodata is None:
        return ((), (0.0,)) if of_product is None else ((float(of_product),), ())
    declared = (float(nodata),) if math.isfinite(nodata) else ()
    return declared, () if of_product is None or of_product in declared else (float(of_product),)


def to_canonical(dn: npt.NDArray[Any], scale: BandScale) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Convert the digital numbers of one band.

    Returns:
        Reflectance × 10 000 as uint16, at least 1 where valid, and the valid pixels; both in the shape of `dn`.
    """
    valid = np.isfinite(dn) if dn.dtype.kind == "f" else np.ones(dn.shape, bool)
    for fill in scale.fills:
        valid &= dn != fill
    factor, offset = scale.radiometry.scale * REFLECTANCE_SCALE, scale.radiometry.offset * REFLECTANCE_SCALE
    if dn.dtype == np.uint16 and (factor, offset) == (1.0, 0.0):
        return np.maximum(dn, 1), valid
    # In place: each array of a new process costs more time than what is computed in it.
    with np.errstate(over="ignore"):  # -3.4e38 becomes minus infinity, which counts as fill
        reflectance = dn.astype(np.float32)
        reflectance[~valid] = 0
        reflectance *= np.float32(factor)
        reflectance += np.float32(offset)
    valid &= reflectance >= _LOWEST * REFLECTANCE_SCALE
    np.rint(reflectance, out=reflectance)
    np.clip(reflectance, 1, 65535, out=reflectance)
    return reflectance.astype(np.uint16), valid
