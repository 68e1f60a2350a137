"""Switch readers to the masks of another model, or back.

**What it does.** `switch` writes one row of the catalog: from now on readers see the masks of `target`, in the views,
the STAC catalog, the map and Python (`cloudseg readers show`). With target `back` they see at once what they saw before
the newest decision, and stay there. The history has the name of who triggered the run, and the reason.

**Started by** the page *Cloud masks > Readers* in this UI, which shows before what would change, or manually with
params. Never by itself: the switch that waits for complete masks is `cloudseg_backfill`'s.

**When there is nothing to do** (readers see that already, by the same decision) the row that exists is kept.

**Updates** no asset: which masks exist does not change.

**When it fails.** A switch that would take scenes from readers is refused; the log says how many. Wait for
`cloudseg_backfill`, or set *Although scenes are lost*. Otherwise the log names the problem, and triggering again is
safe; for `back` only with the number of the decision to take back, which the page fills in.

**What it does not protect against.** A model that is worse: look at the change map of both first. And a rollback of the
champion is another decision (`cloudseg rollback`).

Example conf: `{"target": "v2", "hold": true, "reason": "frozen for the spring report"}`
"""

from airflow.sdk import Param, task
from cloudseg_dagkit import Json, cloudseg_dag, doctor, reader_decision, shortened


@cloudseg_dag(
    description="Switch readers to the masks of another model, or back",
    schedule=None,
    params={
        "target": Param(
            type="string",
            pattern="^(newest|back|v[0-9]{1,9}|w-[0-9a-z-]{1,60})$",
            title="Readers see",
            description="v31 or w-…: that model's masks. newest: always the champion's. back: what they saw before.",
        ),
        "hold": Param(
            False,
            type="boolean",
            title="Hold",
            description="Keep this model also when masks of a newer champion are complete.",
        ),
        "incomplete": Param(
            False,
            type="boolean",
            title="Although scenes are lost",
            description="Switch also if scenes that readers see have no mask of this model.",
        ),
        "sequence": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Decision to take back",
            description="Number of the newest decision, for target back; makes it safe to repeat.",
        ),
        "reason": Param(
            type="string",
            pattern="\\S",
            maxLength=500,
            title="Reason",
            description="Stored in the history.",
        ),
    },
)
def cloudseg_readers() -> None:
    """Wire the tasks."""

    @task
    def switch() -> Json:
        from cloudseg import stages

        decision = reader_decision()
        if "target" in decision:
            return shortened(stages.switch_readers(**decision).as_json())
        return shortened(stages.switch_readers_back(**decision).as_json())

    doctor() >> switch()


DAG = cloudseg_readers()
