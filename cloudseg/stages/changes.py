"""Stage: compare the masks of two models."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cloudseg.catalog import names
from cloudseg.errors import InputError
from cloudseg.records import ChangesRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log

_MOST_SCENES: Final = 100_000


def changes(before: str, after: str, *, out: str, scene_ids: Sequence[str] = (), limit: int = 1000) -> ChangesRecord:
    """Compare the masks of two models pixel by pixel, and write maps, figures and a page into a new folder.

    The catalog and the store are only read.

    Args:
        before: weights (`w-…`, `v31`, `champion`), usually the older ones.
        after: other weights.
        out: the new folder.
        scene_ids: only these scenes, by id or name; none: the latest that both have masked.
        limit: scenes at most.

    Raises:
        InputError: both weights are the same, the limit is out of range, or the folder is not empty.
        NotInCatalog: the weights are unknown, or there is no scene that both have masked.
        StoreUnreachable: the store does not answer.
    """
    began = time.monotonic()
    if not 1 <= limit <= _MOST_SCENES:
        raise InputError("out of range", subject="limit", found=limit, expected=f"1 to {_MOST_SCENES}")
    log.started("changes", before=before, after=after, out=out, scenes=list(scene_ids), limit=limit)
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        old, new = names.get_weights(db, before), names.get_weights(db, after)
        scene_ids = [scene_id for name in scene_ids for scene_id in names.list_ids(db, "scene", name)]
    if old.weights_id == new.weights_id:
        raise InputError("a model does not differ from itself", subject=old.weights_id, next_step="Name two models.")
    from cloudseg.changes import compare_models, counts_json

    found = compare_models(
        runtime.store,
        runtime.catalog,
        before=old,
        after=new,
        scene_ids=scene_ids,
        limit=max(limit, len(scene_ids)),
        folder=Path(out),
        on_progress=log.progress("changes"),
    )
    total = found.total()
    record = ChangesRecord(
        before_id=old.weights_id,
        after_id=new.weights_id,
        scenes=len(found.scenes),
        flipped_scenes=sum(change.counts.flipped > 0 for change in found.scenes),
        pixels=total.pixels,
        clear_to_cloud=total.clear_to_cloud,
        cloud_to_clear=total.cloud_to_clear,
        by_sensor={name: counts_json(counts) for name, counts in found.by_sensor().items()},
        by_ground={name: counts_json(counts) for name, counts in found.by_ground().items()},
        labels_added=sum(entry.added for entry in found.labels),
        labels_removed=sum(not entry.added for entry in found.labels),
        failed=found.failed,
        folder=str(Path(out).absolute()),
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("changes", record)
    return record
