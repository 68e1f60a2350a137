"""How errors, skips and results map to Airflow states."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
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
        "outlet_events": {asset: _Event() for asset in (kit.SCENES, kit.CHAMPION, kit.MASKS, kit.MONTHS)},
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


def test_a_worker_returns_a_small_record_and_announces_its_masks(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    failed = {f"sc-{number}": {"error": "DataError", "what": "broken"} for number in range(30)}
    record = {"masks": [f"mk-{number}" for number in range(5000)], "created": 5000, "weights_ids": ["w-1"]}
    with running(kit) as context:
        short = kit.announce_drained(record | {"failed": failed, "time_is_over": True})
    assert context["outlet_events"][kit.MASKS].extra == {"count": 5000, "weights_ids": ["w-1"]}
    assert len(json.dumps(short)) < 3000
    with pytest.raises(AirflowFailException, match="30 scenes have no mask: sc-0: broken"):
        kit.drained([short])
    good = short | {"failed": {}, "counts": {"masks": 5000, "failed": 0}}
    assert kit.drained([good, good]) == {"masks": 10_000, "created": 10_000}


def test_the_next_run_is_triggered_once_and_only_if_time_was_over(kit: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException

    over, left = {"time_is_over": True}, {"time_is_over": False}
    ti = _TaskInstance()
    ti.dag_id, ti.map_index = "cloudseg_predict", 3
    with running(kit, ti=ti, params={"minutes": 5}) as context:
        assert kit.worker_name() == "cloudseg_predict/manual__1/3"
        with pytest.raises(AirflowSkipException, match="no scene is left"):
            kit.go_on([left, left])
        with pytest.raises(DagRunTriggerException) as caught:
            kit.go_on([left, over])
        assert (caught.value.trigger_dag_id, caught.value.dag_run_id) == ("cloudseg_predict", "manual__1__part_2")
        assert caught.value.conf == {"minutes": 5}
        assert caught.value.skip_when_already_exists
        context["run_id"] = "manual__1__part_2"
    with running(kit, ti=ti, run_id="manual__1__part_2"), pytest.raises(DagRunTriggerException) as caught:
        kit.go_on([over])
    assert caught.value.dag_run_id == "manual__1__part_3"


def test_the_number_of_workers_is_of_the_form_or_the_variable(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with running(kit, params={"workers": 7}):
        assert kit.workers() == 7
    with running(kit, params={"workers": None}):
        monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_PREDICT_WORKERS", "12")
        assert kit.workers() == 12
        for wrong in ("0", "many", "1001"):
            monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_PREDICT_WORKERS", wrong)
            with pytest.raises(AirflowFailException, match=f"cloudseg_predict_workers is '{wrong}'"):
                kit.workers()


@pytest.mark.parametrize(
    ("typed", "asked"), [(None, None), ("careful", "careful"), ("0.7", 0.7), (".25", 0.25), ("1", 1.0), (0.9, 0.9)]
)
def test_a_threshold_is_a_number_or_a_name(kit: Any, typed: object, asked: object) -> None:
    areas = {"min_area_m2": None, "min_hole_m2": 5.0, "buffer_m": None}
    with running(kit, params={"threshold": typed, **areas, "minutes": 60}):
        assert kit.cleaning() == {"threshold": asked, **areas}


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


def test_half_a_message_of_a_killed_process_does_not_stop_the_watch(
    kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    import cloudseg_notify

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    message = {"event_id": "ev-1-1", "recorded": False}
    write_text = Path.write_text

    def killed_half_way(path: Path, text: str, encoding: str) -> int:
        write_text(path, text[: len(text) // 2], encoding=encoding)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed_half_way)
        with pytest.raises(KeyboardInterrupt):
            cloudseg_notify._mark(message)
    assert cloudseg_notify.unrecorded() == []
    cloudseg_notify._mark(message)
    assert cloudseg_notify.unrecorded() == [message]


def test_only_messages_that_the_catalog_got_are_forgotten(kit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import cloudseg_notify

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given, later = ({"event_id": f"ev-{number}-1", "recorded": False} for number in (1, 2))
    cloudseg_notify._mark(given)
    told = cloudseg_notify.unrecorded()
    cloudseg_notify._mark(later)
    kit.send_messages({"messages": []}, told)
    assert cloudseg_notify.unrecorded() == [later]
