"""Ingest scenes from a STAC API or a static STAC catalog.

**What it does.** It asks the catalog for items by area, time, cloud cover and collection, fetches of each new item the
bands that are needed, and adds it to the catalog like a scene of the inbox. With an area only the blocks of the files
that the area needs are read. An item that cannot be used goes to quarantine with a reason and never stops the others.
Known items are not fetched again, so the same form can be sent again to continue.

**Started by** hand, with params. `source` is `stac+https://…`: the landing page of an API, or a `catalog.json`.

**Updates** the asset `cloudseg.scenes` when scenes are new (starts `cloudseg_predict`). If nothing is new, the
announcing task is skipped; the reason is in its log and its XCom `reason`.

**What it does not protect against.** A catalog that describes its files wrongly: scale, offset, time and place are the
item's, and only implausible values are refused. A search that matches far more than was meant: `limit` bounds the new
scenes of one run.

**When it fails.** A server that does not answer, or answers with 429 or 503, is asked again with growing pauses, and
after that the task is retried; it continues where it ended. Items that could not be fetched are in the quarantine
(`cloudseg quarantine`) and are tried again by the next run. Hosts that are not public need
`CLOUDSEG_STAC_PRIVATE_HOSTS`.

Example conf: `{"source": "stac+https://earth-search.aws.element84.com/v1", "collections": ["sentinel-2-c1-l2a"],
"bbox": "3.0,50.4,3.2,50.6", "datetime": "2024-06", "max_cloud_cover": 60, "limit": 20}`
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, task
from cloudseg_dagkit import SCENES, Json, announce, cloudseg_dag, doctor, shortened, stac_search


@cloudseg_dag(
    description="Scenes from a STAC API or catalog into the catalog",
    schedule=None,
    params={
        "source": Param(
            "stac+https://earth-search.aws.element84.com/v1",
            type="string",
            pattern="^stac\\+https?://.+$",
            maxLength=1000,
            title="Source",
            description="stac+https://… of an API, a catalog, a collection or an item.",
            section="Which items",
        ),
        "collections": Param(
            ["sentinel-2-c1-l2a"],
            type="array",
            items={"type": "string"},
            maxItems=20,
            title="Collections",
            description="Ids, one per line; empty: all.",
            section="Which items",
        ),
        "bbox": Param(
            None,
            type=["null", "string"],
            pattern="^-?[0-9.]+(,-?[0-9.]+){3}$",
            title="Area",
            description="west,south,east,north in degrees; only this part is read. Empty: everywhere, whole files.",
            section="Which items",
        ),
        "datetime": Param(
            None,
            type=["null", "string"],
            maxLength=60,
            title="Time",
            description="2024-06-01, 2024-06, or a range: 2024-06-01/2024-06-30, 2024-06/..",
            section="Which items",
        ),
        "max_cloud_cover": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=100,
            title="Cloud cover at most",
            description="Percent, as the items state it; empty: any.",
            section="Which items",
        ),
        "limit": Param(
            20,
            type="integer",
            minimum=1,
            maximum=10000,
            title="New scenes at most",
            description="Known items do not count.",
            section="How much",
        ),
        "whole": Param(
            False,
            type="boolean",
            title="Whole files",
            description="Fetch the whole scenes that meet the area.",
            section="How much",
        ),
        "bands": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Bands",
            description="Names, one per line; empty: red, green, blue.",
            section="How much",
        ),
    },
)
def cloudseg_ingest_stac() -> None:
    """Wire the tasks."""

    @task(execution_timeout=timedelta(hours=12))
    def ingest() -> Json:
        from cloudseg import stages

        return shortened(stages.ingest(**stac_search()).as_json())

    @task(outlets=[SCENES])
    def announce_scenes(counts: Json, added: list[str]) -> None:
        announce(SCENES, counts["added"], added, "no scene is new")

    ingested: Any = ingest()
    doctor() >> ingested
    announce_scenes(ingested["counts"], ingested["added"])


DAG = cloudseg_ingest_stac()
