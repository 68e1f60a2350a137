"""Alerts: opened once, sent once, again when worse or a day later, ended once; also without a catalog."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloudseg import stages
from cloudseg.monitor.alerts import ALERTS
from cloudseg.monitor.messages import CLAIM, after_sending, claim, due_state, message_of, new_alert
from cloudseg.records import Quarantined
from cloudseg.runtime import open_runtime

DAY = timedelta(days=1)
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
FAILED = {"dag": "cloudseg_retrain", "task": "train", "run_id": "r1", "map_index": -1, "error": "loss is not finite"}
PAGES = "http://airflow.example:8080/plugin/cloud_masks/cloudseg/"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLOUDSEG_HOME", str(tmp_path))
    return tmp_path


def sent(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Record that every channel took these messages, and return what they are about."""
    for message in messages:
        stages.record_sent(message["event_id"], state=message["state"], channels=["mail"], complete=True)
    return [(message["alert"], message["state"]) for message in messages]


def quarantine(number: int, moment: datetime) -> None:
    from cloudseg.catalog import tables as t
    from cloudseg.catalog.session import insert

    with open_runtime().catalog.begin() as db:
        for part in range(number):
            entry = Quarantined(
                quarantine_id=f"qu-{moment.timestamp()}-{part}",
                name="a.tif",
                source_uri="file:///a.tif",
                source_sha256="0" * 64,
                error="BadScene",
                what="broken",
                found=None,
                expected=None,
                next_step="",
                created_at=moment,
            )
            insert(db, t.quarantine, entry)


def test_every_alert_has_a_name_that_is_an_anchor_and_one_sentence() -> None:
    for name, kind in ALERTS.items():
        assert name == kind.name == name.lower().replace(" ", "-")
        assert kind.runbook == f"docs/how-to/runbook.md#{name}"
        assert kind.title


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    error = "Traceback:\n  File x\nValueError: " + "y" * 5000
    alert = new_alert("task-failed", "cloudseg_retrain/train", FAILED | {"error": error}, NOON)
    assert alert.sentence.startswith(
        "Task train of cloudseg_retrain failed for good: Traceback: File x ValueError: yyy"
    )
    assert "\n" not in alert.sentence
    assert len(alert.sentence) < 1100
    assert alert.facts["error"] == error


def test_an_alert_is_sent_when_it_begins_gets_worse_lasts_and_ends() -> None:
    day = timedelta(hours=24)
    alert = new_alert("disk-nearly-full", "h", {"folder": "/", "host": "h", "free": 1, "percent": 9}, NOON)
    states = []
    for later, change in (
        (timedelta(0), {}),
        (timedelta(hours=1), {}),
        (timedelta(hours=2), {"severity": "critical"}),
        (timedelta(hours=3), {"severity": "warning"}),
        (timedelta(hours=4), {"severity": "critical"}),
        (timedelta(hours=27), {}),
        (timedelta(hours=28), {"resolved_at": NOON}),
        (timedelta(hours=29), {}),
    ):
        alert = alert.model_copy(update={"seen_at": NOON + later} | change)
        state = due_state(alert, day)
        states.append(state)
        if state is not None:
            assert message_of(alert, day).event_id == f"{alert.alert_id}-{alert.sent + 1}"
            alert = after_sending(alert, state, ["mail"], NOON + later, complete=True)
    assert states == ["begins", None, "worse", None, None, "again", "ends", None]


def test_one_process_sends_a_message_and_another_one_takes_over_if_that_was_killed() -> None:
    alert = new_alert("task-failed", "a", FAILED, NOON)
    taken = claim(alert, NOON, DAY)
    assert taken is not None
    assert claim(taken, NOON + CLAIM / 2, DAY) is None
    again = claim(taken, NOON + CLAIM, DAY)
    assert again is not None
    assert message_of(again, DAY).event_id == message_of(taken, DAY).event_id, "a receiver can drop the repetition"


def test_a_failure_is_sent_once_until_the_task_succeeds() -> None:
    first = stages.raise_alert("task-failed", subject="d/t", facts=FAILED, link="http://x/")
    assert first[0]["sentence"] == "Task train of cloudseg_retrain failed for good: loss is not finite"
    assert first[0]["runbook"] == "docs/how-to/runbook.md#task-failed"
    assert sent(first) == [("task-failed", "begins")]
    assert stages.raise_alert("task-failed", subject="d/t", facts=FAILED | {"run_id": "r2"}) == []
    assert [alert["name"] for alert in stages.alerts()] == ["task-failed"]
    assert stages.end_alert("task-failed", subject="d/t", run_id="r2", map_index=0) == [], "another part of that run"
    assert sent(stages.end_alert("task-failed", subject="d/t", run_id="r3")) == [("task-failed", "ends")]
    assert stages.end_alert("task-failed", subject="d/t", run_id="r4") == []
    assert stages.alerts() == []
    assert [alert["settled"] for alert in stages.alerts(closed=True)] == [True]


def test_an_event_is_sent_once() -> None:
    facts = {"champion_id": "w-1", "reasons": "Better.", "verdict_id": "ve-1"}
    assert sent(stages.raise_alert("champion-changed", subject="ve-1", facts=facts)) == [
        ("champion-changed", "happened")
    ]
    assert stages.raise_alert("champion-changed", subject="ve-1", facts=facts) == []
    assert stages.alerts() == []


def test_a_message_that_one_channel_did_not_take_is_tried_again_for_the_others() -> None:
    message = stages.raise_alert("task-failed", subject="d/t", facts=FAILED)[0]
    stages.record_sent(message["event_id"], state=message["state"], channels=["webhook"], complete=False)
    again = stages.watch().messages
    assert [(entry["event_id"], entry["delivered"]) for entry in again] == [(message["event_id"], ["webhook"])]


def test_the_quarantine_is_an_alert_that_gets_worse_and_ends() -> None:
    quarantine(1, NOON - timedelta(hours=1))
    look = {"pages_url": PAGES, "names": ["quarantine-grows"]}
    record = stages.watch(as_of=NOON.isoformat(), **look)
    assert record.messages[0]["sentence"] == "Files that went to quarantine within a day: 1; new scenes: 0."
    assert record.messages[0]["link"] == f"{PAGES}quarantine"
    assert sent(record.messages) == [("quarantine-grows", "begins")]
    assert stages.watch(as_of=NOON.isoformat(), **look).messages == []
    quarantine(9, NOON)
    record = stages.watch(as_of=(NOON + timedelta(minutes=1)).isoformat(), **look)
    assert sent(record.messages) == [("quarantine-grows", "worse")]
    record = stages.watch(as_of=(NOON + 2 * DAY).isoformat(), **look)
    assert (sent(record.messages), len(record.ended)) == ([("quarantine-grows", "ends")], 1)


def test_a_full_disk_is_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSEG_ALERT_DISK_PERCENT", "99.999")
    messages = stages.watch(names=["disk-nearly-full"]).messages
    assert {message["alert"] for message in messages} == {"disk-nearly-full"}
    sent(messages)
    monkeypatch.setenv("CLOUDSEG_ALERT_DISK_PERCENT", "0")
    assert {state for _, state in sent(stages.watch(names=["disk-nearly-full"]).messages)} == {"ends"}


def test_damaged_objects_are_an_alert(home: Path) -> None:
    from cloudseg.stages.verification import Verification, save_verification

    store = open_runtime().store
    save_verification(store, Verification(damaged={"scenes/aa": None}))
    messages = stages.watch(names=["damaged-objects"]).messages
    assert messages[0]["sentence"] == "Objects of the store that are missing or damaged: 1; the first is scenes/aa."
    assert messages[0]["severity"] == "critical"
    sent(messages)
    save_verification(store, Verification())
    assert sent(stages.watch(names=["damaged-objects"]).messages) == [("damaged-objects", "ends")]


def test_a_store_that_is_away_is_an_alert_and_leaves_the_others_as_they_are(home: Path) -> None:
    from cloudseg.stages.verification import Verification, save_verification

    save_verification(open_runtime().store, Verification(damaged={"scenes/aa": None}))
    sent(stages.watch().messages)
    (home / "store").rename(home / "gone")
    (home / "store").write_text("no folder")
    record = stages.watch()
    assert [(message["alert"], message["subject"]) for message in record.messages] == [("not-operational", "settings")]
    assert {alert["name"] for alert in stages.alerts()} >= {"damaged-objects", "not-operational"}
    sent(record.messages)
    (home / "store").unlink()
    (home / "gone").rename(home / "store")
    assert sent(stages.watch().messages) == [("not-operational", "ends")]


def test_every_change_of_the_champion_is_an_event_whoever_made_it() -> None:
    from tests.stages.test_plans import add_weights, make_champion

    runtime, look = open_runtime(), {"names": ["champion-changed"], "pages_url": PAGES}
    first, second = add_weights(runtime), add_weights(runtime, data=b"others")
    make_champion(runtime, first)
    assert sent(stages.watch(**look).messages) == [("champion-changed", "happened")]
    make_champion(runtime, second, replaces=first.weights_id)
    stages.rollback("v2", actor="ada", reason="misses thin clouds")
    promoted, back = stages.watch(**look).messages
    assert promoted["sentence"] == f"The champion is {second.weights_id}. Promoted without a verdict by test: test"
    assert back["sentence"] == (
        f"The champion is {first.weights_id}. Rolled back from {second.weights_id} by ada: misses thin clouds"
    )
    assert back["link"] == f"{PAGES}weights/{first.weights_id}"
    sent([promoted, back])
    assert stages.watch(**look).messages == []
    make_champion(runtime, second, replaces=first.weights_id)  # again: another change
    assert len(sent(stages.watch(**look).messages)) == 1
    assert stages.watch(as_of=(datetime.now(UTC) + 2 * DAY).isoformat(), **look).messages == []


def test_a_night_has_no_verdict_until_its_own_weights_have_one() -> None:
    from cloudseg.recipe import load_recipe
    from tests.stages.test_plans import add_label, add_run, add_scene, add_snapshot, add_verdict

    runtime, facts = open_runtime(), {"night": "2026-11-30", "hours": 4}
    snapshot = add_snapshot(runtime, "a", [add_label(runtime, add_scene(runtime, "a"))])
    night = add_run(runtime, snapshot, load_recipe("smoke"), compared=False)
    add_run(runtime, snapshot, load_recipe("smoke"), compared=True, number=1)
    (message,) = stages.raise_missing_verdict(str(night.run_id), facts=facts)
    assert sent([message]) == [("no-verdict", "begins")], "the verdict is one about other weights"
    assert stages.raise_missing_verdict(str(night.run_id), facts=facts) == []
    assert len(stages.raise_missing_verdict("airflow-not-begun", facts=facts)) == 1
    add_verdict(runtime, night)
    with runtime.catalog.begin() as db:
        from cloudseg.catalog import tables as t

        db.execute(t.verdict.update().values(created_at=datetime.now(UTC)))
    assert sent(stages.watch(names=[]).messages)[0] == ("no-verdict", "ends")
    assert stages.raise_missing_verdict(str(night.run_id), facts=facts) == []


def test_without_a_catalog_alerts_are_sent_all_the_same(home: Path) -> None:
    catalog = home / "catalog.db"
    catalog.write_bytes(b"no database, and long enough to be read as one" * 100)
    first, again = stages.watch().messages, stages.watch().messages
    assert ("not-operational", "catalog") in {(message["alert"], message["subject"]) for message in first}
    assert not any(message["recorded"] for message in first)
    assert [message["event_id"] for message in first] == [message["event_id"] for message in again], "on one day"
    failed = stages.raise_alert("task-failed", subject="d/t", facts=FAILED)
    assert (len(failed), failed[0]["recorded"]) == (1, False)
    catalog.unlink()
    assert sent(stages.watch(unrecorded=first).messages) == [("not-operational", "ends")] * len(first)


def test_what_only_a_task_can_end_is_closed_after_a_week_without_a_message() -> None:
    sent(stages.raise_alert("task-failed", subject="d/t", facts=FAILED))
    record = stages.watch(as_of=(datetime.now(UTC) + timedelta(days=8)).isoformat(), names=[])
    assert (len(record.ended), record.messages) == (1, [])


def test_nothing_ends_before_there_is_a_catalog(home: Path):
    (home / "catalog.db").touch()  # another process is about to fill it
    assert stages.end_alert("task-failed", subject="cloudseg_ingest/doctor", run_id="r1") == []
