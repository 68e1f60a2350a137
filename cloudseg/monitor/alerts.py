"""Every alert of the service: its name, severity and sentence; the name is its anchor in docs/how-to/runbook.md.

An alert that `lasts` holds until it ends, and its end is a message of its own. The others are events that happened.
"""

from typing import Final, NamedTuple

from cloudseg.records import AlertSeverity

SEVERITIES: Final[tuple[AlertSeverity, ...]] = ("info", "warning", "critical")
"""In rising order. critical: readers get no new masks, or bytes are lost; act now. warning: act on the next working
day. info: nothing to do."""
RUNBOOK: Final = "docs/how-to/runbook.md"


class AlertKind(NamedTuple):
    """What is the same for every alert of one name."""

    name: str
    """Also the anchor in the runbook."""
    severity: AlertSeverity
    title: str
    """Subject of the mail, and `event` of the webhook."""
    sentence: str
    """Template (`str.format`) of one sentence, filled with the facts of an alert."""
    page: str | None = None
    """Page of the plugin that the alert links to; None: the DAG run or task that caused it."""
    lasts: bool = True

    @property
    def runbook(self) -> str:
        """Path and anchor of the section of the runbook."""
        return f"{RUNBOOK}#{self.name}"


_KINDS: Final = (
    AlertKind(
        "not-operational",
        "critical",
        "not operational",
        "cloudseg is not operational, {check}: {detail}",
        page="",
    ),
    AlertKind(
        "task-failed",
        "warning",
        "task failed",
        "Task {task} of {dag} failed for good: {error}",
    ),
    AlertKind(
        "question-waits",
        "warning",
        "a question waits",
        "{question} Nobody has answered; without an answer by {until} nothing changes.",
    ),
    AlertKind(
        "no-verdict",
        "warning",
        "no verdict",
        "The night of {night} has no verdict {hours} hours after it began.",
    ),
    AlertKind(
        "no-good-night",
        "critical",
        "no good night",
        "New labels: {labels}; no training has used them for {hours} hours.",
        page="",
    ),
    AlertKind(
        "masks-late",
        "warning",
        "masks are late",
        "Scenes without a mask {minutes} minutes after their ingest: {scenes}; the oldest is {name}.",
        page="",
    ),
    AlertKind(
        "quarantine-grows",
        "warning",
        "quarantine grows",
        "Files that went to quarantine within a day: {files}; new scenes: {scenes}.",
        page="quarantine",
    ),
    AlertKind(
        "damaged-objects",
        "critical",
        "objects are damaged",
        "Objects of the store that are missing or damaged: {objects}; the first is {first}.",
        page="",
    ),
    AlertKind(
        "disk-nearly-full",
        "warning",
        "disk nearly full",
        "The disk of {folder} on {host} is nearly full: {free} GB ({percent} %) are free.",
        page="",
    ),
    AlertKind(
        "drift",
        "warning",
        "drift",
        "The scenes differ from those that the model was trained on: {sentence}",
        page="drift",
    ),
    AlertKind(
        "outside-training",
        "warning",
        "scenes outside of the training",
        "Masks of the last 7 days whose scene is brighter or darker than the training scenes: {outside} of {compared}; "
        "the newest is {name}.",
        page="drift",
    ),
    AlertKind(
        "challenger-rejected",
        "info",
        "challenger rejected",
        "{challenger_id} does not replace {champion_id}. {reasons}",
        page="weights/{challenger_id}",
        lasts=False,
    ),
    AlertKind(
        "champion-changed",
        "info",
        "champion changed",
        "The champion is {champion_id}. {reasons}",
        page="weights/{champion_id}",
        lasts=False,
    ),
    AlertKind(
        "readers-switched",
        "info",
        "readers see a new model",
        "Readers see the masks of {weights_id}: every scene that they saw has one.",
        page="readers",
        lasts=False,
    ),
)
ALERTS: Final[dict[str, AlertKind]] = {kind.name: kind for kind in _KINDS}
