"""Which sensor's band codes a file uses, by its product id, its name and its tags."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloudseg.bands import LANDSAT8_BANDS, LANDSAT_TM_BANDS, SENTINEL2_BANDS


@dataclass(frozen=True, eq=False)
class CodeFamily:
    """Sensors that share their band codes."""

    title: str
    """For messages."""
    codes: Mapping[str, str]
    """Band names by code without leading zero: `B4`, `B8A`."""


S2: Final = CodeFamily("Sentinel-2", {f"B{code[1:].lstrip('0')}": name for code, name in SENTINEL2_BANDS.items()})
OLI: Final = CodeFamily("Landsat 8-9", LANDSAT8_BANDS)
TM: Final = CodeFamily("Landsat 4-7", LANDSAT_TM_BANDS)
FAMILIES: Final = (TM, OLI, S2)

# Words of names and tags, between characters that are neither letters nor digits. HLS L30 has Landsat 8's codes.
_WORDS: Final = (
    (
        S2,
        re.compile(
            r"(?<![A-Z0-9])(?:S2[A-D]?|SENTINEL[-_ ]?2[A-D]?|HLS[._-]?S30"
            # Earth Engine's ids of images, and granules: 20230801T105621_20230801T105817_T31UDQ, T31UDQ_20230801T105621
            r"|\d{8}T\d{6}_\d{8}T\d{6}_T\d{2}[C-X][A-Z]{2}|T\d{2}[C-X][A-Z]{2}_\d{8}T\d{6})(?![A-Z0-9])",
            re.I | re.A,
        ),
    ),
    (
        OLI,
        re.compile(
            r"(?<![A-Z0-9])(?:L[CO]0[89]|L[CO][89]\d{13}[A-Z]{3}\d{2}|LANDSAT[-_ ]?0?[89](?:[-_ ]?[89])?|HLS[._-]?L30)"
            r"(?![A-Z0-9])",
            re.I | re.A,
        ),
    ),
    (
        TM,
        re.compile(
            r"(?<![A-Z0-9])(?:LE07|LT0[45]|L[ET][457]\d{13}[A-Z]{3}\d{2}|LANDSAT[-_ ]?0?[457](?:[-_ ]?[57])?)"
            r"(?![A-Z0-9])",
            re.I | re.A,
        ),
    ),
)
_SHORT_WORDS: Final = (
    (OLI, re.compile(r"(?<![A-Z0-9])L[89](?![A-Z0-9])", re.I | re.A)),
    (TM, re.compile(r"(?<![A-Z0-9])L[457](?![A-Z0-9])", re.I | re.A)),
)
"""`l8`: enough only beside codes that Landsat alone has."""
_TAGS: Final = re.compile(
    r"(?:.*[:_])?(?:SENSOR|SENSOR_ID|SPACECRAFT|SPACECRAFT_ID|SPACECRAFT_NAME|SATELLITE|SATELLITE_ID|PLATFORM|MISSION"
    r"|INSTRUMENTS?|CONSTELLATION|PRODUCT_ID|PRODUCT_URI|SCENE_ID)",
    re.I | re.A,
)
_TAG_WORDS: Final = (
    (S2, re.compile(r"(?<![A-Z0-9])MSI(?![A-Z0-9])", re.I | re.A)),
    (OLI, re.compile(r"(?<![A-Z0-9])OLI(?:[-_ ]?TIRS)?(?:[-_ ]?2)?(?![A-Z0-9])", re.I | re.A)),
    (TM, re.compile(r"(?<![A-Z0-9])E?TM\+?(?![A-Z0-9])", re.I | re.A)),
)
_ANY_LANDSAT: Final = re.compile(r"(?<![A-Z0-9])LANDSAT(?![A-Z0-9])", re.I | re.A)
_MAX_TEXT: Final = 500


def families_of(sensor: str, path: str, tags: Mapping[str, str], *, landsat_codes: bool) -> list[frozenset[CodeFamily]]:
    """Return what each source says about the sensor: the families that it allows; an empty list if nothing does.

    Args:
        sensor: The scene's sensor from a product id, or `unknown`.
        path: Scene and file name, with folders.
        tags: The file's tags.
        landsat_codes: Whether the descriptions have codes that Landsat alone has (`SR_B4`).
    """
    found = [_of_sensor(sensor), _of_path(path, landsat_codes=landsat_codes), _of_tags(tags)]
    return [families for families in found if families]


def is_sentinel2(path: str, tags: Mapping[str, str]) -> bool:
    """Return whether the name, a folder or a tag of a file says that it is from Sentinel-2, and nothing else does not.

    Args:
        path: Scene and file name, with folders.
        tags: The file's tags.
    """
    found = families_of("unknown", path, tags, landsat_codes=False)
    return bool(found) and all(families == {S2} for families in found)


def _of_sensor(sensor: str) -> frozenset[CodeFamily]:
    if sensor.startswith(("sentinel-2", "hls-s30")):
        return frozenset([S2])
    if sensor.startswith(("landsat-8", "landsat-9", "hls-l30")):
        return frozenset([OLI])
    return frozenset([TM]) if re.match(r"landsat-[457]", sensor) else frozenset()


def _of_path(path: str, *, landsat_codes: bool) -> frozenset[CodeFamily]:
    """Return the families that the last part of a path with any hint names."""
    words = (*_WORDS, *_SHORT_WORDS) if landsat_codes else _WORDS
    hints = (families_in(part, words) for part in reversed(path.split("/")))
    return next((found for found in hints if found), frozenset())


def families_in(text: str, words: Sequence[tuple[CodeFamily, re.Pattern[str]]] = _WORDS) -> frozenset[CodeFamily]:
    """Return the families that a text names; both of Landsat's for the word Landsat without a number."""
    found = frozenset(family for family, word in words if word.search(text[:_MAX_TEXT]))
    return found or (frozenset([TM, OLI]) if _ANY_LANDSAT.search(text[:_MAX_TEXT]) else frozenset())


def _of_tags(tags: Mapping[str, str]) -> frozenset[CodeFamily]:
    values = [value for name, value in tags.items() if _TAGS.fullmatch(name)]
    return frozenset().union(*(families_in(value, (*_WORDS, *_TAG_WORDS)) for value in values))
