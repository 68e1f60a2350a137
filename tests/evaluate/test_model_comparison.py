"""Any two models: the figures of the gate's verdict, on any snapshots, with pictures from what evaluations stored."""

import io
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from cloudseg.catalog import Catalog, training_rows
from cloudseg.errors import InputError, NotInCatalog, StateError
from cloudseg.evaluate.clean_process import SmokeTest
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.gate import decide
from cloudseg.evaluate.model_comparison import compare_two, find_sides
from cloudseg.evaluate.model_facts import int8_facts
from cloudseg.evaluate.pair_pictures import draw_pair
from cloudseg.evaluate.small_masks import decode_small, encode_small, read_small
from cloudseg.recipe import PromotionPolicy
from cloudseg.records import Evaluation, Json, Run, Verdict, Weights
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, build_world, default_tiles, make_tile, register_net

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def snapshot_id(store: LocalStore, catalog: Catalog) -> str:
    return build_world(store, catalog, default_tiles())


@pytest.fixture
def pair(store: LocalStore, catalog: Catalog) -> tuple[Weights, Weights]:
    """The first is the older and better one."""
    return register_net(store, catalog, 0.35), register_net(store, catalog, 0.555)


def decided(
    store: LocalStore, catalog: Catalog, snapshot_id: str, challenger: Weights, champion: Weights, **policy: object
) -> Verdict:
    return decide(
        store,
        catalog,
        challenger_id=challenger.weights_id,
        champion_id=champion.weights_id,
        snapshot_id=snapshot_id,
        promotion=PromotionPolicy.model_validate(policy),
        device=CPU,
        smoke_test=lambda store, weights: SmokeTest(True, "not tested"),
    )


def evaluated(store: LocalStore, catalog: Catalog, weights: Weights, snapshot_id: str) -> Evaluation:
    return evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)


def negated(difference: Json) -> Json:
    return {"observed": -difference["observed"], "lower": -difference["upper"], "upper": -difference["lower"]}


def test_the_figures_are_those_of_the_gates_verdict(
    store: LocalStore, catalog: Catalog, snapshot_id: str, pair: tuple[Weights, Weights]
) -> None:
    good, fair = pair
    # An older challenger, a confidence of its own: only the verdict says so.
    verdict = decided(store, catalog, snapshot_id, good, fair, confidence=0.9, bootstrap_samples=500)
    found = compare_two(store, catalog, good.weights_id, "v2")
    assert found["difference"] == verdict.body["difference"]
    assert found["conclusion"]["better"] == "a"
    assert found["verdict"]["outcome"] == verdict.outcome == "PROMOTE"
    assert found["verdict"]["reasons"] == verdict.body["reasons"]
    of_gate = {(s["kind"], s["value"]): (s["scenes"], s["change"], s["measure"]) for s in verdict.body["slices"]}
    assert {(s["kind"], s["value"]): (s["scenes"], s["difference"], s["measure"]) for s in found["slices"]} == of_gate
    assert found["a"]["figures"]["iou"] == verdict.body["challenger"]["iou"]
    assert found["b"]["figures"]["scene_mean_iou"] == verdict.body["champion"]["scene_mean_iou"]
    back = compare_two(store, catalog, "v2", "v1")
    assert back["difference"] == {name: negated(of) for name, of in found["difference"].items()}
    assert back["conclusion"]["better"] == "b"


def test_without_a_verdict_the_figures_are_those_that_the_gate_would_find(
    store: LocalStore, catalog: Catalog, snapshot_id: str, pair: tuple[Weights, Weights]
) -> None:
    for weights in pair:
        evaluated(store, catalog, weights, snapshot_id)
    before = compare_two(store, catalog, "v1", "v2")
    assert before["verdict"] is None
    verdict = decided(store, catalog, snapshot_id, pair[1], pair[0])
    assert before["difference"] == {name: negated(of) for name, of in verdict.body["difference"].items()}
    assert verdict.outcome == "REJECT"


def test_slices_and_places_have_bounds_where_there_is_something_to_draw(
    store: LocalStore, catalog: Catalog, snapshot_id: str, pair: tuple[Weights, Weights]
) -> None:
    for weights in pair:
        evaluated(store, catalog, weights, snapshot_id)
    found = compare_two(store, catalog, "v1", "v2")
    assert found["compared"] == {
        "split": "held_out",
        "same_snapshot": True,
        "note": f"Both were evaluated on the 10 held-out scenes of snapshot {snapshot_id}.",
        "command": None,
        "scenes": 10,
        "places": 10,
    }
    whole = next(line for line in found["slices"] if line["kind"] == "sensor")
    pooled = found["difference"]["pooled"]
    assert (whole["difference"], whole["lower"], whole["upper"]) == (
        pooled["observed"],
        pooled["lower"],
        pooled["upper"],
    )
    assert whole["enough"]
    clear = next(line for line in found["slices"] if line["value"] == "below 5 %")
    assert clear["measure"] == "clear_recall"
    assert clear["places"] == 2
    assert not clear["enough"]
    assert clear["lower"] <= clear["difference"] <= clear["upper"]
    assert [line["lower"] for line in found["by_place"]] == [None] * 10, "one scene each"
    assert len(found["by_place"]) == found["compared"]["places"]


def test_two_scenes_of_a_place_give_it_bounds(
    store: LocalStore, catalog: Catalog, pair: tuple[Weights, Weights]
) -> None:
    held_out = [make_tile(f"H{n}", "held_out", 0.2 + 0.1 * n, place=f"mgrs:P{n % 2}") for n in range(6)]
    snapshot_id = build_world(store, catalog, [*default_tiles()[:4], *held_out])
    for weights in pair:
        evaluated(store, catalog, weights, snapshot_id)
    found = compare_two(store, catalog, "v1", "v2")
    assert [line["scenes"] for line in found["by_place"]] == [3, 3]
    for line in found["by_place"]:
        assert line["lower"] < line["difference"] < line["upper"]
    assert found["conclusion"]["better"] is None
    assert "2 places are too few, 5 are needed" in found["conclusion"]["text"]


def test_different_snapshots_are_restricted_to_the_scenes_in_common(
    store: LocalStore, catalog: Catalog, snapshot_id: str, pair: tuple[Weights, Weights]
) -> None:
    older, newer = pair
    evaluated(store, catalog, older, snapshot_id)
    tiles = default_tiles()[:-2]
    tiles[10] = make_tile("T10", "held_out", 0.9, tags=tiles[10].tags)  # a corrected label: no longer the same question
    other = build_world(store, catalog, [*tiles, make_tile("N1", "held_out", 0.5)])
    assert other != snapshot_id
    evaluated(store, catalog, newer, other)
    found = compare_two(store, catalog, "v1", "v2")
    assert found["compared"]["scenes"] == 7
    assert not found["compared"]["same_snapshot"]
    assert (
        f"different snapshots: v1 on 10 held-out scenes of {snapshot_id}, v2 on 9 of {other}"
        in (found["compared"]["note"])
    )
    command = f"cloudseg evaluate {older.weights_id} --snapshot {other}"
    assert found["compared"]["command"] == command
    evaluated(store, catalog, older, other)  # what the command does
    assert compare_two(store, catalog, "v1", "v2")["compared"]["scenes"] == 9


def test_what_cannot_be_compared_names_the_command(
    store: LocalStore, catalog: Catalog, snapshot_id: str, pair: tuple[Weights, Weights]
) -> None:
    older, newer = pair
    with pytest.raises(StateError, match=f"cloudseg evaluate {older.weights_id}`"):
        compare_two(store, catalog, "v1", "v2")
    evaluated(store, catalog, newer, snapshot_id)
    with pytest.raises(StateError, match=f"cloudseg evaluate {older.weights_id} --snapshot {snapshot_id}`"):
        compare_two(store, catalog, "v1", "v2")
    alone = build_world(store, catalog, [*default_tiles()[:4], make_tile("N1", "held_out", 0.5)])
    evaluated(store, catalog, older, alone)
    with pytest.raises(StateError, match=f"cloudseg evaluate {older.weights_id} --snapshot {snapshot_id}`"):
        compare_two(store, catalog, "v1", "v2")
    for a, b, error in (("v1", "v1", InputError), ("v1", "v9", NotInCatalog), ("champion", "v1", NotInCatalog)):
        with pytest.raises(error):
            compare_two(store, catalog, a, b)


def test_the_scenes_that_differ_most_have_pictures(
    store: LocalStore,
    catalog: Catalog,
    snapshot_id: str,
    pair: tuple[Weights, Weights],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = [evaluated(store, catalog, weights, snapshot_id) for weights in pair]
    found = compare_two(store, catalog, "v1", "v2")
    gaps = [abs(scene["wrong_a"] - scene["wrong_b"]) for scene in found["scenes"]]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0
    first = found["scenes"][0]
    (label, mask), (same, other) = (read_small(store, one, [first["scene_id"]])[first["scene_id"]] for one in of)
    np.testing.assert_array_equal(label, same)
    # 48 pixels a side are not reduced: the stored masks are the evaluated ones.
    assert [(stored != label).mean() for stored in (mask, other)] == pytest.approx(
        [first["wrong_a"], first["wrong_b"]], abs=1e-6
    )
    monkeypatch.setattr(
        "cloudseg.evaluate.pair_pictures._read_color", lambda store, scene, shape: np.zeros((*shape, 3), np.uint8)
    )
    sides = find_sides(catalog, "v1", "v2")
    png = draw_pair(store, catalog, sides, first["scene_id"])
    assert png is not None
    assert Image.open(io.BytesIO(png)).size == (4 * 288 + 3 * 6, 288)
    with catalog.begin() as db:  # an evaluation of an earlier release
        db.exec_driver_sql("UPDATE evaluation SET report = json_remove(report, '$.masks')")
    assert draw_pair(store, catalog, find_sides(catalog, "v1", "v2"), first["scene_id"]) is None


def test_a_small_mask_keeps_label_and_mask() -> None:
    values = np.array([0, 1, 255], np.uint8)
    label, mask = np.meshgrid(values, values)
    for found, expected in zip(decode_small(encode_small(label, mask)), (label, mask), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_keys_of_the_recipes_that_differ(
    store: LocalStore, catalog: Catalog, snapshot_id: str, pair: tuple[Weights, Weights]
) -> None:
    for weights in pair:
        evaluated(store, catalog, weights, snapshot_id)
    assert compare_two(store, catalog, "v1", "v2")["recipe"] is None
    recipes = [{"budget": {"minutes": 30, "batch_size": 8}, "seed": 0}, {"budget": {"minutes": 60, "batch_size": 8}}]
    for weights, recipe in zip(pair, recipes, strict=True):
        with catalog.begin() as db:
            training_rows.add_run(db, _run(f"run-{weights.version}", snapshot_id, recipe))
            db.exec_driver_sql(
                "UPDATE weights SET run_id = ? WHERE weights_id = ?", (f"run-{weights.version}", weights.weights_id)
            )
    assert compare_two(store, catalog, "v1", "v2")["recipe"] == [
        {"key": "budget.minutes", "a": "30", "b": "60"},
        {"key": "seed", "a": "0", "b": None},
    ]


def _run(run_id: str, snapshot_id: str, recipe: Json) -> Run:
    return Run(
        run_id=run_id,
        snapshot_id=snapshot_id,
        recipe_name="tiny",
        recipe_hash="0" * 64,
        recipe=recipe,
        parent_weights_id=None,
        seed=0,
        status="finished",
        device="cpu",
        device_reason="a test",
        error=None,
        created_at=NOW,
        finished_at=NOW,
    )


def test_int8_is_told_from_the_card(store: LocalStore, catalog: Catalog) -> None:
    from cloudseg.registry.card import model_card

    weights = register_net(store, catalog, 0.35)
    assert int8_facts(store, weights) == {
        "published": False,
        "bytes": None,
        "why": "no int8 file was published; the agreement was not recorded",
    }
    figures = {"int8_mask_iou_against_fp32": 0.97, "int8_validation_iou_change": -0.0123}
    card = store.put("models/x/card.abc.md", model_card(weights.metadata, figures).encode())
    told = int8_facts(store, weights.model_copy(update={"companions": {"card": card.model_dump()}}))
    assert told["why"] == (
        "not accepted, at least 0.99 and a change of at most 0.005 are needed: mask IoU against fp32 0.9700, change of "
        "the validation IoU -0.0123"
    )
    with_int8 = {"card": card.model_dump(), "int8": {"key": "models/x/int8.onnx", "sha256": "0", "size": 7}}
    told = int8_facts(store, weights.model_copy(update={"companions": with_int8}))
    assert (told["published"], told["bytes"]) == (True, 7)
    assert told["why"].startswith("accepted: mask IoU against fp32 0.9700")


def test_no_torch_is_needed() -> None:
    names = "cloudseg.evaluate.model_comparison, cloudseg.evaluate.pair_pictures"
    code = f"import sys, {names}; print(*sorted({{'torch', 'onnxruntime'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
