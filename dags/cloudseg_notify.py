"""Metrics through Airflow's own statistics; notifications by webhook and mail.

Both are configured in Airflow: section `[metrics]`, and the connections `cloudseg_webhook` (http) and
`cloudseg_mail` (smtp, with the recipients in the extra `to`). Neither may fail a task: a notification that
cannot be sent is logged. Not a DAG file itself (`.airflowignore`).
"""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk.observability import stats
from cloudseg_dagkit import find_connection

Json = dict[str, Any]
log = logging.getLogger(__name__)
WEBHOOK, MAIL = "cloudseg_webhook", "cloudseg_mail"
_TIMEOUT_S = 15
_SECONDS_PER_HOUR = 3600


def emit_metrics_and_notify(task_id: str, record: Any) -> None:
    """Emit the metrics of a task that succeeded, and send notifications about important results.

    Args:
        task_id: id of the task.
        record: return value of the task.
    """
    if isinstance(record, Mapping) and task_id in _REPORTERS:
        _REPORTERS[task_id](record)


def _ingested(record: Mapping[str, Any]) -> None:
    counts = record["counts"]
    stats.incr("cloudseg.scenes", counts["added"])
    stats.incr("cloudseg.labels", counts["labelled"])
    stats.incr("cloudseg.quarantined", counts["quarantined"])
    if counts["quarantined"]:
        text = (
            f"{counts['quarantined']} files of {record['source']} went to quarantine: "
            "`cloudseg quarantine` lists the reasons."
        )
        notify("quarantine grows", text, {"quarantined": counts["quarantined"], "source": record["source"]})


def _trained(record: Mapping[str, Any]) -> None:
    stats.gauge("cloudseg.train.seconds", record["seconds"])
    if record["images_per_s"] is not None:
        stats.gauge("cloudseg.train.images_per_s", record["images_per_s"])


def _compared(record: Mapping[str, Any]) -> None:
    outcome = str(record["outcome"])
    stats.incr(f"cloudseg.verdict.{outcome.lower()}")
    if outcome == "REJECT":
        text = f"{record['challenger_id']} does not replace {record['champion_id'] or 'anything'}. " + " ".join(
            record["reasons"]
        )
        notify(
            "challenger rejected", text, {"challenger_id": record["challenger_id"], "verdict_id": record["verdict_id"]}
        )


def _promoted(record: Mapping[str, Any]) -> None:
    stats.incr("cloudseg.champion.changed")
    text = f"The champion is {record['champion_id']}. " + " ".join(record["reasons"])
    notify("champion changed", text, {"champion_id": record["champion_id"], "verdict_id": record["verdict_id"]})


def _predicted(record: Mapping[str, Any]) -> None:
    stats.incr("cloudseg.masks", record["created"])
    if record["created"]:
        stats.gauge(
            "cloudseg.masks_per_hour", round(record["created"] * _SECONDS_PER_HOUR / max(record["seconds"], 1e-3), 1)
        )


def _backfilled(record: Mapping[str, Any]) -> None:
    if record["weights_id"] is None:
        return
    stats.gauge("cloudseg.backfill.done", record["done"])
    stats.gauge("cloudseg.backfill.total", record["total"])
    if record["switched"]:
        text = f"Readers see the masks of {record['weights_id']}: every scene that they saw has one."
        notify("readers see a new model", text, {"weights_id": record["weights_id"]})


_REPORTERS = {
    "ingest": _ingested,
    "train": _trained,
    "compare": _compared,
    "promote": _promoted,
    "predict": _predicted,
    "finish": _backfilled,
}


def notify(event: str, text: str, facts: Json) -> None:
    """Send a notification through every channel that is configured: one JSON object to the webhook, one mail.

    Args:
        event: what happened, in a few words.
        text: one or two sentences.
        facts: ids and counts, JSON-able.
    """
    for send in (_send_webhook, _send_mail):
        try:
            send(event, text, facts)
        except Exception:  # an unreachable or misconfigured receiver must not fail a task that succeeded
            log.warning(
                "notification '%s' was not sent (%s)", event, send.__name__.removeprefix("_send_"), exc_info=True
            )


def _send_webhook(event: str, text: str, facts: Json) -> None:
    if find_connection(WEBHOOK) is None:
        return
    from airflow.providers.http.hooks.http import HttpHook

    body = {"service": "cloudseg", "event": event, "text": f"cloudseg: {event}. {text}", "facts": facts}
    HttpHook(method="POST", http_conn_id=WEBHOOK).run(json=body, extra_options={"timeout": _TIMEOUT_S})


def _send_mail(event: str, text: str, facts: Json) -> None:
    connection = find_connection(MAIL)
    if connection is None:
        return
    from html import escape

    from airflow.providers.smtp.hooks.smtp import SmtpHook

    lines = [text, *(f"{name}: {value}" for name, value in facts.items())]
    with SmtpHook(smtp_conn_id=MAIL) as mail:
        mail.send_email_smtp(
            to=connection.extra_dejson["to"],
            subject=f"cloudseg: {event}",
            html_content="<br>".join(escape(line) for line in lines),
        )
