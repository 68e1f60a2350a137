"""Places whose masks are nearly always overcast or nearly always clear although those of their region are not.

Bright static ground (snow, sand, salt, roofs) is what cloud masks are wrong about most often, and always at the same
places; a place that is never cloudy may be one where thin clouds are missed. Clouds cover about 55 % of the land at a
time (King et al. 2013, IEEE TGRS 51(7)), so ten overcast or ten clear scenes in a row are rare outside of a season.

Limits: masks of one season say nothing about the others; fog coasts and deserts are really like that, also within one
region; a small place inside a cloudy tile does not show, because a place is compared as a whole. So this names places
for a person to look at, and is no alarm.
"""

import math
from collections.abc import Sequence
from typing import Final

from cloudseg.catalog.drift_rows import PlaceFigures
from cloudseg.records import CloudPlace

OVERCAST, CLEAR = 0.9, 0.05
"""Cloud fraction from which on a mask is overcast, and up to which it is clear."""
MIN_MASKS: Final = 10
SHARE: Final = 0.9
"""Of the masks of a place: nearly always."""
REGION_DEGREES: Final = 10
"""A region is a cell of this many degrees of longitude and latitude."""
MIN_REGION_MASKS: Final = 20
REGION_BELOW, REGION_ABOVE = 0.75, 0.35
"""Mean cloud fraction of the rest of the region: below the first, 'always cloud' is suspicious, above the second,
'never cloud'."""


def list_suspects(places: Sequence[PlaceFigures]) -> list[CloudPlace]:
    """Return the places that stand out of their region (module docstring), those with most masks first."""
    regions: dict[tuple[int, int], list[PlaceFigures]] = {}
    for place in places:
        regions.setdefault(_region(place), []).append(place)
    found = [_suspect(place, regions[_region(place)]) for place in places if place.masks >= MIN_MASKS]
    return sorted((s for s in found if s is not None), key=lambda s: (-s.masks, s.place))


def _region(place: PlaceFigures) -> tuple[int, int]:
    return math.floor(place.lon / REGION_DEGREES), math.floor(place.lat / REGION_DEGREES)


def _suspect(place: PlaceFigures, region: Sequence[PlaceFigures]) -> CloudPlace | None:
    others = [other for other in region if other.place != place.place]
    masks = sum(other.masks for other in others)
    if masks < MIN_REGION_MASKS:
        return None
    mean = sum(other.mean * other.masks for other in others) / masks
    overcast, clear = place.overcast / place.masks, place.clear / place.masks
    always = overcast >= SHARE and mean < REGION_BELOW
    if not always and not (clear >= SHARE and mean > REGION_ABOVE):
        return None
    return CloudPlace(
        place=place.place,
        kind="always cloud" if always else "never cloud",
        masks=place.masks,
        share=overcast if always else clear,
        mean=place.mean,
        region_masks=masks,
        region_mean=mean,
    )
