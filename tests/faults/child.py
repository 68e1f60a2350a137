"""Code that runs in a child process: a pipeline step that may be killed, or the recovery that checks every guarantee.

Children are forked from a server that has imported torch and GDAL once and has nothing open, so each starts like a new
interpreter, without the seconds of importing. Results are returned in files only: a child may be killed at any moment.
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
from cloudseg.keys import CHAMPION_POINTER, PREFIXES, VERIFICATION, canonical_json
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import maintain
from tests.faults import steps
from tests.faults.commit_points import CommitPoints

_TIMESTAMPS = ("created_at", "decided_at", "effective_at", "finished_at", "promoted_at")
_SPEED = ("images_per_s", "seconds")
"""Times and speeds differ between two runs of the same steps."""
_NO_EXPIRY = 36_500
"""Days. Only orphans are to be collected."""
Contents = dict[str, Any]


def run_step(environment: dict[str, str], folder: str, step: str, ids: steps.Ids, kill_at: int | None) -> None:
    """Run one step with commit points traced, and write its result; the process dies at commit point `kill_at`."""
    work = _set_up(environment, Path(folder))
    points = CommitPoints(work / "trace", kill_at)
    points.install(type(open_runtime().store))
    found = getattr(steps, step)(ids)
    points.reach("the end")
    (work / "after.json").write_text(json.dumps({"ids": ids | found, "contents": read_contents(open_runtime())}))


def recover(
    environment: dict[str, str], folder: str, step: str, ids: steps.Ids, before: Contents, expected: Contents
) -> None:
    """Check what a kill left, repeat the step, compare with the undisturbed run and run maintenance.

    Every violated guarantee is written to `outcome.json`.
    """
    work = _set_up(environment, Path(folder))
    runtime, violations = open_runtime(), list[str]()

    left, report = read_contents(runtime), _maintain(dry_run=True)
    violations += [f"after the kill, a row without bytes: {key}" for key in report.missing]
    lost = [row for row in before["rows"]["label"] if row not in left["rows"]["label"]]
    # A removal deletes all rows of its scene in one transaction: those rows, or none.
    gone = [row for row in before["rows"]["label"] if row not in expected["rows"]["label"]]
    violations += [f"after the kill, a label is lost: {row}" for row in lost if lost != gone]
    violations += _check_champions(left)

    found = getattr(steps, step)(ids)
    violations += [
        f"repeated, it returns {found}" for name, value in found.items() if expected["ids"].get(name) != value
    ]
    after = read_contents(runtime)
    violations += _differences("after the restart", after, expected, exact=False)
    violations += [] if after["pointer"] == expected["pointer"] else [f"the pointer contains {after['pointer']}"]

    record = _maintain(dry_run=False)
    violations += [f"after maintenance, a row without bytes: {key}" for key in record.missing]
    violations += _differences("after maintenance", read_contents(runtime), expected, exact=True)

    getattr(steps, step)(ids)
    violations += _differences("repeated once more", read_contents(runtime), expected, exact=True)
    leftover = [path.name for path in sorted((work / "temporary").iterdir())]
    violations += [f"left behind in the temporary folder: {name}" for name in leftover]
    outcome = {"orphans": len(report.orphans), "collected": len(record.orphans), "violations": violations}
    (work / "outcome.json").write_text(json.dumps(outcome))


def _maintain(*, dry_run: bool) -> Any:
    return maintain(
        dry_run=dry_run,
        orphan_hours=0,
        checkpoint_days=_NO_EXPIRY,
        evaluation_days=_NO_EXPIRY,
        verify=True,
        as_of=steps.FAR_FUTURE,
    )


def _set_up(environment: dict[str, str], folder: Path) -> Path:
    """Set up what a new process would have: its environment, its own temporary folder, a file for its output."""
    for name in [name for name in os.environ if name.startswith(("CLOUDSEG_", "AWS_"))]:
        del os.environ[name]
    (folder / "temporary").mkdir(parents=True, exist_ok=True)
    os.environ.update(environment, TMPDIR=str(folder / "temporary"))
    tempfile.tempdir = None
    output = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.excepthook = traceback.print_exception
    return folder


def read_contents(runtime: Runtime) -> Contents:
    """Return every row without its timestamps, the checksum of every object, and the champion pointer."""
    with runtime.catalog.read() as db:
        rows = {
            name: sorted(canonical_json(_timeless(dict(row._mapping))).decode() for row in db.execute(select(table)))
            for name, table in tables.metadata.tables.items()
        }
    store = runtime.store
    objects = {
        key: hashlib.sha256(store.get(key)).hexdigest() for prefix in PREFIXES for key in store.list_keys(prefix)
    }
    objects.pop(VERIFICATION, None)
    pointer = _timeless(json.loads(store.get(CHAMPION_POINTER))) if objects.pop(CHAMPION_POINTER, None) else None
    return {"rows": rows, "objects": objects, "pointer": pointer}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(entry) for name, entry in value.items() if name not in (*_TIMESTAMPS, *_SPEED)}
    if isinstance(value, list):
        return [_timeless(entry) for entry in value]
    return value.hex() if isinstance(value, bytes) else str(value) if hasattr(value, "isoformat") else value


def _check_champions(contents: Contents) -> list[str]:
    """Check that generations are consecutive and each promotion names its predecessor."""
    history = sorted((json.loads(row) for row in contents["rows"]["promotion"]), key=lambda row: row["generation"])
    numbers = [row["generation"] for row in history]
    chained = all(later["previous_weights_id"] == earlier["weights_id"] for earlier, later in pairwise(history))
    if numbers == list(range(1, len(numbers) + 1)) and chained:
        return []
    return [f"the champions are not one consecutive history: {history}"]


def _differences(when: str, found: Contents, expected: Contents, *, exact: bool) -> list[str]:
    """Return the differences from an undisturbed run; with `exact`, additional objects count as well."""
    violations = []
    for table, rows in expected["rows"].items():
        violations += [f"{when}, {table} lacks {row[:300]}" for row in rows if row not in found["rows"][table]]
        violations += [f"{when}, {table} has {row[:300]}" for row in found["rows"][table] if row not in rows]
    for key, sha256 in expected["objects"].items():
        if found["objects"].get(key) != sha256:
            violations.append(f"{when}, {key} {'has other bytes' if key in found['objects'] else 'is missing'}")
    if exact:
        violations += [f"{when}, {key} is left over" for key in found["objects"] if key not in expected["objects"]]
    return violations
