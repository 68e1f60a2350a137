"""Which message about an alert is due, and what it says.

An alert is sent once when it begins, again when it gets worse or still holds after `repeat`, and once when it ends. A
message has an id that every try to send it shares, so that a receiver can drop a repetition: the row says that a
message was sent only after every channel took it.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import AwareDatetime, Field

from cloudseg.keys import make_id
from cloudseg.monitor.alerts import ALERTS, SEVERITIES
from cloudseg.records import Alert, AlertSeverity, Json, Record

State = Literal["begins", "worse", "again", "ends", "happened"]
_LONGEST: Final = 1000
"""Characters of a sentence: an error of a database or of a child process can be a page long."""
CLAIM: Final = timedelta(minutes=10)
"""How long a process has to send a message before another one tries; a channel times out after 15 seconds."""


class Message(Record):
    """What is sent: an event of the webhook, one mail."""

    event_id: str = Field(description="the same for every try to send this message")
    recorded: bool = Field(True, description="False: the catalog did not answer, so nothing remembers this message")
    alert_id: str | None = None
    alert: str = Field(description="name of the alert, and its anchor in the runbook")
    subject: str
    state: State
    event: str = Field(description="what happened, in a few words")
    severity: AlertSeverity
    sentence: str
    link: str
    runbook: str
    since: AwareDatetime = Field(description="when the alert began")
    facts: Json
    delivered: list[str] = Field(default_factory=list, description="channels that got this message by an earlier try")


def new_alert(
    name: str, subject: str, facts: Json, moment: datetime, *, link: str = "", severity: AlertSeverity | None = None
) -> Alert:
    """Return an alert that begins now; one that is an event has ended as well.

    Args:
        name: one of `cloudseg.monitor.alerts.ALERTS`.
        subject: what it is about; of one name and subject at most one alert is open.
        facts: values of the sentence's template, and whatever else a receiver may use.
        moment: now.
        link: page that shows it.
        severity: that of the kind by default.
    """
    kind = ALERTS[name]
    return Alert(
        alert_id=make_id("al", name, subject, moment.isoformat()),
        name=name,
        subject=subject,
        severity=severity or kind.severity,
        sentence=_one_line(kind.sentence.format_map(facts)),
        link=link,
        facts=facts,
        opened_at=moment,
        seen_at=moment,
        resolved_at=None if kind.lasts else moment,
    )


def _one_line(text: str) -> str:
    """Return a text without line breaks, cut where it is too long for a chat; `facts` have the whole of it."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def due_state(alert: Alert, repeat: timedelta) -> State | None:
    """Return which message is due, None for none.

    Args:
        alert: as it was last seen.
        repeat: how long a message counts.
    """
    if alert.settled:
        return None
    if not ALERTS[alert.name].lasts:
        return "happened"
    if alert.resolved_at is not None:
        return "ends"
    if alert.sent_at is None or alert.sent_severity is None:
        return "begins"
    if SEVERITIES.index(alert.severity) > SEVERITIES.index(alert.sent_severity):
        return "worse"
    return "again" if alert.seen_at - alert.sent_at >= repeat else None


def claim(alert: Alert, moment: datetime, repeat: timedelta) -> Alert | None:
    """Return the alert as taken by this process, to send its message; None if none is due or another process sends it.

    Args:
        alert: of the catalog, which is locked.
        moment: now.
        repeat: how long a message counts.
    """
    is_taken = alert.claimed_at is not None and moment - alert.claimed_at < CLAIM
    if is_taken or due_state(alert, repeat) is None:
        return None
    return alert.model_copy(update={"claimed_at": moment})


def message_of(alert: Alert, repeat: timedelta) -> Message:
    """Return the message that is due."""
    state = due_state(alert, repeat)
    if state is None:
        raise ValueError(f"no message about {alert.alert_id} is due")
    return _message(alert, state, event_id=f"{alert.alert_id}-{alert.sent + 1}")


def unrecorded_message(alert: Alert) -> Message:
    """Return the message about an alert that no catalog can hold; its id is the same until the day (UTC) ends."""
    event_id = make_id("ev", alert.name, alert.subject, alert.opened_at.date().isoformat())
    found = _message(alert, "begins" if ALERTS[alert.name].lasts else "happened", event_id=event_id)
    return found.model_copy(update={"recorded": False, "alert_id": None})


def adopted_alert(message: Message) -> Alert:
    """Return the alert of a message that was sent without a record, for the catalog that answers again."""
    return Alert(
        alert_id=f"al-{message.event_id.removeprefix('ev-')}",
        name=message.alert,
        subject=message.subject,
        severity=message.severity,
        sentence=message.sentence,
        link=message.link,
        facts=message.facts,
        opened_at=message.since,
        seen_at=message.since,
        sent=1,
        sent_at=message.since,
        sent_severity=message.severity,
        resolved_at=None if ALERTS[message.alert].lasts else message.since,
        settled=not ALERTS[message.alert].lasts,
    )


def after_sending(alert: Alert, state: str, channels: list[str], moment: datetime, *, complete: bool) -> Alert:
    """Return the alert after a try to send its message.

    Args:
        alert: of the catalog.
        state: of the message.
        channels: that took the message, by this try or an earlier one.
        moment: now.
        complete: whether every channel did; otherwise the others are tried again.
    """
    if not complete:
        return alert.model_copy(update={"delivered": channels, "claimed_at": None})
    return alert.model_copy(
        update={
            "sent": alert.sent + 1,
            "sent_at": moment,
            "sent_severity": alert.severity,
            "delivered": [],
            "claimed_at": None,
            "settled": state in ("ends", "happened"),
        }
    )


def _message(alert: Alert, state: State, *, event_id: str) -> Message:
    kind = ALERTS[alert.name]
    return Message(
        event_id=event_id,
        alert_id=alert.alert_id,
        alert=alert.name,
        subject=alert.subject,
        state=state,
        event=kind.title,
        severity=alert.severity,
        sentence=alert.sentence,
        link=alert.link,
        runbook=kind.runbook,
        since=alert.opened_at,
        facts=alert.facts,
        delivered=alert.delivered,
    )
