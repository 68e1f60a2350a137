"""What holds right now and should be an alert: each function looks at one thing and changes nothing.

What is counted comes from `cloudseg.monitor.figures`; here it is held against the limits.
"""

import shutil
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection

from cloudseg.catalog import figure_rows, model_rows
from cloudseg.drift.psi import LIMIT
from cloudseg.drift.report import list_drifted
from cloudseg.drift.weeks import sentence_of
from cloudseg.monitor import figures
from cloudseg.recipe import Recipe
from cloudseg.records import AlertSeverity, Json, Promotion
from cloudseg.registry import due

_NAMED: Final = 3
"""Ids that a sentence names."""
_OUTSIDE_MASKS: Final = 5
_OUTSIDE_SHARE: Final = 0.15
"""Masks, and share of the masks that were compared, of scenes outside of the training from which on it is an alert
(`find_outside_training`)."""


class Found(NamedTuple):
    """A condition that holds."""

    facts: Json
    subject: str = ""
    severity: AlertSeverity | None = None
    """None: that of the kind of alert."""
    happened_at: datetime | None = None
    """When it happened; None: it holds now."""


def find_missed_night(db: Connection, recipe: Recipe, moment: datetime, hours: float) -> list[Found]:
    """Return whether labels wait that no training has used for so long. Nights without a new label are no reason.

    Args:
        db: the catalog.
        recipe: that of the nightly training.
        moment: now.
        hours: for which they may wait, counted from the oldest new label or the newest verdict, whichever is later.
    """
    last, verdict = due.newest_compared_run(db, recipe), figure_rows.find_newest_verdict(db)
    learned = last.snapshot_id if last else None
    since = figures.measure_night(db, learned, verdict.created_at if verdict else None).due_since
    if since is None or moment - since <= timedelta(hours=hours):
        return []
    labels = figures.measure_labels(db, learned).new
    return [Found({"labels": labels, "hours": round(hours), "since": since.isoformat()})]


def find_late_masks(db: Connection, moment: datetime, minutes: float) -> list[Found]:
    """Return whether scenes that the model can mask have no mask of any model for so long.

    Args:
        db: the catalog.
        moment: now.
        minutes: for which a scene may wait, counted from its ingest or the first champion, whichever is later.
    """
    late = figures.list_late(db, moment - timedelta(minutes=minutes))
    if not late:
        return []
    return [Found({"scenes": len(late), "minutes": round(minutes), "name": late[0].name, "scene_id": late[0].scene_id})]


def find_quarantine_growth(db: Connection, moment: datetime, files: int) -> list[Found]:
    """Return whether files went to quarantine within a day; critical if they are more than those that became scenes.

    Args:
        db: the catalog.
        moment: now.
        files: how many are an alert.
    """
    day = figures.measure_ingest(db, moment)
    bad, good = day.quarantine_last_day, day.scenes_last_day
    if bad < files:
        return []
    return [Found({"files": bad, "scenes": good}, severity="critical" if bad > max(good, _NAMED) else "warning")]


def find_full_disks(folders: Iterable[Path], percent: float) -> list[Found]:
    """Return the disks that are nearly full, once each; critical below half of the percentage.

    Args:
        folders: on the disks in question; those that do not exist are left out.
        percent: free part of a disk that is an alert.
    """
    disks: dict[int, Found] = {}
    for folder in folders:
        if not folder.is_dir():
            continue
        device, usage = folder.stat().st_dev, shutil.disk_usage(folder)
        free = 100 * usage.free / usage.total
        if free < percent and device not in disks:
            facts = {
                "folder": str(folder),
                "host": socket.gethostname(),
                "free": round(usage.free / 1e9, 1),
                "percent": round(free, 1),
            }
            severity: AlertSeverity = "critical" if free < percent / 2 else "warning"
            disks[device] = Found(facts, f"{facts['host']}:{folder}", severity)
    return list(disks.values())


def find_damage(damaged: Mapping[str, str | None]) -> list[Found]:
    """Return whether objects of the store are missing or damaged.

    Args:
        damaged: keys that were missing or damaged when they were last read.
    """
    if not damaged:
        return []
    first = ", ".join(sorted(damaged)[:_NAMED]) + (" ..." if len(damaged) > _NAMED else "")
    return [Found({"objects": len(damaged), "first": first})]


def find_drift(db: Connection) -> list[Found]:
    """Return whether the scenes of the last weeks, or the champion's masks of them, are past the limit of their drift.

    Only scenes whose brightness was measured count (`cloudseg drift`).
    """
    drifted = list_drifted(db, limit=LIMIT)
    sentences = "; ".join(sentence_of(week) for week in drifted)
    return [Found({"sentence": f"{sentences}.", "weeks": len(drifted)})] if drifted else []


def find_outside_training(db: Connection, moment: datetime) -> list[Found]:
    """Return whether many masks of the last week are of scenes that are not as bright as the training scenes.

    Of scenes like those of the training 2 % were outside, of the same scenes with another gain or offset 16 to 80 %
    (docs/decisions/0042_promise.md). If 4 % are outside, five masks that are more than 15 % of the compared ones come
    by chance in 1 % of the weeks at most (binomial distribution, 33 masks; less with any other number).

    Args:
        db: the catalog.
        moment: now.
    """
    found = figure_rows.count_radiometry(db, moment - figures.WEEK)
    if found.outside < _OUTSIDE_MASKS or found.outside <= _OUTSIDE_SHARE * found.compared:
        return []
    return [Found({"outside": found.outside, "compared": found.compared, "name": str(found.newest_outside)})]


def find_champion_changes(db: Connection, moment: datetime) -> list[Found]:
    """Return the changes of the champion within a day, whoever made them and wherever.

    Args:
        db: the catalog.
        moment: now.
    """
    recent = [change for change in model_rows.list_promotions(db) if change.created_at > moment - figures.DAY]
    return [
        Found(_change_facts(db, change), f"generation {change.generation}", happened_at=change.created_at)
        for change in reversed(recent)
    ]


def _change_facts(db: Connection, change: Promotion) -> Json:
    verdict = model_rows.get_verdict(db, change.verdict_id) if change.verdict_id else None
    who = f"by {change.actor}" + (f": {change.reason}" if change.reason else "")
    if change.action == "rollback":
        reasons = f"Rolled back from {change.previous_weights_id} {who}"
    elif verdict is None:
        reasons = f"Promoted without a verdict {who}"
    else:
        reasons = "; ".join(map(str, verdict.body.get("reasons", [])))
    kept = change.model_dump(include={"generation", "action", "verdict_id", "actor", "reason"})
    return {"champion_id": change.weights_id, "reasons": reasons, **kept}
