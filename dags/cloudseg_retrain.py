"""Retrain the model, compare it with the champion, and promote it if it is better.

**What it does.** `plan` checks whether any label is new, and otherwise skips the run with a reason. `snapshot` freezes
the labeled chips under an id, which all later tasks use. `plan_training` skips the rest if the last run used the same
chips. `train` trains new weights, `evaluate` measures them on the held-out places and writes the report, `compare`
runs the gate against the champion, `promote` makes the weights champion if the verdict is PROMOTE.

**Started by** the schedule (02:00 UTC) or the asset `cloudseg.labels` (enough new labels), whichever is first, or
manually with params: recipe, time budget in minutes, force (train although nothing is new), approval (automatic or
manual). One run at a time; a second one waits.

**Manual approval.** With approval "ask", a verdict PROMOTE stops at `approve` (Browse > Required Actions). "Approve"
and "Reject" are recorded in the history with the user's name and reason; no later unattended run promotes rejected
weights. Who may answer is set by the variables `cloudseg_approvers` and `cloudseg_four_eyes` (Admin > Variables).
Without an answer within three days the champion is unchanged and the request stays open: `cloudseg_decide` answers it
later. HOLD and REJECT need no approval. If the request is shown again after a very quick answer, answer
again: Airflow 3.3 can lose an answer under load.

**Updates** the asset `cloudseg.champion` if the champion changed (starts `cloudseg_predict`). Otherwise `promote` is
skipped; the verdict's reasons are in its log and its XCom `reason`.

**Needs** the pool `gpu` with one slot for each GPU worker (`airflow pools set gpu 1 training`); a missing pool keeps
`train` waiting forever (`cloudseg doctor` cannot see Airflow's pools; the grid shows the task as scheduled). On
Celery, a worker of the queue `gpu`: `airflow celery worker -q gpu -c 1`.

**When it fails.** A killed worker costs the steps since the last checkpoint: the next try resumes (same run id). Empty
splits, a loss that is not finite, an unsuitable recipe: no retry; the message contains the next step. Clearing `train`
resumes as well.

**What it does not protect against.** Wrong labels that are new: they change the model if it still wins on the held-out
places. Labels of held-out places are never trained on, so a model cannot benefit from them.

Example conf: `{"recipe": "nightly", "minutes": 30, "force": true, "approval": "ask"}`
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, Param, TaskGroup, task
from cloudseg_dagkit import (
    CHAMPION,
    GPU,
    LABELS,
    RECIPES,
    Json,
    WaitingQuestion,
    announce_champion,
    cloudseg_dag,
    doctor,
    due_form,
    form,
    planned,
    training_id,
)
from cloudseg_decisions import APPROVE, REJECT, Approval, actor, answer, next_after_verdict


@cloudseg_dag(
    description="Snapshot, train, evaluate, compare, promote",
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 2 * * *", timezone="UTC"), assets=LABELS),
    params={
        "recipe": Param(
            "nightly",
            type="string",
            enum=RECIPES,
            values_display={
                "nightly": "nightly: the default",
                "baseline": "baseline: the first training of the baseline project, 100 images",
                "baseline_4200": "baseline_4200: its second training, up to 4200 images",
                "smoke": "smoke: seconds, to try the pipeline",
            },
            title="Recipe",
            description="How the model is made. Default: nightly.",
        ),
        "minutes": Param(
            None,
            type=["null", "number"],
            minimum=0.1,
            maximum=720,
            title="Minutes",
            description="Time budget of the training, 0.1 to 720. Default: the recipe's, which is 30 for nightly.",
        ),
        "force": Param(
            False,
            type=["null", "boolean"],
            title="Force",
            description="Train although nothing is new. Default: no, the run is skipped then.",
        ),
        "min_new_labels": Param(
            1,
            type=["null", "integer"],
            minimum=1,
            title="New labels",
            description="Skip when fewer labels are new. Default: 1.",
        ),
        "approval": Param(
            "auto",
            type="string",
            enum=["auto", "ask"],
            values_display={"auto": "promote automatically", "ask": "require manual approval"},
            title="Approval",
            description="What happens to a challenger whose verdict is PROMOTE. Default: promote automatically.",
        ),
    },
)
def cloudseg_retrain() -> None:
    """Wire the tasks."""

    @task
    def plan() -> Json:
        from cloudseg import stages

        return planned(stages.plan_retrain(**due_form()))

    @task
    def snapshot() -> Json:
        from cloudseg import stages

        return stages.snapshot(form()["recipe"]).as_json()

    @task
    def plan_training(snapshot_id: str) -> Json:
        from cloudseg import stages

        return planned(stages.plan_retrain(form()["recipe"], force=bool(form()["force"]), snapshot_id=snapshot_id))

    @task(**GPU, execution_timeout=timedelta(hours=14))
    def train(snapshot_id: str) -> Json:
        from cloudseg import stages

        values = form()
        return stages.train(
            snapshot_id, recipe=values["recipe"], run_id=training_id(), minutes=values["minutes"]
        ).as_json()

    @task(**GPU)
    def evaluate(weights_id: str, snapshot_id: str) -> Json:
        from cloudseg import stages

        return stages.evaluate(weights_id, snapshot_id=snapshot_id).as_json()

    @task(**GPU)
    def compare(weights_id: str, snapshot_id: str) -> Json:
        from cloudseg import stages

        if form()["approval"] != "ask":
            return stages.compare(weights_id, snapshot_id=snapshot_id).as_json()
        who = {"actor": actor(), "reason": training_id()}
        return stages.request_approval(weights_id, snapshot_id=snapshot_id, **who).as_json()

    @task.branch
    def ask_or_not(outcome: str) -> str:
        return next_after_verdict(outcome)

    @task(**GPU, outlets=[CHAMPION], trigger_rule="none_failed_min_one_success")
    def promote(weights_id: str, snapshot_id: str, outcome: str) -> Json:
        from cloudseg import stages

        given = answer(next_after_verdict(outcome))  # a branch task that skips another one has no result to read
        stage = getattr(stages, given.pop("stage"))
        return announce_champion(stage(weights_id, snapshot_id=snapshot_id, **given).as_json())

    frozen: Any = snapshot()
    weights: Any = train(frozen["snapshot_id"])
    # One box in the graph; without its name in the ids of the tasks, which the history of earlier runs has.
    with TaskGroup("decision", prefix_group_id=False, tooltip="Evaluate, compare with the champion, promote"):
        approve: Any = Approval(
            task_id="approve",
            subject="Promote the challenger to champion?",  # with names and figures once it is asked
            options=[APPROVE, REJECT],
            defaults=REJECT,
            notifiers=[WaitingQuestion()],
            params={
                "reason": Param(
                    None, type=["null", "string"], title="Why", description="Kept in the history with your name."
                )
            },
            response_timeout=timedelta(days=3),
            retry_delay=timedelta(seconds=10),  # a retry requests the approval again, while the user is still there
            execution_timeout=None,
        )
        evaluated: Any = evaluate(weights["weights_id"], frozen["snapshot_id"])
        verdict: Any = compare(weights["weights_id"], frozen["snapshot_id"])
        choice: Any = ask_or_not(verdict["outcome"])
        promotion = promote(weights["weights_id"], frozen["snapshot_id"], verdict["outcome"])
        evaluated >> verdict
        choice >> approve >> promotion
        choice >> promotion
    doctor() >> plan() >> frozen
    plan_training(frozen["snapshot_id"]) >> weights


DAG = cloudseg_retrain()
