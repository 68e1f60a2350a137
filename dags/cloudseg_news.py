"""What the service says about itself: metrics through Airflow's own statistics, news to people by webhook and mail.

Both are configured from outside: `[metrics]` of Airflow, and the Airflow connections `cloudseg_webhook` (http) and
`cloudseg_mail` (smtp, with the receivers in the extra `to`). Neither may cost a task its result: what cannot be told is
logged. Not a DAG file itself (`.airflowignore`).
"""

import logging
from collections.abc import Mapping
from typing import Any

from airflow.sdk.observability import stats
from cloudseg_dagkit import find_connection

Json = dict[str, Any]
log = logging.getLogger(__name__)
WEBHOOK, MAIL = "cloudseg_webhook", "cloudseg_mail"
_ANSWER_S = 15
_SECONDS_AN_HOUR = 3600


def report(task_id: str, record: Any) -> None:
    """Count what a task did and tell people what they want to know. `record` is what the task gave back."""
    if isinstance(record, Mapping) and task_id in _REPORTERS:
        _REPORTERS[task_id](record)


def _ingested(record: Mapping[str, Any]) -> None:
    counts = record["counts"]
    stats.incr("cloudseg.scenes", counts["added"])
    stats.incr("cloudseg.labels", counts["labelled"])
    stats.incr("cloudseg.quarantined", counts["quarantined"])
    if counts["quarantined"]:
        words = f"{counts['quarantined']} files of {record['source']} went to quarantine: `cloudseg quarantine` lists the reasons."
        tell("quarantine grows", words, {"quarantined": counts["quarantined"], "source": record["source"]})


def _trained(record: Mapping[str, Any]) -> None:
    stats.gauge("cloudseg.train.seconds", record["seconds"])
    if record["images_per_s"] is not None:
        stats.gauge("cloudseg.train.images_per_s", record["images_per_s"])


def _judged(record: Mapping[str, Any]) -> None:
    outcome = str(record["outcome"])
    stats.incr(f"cloudseg.verdict.{outcome.lower()}")
    if outcome == "REJECT":
        words = f"{record['challenger_id']} does not replace {record['champion_id'] or 'anything'}. " + " ".join(
            record["reasons"]
        )
        tell(
            "challenger rejected", words, {"challenger_id": record["challenger_id"], "verdict_id": record["verdict_id"]}
        )


def _promoted(record: Mapping[str, Any]) -> None:
    stats.incr("cloudseg.champion.changed")
    words = f"The champion is {record['champion_id']}. " + " ".join(record["reasons"])
    tell("champion changed", words, {"champion_id": record["champion_id"], "verdict_id": record["verdict_id"]})


def _predicted(record: Mapping[str, Any]) -> None:
    stats.incr("cloudseg.masks", record["created"])
    if record["created"]:
        stats.gauge(
            "cloudseg.masks_per_hour", round(record["created"] * _SECONDS_AN_HOUR / max(record["seconds"], 1e-3), 1)
        )


_REPORTERS = {"ingest": _ingested, "train": _trained, "judge": _judged, "promote": _promoted, "predict": _predicted}


def tell(event: str, words: str, facts: Json) -> None:
    """Tell people by every way that is configured: one JSON object to the webhook, one mail."""
    for way in (_by_webhook, _by_mail):
        try:
            way(event, words, facts)
        except Exception:  # whoever listens may be down, moved or wrong: that is no reason to lose what the task did
            log.warning("nobody was told that %s (%s)", event, way.__name__.removeprefix("_by_"), exc_info=True)


def _by_webhook(event: str, words: str, facts: Json) -> None:
    if find_connection(WEBHOOK) is None:
        return
    from airflow.providers.http.hooks.http import HttpHook

    body = {"service": "cloudseg", "event": event, "text": f"cloudseg: {event}. {words}", "facts": facts}
    HttpHook(method="POST", http_conn_id=WEBHOOK).run(json=body, extra_options={"timeout": _ANSWER_S})


def _by_mail(event: str, words: str, facts: Json) -> None:
    connection = find_connection(MAIL)
    if connection is None:
        return
    from html import escape

    from airflow.providers.smtp.hooks.smtp import SmtpHook

    lines = [words, *(f"{name}: {value}" for name, value in facts.items())]
    with SmtpHook(smtp_conn_id=MAIL) as mail:
        mail.send_email_smtp(
            to=connection.extra_dejson["to"],
            subject=f"cloudseg: {event}",
            html_content="<br>".join(escape(line) for line in lines),
        )
