"""How errors, skips and results map to Airflow states."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from cloudseg.errors import BadScene, CatalogUnreachable, EmptySplit, PromotionRefused, StoreUnreachable


@pytest.fixture
def kit(dags: dict[str, Any]) -> Any:
    import cloudseg_dagkit

    return cloudseg_dagkit


class _TaskInstance:
    def __init__(self) -> None:
        self.xcoms: dict[str, object] = {}

    def xcom_push(self, *, key: str, value: object) -> None:
        self.xcoms[key] = value


class _Event:
    extra: dict[str, object]

    def __init__(self) -> None:
        self.partitions: list[str] = []

    def add_partitions(self, keys: list[str]) -> None:
        self.partitions += keys


@contextmanager
def running(kit: Any, **context: Any) -> Iterator[dict[str, Any]]:
    """Set the context of a running task, as Airflow's task runner does."""
    from airflow.sdk.execution_time.context import set_current_context

    full = {
        "ti": _TaskInstance(),
        "run_id": "manual__1",
        "params": {},
        "outlet_events": {kit.SCENES: _Event(), kit.CHAMPION: _Event(), kit.MONTHS: _Event()},
        **context,
    }
    with set_current_context(full):  # type: ignore[arg-type]
        yield full


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (StoreUnreachable("no answer"), True),
        (CatalogUnreachable("no answer"), True),
        (ConnectionError("reset"), True),
        (BadScene("broken"), False),
        (EmptySplit("no chip"), False),
        (PromotionRefused("no"), False),
        (ValueError("a bug"), False),
        (KeyError("a bug"), False),
    ],
)
def test_only_transient_errors_are_retried(kit: Any, error: Exception, retried: bool) -> None:
    decision = kit.RetryTransientErrors().evaluate(error, 1, 2)
    assert decision.action.value == ("retry" if retried else "fail")
    assert type(error).__name__ in decision.reason


def test_a_skipped_task_records_its_reason(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with running(kit) as context, pytest.raises(AirflowSkipException, match="nothing is new"):
        kit.planned({"skip": "nothing is new", "new_labels": 0})
    assert context["ti"].xcoms == {"reason": "nothing is new"}


def test_a_plan_without_skip_reason_continues(kit: Any) -> None:
    with running(kit):
        assert kit.planned({"skip": None, "new_labels": 3}) == {"skip": None, "new_labels": 3}


def test_an_asset_event_has_the_count_and_the_first_ids(kit: Any) -> None:
    with running(kit) as context:
        kit.announce(kit.SCENES, 9, [f"sc-{number}" for number in range(9)], "none")
    assert context["outlet_events"][kit.SCENES].extra == {"count": 9, "first": ["sc-0", "sc-1", "sc-2", "sc-3", "sc-4"]}


def test_an_unchanged_champion_emits_no_asset_event(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    record = {
        "promoted": False,
        "outcome": "HOLD",
        "reasons": ["the difference is not significant"],
        "champion_id": "w-1",
        "verdict_id": "ve-1",
    }
    with running(kit), pytest.raises(AirflowSkipException, match="HOLD: the champion stays"):
        kit.announce_champion(record)
    with running(kit), pytest.raises(AirflowSkipException, match="PROMOTE, not approved"):
        kit.announce_champion(record | {"outcome": "PROMOTE"})
    with running(kit) as context:
        kit.announce_champion(record | {"promoted": True})
    assert context["outlet_events"][kit.CHAMPION].extra == {"champion_id": "w-1", "verdict_id": "ve-1"}


@pytest.mark.parametrize(
    ("approval", "outcome", "task"),
    [("ask", "PROMOTE", "approve"), ("ask", "HOLD", "promote"), ("auto", "PROMOTE", "promote")],
)
def test_approval_is_requested_only_for_promote(kit: Any, approval: str, outcome: str, task: str) -> None:
    with running(kit, params={"approval": approval}):
        assert kit.next_after_verdict(outcome) == task


def _answered(option: str, by: str | None, reason: str | None = None) -> dict[str, Any]:
    return {
        "chosen_options": [option],
        "params_input": {"reason": reason},
        "responded_by_user": {"id": by, "name": by} if by else None,
    }


def test_an_approval_is_recorded_with_user_and_reason(kit: Any) -> None:
    with running(kit):
        assert kit.answer(_answered("Approve", "ada", "looks right")) == {
            "stage": "promote",
            "actor": "airflow:ada",
            "reason": "looks right (airflow-manual__1)",
        }
        assert kit.answer(_answered("Approve", "ada"))["reason"] == "approved in Airflow (airflow-manual__1)"


def test_a_rejection_is_recorded(kit: Any) -> None:
    with running(kit):
        assert kit.answer(_answered("Reject", "ada")) == {
            "stage": "decline",
            "actor": "airflow:ada",
            "reason": "rejected in Airflow (airflow-manual__1)",
        }


def test_an_unanswered_or_missing_request_is_no_decision(kit: Any) -> None:
    """Airflow fills in the default, Reject, without a user; the request stays open in the catalog."""
    with running(kit):
        expected = {"stage": "promote_unattended", "actor": "airflow", "reason": "airflow-manual__1"}
        assert kit.answer(_answered("Reject", None)) == kit.answer(None) == expected


def test_new_labels_start_a_retraining_only_if_configured(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with running(kit):
        assert kit.may_retrain(["lb-1"], 50) == 50
        with pytest.raises(AirflowSkipException, match="no label is new"):
            kit.may_retrain([], 50)
        with pytest.raises(AirflowSkipException, match="retraining after new labels is disabled"):
            kit.may_retrain(["lb-1"], None)


def test_the_training_id_is_stable_across_retries(kit: Any) -> None:
    with running(kit):
        assert kit.training_id() == kit.training_id() == "airflow-manual__1"


def test_scenes_without_mask_fail_the_run(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    good = {"masks": ["mk-1"], "created": 1, "failed": {}}
    assert kit.all_done([good, good]) == {"masks": 2, "created": 2}
    with pytest.raises(AirflowFailException, match="1 scenes have no mask: sc-1: broken"):
        kit.all_done(
            [good, {"masks": ["mk-2"], "created": 1, "failed": {"sc-1": {"error": "DataError", "what": "broken"}}}]
        )
    with (
        running(kit),
        pytest.raises(AirflowFailException, match="no scene of this batch could be masked: sc-1: broken"),
    ):
        kit.announce_masks({"masks": [], "failed": {"sc-1": {"error": "DataError", "what": "broken"}}})


def test_missing_objects_fail_the_run(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    kit.nothing_missing(0, [])
    with pytest.raises(AirflowFailException, match=r"1 objects are missing or damaged, restore them: scenes/aa$"):
        kit.nothing_missing(1, ["scenes/aa"])
    with pytest.raises(AirflowFailException, match=r"30 objects .* scenes/aa and 29 more"):
        kit.nothing_missing(30, ["scenes/aa"])


def test_every_backfilled_month_is_a_partition(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    months = [{"month": f"20{year:02}-01", "done": 1, "total": 2} for year in range(60)]
    record = {"weights_id": "w-1", "done": 3, "total": 9, "touched": ["2024-06", "2024-05"], "months": months}
    with running(kit) as context:
        kit.announce_months(record)
    event = context["outlet_events"][kit.MONTHS]
    assert (event.partitions, event.extra) == (["2024-06", "2024-05"], {"weights_id": "w-1", "done": 3, "total": 9})
    with running(kit), pytest.raises(AirflowSkipException, match="nothing was planned"):
        kit.announce_months(record | {"touched": []})
    with caplog.at_level("INFO", logger="cloudseg_dagkit"):
        assert len(json.dumps(kit.progress_lines(record))) < 4096
    assert "2059-01: 1 of 2" in caplog.text


def test_a_night_is_the_date_of_the_run(kit: Any) -> None:
    from types import SimpleNamespace

    run = SimpleNamespace(run_after=datetime(2026, 11, 29, 4, 30, tzinfo=UTC))
    with running(kit, dag_run=run):
        assert kit.night() == "2026-11-29"


def test_a_worklist_is_one_line_for_each_scene(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    item = {"rank": 1, "scene": "S2A_x", "scene_id": "sc-1", "words": "two models differ", "windows": [{"score": 0.5}]}
    record = {
        "worklist_id": "wl-1",
        "weights_id": "w-1",
        "masked": 9,
        "examined": 5,
        "items": [item] * 20,
        "failed": {},
    }
    with caplog.at_level("INFO", logger="cloudseg_dagkit"):
        lines = kit.worklist_lines(record)
    assert lines["items"][0] == "1. S2A_x (sc-1): two models differ"
    assert lines["items"][0] in caplog.text
    assert (lines["worklist_id"], lines["examined"], len(lines["items"])) == ("wl-1", 5, 20)
    assert len(json.dumps(lines)) < 4096


def test_large_records_are_truncated_and_counted(kit: Any) -> None:
    ids = [f"sc-{number:020}" for number in range(5000)]
    short = kit.shortened({"added": ids, "labelled": [], "known": 3, "source": "file:///inbox"})
    assert short["counts"] == {"added": 5000, "labelled": 0}
    assert (short["added"], short["labelled"], short["known"]) == (ids[:20], [], 3)
    assert len(json.dumps(short)) < 4096
