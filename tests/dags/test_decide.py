"""Every decision of `cloudseg_decide` on a real home, in a real Airflow database; who may approve; what a run logs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dag_files import REPO, airflow_home
from decide_runs import RUNS
from test_dagkit import running


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of `RUNS` did, and what Airflow logged."""
    pytest.importorskip("airflow", reason="the extra `airflow` is not installed")
    folder = tmp_path_factory.mktemp("decide")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDSEG_", "AIRFLOW"))}
    paths = os.pathsep.join(map(str, (REPO, REPO / "dags", REPO / "tests" / "dags")))
    places = {"CLOUDSEG_HOME": str(folder / "home"), "CLOUDSEG_DEVICE": "cpu", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, str(REPO / "tests" / "dags" / "decide_runs.py")],
        env=kept | airflow_home(folder / "airflow") | places,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def of(ended: list[dict[str, Any]], decision: str) -> list[dict[str, Any]]:
    return [found for found, run in zip(ended, RUNS, strict=True) if run[0] == decision]


def test_only_the_task_of_the_decision_runs(ended: list[dict[str, Any]]) -> None:
    for found, (decision, _) in zip(ended, RUNS, strict=True):
        ran = {name for name, state in found["tasks"].items() if state == "success"}
        assert ran == ({"doctor", "check", decision} if found["run"] == "success" else {"doctor"})


def test_a_repeated_task_changes_nothing(ended: list[dict[str, Any]]) -> None:
    for found, run in zip(ended, RUNS, strict=True):
        assert found["repeated"] == found["after"], run


def test_a_model_is_promoted(ended: list[dict[str, Any]]) -> None:
    first, refused = of(ended, "promote")
    assert (first["after"]["champion"], first["after"]["generations"]) == ("v2", 2)
    assert first["after"]["why"] == "airflow:dag_test: because promote"
    assert (refused["run"], refused["after"]["champion"]) == ("failed", "v1"), "it was declined in between"
    assert refused["tasks"]["check"] == "failed", "before anything was changed"


def test_the_champion_is_rolled_back(ended: list[dict[str, Any]]) -> None:
    (found,) = of(ended, "roll_back")
    assert (found["after"]["champion"], found["after"]["generations"]) == ("v1", 3)
    assert found["after"]["why"] == "airflow:dag_test: because roll_back"


def test_a_challenger_is_declined(ended: list[dict[str, Any]]) -> None:
    (found,) = of(ended, "decline")
    assert (found["run"], found["after"]["declined"]) == ("success", ["declined"])


def test_labels_are_decided(ended: list[dict[str, Any]]) -> None:
    labels = {
        name: of(ended, name)[0]["after"]["labels"] for name in ("withdraw_label", "accept_label", "reject_label")
    }
    assert labels["withdraw_label"] == {
        "used 1": "withdrawn",
        "wait 1": "accepted",
        "wait 2": "proposed",
        "bad 1": "accepted",
        "bad 2": "proposed",
    }
    assert labels["accept_label"]["wait 2"] == "accepted"
    assert labels["reject_label"]["bad 2"] == "rejected"


def test_a_file_leaves_the_quarantine(ended: list[dict[str, Any]]) -> None:
    (found,) = of(ended, "release")
    assert (found["run"], found["after"]["quarantine"]) == ("success", 0)


def test_readers_are_switched_and_back(ended: list[dict[str, Any]]) -> None:
    (switched,), (back,) = of(ended, "switch_readers"), of(ended, "switch_readers_back")
    assert switched["after"]["switches"] == ["switch complete"]
    assert back["after"]["switches"] == ["switch complete", "back newest"]


@pytest.fixture
def people(dags: dict[str, Any]) -> Iterator[Any]:
    import cloudseg_dagkit
    import cloudseg_decisions

    with running(cloudseg_dagkit, dag_run=SimpleNamespace(triggering_user_name="ada")) as context:
        yield SimpleNamespace(module=cloudseg_decisions, context=context)


class _Answered:
    """A task instance whose XCom is an answer; any other XCom does not exist, which Airflow logs as an ERROR."""

    def __init__(self, xcoms: dict[str, Any]) -> None:
        self.xcoms = xcoms

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        return self.xcoms[f"{task_ids}.{key}"]

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.xcoms[f"check.{key}"] = value


def _answer(option: str, by: str | None, reason: str | None = None) -> dict[str, Any]:
    user = {"id": by, "name": by} if by else None
    answer = {"chosen_options": [option], "params_input": {"reason": reason}, "responded_by_user": user}
    return {"approve.return_value": answer}


@pytest.mark.parametrize(
    ("approval", "outcome", "task"),
    [("ask", "PROMOTE", "approve"), ("ask", "HOLD", "promote"), ("auto", "PROMOTE", "promote")],
)
def test_approval_is_requested_only_for_promote(people: Any, approval: str, outcome: str, task: str) -> None:
    people.context["params"]["approval"] = approval
    assert people.module.next_after_verdict(outcome) == task


@pytest.mark.parametrize(
    ("option", "reason", "stage", "why"),
    [
        ("Approve", "looks right", "promote", "looks right"),
        ("Approve", None, "promote", "approved in Airflow"),
        ("Reject", None, "decline", "rejected in Airflow"),
    ],
)
def test_an_answer_is_recorded_with_user_and_reason(
    people: Any, option: str, reason: str | None, stage: str, why: str
) -> None:
    people.context["ti"] = _Answered(_answer(option, "ben", reason))
    expected = {"stage": stage, "actor": "airflow:ben", "reason": f"{why} (airflow-manual__1)"}
    assert people.module.answer("approve") == expected


def test_an_unanswered_or_missing_request_is_no_decision(people: Any) -> None:
    """Airflow fills in the default, Reject, without a user; a question that was not asked has no XCom to read."""
    expected = {"stage": "promote_unattended", "actor": "airflow", "reason": "airflow-manual__1"}
    people.context["ti"] = _Answered(_answer("Reject", None))
    assert people.module.answer("approve") == expected
    people.context["ti"] = _Answered({})
    assert people.module.answer("promote") == expected


def test_masks_of_batches_are_read_without_one_more() -> None:
    """To iterate over the results of mapped tasks asks for one more than there is, which Airflow logs as an ERROR."""
    for name, ends in (("cloudseg_predict.py", ("drained", "go_on")), ("cloudseg_backfill.py", ("all_done",))):
        text = (REPO / "dags" / name).read_text(encoding="utf-8")
        assert all(f"{end}(records[:])" in text for end in ends)


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("", {}),
        ("[]", {}),
        ('["ada", "ben"]', {"ada": "ada", "ben": "ben"}),
        ('{"ada": "3"}', {"ada": "3"}),
    ],
)
def test_who_may_approve_is_set(
    people: Any, monkeypatch: pytest.MonkeyPatch, setting: str, found: dict[str, str]
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_APPROVERS", setting)
    assert people.module.approvers() == found


@pytest.mark.parametrize(
    ("name", "value", "reader"),
    [
        ("APPROVERS", "ada, ben", "approvers"),
        ("APPROVERS", "3", "approvers"),
        ("APPROVERS", '{"ada": 3}', "approvers"),
        ("FOUR_EYES", "yes", "four_eyes"),
    ],
)
def test_a_setting_that_cannot_be_read_lets_nobody_through(
    people: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reader: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setenv(f"AIRFLOW_VAR_CLOUDSEG_{name}", value)
    with pytest.raises(AirflowFailException, match=r"found '.*expected|found 'yes'"):
        getattr(people.module, reader)()


def test_without_a_setting_everybody_may_approve_also_their_own(people: Any) -> None:
    people.module.check_approver("ada", "airflow:ada")


def test_who_is_not_an_approver_or_triggered_the_training_may_not_approve(
    people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_APPROVERS", '["ada", "ben"]')
    people.module.check_approver("ada", "airflow:ada")
    with pytest.raises(AirflowException, match=r"eve may not approve .* ada, ben"):
        people.module.check_approver("eve", None)
    with pytest.raises(AirflowException, match="a run without a person may not"):
        people.module.check_approver(None, None)
    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_FOUR_EYES", "true")
    people.module.check_approver("ben", "airflow:ada")
    with pytest.raises(AirflowException, match="ada triggered this training"):
        people.module.check_approver("ada", "airflow:ada")


def _operator(people: Any) -> Any:
    return people.module.Approval(task_id="approve", subject="?", options=["Approve", "Reject"])


def test_an_answer_of_who_may_not_is_refused(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow itself refuses it (`assigned_users`); with four eyes and no list of approvers it cannot."""
    from airflow.sdk.exceptions import AirflowException

    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_FOUR_EYES", "true")
    event = _answer("Approve", "ada")["approve.return_value"] | {"responded_at": None}
    with pytest.raises(AirflowException, match="ada triggered this training"):
        _operator(people).execute_complete(people.context, event)


def test_a_question_that_nobody_may_answer_fails(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_APPROVERS", '["ada"]')
    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_FOUR_EYES", "true")
    with pytest.raises(AirflowFailException, match="nobody may approve: ada triggered"):
        _operator(people).execute(people.context)


def test_the_decision_obeys_the_setting_of_approvers(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    people.context["ti"] = _Answered({})
    people.context["params"]["reason"] = " because "
    plan = {"changes": ["The champion: v2."], "asked_by": None, "arguments": {"weights_id": "w-2"}}
    monkeypatch.setenv("AIRFLOW_VAR_CLOUDSEG_APPROVERS", '["ben"]')
    for decision in ("promote", "decline"):
        with pytest.raises(AirflowFailException, match="ada may not approve"):
            people.module.planned_decision(plan | {"decision": decision})
    assert people.module.planned_decision(plan | {"decision": "roll_back"}) == "roll_back"
    assert people.module.decided() == {"weights_id": "w-2", "actor": "airflow:ada", "reason": "because"}


def test_a_promotion_that_the_verdict_forbids_fails(people: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    record = {"promoted": False, "challenger": "v2", "outcome": "HOLD", "reasons": ["inconclusive"]}
    with pytest.raises(AirflowFailException, match=r"v2 was not promoted, the champion stays \(HOLD: inconclusive"):
        people.module.announce_promotion(record)


def test_the_question_has_names_figures_reasons_and_links(people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are paths of the UI, behind the prefix of a proxy, so that they work in whichever way it is reached."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://ui.example.org/airflow/")
    people.context["ti"] = _Answered(
        {
            "compare.outcome": "PROMOTE",
            "compare.challenger": "v31",
            "compare.champion": "v30",
            "compare.reasons": ["IoU +0.020 against the champion"],
            "train.weights_id": "w-31",
            "evaluate.metrics": {"iou": 0.8123, "iou_bounds": [0.78, 0.84]},
        }
    )
    people.context["ti"].dag_id = "cloudseg_retrain"
    people.context["run_id"] = "manual__2026-11-30T02:00:00+00:00"
    subject, body = people.module._subject_and_body(people.context)
    assert subject == "Promote v31 to champion?"
    assert "**v31** against the champion **v30**: verdict **PROMOTE**" in body
    assert "IoU on held-out places 0.812 (0.780 to 0.840)" in body
    assert "- IoU +0.020 against the champion" in body
    assert "(/airflow/plugin/cloud_masks/cloudseg/weights/w-31)" in body
    assert "/runs/manual__2026-11-30T02%3A00%3A00%2B00%3A00)" in body
