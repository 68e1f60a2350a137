"""Scale of a raster's digital numbers, and whether the resulting reflectance is plausible."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloudseg.bands import (
    BAND_NAMES,
    BLUE,
    GREEN,
    LANDSAT8_BANDS,
    NIR,
    RED,
    REFLECTANCE,
    REFLECTANCE_SCALE,
    RGB,
    SENTINEL2_BANDS,
    TRUE_COLOR,
    TRUE_COLOR_CATALOGUE,
    Radiometry,
)
from cloudseg.errors import BadScene

_SYNONYMS: Final = {
    "r": RED,
    "g": GREEN,
    "b": BLUE,
    "nir1": NIR,
    "near infrared": NIR,
    "near-infrared": NIR,
    "alpha": None,
    "mask": None,
}
_SPARSE_CODE: Final = re.compile(r"B(\d{1,2}|8A)", re.I | re.A)
_LOWEST: Final = -0.5
"""Reflectance below which a pixel is fill.

Corrected products reach -0.2 (USGS Landsat Collection 2, valid range of surface reflectance); undeclared fill values
(-9999, -3.4e38) are far lower.
"""
_HIGHEST: Final = 2.5
"""Largest plausible 99th percentile: fresh snow under a low sun reaches about 1.5 at the top of the atmosphere."""
_HIGHEST_ASSUMED: Final = 1.8
"""The same for an assumed scale: Landsat Level-1 digital numbers read as reflectance x 10000 reach 2 to 6."""
_CATALOGUE: Final = re.compile(r"Sentinel-2 Cloud Mask Catalogue|zenodo\D{1,20}4172871", re.I | re.A)
"""Tag SOURCE of the one collection of 8-bit images whose stretch is known to differ from ESA's true-color image."""
_MIN_BRIGHTEST: Final = 0.05
"""Smallest plausible maximum for an assumed scale: even clear ocean with one wave crest has it; counts do not."""


@dataclass(frozen=True)
class BandScale:
    """How the digital numbers of one band become reflectance."""

    radiometry: Radiometry
    fills: tuple[float, ...]
    """Digital numbers that mean "not observed", besides NaN."""
    assumed: bool
    """Whether the scale follows from the data type only."""


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

    Raises:
        BadScene: The digital numbers have no known scale.
    """
    declared = () if nodata is None or math.isnan(nodata) else (float(nodata),)
    if tagged != (1.0, 0.0):
        return BandScale(_from_tags(tagged, dtype, known, display_name), _fills(dtype, declared, None), assumed=False)
    if dtype == "uint8":
        if name not in RGB:
            raise BadScene(
                f"the 8-bit band {name} has no known scale",
                subject=display_name,
                expected="red, green and blue of a true-color image",
                next_step="Use the original 16-bit bands, or leave the band out: --bands red,green,blue,-",
            )
        return BandScale(eight_bit_stretch(source), declared, assumed=False)
    if dtype.startswith("float"):
        return BandScale(REFLECTANCE, declared, assumed=False)
    if known is not None:
        return BandScale(known, _fills(dtype, declared, known.fill), assumed=False)
    source = "assumed: reflectance x 10000 (16-bit numbers without scale tag or product id)"
    return BandScale(Radiometry(1 / REFLECTANCE_SCALE, 0.0, 0, source), _fills(dtype, declared, 0), assumed=True)


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


def _fills(dtype: str, declared: tuple[float, ...], usual: float | None) -> tuple[float, ...]:
    """Return the declared and the usual fill values; 0 for 16 bits, where no product uses it for an observation."""
    if dtype in ("uint16", "int16"):
        usual = 0.0 if usual is None else float(usual)
    return tuple(dict.fromkeys([*declared, *([] if usual is None else [float(usual)])]))


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
    with np.errstate(over="ignore"):  # -3.4e38 becomes minus infinity, which counts as fill
        reflectance = np.where(valid, dn, 0).astype(np.float32) * np.float32(factor) + np.float32(offset)
    valid &= reflectance >= _LOWEST * REFLECTANCE_SCALE
    return np.clip(np.rint(reflectance), 1, 65535).astype(np.uint16), valid


def check_distribution(
    counts: npt.NDArray[np.int64], scales: dict[str, BandScale], display_name: str, *, is_product: bool
) -> None:
    """Check that the canonical digital numbers of a scene can be an observation.

    No 16-bit band may be constant. 8-bit images saturate early, over thick cloud in one band, over ice in all: not
    every band may be constant, except at the upper end where a product id shows that the scene was observed.

    Args:
        counts: Histogram of the valid canonical digital numbers `(band, 65536)`.
        scales: Scale by band name, in the order of `counts`.
        display_name: The scene's name, for messages.
        is_product: Whether the sensor is known from a product id.

    Raises:
        BadScene: The values are out of range or constant.
    """
    for name, band in zip(scales, counts, strict=True):
        _check_range(name, band, scales[name], display_name)
    different = (counts > 0).sum(axis=1)
    eight_bits = all(scale.radiometry in (TRUE_COLOR, TRUE_COLOR_CATALOGUE) for scale in scales.values())
    constant = [name for name, values in zip(scales, different, strict=True) if values == 1]
    saturated = (
        eight_bits
        and is_product
        and all(_reaches_top(band, scale) for band, scale in zip(counts, scales.values(), strict=True))
    )
    if constant and not saturated and (len(constant) == len(scales) or not eight_bits):
        raise BadScene(
            f"every pixel has the same value in {', '.join(constant)}",
            subject=display_name,
            found=f"{int(np.argmax(counts[0]))} in the first band",
            expected="an image",
            next_step="Inspect the file: it probably holds fill values only.",
        )


def _reaches_top(counts: npt.NDArray[np.int64], scale: BandScale) -> bool:
    """Return whether any 8-bit pixel is at the upper end of its stretch."""
    return bool(counts[round(255 * scale.radiometry.scale * REFLECTANCE_SCALE)] > 0)


def _check_range(name: str, counts: npt.NDArray[np.int64], scale: BandScale, display_name: str) -> None:
    """Check 99th percentile and maximum of one band."""
    total = np.cumsum(counts)
    bright = int(np.searchsorted(total, 0.99 * total[-1])) / REFLECTANCE_SCALE
    brightest = int(np.flatnonzero(counts)[-1]) / REFLECTANCE_SCALE
    highest = _HIGHEST_ASSUMED if scale.assumed else _HIGHEST
    if bright > highest or (scale.assumed and brightest < _MIN_BRIGHTEST):
        raise BadScene(
            f"the pixel values of {name} cannot be reflectance with this scale",
            subject=display_name,
            found=f"99th percentile {bright:.3g}, maximum {brightest:.3g} ({scale.radiometry.source})",
            expected=f"reflectance up to {highest}",
            next_step="Write scale and offset into the file (GDAL: gdal_edit.py -scale -offset), "
            "or convert it to reflectance x 10000.",
        )


def band_names(
    descriptions: list[str | None], colors: list[str], sensor_text: str, display_name: str
) -> list[str | None]:
    """Return the canonical name of each band from its description, else from its color; None where neither is known.

    `B8` is near infrared of Sentinel-2 but panchromatic of Landsat: codes are read as Landsat's if the sensor is
    Landsat, or if there is a B5 but no B8.

    Args:
        descriptions: The file's band descriptions.
        colors: The file's color interpretation, by band.
        sensor_text: Text that may name the sensor.
        display_name: The file's name, for messages.

    Raises:
        BadScene: Red, green or blue is missing.
    """
    texts = [(text or "").strip() for text in descriptions]
    codes = {text.upper() for text in texts}
    landsat = (
        "landsat" in sensor_text.lower()
        or bool(re.search(r"L[CO]0?[89]", sensor_text, re.I))
        or ("B5" in codes and "B8" not in codes)
    )
    found = [_name_of(text, landsat) for text in texts]
    for index, color in enumerate(colors):
        if found[index] is None and not texts[index] and color in RGB:
            found[index] = color
    missing = [band for band in RGB if band not in found]
    if missing:
        known = ", ".join(text or color for text, color in zip(texts, colors, strict=True))
        raise BadScene(
            "the band names are unknown" if len(missing) == len(RGB) else f"the scene lacks {', '.join(missing)}",
            subject=display_name,
            found=known[:200] or "no bands",
            expected="at least red, green and blue",
            next_step="Name the bands with --bands red,green,blue,nir (- for a band that is not wanted), "
            "or with band descriptions in the file.",
        )
    return found


def _name_of(text: str, landsat: bool) -> str | None:
    word = text.lower()
    if word in BAND_NAMES:
        return word
    if word in _SYNONYMS:
        return _SYNONYMS[word]
    if not (code := _SPARSE_CODE.fullmatch(text)):
        return None
    if landsat:
        return LANDSAT8_BANDS.get(f"B{code[1].lstrip('0')}".upper())
    return SENTINEL2_BANDS.get(f"B{code[1].zfill(2)}".upper())
