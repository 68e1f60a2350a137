"""Decide: promote, decline, roll back, labels, quarantine, and what readers see.

**What it does.** One run is one decision of the person who triggers it. `check` looks up what it is about, writes into
its log what would change, and refuses what cannot be, before anything is changed. Then the task that has the name of
the decision makes it; all others are skipped. The catalog's history keeps the name of who triggered the run, and the
reason; Airflow's audit log has the run.

| decision | about |
|---|---|
| `promote`, `decline` | a model: `v31` or `w-…` |
| `roll_back` | the champion to replace: `v31`. The one before it becomes the champion again |
| `accept_label`, `reject_label`, `withdraw_label` | ids of labels (`lb-…`), or scenes with one label in question |
| `release` | ids of the quarantine (`qu-…`), or names of files in it; the next `cloudseg_ingest` reads them again |
| `switch_readers` | a model whose masks readers see, or `newest`: the newest champion, always |
| `switch_readers_back` | the number of the decision to take back (page *Readers*) |

**Started by** the buttons on the pages *Cloud masks* in this UI, which show before what would change, or manually with
params. Never by itself. Who may trigger it decides; `promote` and `decline` also obey the variables
`cloudseg_approvers` and `cloudseg_four_eyes` (Admin > Variables), like the question of `cloudseg_retrain`.

**When there is nothing to do** (it was decided so already) nothing is written, and the log says so.

**Updates** the asset `cloudseg.champion` (`promote`, `roll_back`), which starts `cloudseg_predict`, or
`cloudseg.labels` (`accept_label`, `withdraw_label`), which starts `cloudseg_retrain`.

**When it fails.** In `check`: nothing was changed; the log says what was found, what was expected and what to do, then
trigger again. In a later task: clear it, it is safe to repeat. `promote` and `decline` run in the pool `gpu`, because
they compare models that were not compared yet, and wait for a training there; `roll_back` does not.

**What it does not protect against.** A decision that is wrong: look at the report, the change map or the picture of
the label first. Rolling back does not switch readers who were switched to a certain model.

Example conf: `{"decision": "roll_back", "about": ["v31"], "reason": "v31 misses thin clouds over snow"}`
"""

from airflow.sdk import Param, task
from cloudseg_dagkit import CHAMPION, GPU, LABELS, Json, cloudseg_dag, doctor, shortened
from cloudseg_decisions import (
    announce_labels,
    announce_promotion,
    announce_rollback,
    decided,
    decision_form,
    planned_decision,
)


@task.branch
def check() -> str:
    """Check the decision and log what it would change; nothing is written."""
    from cloudseg import stages

    return planned_decision(stages.plan_decision(**decision_form()).as_json())


@task(**GPU, outlets=[CHAMPION])
def promote() -> Json:
    """Make a model the champion."""
    from cloudseg import stages

    return announce_promotion(stages.promote(**decided()).as_json())


@task(**GPU)
def decline() -> Json:
    """Reject a challenger."""
    from cloudseg import stages

    return stages.decline(**decided()).as_json()


@task(outlets=[CHAMPION])
def roll_back() -> Json:
    """Make the champion before this one the champion again."""
    from cloudseg import stages

    return announce_rollback(stages.rollback(**decided()).as_json())


@task(outlets=[LABELS])
def accept_label() -> Json:
    """Accept labels."""
    from cloudseg import stages

    return shortened(announce_labels(stages.accept_labels(**decided()).as_json()))


@task
def reject_label() -> Json:
    """Reject labels."""
    from cloudseg import stages

    return shortened(stages.reject_labels(**decided()).as_json())


@task(outlets=[LABELS])
def withdraw_label() -> Json:
    """Withdraw labels."""
    from cloudseg import stages

    return shortened(announce_labels(stages.withdraw_labels(**decided()).as_json()))


@task
def release() -> Json:
    """Let files leave the quarantine, so that they are read again."""
    from cloudseg import stages

    return shortened(stages.release_from_quarantine(**decided()).as_json())


@task
def switch_readers() -> Json:
    """Switch what readers see."""
    from cloudseg import stages

    return shortened(stages.switch_readers(**decided()).as_json())


@task
def switch_readers_back() -> Json:
    """Switch readers back."""
    from cloudseg import stages

    return shortened(stages.switch_readers_back(**decided()).as_json())


@cloudseg_dag(
    description="Promote, decline, roll back, labels, quarantine, what readers see",
    schedule=None,
    params={
        "decision": Param(
            type="string",
            enum=[
                "promote",
                "decline",
                "roll_back",
                "accept_label",
                "reject_label",
                "withdraw_label",
                "release",
                "switch_readers",
                "switch_readers_back",
            ],
            values_display={
                "promote": "promote: make a model the champion, if the verdict is PROMOTE",
                "decline": "decline: reject a challenger; no unattended run promotes it then",
                "roll_back": "roll back: the champion before this one becomes the champion again",
                "accept_label": "accept a label or a correction",
                "reject_label": "reject a label or a correction that waits",
                "withdraw_label": "withdraw a label that is in use",
                "release": "release files from the quarantine: they are read again",
                "switch_readers": "switch what readers see",
                "switch_readers_back": "switch back: readers see what they saw before",
            },
            title="Decision",
            description="What to decide.",
        ),
        "about": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "maxLength": 250},
            maxItems=200,
            title="About",
            description="One name a line: a model (v31), labels (lb-…) or scenes, files of the quarantine (qu-…), "
            "newest, or the number of a decision about readers.",
        ),
        "reason": Param(
            type="string",
            minLength=1,
            maxLength=500,
            pattern="\\S",
            title="Reason",
            description="Why; kept in the history with your name.",
        ),
        "hold": Param(
            False,
            type=["null", "boolean"],
            title="Hold",
            description="Only when switching readers to a model: keep it also when the masks of a newer champion are "
            "complete. Default: no.",
        ),
        "force": Param(
            False,
            type=["null", "boolean"],
            title="Override",
            description="Only to promote against the verdict or an earlier rejection, or to switch readers although "
            "they lose scenes. Default: no, such a decision is refused.",
        ),
    },
)
def cloudseg_decide() -> None:
    """Wire the tasks."""
    checked = check()
    doctor() >> checked
    checked >> [promote(), decline(), roll_back(), accept_label(), reject_label(), withdraw_label()]
    checked >> [release(), switch_readers(), switch_readers_back()]


DAG = cloudseg_decide()
