"""Predict the cloud masks that are missing.

**What it does.** `plan` lists the publishable scenes that have no mask of the model whose masks readers see (the
champion; if `cloudseg readers switch` named another one, new scenes get the masks of both), or of other weights that
are named, in batches; at most 1000, so with very many scenes a batch is larger than its param. `predict` is mapped over
the batches, displayed by the names of their scenes, and publishes for every scene a class mask, a probability layer, a
thumbnail and a STAC item. `check` fails and lists the scenes that have no mask; all others are published by then.

**Started by** the asset `cloudseg.scenes` (new scenes) or `cloudseg.champion` (a new champion: every scene gets a mask
of it; with the switch of readers, `cloudseg_backfill` makes them instead, within a budget each night), or manually with
params: other weights, another batch size, or a cleaning: then every scene without a mask that is cleaned just so gets
one, beside the mask that readers see.

**When there is nothing to do** (no champion yet, or every scene has its mask) `plan` is skipped, and its log and its
XCom `reason` contain the reason.

**Updates** the asset `cloudseg.masks`, one event for each batch.

**When it fails.** Clear the failed batch, or trigger again: masks that exist are left as they are, so nothing is
predicted twice and the bytes do not change.

**What it does not protect against.** A champion that is poor on a new kind of scene: check the page "Cloud masks", and
roll back with `cloudseg rollback`. Masks of older champions stay published; nothing removes them.

Example conf: `{"batch_size": 4}`
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
    all_done,
    announce_masks,
    cleaning,
    cloudseg_dag,
    doctor,
    form,
    show_as,
    skip,
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
        "batch_size": Param(
            8,
            type="integer",
            minimum=1,
            maximum=256,
            title="Scenes per batch",
            description="One task masks one batch.",
            section="How",
        ),
        "threshold": Param(
            None,
            type=["null", "number"],
            minimum=0.004,
            maximum=1,
            title="Threshold",
            description="Probability from which a pixel is cloud. Empty: the service's setting, else the model's.",
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

        batches = stages.plan_predict(**form())
        return batches or skip("nothing to mask: there is no champion yet, or every publishable scene has its mask")

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
        record = stages.predict(batch["scene_ids"], weights_id=batch["weights_id"], **cleaning())
        return announce_masks(record.as_json())

    @task
    def check(records: list[Json]) -> Json:
        return all_done(list(records))

    planned: Any = plan()
    predicted: Any = predict.expand(batch=planned)
    doctor() >> planned
    check(predicted)


DAG = cloudseg_predict()
