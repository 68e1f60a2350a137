"""Stage: measure the brightness of new scenes, and compare the newest scenes and masks with the training scenes."""

from cloudseg.catalog import model_rows
from cloudseg.errors import InputError
from cloudseg.records import DriftRecord
from cloudseg.runtime import open_runtime
from cloudseg.stages import log

DRIFT_SCENES = 500
"""Scenes whose brightness is measured in one run: a minute on a local store."""


def drift(*, limit: int = DRIFT_SCENES, dry_run: bool = False) -> DriftRecord:
    """Compare the scenes of the last weeks, and their masks by the champion, with what the champion was trained on.

    Brightness is measured once for each scene, the training scenes first; a repeated call measures what is left, and
    nothing otherwise. `past_limit` has a sentence for each sensor and measure that has drifted.

    Args:
        limit: how many scenes are measured at most.
        dry_run: measure nothing; compare what was measured before.

    Raises:
        InputError: the limit is negative.
        StoreError: the store does not answer.
    """
    from cloudseg.drift.measure import measure_scenes
    from cloudseg.drift.report import drift_report

    log.started("drift", limit=limit, dry_run=dry_run)
    if limit < 0:
        raise InputError("not a number of scenes", subject="--limit", found=limit, expected="0 or more")
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        champion = model_rows.find_champion(db)
        snapshot_id = model_rows.get_weights(db, champion.weights_id).snapshot_id if champion else None
    measured = 0
    if not dry_run:
        measured = measure_scenes(
            runtime.store, runtime.catalog, snapshot_id, limit=limit, on_progress=log.progress("drift")
        )
    with runtime.catalog.read() as db:
        record = drift_report(db, measured=measured)
    log.ended("drift", record)
    return record
