"""Metrics through Airflow's own statistics; alerts by webhook and mail.

Both are configured in Airflow: section `[metrics]`, and the connections `cloudseg_webhook` (http) and
`cloudseg_mail` (smtp, with the recipients in the extra `to`). Neither may fail a task: a message that cannot be sent is
logged, and the next run of `cloudseg_watch` sends it. Not a DAG file itself (`.airflowignore`).
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf
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
        look(["quarantine-grows"])


def _trained(record: Mapping[str, Any]) -> None:
    stats.gauge("cloudseg.train.seconds", record["seconds"])
    if record["images_per_s"] is not None:
        stats.gauge("cloudseg.train.images_per_s", record["images_per_s"])


def _compared(record: Mapping[str, Any]) -> None:
    outcome = str(record["outcome"])
    stats.incr(f"cloudseg.verdict.{outcome.lower()}")
    if outcome == "REJECT":
        facts = {name: record[name] for name in ("challenger_id", "verdict_id")}
        words = {"champion_id": record["champion_id"] or "anything", "reasons": "; ".join(record["reasons"])}
        link = page_url(f"weights/{record['challenger_id']}")
        notify("challenger-rejected", str(record["verdict_id"]), facts | words, link=link)


def _champion_changed(_: Mapping[str, Any]) -> None:
    stats.incr("cloudseg.champion.changed")
    look(["champion-changed"])


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
        facts = {"weights_id": record["weights_id"]}
        notify("readers-switched", str(record["weights_id"]), facts, link=page_url("readers"))


_REPORTERS = {
    "ingest": _ingested,
    "train": _trained,
    "compare": _compared,
    "promote": _champion_changed,
    "roll_back": _champion_changed,
    "predict": _predicted,
    "finish": _backfilled,
}


def page_url(page: str = "") -> str:
    """Return the address of a page of the plugin, made from Airflow's setting `[api] base_url`."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080")
    return f"{base.rstrip('/')}/plugin/cloud_masks/cloudseg/{page}"


def notify(name: str, subject: str, facts: Json, *, link: str = "") -> None:
    """Record an alert and send the message about it, if one is due. Never fail: what cannot be sent is logged.

    Args:
        name: kind of alert (`cloudseg.monitor.alerts`).
        subject: what it is about; of one name and subject at most one alert is open.
        facts: values of the alert's sentence, JSON-able.
        link: page that shows it.
    """
    from cloudseg import stages

    try:
        deliver(stages.raise_alert(name, subject=subject, facts=facts, link=link))
    except Exception:  # an alert must not fail a task, nor hide why one failed
        log.exception("the alert '%s' about '%s' could not be raised", name, subject)


def look(names: list[str]) -> None:
    """Look at conditions at once instead of at the next run of `cloudseg_watch`, by the same measure. Never fail.

    Args:
        names: of the alerts.
    """
    from cloudseg import stages

    try:
        deliver(stages.watch(pages_url=page_url(), names=names).messages)
    except Exception:  # the watch looks again
        log.exception("cannot look at %s", ", ".join(names))


def end(name: str, subject: str, *, run_id: str, map_index: int) -> None:
    """Resolve an alert that a success ends, and send that. Never fail: the alert stays open otherwise.

    Args:
        name: kind of alert.
        subject: what it is about.
        run_id: DAG run of the success.
        map_index: part of a mapped task, -1 for others.
    """
    from cloudseg import stages

    try:
        deliver(stages.end_alert(name, subject=subject, run_id=run_id, map_index=map_index))
    except Exception as error:  # the next success ends it
        log.warning("cannot see whether the alert '%s' about '%s' ends: %s", name, subject, error)


def deliver(messages: Sequence[Mapping[str, Any]]) -> None:
    """Send messages through every channel that is configured, and record which channels took them."""
    for message in messages:
        if not message["recorded"] and _marker(message) in _markers():
            continue  # sent from this machine already, while the catalog did not answer
        taken = [name for name, send in _CHANNELS.items() if name in message["delivered"] or _try(name, send, message)]
        complete = len(taken) == len(_CHANNELS)
        if message["recorded"]:
            _record_sent(message, taken, complete=complete)
        elif complete:
            _mark(message)


def unrecorded() -> list[Json]:
    """Return the messages that this machine sent while the catalog did not answer."""
    return [json.loads(path.read_text("utf-8")) for path in _markers()]


def forget_unrecorded(messages: Sequence[Mapping[str, Any]]) -> None:
    """Forget messages that `unrecorded` returned: the catalog has them now. Others may have come since."""
    for message in messages:
        _marker(message).unlink(missing_ok=True)


def _try(name: str, send: Any, message: Mapping[str, Any]) -> bool:
    try:
        send(message)
    except Exception:  # an unreachable or misconfigured receiver must not fail a task that succeeded
        log.warning(
            "notification '%s' was not sent (%s), cloudseg_watch tries again", message["event"], name, exc_info=True
        )
        return False
    return True


def _record_sent(message: Mapping[str, Any], channels: list[str], *, complete: bool) -> None:
    from cloudseg import stages

    try:
        stages.record_sent(message["event_id"], state=message["state"], channels=channels, complete=complete)
    except Exception as error:  # at worst the message is sent again, with the same id
        log.warning("message %s was sent, and that could not be recorded: %s", message["event_id"], error)


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"cloudseg-alerts-{os.getuid()}"


def _marker(message: Mapping[str, Any]) -> Path:
    return _folder() / f"{message['event_id']}.json"


def _markers() -> list[Path]:
    """Return the files of messages; none where somebody else made the folder."""
    return sorted(_folder().glob("ev-*.json")) if _is_own_folder() else []


def _is_own_folder() -> bool:
    """Return whether the folder is there and this user made it: everybody may write into the one above it."""
    folder = _folder()
    return folder.is_dir() and folder.lstat().st_uid == os.getuid()


def _mark(message: Mapping[str, Any]) -> None:
    try:
        _folder().mkdir(mode=0o700, exist_ok=True)
        if not _is_own_folder():
            raise PermissionError(f"{_folder()} belongs to somebody else")
        # Under another name first: half a message, of a process that was killed, would fail every run of the watch.
        part = _folder() / f"{message['event_id']}.{os.getpid()}.part"
        part.write_text(json.dumps(message), encoding="utf-8")
        part.replace(_marker(message))
    except OSError as error:  # a full disk, or somebody else's folder: the message is sent again
        log.warning("cannot remember that message %s was sent: %s", message["event_id"], error)


def _text(message: Mapping[str, Any]) -> str:
    state = {"ends": "resolved: ", "again": "still: ", "worse": "worse: "}.get(message["state"], "")
    return f"{state}{message['event']}. {message['sentence']}"


def _send_webhook(message: Mapping[str, Any]) -> None:
    connection = find_connection(WEBHOOK)
    if connection is None:
        return
    from airflow.providers.http.hooks.http import HttpHook
    from airflow.sdk.log import mask_secret

    # Who knows the path of a chat's webhook may post there; an error of the connection would have it in the log.
    mask_secret(urlsplit(connection.host or "").path)
    parts = [f"cloudseg: {_text(message)}", message["link"], f"Runbook: {message['runbook']}"]
    names = ("event_id", "event", "alert", "state", "severity", "sentence", "link", "runbook", "since", "facts")
    body = {"service": "cloudseg", "text": " ".join(part for part in parts if part)}
    body |= {name: message[name] for name in names}
    HttpHook(method="POST", http_conn_id=WEBHOOK).run(json=body, extra_options={"timeout": _TIMEOUT_S})


def _send_mail(message: Mapping[str, Any]) -> None:
    connection = find_connection(MAIL)
    if connection is None:
        return
    from html import escape

    from airflow.providers.smtp.hooks.smtp import SmtpHook

    first = [_text(message), message["link"], f"Runbook: {message['runbook']}", f"Severity: {message['severity']}"]
    facts = [f"{name}: {value}" for name, value in message["facts"].items()]
    lines = [line for line in [*first, *facts, f"event_id: {message['event_id']}"] if line]
    prefix = "resolved: " if message["state"] == "ends" else ""
    with SmtpHook(smtp_conn_id=MAIL) as mail:
        mail.send_email_smtp(
            to=connection.extra_dejson["to"],
            subject=f"cloudseg: {prefix}{message['event']}",
            html_content="<br>".join(escape(line) for line in lines),
        )


_CHANNELS = {"webhook": _send_webhook, "mail": _send_mail}
