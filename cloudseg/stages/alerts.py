"""Stages: look at the whole service, open and resolve alerts, and say which messages about them are to be sent.

The callers send the messages, and call `record_sent` afterwards: a message whose sender was killed is sent again, with
the same id.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from cloudseg.catalog import Catalog, alert_rows, model_rows
from cloudseg.catalog.session import now
from cloudseg.catalog.times import parse_moment
from cloudseg.errors import CloudsegError
from cloudseg.monitor import conditions
from cloudseg.monitor.alerts import ALERTS
from cloudseg.monitor.conditions import Found
from cloudseg.monitor.messages import (
    Message,
    adopted_alert,
    after_sending,
    claim,
    message_of,
    new_alert,
    unrecorded_message,
)
from cloudseg.recipe import load_recipe
from cloudseg.records import Alert, AlertSeverity, Json, WatchRecord
from cloudseg.registry import due
from cloudseg.runtime import open_catalog, open_runtime, read_settings
from cloudseg.stages import log
from cloudseg.stages.doctor import doctor
from cloudseg.stages.verification import load_verification

if TYPE_CHECKING:
    from cloudseg.settings import Settings

_log = logging.getLogger(__name__)
_FORGOTTEN: Final = timedelta(days=7)
"""An alert that only a task can end, and that nothing repeats, is closed after this time without a message: the task
may never run again."""
Finder = Callable[[Connection], list[Found]]


def alerts(*, closed: bool = False, limit: int | None = None) -> list[Json]:
    """List the alerts that are open, the oldest first.

    Args:
        closed: list those that ended and events that happened too, the newest first.
        limit: maximum number of rows.
    """
    with open_catalog(read_settings()).read() as db:
        found = alert_rows.list_alerts(db, limit=limit) if closed else alert_rows.list_open_alerts(db)[:limit]
    return [alert.as_json() | {"runbook": ALERTS[alert.name].runbook} for alert in found]


def raise_alert(
    name: str, *, subject: str, facts: Json, link: str = "", severity: AlertSeverity | None = None
) -> list[Json]:
    """Record that something holds or happened, and return the message to send now, if any.

    Where the catalog cannot be written the message is returned all the same; nothing remembers it, and its id is the
    same for the rest of the day.

    Args:
        name: kind of alert, one of `cloudseg.monitor.alerts.ALERTS`.
        subject: what it is about; of one name and subject at most one alert is open.
        facts: values of the sentence, JSON-able.
        link: page that shows it.
        severity: that of the kind by default.
    """
    alert = new_alert(name, subject, facts, now(), link=link, severity=severity)
    try:
        settings = read_settings()
        with open_catalog(settings).begin() as db:
            alert_rows.lock_alerts(db)
            stored = _store(db, alert)
            return _take(db, [stored] if stored else [], repeat=_repeat(settings))
    except CloudsegError as error:
        _log.warning("the alert %s is sent without a record: %s", name, error)
        return [unrecorded_message(alert).as_json()]


def raise_missing_verdict(run_id: str, *, facts: Json, link: str = "") -> list[Json]:
    """Record that a training should have a verdict by now and has none, and return the message to send now, if any.

    Args:
        run_id: of the training.
        facts: values of the sentence, JSON-able.
        link: page that shows it.
    """
    with open_catalog(read_settings()).read() as db:
        if due.has_verdict(db, run_id):
            return []
    return raise_alert("no-verdict", subject=run_id, facts=facts, link=link)


def end_alert(name: str, *, subject: str, run_id: str = "", map_index: int = -1) -> list[Json]:
    """Resolve an alert that holds no more, and return the message to send now, if any.

    Args:
        name: kind of alert.
        subject: what it is about.
        run_id: DAG run in which it was found to hold no more. In the run that raised it, another part of a mapped task
            proves nothing.
        map_index: that part of it.
    """
    settings = read_settings()
    catalog = open_catalog(settings, check=False)
    if catalog.revision() is None:  # the first task of a new home: no alert was ever raised
        return []
    with catalog.read() as db:
        if alert_rows.find_open_alert(db, name, subject) is None:
            return []
    with catalog.begin() as db:
        alert_rows.lock_alerts(db)
        alert = alert_rows.find_open_alert(db, name, subject)
        if alert is None or (alert.facts.get("run_id") == run_id and alert.facts.get("map_index") != map_index):
            return []
        return _take(db, [_end(db, alert, now())], repeat=_repeat(settings))


def record_sent(event_id: str, *, state: str, channels: Sequence[str], complete: bool) -> None:
    """Record which channels took a message.

    Args:
        event_id: of the message.
        state: of the message.
        channels: that took it, by this try or an earlier one.
        complete: whether all did; otherwise the next `watch` returns the message again, for the others.
    """
    alert_id, _, number = event_id.rpartition("-")
    with open_catalog(read_settings()).begin() as db:
        alert_rows.lock_alerts(db)
        alert = alert_rows.find_alert(db, alert_id)
        if alert is not None and alert.sent + 1 == int(number):
            alert_rows.change_alert(db, after_sending(alert, state, list(channels), now(), complete=complete))


def watch(
    *,
    pages_url: str = "",
    as_of: str | None = None,
    unrecorded: Sequence[Json] = (),
    names: Sequence[str] | None = None,
) -> WatchRecord:
    """Look at the whole service: open the alerts of what holds, resolve those of what does not, return the messages.

    Works without a catalog as well: that is an alert.

    Args:
        pages_url: address of the pages, for links.
        as_of: time that ages are counted from (ISO 8601 with zone); None is now.
        unrecorded: messages that were sent while the catalog did not answer.
        names: look at these conditions only; None: all.
    """
    moment = now() if as_of is None else parse_moment(as_of, "as_of")
    failed = _failed_checks() if names is None or "not-operational" in names else None
    try:
        record = _watch(read_settings(), failed, moment, pages_url, unrecorded, names)
    except CloudsegError as error:
        reasons = failed or [Found({"check": "catalog", "detail": str(error)}, "catalog")]
        alerts = [_alert("not-operational", reason, moment, pages_url) for reason in reasons]
        messages = [unrecorded_message(alert).as_json() for alert in alerts]
        record = WatchRecord(began=[], ended=[], open=len(alerts), unknown=[f"all: {error}"], messages=messages)
    log.ended("watch", record.as_json() | {"messages": [message["event_id"] for message in record.messages]})
    return record


def _failed_checks() -> list[Found]:
    """Return the checks that fail; of the store's integrity, which needs both, only while catalog and store answer."""
    failed = {check.name: check.detail for check in doctor(device=False).checks if not check.ok}
    if failed.keys() & {"catalog", "store"}:
        failed.pop("integrity", None)
    return [Found({"check": name, "detail": detail}, name) for name, detail in failed.items()]


def _watch(
    settings: "Settings",
    failed: list[Found] | None,
    moment: datetime,
    pages_url: str,
    unrecorded: Sequence[Json],
    names: Sequence[str] | None,
) -> WatchRecord:
    catalog = open_catalog(settings)
    found, unknown = _look(settings, catalog, moment, names)
    if failed is not None:
        found["not-operational"] = failed
    with catalog.begin() as db:
        alert_rows.lock_alerts(db)
        for message in unrecorded:
            alert_rows.add_alert(db, adopted_alert(Message.model_validate(message)))
        before = {alert.alert_id for alert in alert_rows.list_open_alerts(db)}
        for name, holding in found.items():
            for alert in [_alert(name, one, moment, pages_url) for one in holding]:
                _store(db, alert)
        ended = _end_what_is_over(db, found, moment)
        holding_now = alert_rows.list_open_alerts(db)
        messages = _take(db, alert_rows.list_unsettled_alerts(db), repeat=_repeat(settings))
    return WatchRecord(
        began=[alert.alert_id for alert in holding_now if alert.alert_id not in before],
        ended=ended,
        open=len(holding_now),
        unknown=unknown,
        messages=messages,
    )


def _look(
    settings: "Settings", catalog: Catalog, moment: datetime, names: Sequence[str] | None
) -> tuple[dict[str, list[Found]], list[str]]:
    """Return what holds by the name of the alert, without what could not be looked at, and why it could not."""
    finders: dict[str, Finder] = {
        "no-good-night": lambda db: conditions.find_missed_night(
            db, load_recipe("nightly"), moment, settings.alert_night_hours
        ),
        "masks-late": lambda db: conditions.find_late_masks(db, moment, settings.alert_mask_minutes),
        "quarantine-grows": lambda db: conditions.find_quarantine_growth(db, moment, settings.alert_quarantine_files),
        "disk-nearly-full": lambda _: conditions.find_full_disks(_folders(), settings.alert_disk_percent),
        "damaged-objects": lambda db: conditions.find_damage(_damaged(db)),
        "drift": conditions.find_drift,
        "outside-training": lambda db: conditions.find_outside_training(db, moment),
        "champion-changed": lambda db: conditions.find_champion_changes(db, moment),
    }
    found, unknown = dict[str, list[Found]](), list[str]()
    with catalog.read() as db:
        for name, find in finders.items():
            if names is not None and name not in names:
                continue
            try:
                found[name] = find(db)
            except CloudsegError as error:
                _log.warning("cannot look at %s: %s", name, error)
                unknown.append(f"{name}: {error}")
    return found, unknown


def _folders() -> list[Path]:
    """Return folders on every disk that this process writes to: home, a store that is a folder, temporary files."""
    runtime = open_runtime(check=False)
    local = runtime.store.uri.removeprefix("file://") if runtime.store.uri.startswith("file://") else None
    return [runtime.home, *([Path(local)] if local else []), Path(tempfile.gettempdir())]


def _damaged(db: Connection) -> dict[str, str | None]:
    """Return the objects that maintenance found damaged, and the champion's weights if they are not in the store.

    The latter notices at once a store that is another one than yesterday, such as a disk that is not mounted.
    """
    store = open_runtime(check=False).store
    damaged, champion = dict(load_verification(store).damaged), model_rows.find_champion(db)
    if champion is not None:
        weights = model_rows.get_weights(db, champion.weights_id)
        if not store.exists(weights.key):
            damaged[weights.key] = weights.sha256
    return damaged


def _alert(name: str, found: Found, moment: datetime, pages_url: str) -> Alert:
    page = ALERTS[name].page
    link = f"{pages_url}{page.format_map(found.facts)}" if pages_url and page is not None else ""
    began = found.happened_at or moment
    return new_alert(name, found.subject, found.facts, began, link=link, severity=found.severity)


def _store(db: Connection, alert: Alert) -> Alert | None:
    """Open an alert, or note that the open one was seen again; return it, or None for an event that is known."""
    known = alert_rows.find_open_alert(db, alert.name, alert.subject)
    if known is not None:
        newest = ("severity", "sentence", "link", "facts", "seen_at")
        known = known.model_copy(update={name: getattr(alert, name) for name in newest})
        alert_rows.change_alert(db, known)
        return known
    if not ALERTS[alert.name].lasts and alert_rows.has_happened(db, alert.name, alert.subject):
        return None
    alert_rows.add_alert(db, alert)
    return alert


def _end(db: Connection, alert: Alert, moment: datetime, *, silent: bool = False) -> Alert:
    ended = alert.model_copy(update={"resolved_at": moment, "settled": silent})
    alert_rows.change_alert(db, ended)
    return ended


def _end_what_is_over(db: Connection, found: Mapping[str, list[Found]], moment: datetime) -> list[str]:
    """Resolve the alerts that hold no more and return their ids."""
    verdict = next(iter(model_rows.list_verdicts(db, limit=1)), None)
    ended = []
    for alert in alert_rows.list_open_alerts(db):
        if alert.name in found:
            over = alert.subject not in {one.subject for one in found[alert.name]}
        elif alert.name == "no-verdict":
            over = verdict is not None and verdict.created_at > alert.opened_at
        else:
            over = False
        forgotten = alert.name not in ALERTS or moment - alert.seen_at > _FORGOTTEN
        if over or forgotten:
            ended.append(_end(db, alert, moment, silent=not over).alert_id)
    return ended


def _take(db: Connection, alerts: Sequence[Alert], *, repeat: timedelta) -> list[Json]:
    """Return the messages that are due and that no other process sends, and note that this one does."""
    moment, messages = now(), []
    for alert in alerts:
        taken = claim(alert, moment, repeat)
        if taken is not None:
            alert_rows.change_alert(db, taken)
            messages.append(message_of(taken, repeat).as_json())
    return messages


def _repeat(settings: "Settings") -> timedelta:
    return timedelta(hours=settings.alert_repeat_hours)
