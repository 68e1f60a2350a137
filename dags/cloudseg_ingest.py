"""Ingest new files from the inbox.

**What it does.** Every five minutes it reads the configured inbox (`CLOUDSEG_INBOX`) and catalogs what is new: scenes
and labels become canonical files in the store and rows in the catalog. Files that cannot become a scene or a label go
to quarantine with a reason and never stop the others. An empty inbox is not an error. Files stay where they are; the
same bytes are ingested once.

**Started by** the schedule (`*/5 * * * *`), or manually with params: another source, its layout, its band order.

**Updates** the asset `cloudseg.scenes` when scenes are new (starts `cloudseg_predict`), and the asset
`cloudseg.labels` when at least `min_new_labels` accepted labels are waiting that the newest nightly training has not
used (starts `cloudseg_retrain` with its default params). A corrected label is proposed and counts once somebody has
accepted it: `cloudseg labels list --state proposed`. If nothing is new, the announcing task is skipped; the reason is
in its log and its XCom `reason`.

**What it does not protect against.** A file that is still being copied: it is quarantined as truncated, and ingested by
the next run once it is complete. Move files into the inbox, do not copy them there. A label of the wrong scene: only
its grid is compared.

**When it fails.** An unreachable store or catalog is retried; nothing is lost, the next run continues where this one
ended. Watch the quarantine: `cloudseg quarantine`, or the page "Cloud masks".

Example conf: `{"source": "/data/new_tiles", "layout": "pairs", "bands": ["red", "green", "blue"]}`
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, task
from cloudseg_dagkit import (
    LABELS,
    SCENES,
    Json,
    announce,
    cloudseg_dag,
    doctor,
    form,
    may_retrain,
    planned,
    shortened,
)


@cloudseg_dag(
    description="Scenes and labels from the inbox into the catalog",
    schedule="*/5 * * * *",
    params={
        "source": Param(
            None,
            type=["null", "string"],
            title="Source",
            description="Folder or prefix to read; empty: the inbox.",
            section="What",
        ),
        "layout": Param(
            None,
            type=["null", "string"],
            title="Layout",
            description="How the files are laid out; empty: detected.",
            section="What",
        ),
        "bands": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Bands",
            description="Names of the bands in file order, one per line; empty: read from the files.",
            section="What",
        ),
        "min_new_labels": Param(
            50,
            type=["null", "integer"],
            minimum=1,
            title="New labels that start a retraining",
            description="Fewer wait for the nightly run; empty: all do.",
            section="Retraining",
        ),
    },
)
def cloudseg_ingest() -> None:
    """Wire the tasks."""

    @task(execution_timeout=timedelta(hours=6))
    def ingest() -> Json:
        from cloudseg import stages

        values = form()
        return shortened(stages.ingest(values["source"], layout=values["layout"], bands=values["bands"]).as_json())

    @task(outlets=[SCENES])
    def announce_scenes(counts: Json, added: list[str]) -> None:
        announce(SCENES, counts["added"], added, "no scene is new")

    @task
    def plan_labels(labelled: list[str]) -> Json:
        from cloudseg import stages

        return planned(stages.plan_retrain(min_new_labels=may_retrain(labelled, form()["min_new_labels"])))

    @task(outlets=[LABELS])
    def announce_labels(counts: Json, labelled: list[str]) -> None:
        announce(LABELS, counts["labelled"], labelled, "no label is new")

    ingested: Any = ingest()
    doctor() >> ingested
    announce_scenes(ingested["counts"], ingested["added"])
    plan_labels(ingested["labelled"]) >> announce_labels(ingested["counts"], ingested["labelled"])


DAG = cloudseg_ingest()
