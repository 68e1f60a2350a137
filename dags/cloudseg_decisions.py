"""What people decide in Airflow: who may approve, the question whether to promote, and the form of `cloudseg_decide`.

Two Airflow variables (menu Admin > Variables), both optional:

- `cloudseg_approvers`: who may approve or reject a challenger. A JSON list of user names, `["ada", "ben"]`, or, where
  the auth manager has ids that differ from the names (FAB), an object of names and ids, `{"ada": "3"}`. Without it, or
  empty: everybody whom Airflow lets answer.
- `cloudseg_four_eyes`: `true` if who triggered a training may not approve its result.

Both are read when the question is asked, when it is answered, and when `cloudseg_decide` promotes or declines. Not a
DAG file itself (`.airflowignore`).
"""

import json
import logging
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlsplit

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Variable, get_current_context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from cloudseg_dagkit import CHAMPION, LABELS, Json, announce_champion, form, training_id

log = logging.getLogger(__name__)
APPROVE, REJECT = "Approve", "Reject"
_PAGES = "/plugin/cloud_masks/cloudseg"
"""The pages of this service within the UI."""
APPROVERS, FOUR_EYES = "cloudseg_approvers", "cloudseg_four_eyes"


def actor() -> str:
    """Return who triggered this DAG run, as Airflow knows them; `airflow` for a run without a person."""
    person = _person()
    return f"airflow:{person}" if person else "airflow"


def _person() -> str | None:
    return get_current_context()["dag_run"].triggering_user_name


def approvers() -> dict[str, str]:
    """Return who may approve: names and ids; empty: everybody whom Airflow lets answer.

    Raises:
        AirflowFailException: the variable is neither a list of names nor an object of names and ids.
    """
    text = Variable.get(APPROVERS, default="")
    try:
        found = json.loads(text) if text.strip() else []
    except ValueError:
        found = None
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return {name: name for name in found}
    if isinstance(found, dict) and all(isinstance(user_id, str) for user_id in found.values()):
        return found
    raise AirflowFailException(
        f"variable {APPROVERS}: not a list of user names (found {text!r}, expected e.g. "
        '["ada", "ben"] or {"ada": "3"}). Change it in Admin > Variables, then clear this task.'
    )


def four_eyes() -> bool:
    """Return whether who triggered a training may not approve its result.

    Raises:
        AirflowFailException: the variable is neither `true` nor `false`.
    """
    text = str(Variable.get(FOUR_EYES, default="false")).strip().lower()
    if text not in ("true", "false"):
        raise AirflowFailException(
            f"variable {FOUR_EYES}: neither true nor false (found {text!r}). "
            "Change it in Admin > Variables, then clear this task."
        )
    return text == "true"


def check_approver(name: str | None, asked_by: str | None) -> None:
    """Check that a person may approve or reject a challenger.

    Args:
        name: the person's user name; None if a run without a person decides.
        asked_by: the actor who triggered the training (`airflow:ada`), None if nobody did.

    Raises:
        AirflowException: they may not.
    """
    allowed = approvers()
    if allowed and name not in allowed:
        raise AirflowException(
            f"{name or 'a run without a person'} may not approve or reject a challenger (expected one of "
            f"{', '.join(sorted(allowed))}: variable {APPROVERS}). Ask one of them."
        )
    if name is not None and asked_by == f"airflow:{name}" and four_eyes():
        raise AirflowException(
            f"{name} triggered this training and may not approve or reject its result (variable {FOUR_EYES}). "
            "Another person has to."
        )


class Approval(HITLOperator):
    """The question whether to promote: asks only those who may answer, and accepts the answer of no other.

    `ApprovalOperator` would not do: on "Reject" it skips `promote`, which records the rejection.
    """

    def execute(self, context: Any) -> Any:
        """Ask, with the verdict in words; without anybody who may answer, fail instead of waiting for nobody."""
        allowed = approvers()
        if four_eyes():
            allowed.pop(str(_person()), None)
            if approvers() and not allowed:
                raise AirflowFailException(
                    f"nobody may approve: {_person()} triggered this run and is the only one in the variable "
                    f"{APPROVERS} ({FOUR_EYES} is true). Add somebody in Admin > Variables, then clear this task."
                )
        self.subject, self.body = _subject_and_body(context)
        self.assigned_users = [{"id": user_id, "name": name} for name, user_id in allowed.items()] or None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Check who answered; an answer of somebody else is refused and the question asked again by the next try."""
        person = event.get("responded_by_user")
        if person is not None:
            check_approver(str(person["name"]), actor())
        return super().execute_complete(context, event)


def _subject_and_body(context: Any) -> tuple[str, str]:
    """Return subject and body (Markdown) of the question: names, figures, the verdict in words, and where to look."""
    ti = context["ti"]
    verdict = {
        key: ti.xcom_pull(task_ids="compare", key=key) for key in ("outcome", "challenger", "champion", "reasons")
    }
    weights_id, metrics = (
        ti.xcom_pull(task_ids="train", key="weights_id"),
        ti.xcom_pull(task_ids="evaluate", key="metrics"),
    )
    low, high = metrics.get("iou_bounds") or (None, None)
    interval = f" ({low:.3f} to {high:.3f})" if low is not None else ""
    lines = [
        f"**{verdict['challenger']}** against the champion **{verdict['champion'] or '(none yet)'}**: "
        f"verdict **{verdict['outcome']}**. IoU on held-out places {metrics['iou']:.3f}{interval}.",
        "",
        *(f"- {reason}" for reason in verdict["reasons"]),
        "",
        f"[Report and figures of {verdict['challenger']}]({ui_path(f'{_PAGES}/weights/{weights_id}')})"
        f" · [This run]({ui_path(_run_path(context))})",
    ]
    return f"Promote {verdict['challenger']} to champion?", "\n".join(lines)


def _run_path(context: Any) -> str:
    return f"/dags/{context['ti'].dag_id}/runs/{quote(context['run_id'], safe='')}"


def ui_path(path: str) -> str:
    """Return a path of the UI as links in it need it: behind the prefix of the base URL, if a proxy adds one."""
    return urlsplit(conf.get("api", "base_url", fallback=None) or "").path.rstrip("/") + path


def next_after_verdict(outcome: str) -> str:
    """Return the id of the next task: `approve` only if the run requires approval and the verdict is PROMOTE."""
    return "approve" if form()["approval"] == "ask" and outcome == "PROMOTE" else "promote"


def answer(choice: str) -> Json:
    """Return how to promote: the name of the stage (`stage`), and its `actor` and `reason` for the history.

    The answer is read only if it was asked for: an XCom that does not exist is an ERROR line of Airflow's.

    Args:
        choice: `approve` if the run asked. Airflow closes an unanswered request with its default option and without a
            user: that is not a decision, so the request stays open in the catalog.
    """
    approval = get_current_context()["ti"].xcom_pull(task_ids="approve") if choice == "approve" else None
    person = (approval or {}).get("responded_by_user")
    if approval is None or person is None:
        return {"stage": "promote_unattended", "actor": "airflow", "reason": training_id()}
    stage, default = ("promote", "approved") if approval["chosen_options"] == [APPROVE] else ("decline", "rejected")
    why = (approval.get("params_input") or {}).get("reason") or f"{default} in Airflow"
    return {"stage": stage, "actor": f"airflow:{person['name']}", "reason": f"{why} ({training_id()})"}


def decision_form() -> Json:
    """Return the form of `cloudseg_decide` as arguments of the stage `plan_decision`."""
    values = form()
    return {
        "decision": values["decision"],
        "subjects": values["about"] or [],
        "hold": bool(values["hold"]),
        "force": bool(values["force"]),
    }


def planned_decision(plan: Mapping[str, Any]) -> str:
    """Log what the decision would change, and return the id of the task that makes it.

    Raises:
        AirflowFailException: this person may not decide that.
    """
    for line in plan["changes"]:
        log.info("%s", line)
    if plan["decision"] in ("promote", "decline"):
        try:
            check_approver(_person(), plan["asked_by"])
        except AirflowException as error:
            raise AirflowFailException(str(error)) from None
    ti = get_current_context()["ti"]
    ti.xcom_push(key="changes", value=list(plan["changes"])[:20])
    ti.xcom_push(key="arguments", value=dict(plan["arguments"]))
    return str(plan["decision"])


def decided() -> Json:
    """Return the arguments of the stage that makes the decision: the ids that `check` found, and who and why."""
    arguments = get_current_context()["ti"].xcom_pull(task_ids="check", key="arguments")
    return {**cast(Json, arguments), "actor": actor(), "reason": str(form()["reason"]).strip()}


def announce_promotion(record: Json) -> Json:
    """Write the new champion into the asset's event and return the promotion.

    Raises:
        AirflowFailException: the verdict is not PROMOTE, so the champion is unchanged.
    """
    if not record["promoted"]:
        raise AirflowFailException(
            f"{record['challenger']} was not promoted, the champion stays ({record['outcome']}: "
            f"{'; '.join(record['reasons'])}). Decline it, or decide again with 'Override'."
        )
    return announce_champion(record)


def announce_rollback(promotion: Json) -> Json:
    """Write the earlier champion into the asset's event and return the row of the history."""
    get_current_context()["outlet_events"][CHAMPION].extra = {
        "champion_id": promotion["weights_id"],
        "verdict_id": promotion["verdict_id"],
    }
    return promotion


def announce_labels(record: Json) -> Json:
    """Write the labels into the asset's event and return the record.

    A repeated task, which finds them decided already, writes the event again: the first try may have ended before it.
    """
    label_ids = [*record["changed"], *record["unchanged"]]
    get_current_context()["outlet_events"][LABELS].extra = {"count": len(label_ids), "first": label_ids[:5]}
    return record
