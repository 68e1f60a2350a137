"""Bring the static STAC catalog up to date, after a stage that added or changed what it shows.

The catalog follows from the rows, so a failure here does not fail the stage: it is logged, and the next stage of the
same month or `cloudseg maintain --apply` repairs it.
"""

import logging
import time
from collections.abc import Sequence

from cloudseg.errors import CloudsegError
from cloudseg.runtime import Runtime

_log = logging.getLogger(__name__)


def publish_stac(runtime: Runtime, *, scene_ids: Sequence[str] = (), everything: bool = False) -> None:
    """Bring models, snapshots and the months of some scenes up to date.

    Args:
        runtime: settings, store and catalog.
        scene_ids: scenes that are new or have a new mask.
        everything: all months; another champion changes which mask of a scene is the latest.
    """
    began = time.monotonic()
    try:
        changes = _publish(runtime, scene_ids, everything=everything)
    except CloudsegError as error:
        _log.error("the static STAC catalog is not up to date, `cloudseg maintain --apply` repairs it: %s", error)
        return
    except Exception:  # unforeseen: what the stage itself did is complete and must not be done again
        _log.exception("the static STAC catalog is not up to date, `cloudseg maintain --apply` repairs it")
        return
    _log.info("static STAC catalog: %d documents written in %.1f s", changes, time.monotonic() - began)


def _publish(runtime: Runtime, scene_ids: Sequence[str], *, everything: bool) -> int:
    from cloudseg.catalog import stac_rows
    from cloudseg.stac.links import Site
    from cloudseg.stac.static import publish

    months: dict[stac_rows.Collection, set[str]] = {}
    with runtime.catalog.read() as db:
        for collection in stac_rows.COLLECTIONS:
            few = everything or collection in ("models", "snapshots")
            months[collection] = set(stac_rows.overview(db, collection).months) if few else set()
        of_scenes = stac_rows.months_of_scenes(db, scene_ids)
    months["scenes"] |= of_scenes
    months["masks"] |= of_scenes
    return publish(Site(runtime.store, runtime.settings), runtime.catalog, months)
