"""The whole gate on a tiny snapshot: verdicts are canonical JSON, and the same comparison gives the same one."""

import json
from collections.abc import Callable

import pytest

from cloudseg import keys
from cloudseg.catalog import Catalog, model_rows
from cloudseg.evaluate.clean_process import SmokeTest, run_smoke_test
from cloudseg.evaluate.gate import decide
from cloudseg.model.golden import pack_golden
from cloudseg.model.weights import load_weights
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Verdict, Weights
from cloudseg.registry import find_champion, promote
from cloudseg.storage import LocalStore, Store
from tests.evaluate.world import CPU, brightness_net, build_world, default_tiles, register_net


@pytest.fixture
def snapshot_id(store: LocalStore, catalog: Catalog) -> str:
    return build_world(store, catalog, default_tiles())


def pass_untested(store: Store, weights: Weights) -> SmokeTest:
    """Pass without starting a process; test_clean_process.py starts real ones."""
    return SmokeTest(True, f"{weights.weights_id} was not tested")


def decided(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    challenger: str,
    champion: str | None,
    smoke_test: Callable[..., SmokeTest] = pass_untested,
) -> Verdict:
    return decide(
        store,
        catalog,
        challenger_id=challenger,
        champion_id=champion,
        snapshot_id=snapshot_id,
        promotion=PromotionPolicy(),
        device=CPU,
        smoke_test=smoke_test,
    )


def test_first_model_then_better_then_worse(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    fair, good = register_net(store, catalog, 0.555), register_net(store, catalog, 0.35)
    first = decided(store, catalog, snapshot_id, good.weights_id, None)
    assert first.outcome == "PROMOTE"
    assert first.body["blessing"]["passed"] is True
    assert first.body["champion"] is None
    promote(
        store,
        catalog,
        good.weights_id,
        expected_champion=None,
        verdict_id=first.verdict_id,
        actor="test",
        reason="the verdict",
    )
    champion = find_champion(catalog)
    assert champion is not None
    assert champion.weights_id == good.weights_id
    worse = decided(store, catalog, snapshot_id, fair.weights_id, good.weights_id)
    assert worse.outcome == "REJECT"
    assert worse.body["difference"]["pooled"]["upper"] < 0
    better = decided(store, catalog, snapshot_id, good.weights_id, fair.weights_id)
    assert better.outcome == "PROMOTE"
    assert better.body["difference"]["pooled"]["lower"] > 0
    assert better.body["champion"]["evaluation_id"] == worse.body["challenger"]["evaluation_id"]
    same = decided(store, catalog, snapshot_id, good.weights_id, good.weights_id)
    assert same.outcome == "HOLD"
    assert "the same weights" in same.body["reasons"][0]


def test_the_verdict_is_canonical_json_under_its_hash(store: LocalStore, catalog: Catalog, snapshot_id: str) -> None:
    weights = register_net(store, catalog, 0.35)
    verdict = decided(store, catalog, snapshot_id, weights.weights_id, None)
    data = store.get(keys.verdict(verdict.verdict_id))
    assert json.loads(data) == verdict.body
    assert data == keys.canonical_json(verdict.body)
    assert keys.id_from_hash("ve", keys.sha256_of(data)) == verdict.verdict_id
    assert verdict.body["policy"] == PromotionPolicy().model_dump(mode="json")
    assert decided(store, catalog, snapshot_id, weights.weights_id, None) == verdict
    with catalog.read() as db:
        assert model_rows.list_verdicts(db) == [verdict]


def test_weights_that_do_not_reproduce_their_golden_sample_are_rejected(
    store: LocalStore, catalog: Catalog, snapshot_id: str
) -> None:
    other, _ = brightness_net(0.5)
    weights = register_net(store, catalog, 0.35, golden=pack_golden(load_weights(other)))
    verdict = decided(store, catalog, snapshot_id, weights.weights_id, None, run_smoke_test)
    assert verdict.outcome == "REJECT"
    assert "not reproduced" in verdict.body["reasons"][0]


def test_a_champion_with_other_bands_needs_a_manual_decision(
    store: LocalStore, catalog: Catalog, snapshot_id: str
) -> None:
    weights = register_net(store, catalog, 0.35)
    champion = register_net(store, catalog, 0.35, bands=("red", "green", "nir"))
    verdict = decided(store, catalog, snapshot_id, weights.weights_id, champion.weights_id)
    assert verdict.outcome == "HOLD"
    assert "nir" in verdict.body["reasons"][0]


def test_a_stored_verdict_is_returned_unless_its_smoke_test_failed(
    store: LocalStore, catalog: Catalog, snapshot_id: str
) -> None:
    weights = register_net(store, catalog, 0.35)
    calls: list[bool] = []

    def busy_then_fine(_store: Store, _weights: Weights) -> SmokeTest:
        calls.append(True)
        return SmokeTest(len(calls) > 1, "the machine was busy" if len(calls) == 1 else "reproduced")

    outcomes = [
        decided(store, catalog, snapshot_id, weights.weights_id, None, busy_then_fine).outcome for _ in range(3)
    ]
    assert outcomes == ["REJECT", "PROMOTE", "PROMOTE"]
    assert len(calls) == 2
