"""Names of a raster's bands from its descriptions, codes and colors.

A band code is translated only where the sensor is known, or where every sensor that has all codes of the file agrees:
`B4` is red of Sentinel-2 and Landsat 8, and near infrared of Landsat 5.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import (
    BAND_NAMES,
    BLUE,
    GREEN,
    NIR,
    PLANETSCOPE_4_BANDS,
    PLANETSCOPE_8_BANDS,
    RAPIDEYE_BANDS,
    RED,
    RGB,
)
from cloudseg.errors import BadScene
from cloudseg.ingest.sensor_hints import FAMILIES, OLI, S2, TM, CodeFamily, families_in, families_of

_SYNONYMS: Final = {
    "r": RED,
    "g": GREEN,
    "b": BLUE,
    "n": NIR,
    "nir1": NIR,
    "nir 1": NIR,
    "near infrared": NIR,
    "near ir": NIR,
    "nir broad": NIR,
    "nir narrow": "nir08",
    "narrow nir": "nir08",
    "coastal aerosol": "coastal",
    "coastal blue": "coastal",
    "ultra blue": "coastal",
    "green i": "green05",
    "green ii": GREEN,
    "red edge": "rededge",
    "rededge": "rededge",
    "re": "rededge",
    "swir1": "swir16",
    "swir 1": "swir16",
    "swir2": "swir22",
    "swir 2": "swir22",
    "panchromatic": "pan",
}
"""Words of descriptions, in lower case with single spaces. Planet, Landsat and Sentinel-2 product specifications."""
_CODE: Final = re.compile(
    r"(?<![a-z0-9])(?:(?P<prefix>sr|st|toa|boa)[_ ])?b(?P<number>8a|\d{1,2})(?P<vcid>_vcid_\d)?(?![a-z0-9])"
)
_SAYS_NOTHING: Final = re.compile(r"(?:band|layer|channel|image|gray|grey|undefined)?[ _#.:-]*\d*")
_BAND_NUMBER: Final = re.compile(r"(?<![a-z0-9])band[ _#-]*\d*(?![a-z0-9])")
_NOISE: Final = re.compile(
    r"(?<![a-z0-9])(?:surface|reflectance|toa|boa|sr|analytic|mean|median|color|colour|\d+ ?m)(?![a-z0-9])"
)
_WAVELENGTH: Final = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?) ?(nm|nanometers|um|µm|μm|micrometers)(?![a-z0-9])")
_CENTERS: Final = ((470, 505, BLUE), (545, 575, GREEN), (640, 680, RED), (790, 880, NIR))
"""Central wavelengths in nm that Sentinel-2, Landsat, PlanetScope and RapidEye have for these bands."""
_THERMAL: Final = frozenset(["lwir", "lwir11", "lwir12"])
"""They have no reflectance: never a band of a scene unless named with `--bands`."""
_EVIDENCE: Final = {
    "qa60": frozenset([S2]),
    "scl": frozenset([S2]),
    "msk_cldprb": frozenset([S2]),
    "tci_r": frozenset([S2]),
    "st_b10": frozenset([OLI]),
    "st_b6": frozenset([TM]),
    "sr_qa_aerosol": frozenset([OLI]),
    "sr_atmos_opacity": frozenset([TM]),
    "sr_cloud_qa": frozenset([TM]),
    "qa_pixel": frozenset([TM, OLI]),
    "qa_radsat": frozenset([TM, OLI]),
    "fmask": frozenset([S2, OLI]),
}
"""Other layers that identify a product, by description: names of Earth Engine and USGS."""
_COMPLETE: Final = (
    ("sr", frozenset(["B1", "B2", "B3", "B4", "B5", "B7"]), TM),
    ("sr", frozenset(f"B{number}" for number in range(1, 8)), OLI),
    ("", frozenset(f"B{number}" for number in range(1, 12)), OLI),
)
"""Prefix and codes that are all of one product and not of another: Landsat's surface reflectance and top of the
atmosphere in Earth Engine."""
_ORDERS: Final[Mapping[str, Mapping[int, tuple[str, ...]]]] = {
    "planetscope": {len(order): order for order in (PLANETSCOPE_4_BANDS, PLANETSCOPE_8_BANDS)},
    "rapideye": {len(RAPIDEYE_BANDS): RAPIDEYE_BANDS},
}
"""Bands in file order by sensor and number of bands, for files without any description."""


@dataclass(frozen=True)
class _Description:
    """What the description of one band says."""

    word: str | None
    """A band name that it has in words."""
    code: str | None
    """A code without leading zero, `B4`."""
    prefix: str
    """`sr`, `st`, `toa`, `boa` or empty."""
    padded: bool
    """Whether the code has a leading zero, as in Sentinel-2 and HLS."""
    says_nothing: bool
    families: frozenset[CodeFamily]
    """The families that it names (`LC08_…_B4`); empty if none."""


def band_names(
    descriptions: Sequence[str | None],
    colors: Sequence[str],
    display_name: str,
    *,
    sensor: str = "unknown",
    path: str = "",
    tags: Mapping[str, str] | None = None,
) -> list[str | None]:
    """Return the canonical name of each band; None where it is not known.

    From the words of its description (`Red`, `Band 4: Red`, `B04 (Red)`), else from its code, else, if the description
    says nothing, from its color, else, for PlanetScope and RapidEye, from its position.

    Args:
        descriptions: The file's band descriptions.
        colors: The file's color interpretation, by band.
        display_name: The file's name, for messages.
        sensor: The scene's sensor from a product id.
        path: Scene and file name with folders, which may name the sensor.
        tags: The file's tags, which may name the sensor.

    Raises:
        BadScene: Red, green or blue is missing, or the codes are those of several sensors.
    """
    parsed = [_parse(text or "") for text in descriptions]
    if order := _by_position(parsed, colors, sensor):
        return list(order)
    lower = [(text or "").strip().lower() for text in descriptions]
    evidence = [_EVIDENCE[text] for text in lower if text in _EVIDENCE]
    families = _families(parsed, evidence, sensor, path, tags or {}, display_name)
    found = [_name_of(each, families, color) for each, color in zip(parsed, colors, strict=True)]
    missing = [band for band in RGB if band not in found]
    if missing:
        known = ", ".join(text or color for text, color in zip(descriptions, colors, strict=True))
        raise BadScene(
            "the band names are unknown" if len(missing) == len(RGB) else f"the scene lacks {', '.join(missing)}",
            subject=display_name,
            found=known[:200] or "no bands",
            expected="at least red, green and blue",
            next_step="Name the bands with --bands red,green,blue,nir (- for a band that is not wanted), "
            "or with band descriptions in the file.",
        )
    return found


def has_surface_reflectance_codes(descriptions: Sequence[str | None]) -> bool:
    """Return whether a band has one of Landsat's names of surface reflectance, `SR_B4`."""
    return any(_parse(text or "").prefix == "sr" for text in descriptions)


def _parse(description: str) -> _Description:
    text = " ".join(description.lower().split())
    if text in BAND_NAMES or text in _SYNONYMS:
        return _Description(_SYNONYMS.get(text, text), None, "", padded=False, says_nothing=False, families=frozenset())
    codes = list(_CODE.finditer(text))
    code = f"B{codes[0]['number'].lstrip('0').upper()}" if len({match["number"] for match in codes}) == 1 else None
    rest = _BAND_NUMBER.sub(" ", _CODE.sub(" ", text))
    word, named = _word(rest), families_in(description)
    if any(match["vcid"] for match in codes):
        named = frozenset([TM])  # Landsat 7's thermal band at two gains
    if word is None and not named and _plain(rest):
        code = None  # MODIS's `sur_refl_b01`: another word says that the code is not one of these sensors'
    return _Description(
        word=word,
        code=code,
        prefix=(codes[0]["prefix"] or "") if code else "",
        padded=bool(code and codes[0]["number"].startswith("0")),
        says_nothing=bool(_SAYS_NOTHING.fullmatch(text)),
        families=named,
    )


def _plain(text: str) -> str:
    """Return the words of a text without wavelengths, punctuation and words that do not tell bands apart."""
    words = " ".join(re.sub(r"[^a-z0-9]+", " ", _WAVELENGTH.sub(" ", text)).split())
    return " ".join(_NOISE.sub(" ", words).split())


def _word(text: str) -> str | None:
    """Return the band name in a description without its codes: `(Red)`, `: near-infrared`, `665 nm`."""
    wavelengths = list(_WAVELENGTH.finditer(text))
    words = " ".join(re.sub(r"[^a-z0-9]+", " ", _WAVELENGTH.sub(" ", text)).split())
    for candidate in (words, words.replace(" ", ""), _plain(text)):
        if candidate in BAND_NAMES or candidate in _SYNONYMS:
            return _SYNONYMS.get(candidate, candidate)
    if words or len(wavelengths) != 1:
        return None
    length = float(wavelengths[0][1]) * (1 if wavelengths[0][2].startswith("n") else 1000)
    return next((name for low, high, name in _CENTERS if low <= length <= high), None)


def _by_position(parsed: list[_Description], colors: Sequence[str], sensor: str) -> tuple[str, ...] | None:
    """Return the bands of a PlanetScope or RapidEye file whose descriptions say nothing and whose colors agree."""
    order = _ORDERS.get(sensor.removesuffix("-sr"), {}).get(len(parsed))
    if order is None or not all(each.says_nothing for each in parsed):
        return None
    agrees = all(color == name for color, name in zip(colors, order, strict=True) if color in RGB)
    return order if agrees else None


def _families(
    parsed: list[_Description],
    evidence: list[frozenset[CodeFamily]],
    sensor: str,
    path: str,
    tags: Mapping[str, str],
    display_name: str,
) -> tuple[CodeFamily, ...]:
    """Return the families that may have written the codes; all of them translate every code alike.

    Raises:
        BadScene: They do not, or none of them fits.
    """
    codes = [each for each in parsed if each.code and any(each.code in family.codes for family in FAMILIES)]
    if not codes:
        return ()
    landsat_codes = any(each.prefix in ("sr", "st") for each in codes)
    own = [each.families for each in codes if each.families]
    stated = [*families_of(sensor, path, tags, landsat_codes=landsat_codes), *own]
    fitting = [family for family in FAMILIES if _fits(family, codes, stated=bool(stated))]
    possible = _intersect(frozenset(fitting), [*stated, *evidence])
    if not stated:
        possible = _intersect(possible, [_complete(codes)])
    families = tuple(family for family in FAMILIES if family in possible)
    readings = {tuple(_without_word(each, family) for each in codes) for family in families}
    if len(readings) == 1:
        return families
    named = sorted({family.title for group in stated for family in group})
    raise BadScene(
        "the band codes have several readings" if families else "the band codes do not fit the sensor",
        subject=display_name,
        found=", ".join(f"{each.prefix.upper()}_{each.code}".lstrip("_") for each in codes)
        + (f" of {', '.join(named)}" if named else ""),
        expected="a sensor in the file's name or tags (LT05, LE07, LC08, Sentinel-2, HLS.L30), and its codes",
        next_step=_lines(parsed, families or tuple(fitting) or FAMILIES),
    )


def _fits(family: CodeFamily, codes: list[_Description], *, stated: bool) -> bool:
    """Return whether a family has all codes, as they are written, and no other word for one of them."""
    for each in codes:
        name = family.codes.get(each.code or "")
        if name is None or (each.prefix == "sr" and (family, name) == (TM, "lwir")):
            return False
        if each.word in (*RGB, NIR) and name != each.word:
            return False
        if each.prefix in ("sr", "st") and family is S2:
            return False
        if each.padded and not stated and (family is TM or (family is OLI and name == "pan")):
            return False  # only Sentinel-2 and HLS write B04, and HLS L30 has no panchromatic band
    return True


def _intersect(families: frozenset[CodeFamily], more: Sequence[frozenset[CodeFamily]]) -> frozenset[CodeFamily]:
    for each in more:
        families = families & each
    return families


def _complete(codes: list[_Description]) -> frozenset[CodeFamily]:
    """Return the family whose product has exactly these codes, else all families."""
    reflective = [each for each in codes if each.prefix != "st"]
    prefixes, found = {each.prefix for each in reflective}, frozenset(each.code for each in reflective)
    return next(
        (frozenset([family]) for prefix, complete, family in _COMPLETE if prefixes == {prefix} and found == complete),
        frozenset(FAMILIES),
    )


def _without_word(each: _Description, family: CodeFamily) -> str | None:
    """Return the reading of a code; the same for all families where a word says it."""
    return each.word or family.codes.get(each.code or "")


def _name_of(each: _Description, families: tuple[CodeFamily, ...], color: str) -> str | None:
    if each.word or (each.code and families):
        name = each.word or families[0].codes.get(each.code or "")
        return None if name in _THERMAL else name
    return color if each.says_nothing and color in RGB else None


def _lines(parsed: list[_Description], families: tuple[CodeFamily, ...]) -> str:
    """Return the `--bands` argument for each family that has red, green and blue among the codes."""
    lines = []
    for family in families:
        names = [each.word or family.codes.get(each.code or "") for each in parsed]
        if all(band in names for band in RGB):
            line = ",".join(name if name in (*RGB, NIR) else "-" for name in names)
            lines.append(f"--bands {line} if {family.title}")
        else:
            lines.append(f"as {family.title} the file lacks {', '.join(band for band in RGB if band not in names)}")
    return f"Say which: {'; '.join(lines)}."
