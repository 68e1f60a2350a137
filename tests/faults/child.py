"""What runs in a child process.

A step of the circle that may be killed, or the recovery, in which every promise is looked at.

Children are forked from a server that has imported torch and GDAL once and has opened nothing, so each begins as a new
interpreter would, without the seconds. Nothing comes back but files: a child may die at any moment.
"""

import hashlib
import json
import os
import sys
import tempfile
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cloudseg.catalog import tables
from cloudseg.keys import CHAMPION_POINTER, PREFIXES, canonical_json
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import maintain
from tests.faults import steps
from tests.faults.points import Points

_TIMES = ("created_at", "decided_at", "finished_at", "promoted_at")
_PACE = ("images_per_s", "seconds")
"""What tells when and how fast, and so differs between two runs of the same."""
_EVER = 36_500
"""Days; only orphans are to be collected."""
Look = dict[str, Any]


def run_step(environment: dict[str, str], folder: str, step: str, ids: steps.Ids, kill_at: int | None) -> None:
    """Do one step, watched; write what came of it. Dies at point `kill_at`."""
    place = _begin(environment, Path(folder))
    points = Points(place / "trace", kill_at)
    points.watch(type(open_runtime().store))
    found = getattr(steps, step)(ids)
    points.reach("the end")
    (place / "after.json").write_text(json.dumps({"ids": ids | found, "look": look(open_runtime())}))


def recover(environment: dict[str, str], folder: str, step: str, ids: steps.Ids, before: Look, expected: Look) -> None:
    """Look at what a kill left, do the step again, compare with the undisturbed run, clear up.

    Write down every broken promise.
    """
    place = _begin(environment, Path(folder))
    runtime, faults = open_runtime(), list[str]()

    left, seen = (
        look(runtime),
        maintain(orphan_hours=0, checkpoint_days=_EVER, evaluation_days=_EVER, verify=True, as_of=steps.FAR_AWAY),
    )
    faults += [f"after the kill, a row without bytes: {key}" for key in seen.missing]
    faults += [
        f"after the kill, a label is lost: {row}" for row in before["rows"]["label"] if row not in left["rows"]["label"]
    ]
    faults += _two_champions(left)

    found = getattr(steps, step)(ids)
    faults += [f"done again it gives {found}" for name, value in found.items() if expected["ids"].get(name) != value]
    after = look(runtime)
    faults += _differences("after the restart", after, expected, exact=False)
    faults += [] if after["pointer"] == expected["pointer"] else [f"the pointer says {after['pointer']}"]

    record = maintain(
        dry_run=False, orphan_hours=0, checkpoint_days=_EVER, evaluation_days=_EVER, verify=True, as_of=steps.FAR_AWAY
    )
    faults += [f"in the end, a row without bytes: {key}" for key in record.missing]
    faults += _differences("after maintenance", look(runtime), expected, exact=True)

    getattr(steps, step)(ids)
    faults += _differences("done once more", look(runtime), expected, exact=True)
    # torch makes the folder of its compiler's cache when it is imported, always under the same name.
    behind = [
        path.name for path in sorted((place / "temporary").iterdir()) if not path.name.startswith("torchinductor")
    ]
    faults += [f"left behind in the temporary folder: {name}" for name in behind]
    told = {"orphans": len(seen.orphans), "collected": len(record.orphans), "faults": faults}
    (place / "outcome.json").write_text(json.dumps(told))


def _begin(environment: dict[str, str], folder: Path) -> Path:
    """Set up what a new process would find: its environment, a temporary folder of its own, a file for what it says."""
    for name in [name for name in os.environ if name.startswith(("CLOUDSEG_", "AWS_"))]:
        del os.environ[name]
    (folder / "temporary").mkdir(parents=True, exist_ok=True)
    os.environ.update(environment, TMPDIR=str(folder / "temporary"))
    tempfile.tempdir = None
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.excepthook = traceback.print_exception
    return folder


def look(runtime: Runtime) -> Look:
    """Return every row without its times, the checksum of every object, and what the pointer says."""
    with runtime.catalog.read() as db:
        rows = {
            name: sorted(canonical_json(_timeless(dict(row._mapping))).decode() for row in db.execute(select(table)))
            for name, table in tables.metadata.tables.items()
        }
    store = runtime.store
    objects = {
        key: hashlib.sha256(store.get(key)).hexdigest() for prefix in PREFIXES for key in store.list_keys(prefix)
    }
    pointer = _timeless(json.loads(store.get(CHAMPION_POINTER))) if objects.pop(CHAMPION_POINTER, None) else None
    return {"rows": rows, "objects": objects, "pointer": pointer}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(entry) for name, entry in value.items() if name not in (*_TIMES, *_PACE)}
    if isinstance(value, list):
        return [_timeless(entry) for entry in value]
    return value.hex() if isinstance(value, bytes) else str(value) if hasattr(value, "isoformat") else value


def _two_champions(seen: Look) -> list[str]:
    history = sorted((json.loads(row) for row in seen["rows"]["promotion"]), key=lambda row: row["generation"])
    numbers = [row["generation"] for row in history]
    chained = all(later["previous_weights_id"] == earlier["weights_id"] for earlier, later in pairwise(history))
    return (
        []
        if numbers == list(range(1, len(numbers) + 1)) and chained
        else [f"the champions do not follow one another: {history}"]
    )


def _differences(when: str, found: Look, expected: Look, *, exact: bool) -> list[str]:
    """Name what differs from an undisturbed run; `exact`: no object too many either."""
    faults = []
    for table, rows in expected["rows"].items():
        faults += [f"{when}, {table} lacks {row[:300]}" for row in rows if row not in found["rows"][table]]
        faults += [f"{when}, {table} has {row[:300]}" for row in found["rows"][table] if row not in rows]
    for key, sha256 in expected["objects"].items():
        if found["objects"].get(key) != sha256:
            faults.append(f"{when}, {key} {'has other bytes' if key in found['objects'] else 'is missing'}")
    if exact:
        faults += [f"{when}, {key} is left over" for key in found["objects"] if key not in expected["objects"]]
    return faults
