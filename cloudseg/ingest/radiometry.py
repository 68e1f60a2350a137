"""Which scale a raster's numbers have, and whether the reflectance that comes out can be one."""

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
    TRUE_COLOUR,
    TRUE_COLOUR_CATALOGUE,
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
"""Below this nothing was observed.

Corrected products reach -0.2 (USGS Landsat Collection 2, valid range of surface reflectance),
fill values that nobody declared (-9999, -3.4e38) lie far below."""
_HIGHEST: Final = 2.5
"""99 % of the pixels are darker: fresh snow under a low sun reaches about 1.5 at the top of the atmosphere."""
_HIGHEST_ASSUMED: Final = 1.8
"""The same where the scale was only assumed: Landsat Level-1 numbers taken for reflectance x 10000 reach 2 to 6."""
_CATALOGUE: Final = re.compile(r"Sentinel-2 Cloud Mask Catalogue|zenodo\D{1,20}4172871", re.I | re.A)
"""The tag SOURCE of the one collection of 8-bit pictures whose stretch is known to differ from ESA's true colour."""
_BRIGHTEST_AT_LEAST: Final = 0.05
"""The brightest pixel where the scale was assumed: even clear ocean with one wave crest has it; counts do not."""


@dataclass(frozen=True)
class BandScale:
    """How the numbers of one band become reflectance."""

    radiometry: Radiometry
    fills: tuple[float, ...]
    """Numbers that mean "not observed" (NaN always does)."""
    assumed: bool
    """Nothing but the type of the numbers says so."""


def eight_bit_stretch(source: str) -> Radiometry:
    """Return what an 8-bit colour means: `source` is the file's tag SOURCE, empty where it has none."""
    return TRUE_COLOUR_CATALOGUE if _CATALOGUE.search(source) else TRUE_COLOUR


def band_scale(
    name: str,
    dtype: str,
    known: Radiometry | None,
    tagged: tuple[float, float],
    nodata: float | None,
    shown: str,
    *,
    source: str = "",
) -> BandScale:
    """Choose scale and offset: the file's own tags, else the product id, else what the type of the numbers allows.

    `tagged` is scale and offset of the file (1, 0 where it has none), `source` its tag SOURCE. Raises BadScene where no
    reflectance can come out.
    """
    marked = () if nodata is None or math.isnan(nodata) else (float(nodata),)
    if tagged != (1.0, 0.0):
        return BandScale(_from_tags(tagged, dtype, known, shown), _fills(dtype, marked, None), assumed=False)
    if dtype == "uint8":
        if name not in RGB:
            raise BadScene(
                f"8-bit numbers of the band {name} have no known scale",
                subject=shown,
                expected="red, green and blue of a true-colour image",
                next_step="Bring the original 16-bit bands, or leave the band out: --bands red,green,blue,-",
            )
        return BandScale(eight_bit_stretch(source), marked, assumed=False)
    if dtype.startswith("float"):
        return BandScale(REFLECTANCE, marked, assumed=False)
    if known is not None:
        return BandScale(known, _fills(dtype, marked, known.fill), assumed=False)
    source = "assumed: reflectance x 10000 (16-bit numbers without scale tag or product id)"
    return BandScale(Radiometry(1 / REFLECTANCE_SCALE, 0.0, 0, source), _fills(dtype, marked, 0), assumed=True)


def _from_tags(tagged: tuple[float, float], dtype: str, known: Radiometry | None, shown: str) -> Radiometry:
    scale, offset = tagged
    if not (math.isfinite(scale) and math.isfinite(offset) and 0 < scale <= 1 and abs(offset) <= 1):
        raise BadScene(
            "scale and offset of the file give no reflectance",
            subject=shown,
            found=f"scale {scale:g}, offset {offset:g}",
            expected="scale in (0, 1], offset in [-1, 1]",
            next_step="Correct them (GDAL: gdal_edit.py -scale -offset).",
        )
    if known is not None and offset == 0 and math.isclose(scale, known.scale, rel_tol=1e-6):
        return known  # Sentinel-2 files often state 0.0001 and leave the offset of their baseline to the metadata
    fill = 0 if dtype == "uint16" else None
    return Radiometry(scale, offset, fill, f"scale {scale:g} and offset {offset:g} of the file's tags")


def _fills(dtype: str, marked: tuple[float, ...], usual: float | None) -> tuple[float, ...]:
    """The file's nodata, and 0, which no 16-bit product uses for an observation."""
    if dtype in ("uint16", "int16"):
        usual = 0.0 if usual is None else float(usual)
    return tuple(dict.fromkeys([*marked, *([] if usual is None else [float(usual)])]))


def to_canonical(numbers: npt.NDArray[Any], scale: BandScale) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Return reflectance × 10 000 of one band as uint16 (at least 1 where valid), and which numbers are observations."""
    valid = np.isfinite(numbers) if numbers.dtype.kind == "f" else np.ones(numbers.shape, bool)
    for fill in scale.fills:
        valid &= numbers != fill
    factor, offset = scale.radiometry.scale * REFLECTANCE_SCALE, scale.radiometry.offset * REFLECTANCE_SCALE
    if numbers.dtype == np.uint16 and (factor, offset) == (1.0, 0.0):
        return np.maximum(numbers, 1), valid
    with np.errstate(over="ignore"):  # -3.4e38 becomes minus infinity, which is below everything
        reflectance = np.where(valid, numbers, 0).astype(np.float32) * np.float32(factor) + np.float32(offset)
    valid &= reflectance >= _LOWEST * REFLECTANCE_SCALE
    return np.clip(np.rint(reflectance), 1, 65535).astype(np.uint16), valid


def check_numbers(counts: npt.NDArray[np.int64], scales: dict[str, BandScale], shown: str, *, is_product: bool) -> None:
    """Check the distribution of canonical numbers: `counts` is `(band, 65536)`. Raises BadScene.

    With 16 bits no band may have one number only, with 8 bits not every band: they saturate early, over thick cloud in
    one band, over ice in all. A whole scene at the upper end is believed where a product id says that it was observed.
    """
    for name, band in zip(scales, counts, strict=True):
        _check_range(name, band, scales[name], shown)
    different = (counts > 0).sum(axis=1)
    eight_bits = all(scale.radiometry in (TRUE_COLOUR, TRUE_COLOUR_CATALOGUE) for scale in scales.values())
    constant = [name for name, values in zip(scales, different, strict=True) if values == 1]
    saturated = (
        eight_bits
        and is_product
        and all(_reaches_top(band, scale) for band, scale in zip(counts, scales.values(), strict=True))
    )
    if constant and not saturated and (len(constant) == len(scales) or not eight_bits):
        raise BadScene(
            f"every pixel has the same number in {', '.join(constant)}",
            subject=shown,
            found=f"{int(np.argmax(counts[0]))} in the first band",
            expected="an image",
            next_step="Look at the file: it was probably filled, not observed.",
        )


def _reaches_top(counts: npt.NDArray[np.int64], scale: BandScale) -> bool:
    """Whether some 8-bit pixel stands at the upper end of its stretch."""
    return bool(counts[round(255 * scale.radiometry.scale * REFLECTANCE_SCALE)] > 0)


def _check_range(name: str, counts: npt.NDArray[np.int64], scale: BandScale, shown: str) -> None:
    total = np.cumsum(counts)
    bright = int(np.searchsorted(total, 0.99 * total[-1])) / REFLECTANCE_SCALE
    brightest = int(np.flatnonzero(counts)[-1]) / REFLECTANCE_SCALE
    highest = _HIGHEST_ASSUMED if scale.assumed else _HIGHEST
    if bright > highest or (scale.assumed and brightest < _BRIGHTEST_AT_LEAST):
        raise BadScene(
            f"the numbers of {name} cannot be reflectance with this scale",
            subject=shown,
            found=f"99 % up to {bright:.3g}, the brightest {brightest:.3g} ({scale.radiometry.source})",
            expected=f"reflectance up to {highest}",
            next_step="Write scale and offset into the file (GDAL: gdal_edit.py -scale -offset), or convert it to reflectance x 10000.",
        )


def names_of_bands(
    descriptions: list[str | None], colours: list[str], sensor_text: str, shown: str
) -> list[str | None]:
    """Return the canonical name of each band from its description, else its colour.

    Raises BadScene where that says too little.

    `B8` is near infrared of Sentinel-2 but panchromatic of Landsat, so codes without a leading zero need either a name
    that says Landsat or a set that only Sentinel-2 has.
    """
    said = [(text or "").strip() for text in descriptions]
    codes = {text.upper() for text in said}
    landsat = (
        "landsat" in sensor_text.lower()
        or bool(re.search(r"L[CO]0?[89]", sensor_text, re.I))
        or ("B5" in codes and "B8" not in codes)
    )
    found = [_name_of(text, landsat) for text in said]
    for index, colour in enumerate(colours):
        if found[index] is None and not said[index] and colour in RGB:
            found[index] = colour
    missing = [band for band in RGB if band not in found]
    if missing:
        shown_names = ", ".join(text or colour for text, colour in zip(said, colours, strict=True))
        raise BadScene(
            "the bands have no names that are known"
            if len(missing) == len(RGB)
            else f"the scene lacks {', '.join(missing)}",
            subject=shown,
            found=shown_names[:200] or "no bands",
            expected="at least red, green and blue",
            next_step="Name them: --bands red,green,blue,nir (a dash for a band that is not wanted), or as band descriptions in the file.",
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
