"""Evaluation of weights with optional bands: what they miss without them, and what the gate makes of it."""

from benchmarks.robustness import _table
from cloudseg.catalog import Catalog
from cloudseg.evaluate.comparison import GateResult, compare_with_champion
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.radiometry import VARIANTS, WITHOUT_OPTIONAL
from cloudseg.evaluate.scene_result import CURVE_BINS, SceneResult
from cloudseg.evaluate.table import CountsTable, read_table
from cloudseg.model.weights import pack_weights
from cloudseg.recipe import PromotionPolicy
from cloudseg.registry import register
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, build_world, default_tiles, register_net
from tests.predict.conftest import make_loaded

WITHOUT = WITHOUT_OPTIONAL.name


def test_an_evaluation_counts_scenes_without_the_optional_bands(store: LocalStore, catalog: Catalog) -> None:
    """The net looks at red alone: without it, nothing is cloud."""
    snapshot_id = build_world(store, catalog, default_tiles())
    weights = register_net(store, catalog, 0.4, optional_bands=("red",))
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    for scene in read_table(store, evaluation).scenes:
        cloud, clear = scene.counts.tp + scene.counts.fn, scene.counts.fp + scene.counts.tn
        assert scene.variants[WITHOUT] == (0, 0, cloud, clear)
        assert set(scene.variants) == {variant.name for variant in VARIANTS} | {WITHOUT}
    (of_source,) = evaluation.metrics["robustness"].values()
    assert of_source["iou"][WITHOUT] == 0
    assert of_source["worst_variant"] != WITHOUT, "the worst compares all weights"
    assert evaluation.metrics["promise"]
    html = store.get(evaluation.report["html"]["key"]).decode()
    assert f"<th>{WITHOUT}</th>" in html
    assert "red (optional), green, blue" in html
    assert f"| true color in 8 bits | sensor 2 times coarser | {WITHOUT} | worst |" in _table(evaluation)[0]


def test_a_snapshot_may_lack_an_optional_band(store: LocalStore, catalog: Catalog) -> None:
    snapshot_id = build_world(store, catalog, default_tiles()[:5])
    loaded = make_loaded((4, 6), bands=("red", "green", "blue", "nir"), optional_bands=("nir",))
    weights = register(
        store,
        catalog,
        weights=pack_weights(loaded.net, loaded.meta),
        metadata=loaded.meta.model_dump(mode="json"),
        companions={},
        run_id=None,
        snapshot_id=None,
        architecture=loaded.meta.architecture,
    )
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    (scene,) = read_table(store, evaluation).scenes
    assert scene.counts.pixels == 48 * 48
    assert WITHOUT not in scene.variants
    assert "promise" not in evaluation.metrics, "masks with all bands are promised nothing by scenes that lack one"


def table(name: str, without: int | None) -> CountsTable:
    """Return six scenes; without optional bands `without` of 500 cloud pixels are found; None: not predicted so."""
    hits = 450 if name == "challenger" else 400
    variants = {WITHOUT: (without, 0, 500 - without, 500)} if without is not None else {}
    scenes = [
        {
            "scene_id": f"sc-{n}",
            "name": f"scene {n}",
            "place": f"p{n}",
            "sensor": "s2",
            "source": "x",
            "tags": {},
            "cloud_fraction": 0.5,
            "ground_reflectance": 0.1,
            "saturated_fraction": 0,
            "counts": {"tp": hits + n, "fn": 500 - hits - n, "tn": 500},
            "variants": variants,
            "bright": None,
        }
        for n in range(6)
    ]
    return CountsTable(
        weights_id=name,
        snapshot_id="sn",
        split="held_out",
        threshold=0.5,
        bright_from_reflectance=None,
        scenes=[SceneResult.model_validate(scene) for scene in scenes],
        curve=([0] * CURVE_BINS, [0] * CURVE_BINS),
    )


def compared(challenger: int | None, champion: int | None) -> GateResult:
    result = GateResult()
    policy = PromotionPolicy(slice_min_scenes=3)
    compare_with_champion(table("challenger", challenger), table("champion", champion), policy, result)
    return result


def test_the_gate_compares_masks_without_optional_bands() -> None:
    assert compared(400, 400).outcome == "PROMOTE"
    held = compared(300, 400)
    assert held.outcome == "HOLD"
    assert any(f"radiometry '{WITHOUT}'" in reason for reason in held.holds)


def test_a_champion_that_needs_all_bands_may_be_replaced_by_one_that_does_not_but_not_the_other_way() -> None:
    more = compared(10, None)
    assert more.outcome == "PROMOTE"
    assert any("also masks scenes without optional bands, which the champion does not" in why for why in more.pros)
    less = compared(None, 10)
    assert less.outcome == "HOLD"
    assert any("the champion also masks scenes without optional bands" in why for why in less.holds)
