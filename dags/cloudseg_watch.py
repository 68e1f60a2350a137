"""Look at the whole service and send alerts.

**What it does.** `watch` checks whether the service is operational, whether new labels or scenes wait too long, how
fast the quarantine grows, whether objects of the store are damaged, how full the disks of its worker are, whether the
scenes have drifted and whether the champion changed. What holds becomes an alert, what holds no more is resolved, and
the messages that are due are sent to the webhook and by mail: once when an alert begins, again when it gets worse or
still holds a day later, once when it ends. Messages that could not be sent before are tried again. `cloudseg alerts`
lists what is open. After it, where the service is operational, `drift` measures the brightness of new scenes, at most
500, for the next run of `watch`, and `verdict` asks Airflow from 06:00 UTC on whether the retraining of the night still
waits or runs: without a verdict that is an alert, too.

**Started by** the schedule (every 15 minutes), or manually.

**Updates** no asset.

**When it fails.** An unreachable store or catalog does not fail it: that is an alert, which is sent without a record in
the catalog. Triggering again is safe.

**What it does not protect against.** An Airflow that is down: nothing of it can say so. Watch its health endpoint from
another machine.

There is no form.
"""

from airflow.sdk import task
from cloudseg_dagkit import (
    Json,
    cloudseg_dag,
    doctor,
    late_night,
    send_alert,
    send_messages,
    shortened,
    where_to_look,
)


@cloudseg_dag(
    description="Alerts: what somebody should act on, sent once",
    schedule="*/15 * * * *",
    params={},
)
def cloudseg_watch() -> None:
    """Wire the tasks."""

    @task
    def watch() -> Json:
        from cloudseg import stages

        where = where_to_look()
        return send_messages(stages.watch(**where).as_json(), where["unrecorded"])

    @task
    def drift() -> Json:
        from cloudseg import stages

        return shortened(stages.drift().as_json())

    @task
    def verdict() -> None:
        from cloudseg import stages

        send_alert(stages.raise_missing_verdict(**late_night()))

    watch() >> doctor() >> [drift(), verdict()]


DAG = cloudseg_watch()
