"""Names of a raster's bands from its descriptions, codes and colors."""

import re
from typing import Final

from cloudseg.bands import BAND_NAMES, BLUE, GREEN, LANDSAT8_BANDS, NIR, RED, RGB, SENTINEL2_BANDS
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
