"""Radiometry variants: what they change, what is counted in them, and what the gate makes of it."""

import numpy as np
import pytest

from cloudseg.bands import MASK_CLOUD
from cloudseg.catalog import Catalog
from cloudseg.evaluate.comparison import GateResult, compare_with_champion
from cloudseg.evaluate.evaluation import evaluate_weights
from cloudseg.evaluate.metrics import Counts
from cloudseg.evaluate.radiometry import AS_IT_IS, ORIGINAL, VARIANTS, in_variant, robustness
from cloudseg.evaluate.scene_result import CURVE_BINS, SceneResult
from cloudseg.evaluate.slices import all_slices
from cloudseg.evaluate.table import CountsTable, read_table
from cloudseg.recipe import PromotionPolicy
from cloudseg.storage import LocalStore
from tests.evaluate.world import CPU, Tile, build_world, default_tiles, make_tile, register_net

BY_NAME = {variant.name: variant for variant in VARIANTS}
DN = np.array([[0, 1, 1000, 3558, 5000, 65_535]], np.uint16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gain 0.5", [0, 1, 500, 1779, 2500, 32_768]),  # 0.5 of digital number 1 is still observed
        ("gain 1.4", [0, 1, 1400, 4981, 7000, 65_535]),
        ("offset 0.1", [0, 1001, 2000, 4558, 6000, 65_535]),
        ("clip 0.6", [0, 1, 1000, 3558, 5000, 6000]),
        ("true color in 8 bits", [0, 1, 1005, 3558, 3558, 3558]),  # 1000 is step 72 of 255: 0.1005
    ],
)
def test_what_a_variant_changes(name: str, expected: list[int]) -> None:
    changed = BY_NAME[name].apply(DN)
    assert changed.dtype == np.uint16
    assert np.abs(changed[0].astype(int) - expected).max() <= 1
    assert ((changed == 0) == (DN == 0)).all()


def test_as_it_is_is_not_copied() -> None:
    assert ORIGINAL.apply(DN) is DN


def test_a_scene_in_a_variant_is_counted_as_if_its_pixels_were_changed(store: LocalStore, catalog: Catalog) -> None:
    """What is stored of the variant 'gain 0.7' equals an evaluation of scenes that are that much darker."""
    tiles = default_tiles()
    snapshot_id = build_world(store, catalog, tiles)
    weights = register_net(store, catalog, 0.45)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    gain = BY_NAME["gain 0.7"]
    darker = [
        Tile(f"{t.name}d", t.split, t.place, gain.apply(t.dn), t.label, t.tags, t.sensor, t.resolution_m) for t in tiles
    ]
    dark_id = build_world(store, catalog, darker)
    expected = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=dark_id, device=CPU)
    by_name = {s.name: s for s in read_table(store, expected).scenes}
    for scene in read_table(store, evaluation).scenes:
        counts = by_name[f"{scene.name}d"].counts
        assert scene.variants["gain 0.7"] == (counts.tp, counts.fp, counts.fn, counts.tn)
        assert set(scene.variants) == set(BY_NAME)
    (of_source,) = evaluation.metrics["robustness"].values()
    assert of_source["iou"]["gain 0.7"] == pytest.approx(expected.metrics["iou"], abs=1e-6)


def test_twice_coarser_averages_pixels_and_keeps_the_label(store: LocalStore, catalog: Catalog) -> None:
    """A chessboard of 0.2 and 0.6 is 0.4 everywhere at half the resolution: all cloud for a threshold of 0.3."""
    board = np.indices((48, 48)).sum(axis=0) % 2
    dn = np.broadcast_to(np.where(board == 1, 6000, 2000), (3, 48, 48)).astype(np.uint16)
    label = (board == 1).astype(np.uint8)
    tile = Tile("A", "held_out", "mgrs:A", dn, label, {})
    snapshot_id = build_world(store, catalog, [make_tile("B", "train", 0.5), tile])
    weights = register_net(store, catalog, 0.3)
    evaluation = evaluate_weights(store, catalog, weights_id=weights.weights_id, snapshot_id=snapshot_id, device=CPU)
    (scene,) = read_table(store, evaluation).scenes
    cloud = int((label == MASK_CLOUD).sum())
    assert scene.counts.tp == cloud
    assert scene.counts.fp == 0
    assert scene.variants["sensor 2 times coarser"] == (cloud, 48 * 48 - cloud, 0, 0)


def scene(n: int, hits: int, in_the_dark: int | None, source: str = "x") -> SceneResult:
    """500 cloud and 500 clear pixels; `in_the_dark` of the cloud are found in 'gain 0.5', all in the other variants."""
    found = dict.fromkeys(BY_NAME, (500, 0, 0, 500)) | {"gain 0.5": (in_the_dark, 0, 500 - (in_the_dark or 0), 500)}
    return SceneResult.model_validate(
        {
            "scene_id": f"sc-{n}",
            "name": f"scene {n}",
            "place": f"p{n}",
            "sensor": "s2",
            "source": source,
            "tags": {},
            "cloud_fraction": 0.5,
            "ground_reflectance": 0.1,
            "saturated_fraction": 0,
            "counts": Counts(tp=hits, fn=500 - hits, tn=500),
            "variants": {} if in_the_dark is None else found,
            "bright": None,
        }
    )


def table(name: str, scenes: list[SceneResult]) -> CountsTable:
    curve = ([0] * CURVE_BINS, [0] * CURVE_BINS)
    return CountsTable(
        weights_id=name,
        snapshot_id="sn",
        split="held_out",
        threshold=0.5,
        bright_from_reflectance=None,
        scenes=scenes,
        curve=curve,
    )


def compared(challenger: int | None, champion: int | None, **policy: float) -> GateResult:
    result = GateResult()
    compare_with_champion(
        table("a", [scene(n, 480 + n, challenger) for n in range(6)]),
        table("b", [scene(n, 400, champion) for n in range(6)]),
        PromotionPolicy(slice_min_scenes=3, **policy),
        result,
    )
    return result


def test_a_challenger_that_fails_in_one_variant_is_held() -> None:
    assert compared(400, 400).outcome == "PROMOTE"
    held = compared(300, 400)
    assert held.outcome == "HOLD"
    assert any("radiometry 'gain 0.5'" in reason and "0.050" in reason for reason in held.holds)


def test_radiometry_has_its_own_limit() -> None:
    assert compared(300, 400, radiometry_limit=0.3).outcome == "PROMOTE"
    assert compared(300, 400, slice_limit=0.3).outcome == "HOLD"


def test_an_older_evaluation_of_the_champion_is_told() -> None:
    result = compared(300, None)
    assert result.outcome == "PROMOTE"
    assert any("slices of radiometry 'clip 0.6', 'gain 0.5'" in reason for reason in result.pros)


def renamed(one: SceneResult) -> SceneResult:
    """The scene as an evaluation holds it that was made before a variant changed its meaning and its name."""
    variants = {("2 times coarser" if "coarser" in name else name): cells for name, cells in one.variants.items()}
    return one.model_copy(update={"variants": variants})


def test_a_variant_that_meant_something_else_is_not_compared() -> None:
    result = GateResult()
    compare_with_champion(
        table("a", [scene(n, 480 + n, 400) for n in range(6)]),
        table("b", [renamed(scene(n, 400, 400)) for n in range(6)]),
        PromotionPolicy(slice_min_scenes=3),
        result,
    )
    assert any(reason.endswith("slices of radiometry 'sensor 2 times coarser'") for reason in result.pros)
    assert robustness([renamed(scene(0, 500, 250, "far"))]) == {}
    assert set(robustness([renamed(scene(0, 500, 250, "far")), scene(1, 400, 500, "near")])) == {"near"}


def test_robustness_names_the_worst_variant_and_the_spread_of_each_source() -> None:
    found = robustness([scene(0, 500, 250, "far"), scene(1, 400, 500, "near"), scene(2, 0, None, "near")])
    assert found["far"] | {"iou": None} == {
        "scenes": 1,
        "iou": None,
        "worst": 0.5,
        "worst_variant": "gain 0.5",
        "spread": 0.0,
    }
    assert found["near"]["scenes"] == 1  # the third was not predicted in the variants
    assert (found["near"]["worst_variant"], found["near"]["worst"]) == (AS_IT_IS, 0.8)
    assert found["near"]["spread"] == pytest.approx(0.2)


def test_slices_by_label_source_need_two_sources() -> None:
    one = [scene(n, 500, 500) for n in range(2)]
    two = [*one, scene(2, 500, 0, "y")]
    kinds = {entry.kind for entry in all_slices(one)}
    assert "radiometry" in kinds
    assert "radiometry of x" not in kinds
    scores = {entry.value: entry.score for entry in all_slices(two) if entry.kind == "radiometry of y"}
    assert scores["gain 0.5"] == 0
    assert set(scores) == set(BY_NAME)
    assert [s.counts.tp for s in in_variant(two, "gain 0.5")] == [500, 500, 0]
