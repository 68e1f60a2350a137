"""Manual approval: what waits for approval or was declined is never promoted by an unattended run."""

from pathlib import Path

import pytest

from cloudseg import keys
from cloudseg.catalog import model_rows, tables
from cloudseg.errors import PromotionRefused, RecipeError
from cloudseg.recipe import PromotionPolicy, load_recipe, recipe_from
from cloudseg.records import Json, Verdict, Weights
from cloudseg.registry.verdicts import VERDICT_FORMAT
from cloudseg.runtime import Runtime, open_runtime
from cloudseg.stages import decline, promote, promote_unattended, request_approval, retrain, rollback
from cloudseg.stages import models as models_listed
from cloudseg.stages.plan import PromotionKind, plan_promote
from tests.stages.test_plans import NOW, add_label, add_run, add_scene, add_snapshot, add_weights, make_champion


@pytest.fixture
def runtime(runtime_env: Path) -> Runtime:
    """An empty catalog; tests add verdicts to it, so that nothing has to be trained and compared."""
    return open_runtime()


def challenger(
    runtime: Runtime, *, outcome: str = "PROMOTE", champion_id: str | None = None, name: str = "a"
) -> Weights:
    """The result of the newest smoke run with a verdict, and no new label since."""
    snapshot = add_snapshot(runtime, name, [add_label(runtime, add_scene(runtime, name))])
    weights = add_run(runtime, snapshot, load_recipe("smoke"), compared=False)
    add_verdict(runtime, weights, outcome, champion_id)
    return weights


def add_verdict(runtime: Runtime, weights: Weights, outcome: str, champion_id: str | None) -> None:
    policy = load_recipe("smoke").promotion if weights.run_id else PromotionPolicy()
    body = {
        "format": VERDICT_FORMAT,
        "snapshot_id": weights.snapshot_id,
        "policy": policy.model_dump(mode="json"),
        "reasons": ["a test", "a second one"],
        "blessing": {"passed": True, "reason": "a test"},
    }
    verdict = Verdict.model_validate(
        {
            "verdict_id": keys.make_id("ve", weights.weights_id, champion_id or ""),
            "challenger_id": weights.weights_id,
            "champion_id": champion_id,
            "outcome": outcome,
            "body": body,
            "created_at": NOW,
        }
    )
    with runtime.catalog.begin() as db:
        model_rows.add_verdict(db, verdict)


def decisions(runtime: Runtime, weights: Weights) -> list[str]:
    with runtime.catalog.read() as db:
        return [entry.decision for entry in model_rows.list_decisions(db, weights.weights_id)]


def test_a_promotion_that_was_interrupted_is_completed(runtime: Runtime):
    weights = challenger(runtime)
    completed = retrain("smoke").promote
    assert completed is not None
    assert (completed.promoted, completed.champion_id) == (True, weights.weights_id)
    assert retrain("smoke").promote is None


def test_a_repeated_promotion_does_not_undo_a_rollback(runtime: Runtime):
    """A task is killed after its promotion was committed, and somebody rolls back before its next try."""
    first = challenger(runtime)
    promote(first.weights_id)
    second = challenger(runtime, champion_id=first.weights_id, name="b")
    assert promote(second.weights_id, since=1).promoted
    assert promote(second.weights_id, since=1).promoted, "repeated, it changes nothing"
    rollback(second.weights_id, reason="misses snow")
    with pytest.raises(PromotionRefused, match="promoted by this decision, and replaced since"):
        promote(second.weights_id, since=1)
    assert promote(second.weights_id, since=3, reason="decided anew").promoted


def test_a_run_whose_recipe_would_be_refused_today_can_still_be_promoted(runtime: Runtime):
    weights = challenger(runtime)
    stored = load_recipe("nightly").model_dump(mode="json")
    stored["data"] = {**stored["data"], "chip_size": 200}  # accepted until sizes followed the net's own rule
    stored["promotion"] = load_recipe("smoke").promotion.model_dump(mode="json")
    with runtime.catalog.begin() as db:
        db.execute(tables.run.update().values(recipe=stored))
    with pytest.raises(RecipeError, match="chip_size 200"):
        recipe_from(stored)
    assert promote(weights.weights_id).promoted


def test_what_waits_for_approval_is_not_promoted(runtime: Runtime):
    weights = challenger(runtime)
    asked = request_approval(weights.weights_id, actor="airflow")
    assert (asked.outcome, asked.promoted) == ("PROMOTE", False)
    assert request_approval(weights.weights_id, actor="airflow") == asked
    assert decisions(runtime, weights) == ["asked"]
    assert asked.reasons[0].startswith("waits for manual approval, requested by airflow")
    assert [entry["decision"] for entry in models_listed()] == ["asked"]
    assert retrain("smoke").promote is None
    left = promote_unattended(weights.weights_id)
    assert not left.promoted
    assert left.reasons[0].startswith("waits for manual approval, requested by airflow")
    assert promote(weights.weights_id, actor="airflow:ada").promoted, "a person approved"


def test_a_dry_run_says_what_each_option_would_do(runtime: Runtime):
    weights = challenger(runtime)

    def would(kind: PromotionKind, reason: str = "why") -> str:
        return str(plan_promote(weights.weights_id, kind=kind, reason=reason)["would"])

    assert plan_promote(weights.weights_id)["verdict"] == "PROMOTE"
    assert would("promote") == "promote"
    assert would("ask") == "record that the verdict waits for manual approval"
    assert would("compare").startswith("nothing: it is ve-")
    for kind in ("force", "decline"):
        with pytest.raises(PromotionRefused, match="needs a reason"):
            would(kind, reason=" ")
    request_approval(weights.weights_id, actor="retrain")
    assert would("automatic").startswith("promote nothing: waits for manual approval, requested by retrain")
    assert would("promote") == "promote", "that approves it"
    assert would("decline").startswith("reject")
    decline(weights.weights_id, reason="snow")
    assert would("decline") == "nothing: they were rejected"
    assert would("promote").startswith("refuse")
    assert would("force") == "promote, whatever the verdict is"
    assert promote(weights.weights_id, force=True, reason="why").promoted
    assert would("force") == "nothing: they are the champion"
    with pytest.raises(PromotionRefused, match="already the champion"):
        would("decline")


def test_a_dry_run_knows_a_verdict_against_the_weights(runtime: Runtime):
    weights = challenger(runtime, outcome="HOLD")
    assert plan_promote(weights.weights_id)["would"] == "nothing: the verdict is HOLD (--force overrules it)"
    assert not promote(weights.weights_id).promoted
    assert plan_promote(weights.weights_id, kind="ask")["would"] == "nothing: the verdict is HOLD"


@pytest.mark.parametrize(
    "older", [{"format": "cloudseg-verdict-0"}, {"policy": {"margin": 0.5}}, {"blessing": {"passed": False}}]
)
def test_a_dry_run_knows_only_the_verdict_that_the_gate_would_find(runtime: Runtime, older: Json):
    weights = challenger(runtime, outcome="HOLD")
    with runtime.catalog.begin() as db:
        [verdict] = model_rows.list_verdicts(db)
        db.execute(tables.verdict.update().values(body=verdict.body | older))
    plan = plan_promote(weights.weights_id, kind="compare")
    assert (plan["verdict"], plan["would"]) == (None, "compare, and promote nothing")


def test_declined_is_declined_for_every_later_automatic_run(runtime: Runtime):
    weights = challenger(runtime)
    with pytest.raises(PromotionRefused, match="needs a reason"):
        decline(weights.weights_id, reason=" ")
    request_approval(weights.weights_id)
    no = decline(weights.weights_id, actor="airflow:ada", reason="snow is called cloud")
    assert (no.outcome, no.promoted) == ("PROMOTE", False)
    assert sorted(decisions(runtime, weights)) == ["asked", "declined"]
    assert retrain("smoke").promote is None
    assert "declined by airflow:ada" in promote_unattended(weights.weights_id).reasons[0]
    assert "rejected" in plan_promote(weights.weights_id)["would"]
    with pytest.raises(PromotionRefused, match="snow is called cloud"):
        promote(weights.weights_id)

    make_champion(runtime, other := add_weights(runtime))
    add_verdict(runtime, weights, "PROMOTE", other.weights_id)
    assert not promote_unattended(weights.weights_id).promoted, "another champion does not undo the rejection"
    assert promote(weights.weights_id, force=True, actor="bob", reason="looked again").promoted
    with runtime.catalog.read() as db:
        why = model_rows.list_promotions(db)[0].reason
    assert why.startswith("forced against 'declined by airflow:ada")
    assert why.endswith("looked again")


def test_only_a_verdict_promote_requests_approval(runtime: Runtime):
    weights = challenger(runtime, outcome="HOLD")
    assert request_approval(weights.weights_id).outcome == "HOLD"
    assert decisions(runtime, weights) == []


def test_a_champion_without_a_verdict_stays(runtime: Runtime):
    weights = challenger(runtime)
    make_champion(runtime, weights)
    record = promote(weights.weights_id)
    assert (record.promoted, record.verdict_id, record.outcome) == (True, None, None)
    assert "without a verdict" in record.reasons[0]
    with pytest.raises(PromotionRefused, match="rollback"):
        decline(weights.weights_id, reason="too late")


def test_after_a_rollback_the_earlier_champion_has_its_verdict(runtime: Runtime):
    first = challenger(runtime)
    promote(first.weights_id)
    second = add_weights(runtime, snapshot_id=first.snapshot_id)
    add_verdict(runtime, second, "PROMOTE", first.weights_id)
    promote(second.weights_id)
    rollback(reason="test")
    record = promote(first.weights_id)
    assert (record.promoted, record.outcome) == (True, "PROMOTE")
