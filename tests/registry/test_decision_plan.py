"""What a decision would change, before it is made: in words, with whole ids, refused where it cannot be."""

from pathlib import Path

import pytest

from cloudseg.catalog import model_rows
from cloudseg.errors import CloudsegError, InputError, NotInCatalog, PromotionRefused, StateError
from cloudseg.records import DecisionName, DecisionPlan, Verdict, Weights
from cloudseg.registry.decision_plan import MOST, plan_decision
from cloudseg.registry.decisions import record_rejection, record_request
from cloudseg.runtime import Runtime, open_runtime
from tests.catalog import rows
from tests.stages.test_decisions import challenger
from tests.stages.test_plans import add_weights, make_champion


@pytest.fixture
def runtime(runtime_env: Path) -> Runtime:
    return open_runtime()


@pytest.fixture
def pair(runtime: Runtime) -> tuple[Weights, Weights]:
    """The champion v1, and v2 with a verdict PROMOTE against it."""
    champion = add_weights(runtime, data=b"first")
    make_champion(runtime, champion)
    return champion, challenger(runtime, champion_id=champion.weights_id)


def planned(runtime: Runtime, decision: DecisionName, *about: str, **options: bool) -> DecisionPlan:
    return plan_decision(runtime.store, runtime.catalog, decision, about, **options)


def requested(runtime: Runtime, weights: Weights) -> Verdict:
    """Record that ada asks for the approval of weights, and return their verdict."""
    with runtime.catalog.read() as db:
        verdict = model_rows.find_verdict(db, weights.weights_id)
    assert verdict is not None
    record_request(runtime.catalog, verdict, actor="airflow:ada", reason="")
    return verdict


def test_a_promotion_names_both_models_and_who_asked(runtime: Runtime, pair: tuple[Weights, Weights]) -> None:
    assert planned(runtime, "promote", "v2").asked_by is None
    requested(runtime, pair[1])
    plan = planned(runtime, "promote", " v2 ", "v2", "")
    assert plan.changes[:2] == ["The champion: v2 instead of v1.", "Verdict PROMOTE: a test; a second one"]
    assert plan.arguments == {"weights_id": pair[1].weights_id, "force": False, "since": 1}
    assert plan.asked_by == "airflow:ada"
    assert planned(runtime, "decline", "v2").asked_by == "airflow:ada"
    make_champion(runtime, pair[1], replaces=pair[0].weights_id)
    assert planned(runtime, "promote", "v2").changes == ["Nothing: v2 is the champion already."]


def test_who_asked_is_known_after_a_rejection(runtime: Runtime, pair: tuple[Weights, Weights]) -> None:
    """Otherwise who triggered the training could overrule the rejection alone, against four eyes."""
    record_rejection(runtime.catalog, requested(runtime, pair[1]), actor="airflow:ben", reason="no")
    with pytest.raises(PromotionRefused, match=r"was declined.*airflow:ben.*Override"):
        planned(runtime, "promote", "v2")
    assert planned(runtime, "promote", "v2", force=True).asked_by == "airflow:ada"
    again = planned(runtime, "decline", "v2")
    assert again.changes[0].startswith("Nothing: v2 was declined by airflow:ben")
    assert again.asked_by == "airflow:ada"


@pytest.mark.parametrize("outcome", ["HOLD", "REJECT"])
def test_a_verdict_against_it_needs_override(runtime: Runtime, outcome: str) -> None:
    champion = add_weights(runtime, data=b"first")
    make_champion(runtime, champion)
    challenger(runtime, champion_id=champion.weights_id, outcome=outcome)
    with pytest.raises(PromotionRefused, match=f"verdict is against a promotion .*{outcome}: a test; a second one"):
        planned(runtime, "promote", "v2")
    changes = planned(runtime, "promote", "v2", force=True).changes
    assert f"Verdict {outcome}: a test; a second one" in changes
    assert "Also against the verdict" in " ".join(changes)


def test_a_verdict_against_an_earlier_champion_does_not_count(runtime: Runtime, pair: tuple[Weights, Weights]) -> None:
    newest = add_weights(runtime, data=b"third")
    make_champion(runtime, newest, replaces=pair[0].weights_id)
    assert planned(runtime, "promote", "v2").changes[1] == (
        "v2 is compared with v3 first; nothing changes unless the verdict is PROMOTE."
    )


def test_a_rollback_names_the_champion_to_replace(runtime: Runtime, pair: tuple[Weights, Weights]) -> None:
    make_champion(runtime, pair[1], replaces=pair[0].weights_id)
    plan = planned(runtime, "roll_back", "v2")
    assert plan.changes[0].startswith("The champion: v1 again instead of v2, promoted on ")
    assert plan.arguments == {"champion_id": pair[1].weights_id}
    for name in ("champion", ""):  # repeated, the run would replace the earlier champion as well
        with pytest.raises(InputError, match="The champion is v2: fill in"):
            planned(runtime, "roll_back", name)
    with pytest.raises(PromotionRefused):
        planned(runtime, "decline", "v2")


def test_a_release_takes_names_of_files_and_remembers_ids(runtime: Runtime) -> None:
    rows.fill(runtime.catalog)
    plan = planned(runtime, "release", "bad.tif")
    assert plan.arguments == {"quarantine_ids": ["qu-1"]}
    assert plan.changes == ["bad.tif is read again; it was refused: no CRS."]
    with pytest.raises(NotInCatalog, match=r"Did you mean bad\.tif"):
        planned(runtime, "release", "bda.tif")


@pytest.mark.parametrize(
    ("decision", "about", "options", "words"),
    [
        ("promote", ["v1", "v2"], {}, "needs one subject"),
        ("promote", [], {}, "needs one subject"),
        ("promote", ["v9"], {}, "no such weights"),
        ("promote", ["v1"], {"hold": True}, "hold does not belong to this decision"),
        ("decline", ["v1"], {"force": True}, "force does not belong to this decision"),
        ("accept_label", [], {}, "needs a label"),
        ("release", [], {}, "needs ids of the quarantine"),
        ("release", ["qu-\0"], {}, "no such entry"),
        ("accept_label", [f"lb-{n}" for n in range(MOST + 1)], {}, "too many subjects"),
        ("switch_readers", ["newest"], {"hold": True}, "the newest champion changes by itself"),
        ("switch_readers_back", ["x"], {}, "not the number of a decision"),
    ],
)
def test_what_cannot_be_is_refused(
    runtime: Runtime, decision: DecisionName, about: list[str], options: dict[str, bool], words: str
) -> None:
    rows.fill(runtime.catalog)
    with pytest.raises(CloudsegError, match=words) as error:
        planned(runtime, decision, *about, **options)
    assert isinstance(error.value, InputError | StateError)
