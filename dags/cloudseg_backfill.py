"""Make the masks of a new champion for older scenes, a budget each night.

**What it does.** `plan` writes which scenes get a mask of the champion this night, as rows of the catalog: those that
no earlier plan named, then scenes of labeled places, then the newest, until the budget is used. A date has one plan; a
second run on that date goes on with it. `predict` is mapped over the plan's batches. `finish` writes how far each month
of acquisition is, and switches readers to the champion's masks if they wait for that (`cloudseg readers show`: mode
`complete`) and every scene that they see has one. `check` fails and lists the scenes that have no mask.

**Started by** the schedule (04:30 UTC), or manually with params: budget, batch size.

**When there is nothing to do** (no champion yet, a budget of 0, or every scene has its mask) no batch runs; the reason
is in the log and in the XCom `skip` of `plan`. As long as readers see the newest champion always, which is the default,
`cloudseg_predict` masks all scenes right after a promotion, and little is left for this DAG.

**Updates** the asset `cloudseg.masks`, one event for each batch, and the asset `cloudseg.backfilled_months`, one event
with the partition key `YYYY-MM` for each month that the night masked scenes of.

**To stop it,** pause the DAG: batches that run are finished, no further one starts, and it goes on where it was. Or set
`CLOUDSEG_BACKFILL_MEGAPIXELS=0`.

**When it fails.** Clear the failed batch, or trigger again: the plan is the same and masks that exist are kept, so
nothing is predicted twice. Scenes that fail are planned again after all others.

**What it does not protect against.** A champion that is worse on old scenes: readers see it once it is complete. Use
`cloudseg readers switch --hold` to decide yourself, `cloudseg readers back` to return.

Example conf: `{"megapixels": 5000, "batch_size": 4}`
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, task
from cloudseg_dagkit import (
    GPU,
    MASKS,
    MONTHS,
    Json,
    all_done,
    announce_masks,
    announce_months,
    cloudseg_dag,
    doctor,
    form,
    night,
    progress_lines,
    show_as,
)


@cloudseg_dag(
    description="Masks of a new champion for older scenes, a budget each night",
    schedule="30 4 * * *",
    params={
        "megapixels": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Budget",
            description="Millions of scene pixels this night; empty: the setting. 0: none.",
            section="How much",
        ),
        "batch_size": Param(
            8,
            type="integer",
            minimum=1,
            maximum=256,
            title="Scenes per batch",
            description="One task masks one batch.",
            section="How much",
        ),
    },
)
def cloudseg_backfill() -> None:
    """Wire the tasks."""

    @task
    def plan() -> Json:
        from cloudseg import stages

        return stages.plan_backfill(night(), megapixels=form()["megapixels"]).as_json()

    @task
    def batches(backfill_id: str | None) -> list[Any]:
        from cloudseg import stages

        return list(stages.list_backfill(backfill_id, batch_size=form()["batch_size"]))

    @task(
        map_index_template="{{ shown_as }}",
        max_active_tis_per_dag=2,
        **GPU,
        execution_timeout=timedelta(hours=6),
        outlets=[MASKS],
        multiple_outputs=False,
    )
    def predict(batch: Json) -> Json:
        from cloudseg import stages

        show_as(batch["name"])
        return announce_masks(stages.predict_backfill(batch["backfill_id"], batch["first"], batch["count"]).as_json())

    # Also when a batch failed or none ran: what readers wait for may be complete nevertheless.
    @task(trigger_rule="all_done")
    def finish(weights_id: str | None, backfill_id: str | None) -> Json:
        from cloudseg import stages

        return progress_lines(stages.finish_backfill(weights_id, backfill_id=backfill_id).as_json())

    @task(outlets=[MONTHS])
    def announce(record: Json) -> None:
        announce_months(record)

    @task
    def check(records: list[Json]) -> Json:
        return all_done(records[:])  # a slice: to iterate asks for one XCom more than there is, an ERROR line

    planned: Any = plan()
    predicted: Any = predict.expand(batch=batches(planned["backfill_id"]))
    finished: Any = finish(planned["weights_id"], planned["backfill_id"])
    doctor() >> planned
    predicted >> finished
    announce(finished)
    check(predicted)


DAG = cloudseg_backfill()
