"""When a scene was acquired: the first date that can be true."""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from cloudseg.bands import FIRST_ACQUISITION
from cloudseg.records import utc_iso

_log = logging.getLogger(__name__)
IGNORED_TAG: Final = "acquired_at_ignored"
_CLOCKS: Final = timedelta(days=1)
"""How far the clock of a sender may be ahead: a local time that is given as UTC is at most 14 hours off."""


def choose_time(
    found: Iterable[datetime | None], received_at: datetime, scene: str
) -> tuple[datetime | None, dict[str, str]]:
    """Return the acquisition time and the tags that say which one was ignored.

    A date before Landsat 1 or after the scene arrived is an error of whoever wrote it. The pixels may be good, so the
    scene is taken without it; its row says so.

    Args:
        found: dates of the scene, best first: file name or metadata, tags.
        received_at: when the scene arrived.
        scene: its name, for the log.
    """
    ignored: dict[str, str] = {}
    for moment in found:
        if moment is None:
            continue
        if FIRST_ACQUISITION <= moment <= received_at + _CLOCKS:
            return moment, ignored
        ignored.setdefault(IGNORED_TAG, utc_iso(moment))
        _log.warning(
            "%s: the acquisition time %s is ignored: it is before %s or later than now",
            scene,
            utc_iso(moment),
            FIRST_ACQUISITION.date(),
        )
    return None, ignored
