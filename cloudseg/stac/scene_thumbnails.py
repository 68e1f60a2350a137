"""Thumbnails of scenes in the static catalog: made when the item of a scene is published, never part of the scene.

They are documents of the catalog, like its items: they follow from the pixels and can be made anew, for scenes of
earlier releases too.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from cloudseg import keys
from cloudseg.catalog import Catalog, stac_rows
from cloudseg.catalog.mask_search import load_rows
from cloudseg.errors import CloudsegError, ObjectExists
from cloudseg.raster.thumbnail import make_scene_thumbnail
from cloudseg.records import Scene
from cloudseg.storage import Store

_log = logging.getLogger(__name__)


def add_thumbnails(
    store: Store,
    catalog: Catalog,
    month: str,
    scene_ids: Sequence[str],
    *,
    listed: Collection[str] | None = None,
    dry_run: bool = False,
    run: Callable[..., Any] = map,
) -> int:
    """Make the thumbnails that scenes of a month lack and return how many there were.

    A scene that cannot be read has none, which is logged; `maintain --verify` says what is wrong with it.

    Args:
        store: holds the scenes.
        catalog: of their rows.
        month: in which they were acquired.
        scene_ids: the scenes.
        listed: the keys that the month has in the store, None if unknown.
        dry_run: make nothing, only count.
        run: `map` of a pool of threads.

    Raises:
        StoreError: the store does not answer.
    """
    made = 0
    for at in range(0, len(scene_ids), stac_rows.PAGE):
        with catalog.read() as db:
            scenes = [row.scene for row in load_rows(db, "scenes", scene_ids[at : at + stac_rows.PAGE])]
        lacking = [scene for scene in scenes if not _is_there(store, month, scene.scene_id, listed)]
        made += len(lacking) if dry_run else sum(run(lambda scene: _add(store, month, scene), lacking))
    return made


def _is_there(store: Store, month: str, scene_id: str, listed: Collection[str] | None) -> bool:
    key = keys.stac_thumbnail(month, scene_id)
    return store.exists(key) if listed is None else key in listed


def _add(store: Store, month: str, scene: Scene) -> bool:
    try:
        # A thumbnail that is larger than the scene would be no help.
        data = make_scene_thumbnail(store.gdal_path(scene.key), most_bytes=scene.size)
        store.put(keys.stac_thumbnail(month, scene.scene_id), data)
    except ObjectExists:  # another process was faster
        return False
    except CloudsegError as error:
        if error.retry_helps:
            raise
        _log.warning("no thumbnail of scene %s: %s", scene.scene_id, error)
        return False
    return True
