"""Predict the cloud masks that are missing.

**What it does.** `plan` says how many workers there are: as many as the param, else the Airflow variable
`cloudseg_predict_workers`, else 2, but no more than scenes wait. `predict` is mapped over the workers. Each draws the
oldest scene that waits and that no other worker holds, publishes a class mask, a probability layer, a thumbnail and a
STAC item, and draws the next, until none is left or its minutes are over; then `more` triggers the next run with the
same params, so that a million scenes take many runs of few tasks. Which scenes wait: publishable ones without a mask of
the model whose masks readers see (the champion; if `cloudseg readers switch` named another one, new scenes get the
masks of both), or of other weights that are named. `check` fails and lists the scenes that have no mask.

**Started by** the asset `cloudseg.scenes` (new scenes) or `cloudseg.champion` (a new champion: every scene gets a mask
of it; with the switch of readers, `cloudseg_backfill` makes them instead, within a budget each night), or manually with
params: other weights, another number of workers, or a cleaning: then every scene without a mask that is cleaned just so
gets one, beside the mask that readers see. A threshold by name (careful, balanced, generous) is the number that each of
the weights has for it; `plan` fails where one has none.

**Other machines may help**: `cloudseg predict --drain` on any of them is one worker more
(docs/how-to/batch_system.md).

**When there is nothing to do** (no champion yet, or every scene has its mask or failed within its hold) `plan` is
skipped, and its log and its XCom `reason` contain the reason.

**Updates** the asset `cloudseg.masks`, one event for each worker.

**When it fails.** Clear the failed worker, or trigger again: masks that exist are left as they are, so nothing is
predicted twice and the bytes do not change. The scene of a worker that died is taken up by its retry, or by another
worker ten minutes later. A scene that failed is drawn again an hour later at the earliest, after each further failure
twice as long, at most a day; `cloudseg predict SCENE` tries it at once.

**What it does not protect against.** A champion that is poor on a new kind of scene: check the page "Cloud masks", and
roll back with `cloudseg rollback`. Masks of older champions stay published; nothing removes them.

Example conf: `{"workers": 4}`
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, task
from cloudseg_dagkit import (
    CHAMPION,
    GPU,
    MASKS,
    SCENES,
    Json,
    announce_drained,
    cleaning,
    cloudseg_dag,
    doctor,
    drained,
    form,
    go_on,
    show_as,
    skip,
    worker_name,
    workers,
)


@cloudseg_dag(
    description="Masks for all scenes that lack one",
    schedule=(SCENES | CHAMPION),
    params={
        "weights_id": Param(
            None,
            type=["null", "string"],
            pattern="^w-[0-9a-f]{20}$",
            title="Weights",
            description="Empty: those whose masks readers see.",
            section="What",
        ),
        "workers": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=1000,
            title="Workers",
            description="Tasks that draw scenes at the same time. Empty: variable cloudseg_predict_workers, else 2.",
            section="How",
        ),
        "minutes": Param(
            60,
            type="number",
            minimum=1,  # with less, a run might end before a worker draws a scene, and trigger the next one forever
            maximum=300,
            title="Minutes",
            description="Then a worker draws no further scene, and the next run goes on.",
            section="How",
        ),
        "threshold": Param(
            None,
            type=["string", "number", "null"],  # the first one makes it a line of text in the form
            pattern=r"^(careful|balanced|generous|0?\.[0-9]+|1(\.0+)?)$",
            minimum=0.004,
            maximum=1,
            examples=["careful", "balanced", "generous"],
            title="Threshold",
            description="Probability from which a pixel is cloud; or careful, balanced or generous, where the weights "
            "have such a threshold. Empty: the service's setting, else the model's.",
            section="Cleaning",
        ),
        "min_area_m2": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=1e12,
            title="Smallest cloud (m²)",
            description="Smaller clouds become clear. Empty: the service's setting.",
            section="Cleaning",
        ),
        "min_hole_m2": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=1e12,
            title="Smallest gap (m²)",
            description="Smaller gaps in clouds become cloud. Empty: the service's setting.",
            section="Cleaning",
        ),
        "buffer_m": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=20_000,
            title="Buffer (m)",
            description="Clouds are widened by this. Empty: the service's setting.",
            section="Cleaning",
        ),
    },
)
def cloudseg_predict() -> None:
    """Wire the tasks."""

    @task
    def plan() -> list[Any]:
        from cloudseg import stages

        planned = stages.plan_drain(workers(), weights_id=form()["weights_id"], **cleaning())
        return list(planned) or skip("nothing to mask: no champion yet, or every scene has its mask or just failed")

    @task(
        map_index_template="{{ shown_as }}",
        **GPU,
        execution_timeout=timedelta(hours=6),
        outlets=[MASKS],
        multiple_outputs=False,
    )
    def predict(worker: Json) -> Json:
        from cloudseg import stages

        show_as(worker["name"])
        chosen = {name: form()[name] for name in ("weights_id", "minutes")}
        return announce_drained(stages.drain(worker=worker_name(), **chosen, **cleaning()).as_json())

    @task
    def check(records: list[Json]) -> Json:
        return drained(records[:])  # a slice: to iterate asks for one XCom more than there is, an ERROR line

    @task
    def more(records: list[Json]) -> None:
        go_on(records[:])

    planned: Any = plan()
    predicted: Any = predict.expand(worker=planned)
    doctor() >> planned
    check(predicted)
    more(predicted)


DAG = cloudseg_predict()
