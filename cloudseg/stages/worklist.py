"""Stage: list what to label next."""

import time
from pathlib import Path

from cloudseg.catalog import model_rows, worklist_rows
from cloudseg.errors import InputError
from cloudseg.records import WorklistRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log

_LARGEST_COUNT = 1000


def worklist(
    *, count: int = 20, out: str | None = None, weights_id: str | None = None, megapixels: int = 2000
) -> WorklistRecord:
    """Return the scenes and windows whose label would teach the model most, and write them as a folder for QGIS.

    Nothing is predicted and the catalog is not changed. The same catalog gives the same list.

    Args:
        count: scenes on the list, at most.
        out: a new folder for QGIS; None: none is written.
        weights_id: whose masks are examined; by default the champion's.
        megapixels: millions of pixels to examine; scenes beyond that are left out.

    Returns:
        The list, empty if there is no champion yet or no mask.

    Raises:
        InputError: `count` or `megapixels` is below 1, or the folder is not empty.
        NotInCatalog: the weights are unknown.
    """
    began = time.monotonic()
    for name, value, most in (("count", count, _LARGEST_COUNT), ("megapixels", megapixels, 1_000_000)):
        if not 1 <= value <= most:
            raise InputError("out of range", subject=name, found=value, expected=f"1 to {most}")
    log.started("worklist", count=count, out=out, weights_id=weights_id, megapixels=megapixels)
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        examined_id = model_rows.get_weights(db, weights_id).weights_id if weights_id else None
        examined_id = examined_id or (champion.weights_id if champion else None)
        challenger = worklist_rows.find_challenger(db, examined_id) if examined_id else None
    from cloudseg.worklist import Worklist, build_worklist, write_folder

    made = Worklist.empty()
    if examined_id is not None:
        made = build_worklist(
            runtime.store,
            runtime.catalog,
            weights_id=examined_id,
            count=count,
            megapixels=megapixels,
            on_progress=log.progress("worklist"),
        )
    if out is not None:
        write_folder(runtime.store, runtime.catalog, made, Path(out))
    record = WorklistRecord(
        worklist_id=made.worklist_id,
        weights_id=examined_id,
        challenger_id=challenger.weights_id if challenger else None,
        masked=made.masked,
        examined=made.examined,
        items=made.items,
        failed=made.failed,
        folder=str(Path(out).absolute()) if out is not None else None,
        seconds=round(time.monotonic() - began, 3),
    )
    log.ended("worklist", record)
    return record
