"""Back up catalog and store every night, keep some copies, rehearse the restore once a week.

**What it does.** `back_up` copies the catalog and every object that its rows name into a folder of the date below
CLOUDSEG_BACKUP_FOLDER, and deletes the oldest copies. Each object that it copies is compared with its checksum; those
that the copy before has become hard links and are not read, so a copy costs what is new. `rehearse` restores the copy
into a temporary home, compares every object, and records seconds and bytes. It does so for the copies of Sundays, or
always, or never.

**Started by** the schedule (05:30 UTC, after the maintenance), or manually with params. Without CLOUDSEG_BACKUP_FOLDER
it is skipped, with the reason.

**What a copy holds.** Catalog and store, whatever servers they are on, in the layout of an embedded home:
`cloudseg restore FOLDER` restores it to any other. Not Airflow's own database, the inbox, or secrets.

**When it fails.** The store lacks or damaged an object that a row names: restore that from an older copy, which is not
touched by this. The disk of the copies is full: fewer copies, or a larger disk. Triggering again continues the copy of
its date.

**What it does not protect against.** A disk that fails with store and copies on it, and somebody who deletes both: put
the folder on another machine. A damaged file is shared by all copies that link to it; the rehearsal reads every file.

Example conf: `{"keep": 14, "rehearse": "always"}`
"""

from datetime import timedelta

from airflow.sdk import Param, task
from cloudseg_dagkit import Json, cloudseg_dag, doctor, form, night, planned


@cloudseg_dag(
    description="A copy of catalog and store each night, and the rehearsal of a restore",
    schedule="30 5 * * *",
    params={
        "keep": Param(
            7,
            type="integer",
            minimum=1,
            maximum=366,
            title="Copies",
            description="Copies that are kept, the new one included; 7 when not changed.",
        ),
        "rehearse": Param(
            "weekly",
            type="string",
            enum=["weekly", "always", "never"],
            title="Rehearse the restore",
            description="weekly: of the copies of Sundays. It needs room for the whole store in TMPDIR.",
        ),
    },
)
def cloudseg_backup() -> None:
    """Wire the tasks."""

    @task(execution_timeout=timedelta(hours=12))
    def back_up() -> Json:
        from cloudseg import stages

        return planned(stages.dated_backup(night(), keep=form()["keep"]))

    @task(execution_timeout=timedelta(hours=12))
    def rehearse() -> Json:
        from cloudseg import stages

        return planned(stages.rehearse_restore(night(), when=form()["rehearse"]))

    doctor() >> back_up() >> rehearse()


DAG = cloudseg_backup()
