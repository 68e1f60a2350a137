"""Maintain store and catalog: orphans, retention, pointer repair, missing objects; list what to label next.

**What it does.** Once a day: deletes objects that no row names (left by a process that was killed after writing the
bytes and before writing the row), old checkpoints of finished runs, and old evaluations of weights that were never
champion; repairs the pointer that is derived from rows (`models/champion.json`); and checks that every object that a
row names exists. It reads a part of the store, the one that was read longest ago, and compares checksums: with 30
parts every object is read once in 30 nights. Its record counts what it found and did. Ages are relative to the logical
time of the DAG run. Beside that, `worklist` lists the scenes whose label would teach the model most, with the reasons,
in its log and its XCom; `cloudseg worklist --out FOLDER` makes the same list ready for QGIS.

**Started by** the schedule (03:30 UTC), or manually with params: a dry run only reports.

**When it fails** with "objects are missing or damaged": the store lost bytes that rows reference. Restore them
from a backup under the same keys; their checksums are part of the keys. Nothing else is deleted meanwhile. `worklist`
changes nothing: when it fails, the other tasks are not affected.

**What it does not protect against.** A store without a backup. Objects that are younger than the grace period are left
alone even if no row names them, because their row may be about to be written.

Example conf: `{"dry_run": true}`
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, task
from cloudseg_dagkit import Json, began_at, cloudseg_dag, doctor, form, nothing_missing, shortened, worklist_lines


@cloudseg_dag(
    description="Orphans, retention, repair of pointers, missing objects",
    schedule="30 3 * * *",
    params={
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Report what would be removed and repaired; change nothing.",
        ),
        "verify": Param(
            False, type="boolean", title="Verify", description="Read every object and compare its checksum (slow)."
        ),
        "verify_parts": Param(
            30,
            type="integer",
            minimum=0,
            maximum=366,
            title="Parts of the store",
            description="Nights within which every object is read and compared with its checksum; 0 reads none.",
        ),
    },
)
def cloudseg_maintain() -> None:
    """Wire the task and its check."""

    @task(execution_timeout=timedelta(hours=6))
    def maintain() -> Json:
        from cloudseg import stages

        return shortened(stages.maintain(**form(), as_of=began_at()).as_json())

    @task
    def check(counts: Json, missing: list[str]) -> None:
        nothing_missing(counts["missing"], missing)

    @task(execution_timeout=timedelta(hours=2))
    def worklist() -> Json:
        from cloudseg import stages

        return worklist_lines(stages.worklist().as_json())

    record: Any = maintain()
    doctor() >> [record, worklist()]
    check(record["counts"], record["missing"])


DAG = cloudseg_maintain()
