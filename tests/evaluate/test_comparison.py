"""Outcomes of the gate and their reasons, from counts: promote, hold, reject."""

import pytest

from cloudseg.evaluate.comparison import GateResult, compare_with_champion, compare_with_trivial_masks, places_needed
from cloudseg.evaluate.metrics import Counts
from cloudseg.evaluate.scene_result import CURVE_BINS, SceneResult
from cloudseg.evaluate.table import CountsTable
from cloudseg.recipe import PromotionPolicy

POLICY = PromotionPolicy(slice_min_scenes=3)


def scene(
    n: int, counts: Counts, *, bright: Counts | None = None, place: str | None = None, sensor: str = "s2"
) -> SceneResult:
    return SceneResult(
        scene_id=f"sc-{n}",
        name=f"scene {n}",
        place=place or f"p{n}",
        sensor=sensor,
        source="x",
        tags={},
        cloud_fraction=counts.cloud / counts.pixels,
        ground_reflectance=0.1,
        saturated_fraction=0,
        counts=counts,
        bright=bright,
    )


def table(weights_id: str, scenes: list[SceneResult]) -> CountsTable:
    return CountsTable(
        weights_id=weights_id,
        snapshot_id="sn",
        split="held_out",
        threshold=0.5,
        bright_from_reflectance=0.2,
        scenes=scenes,
        curve=([0] * CURVE_BINS, [0] * CURVE_BINS),
    )


def masks(name: str, hits: list[int], *, bright: int = 300, sensors: list[str] | None = None) -> CountsTable:
    """Scenes of 500 cloud and 500 clear pixels; `hits` of the cloud are found, nothing is found falsely."""
    return table(
        name,
        [
            scene(
                n,
                Counts(tp=hit, fn=500 - hit, tn=500),
                bright=Counts(tp=bright, fn=500 - bright, tn=500),
                sensor=sensor,
            )
            for n, (hit, sensor) in enumerate(zip(hits, sensors or ["s2"] * len(hits), strict=True))
        ],
    )


def compared(challenger: CountsTable, champion: CountsTable, policy: PromotionPolicy = POLICY) -> GateResult:
    result = GateResult()
    compare_with_champion(challenger, champion, policy, result)
    return result


def test_a_first_model_that_beats_every_trivial_mask_is_promoted() -> None:
    result = GateResult()
    found = compare_with_trivial_masks(masks("a", [400, 420, 450, 430, 410, 440]), POLICY, result, is_first=True)
    assert sorted(found) == ["all_clear", "all_cloud", "brightness"]
    assert result.outcome == "PROMOTE"
    assert found["brightness"].lower > 0


def test_a_first_model_that_is_not_significantly_better_holds() -> None:
    result = GateResult()
    compare_with_trivial_masks(masks("a", [450, 100, 480, 150, 490, 400], bright=320), POLICY, result, is_first=True)
    assert result.outcome == "HOLD"
    assert any("brightness" in reason for reason in result.holds)


@pytest.mark.parametrize("is_first", [True, False])
def test_worse_than_a_trivial_mask_is_rejected(is_first: bool) -> None:
    result = GateResult()
    compare_with_trivial_masks(masks("a", [200, 210, 220, 230]), POLICY, result, is_first=is_first)
    assert result.outcome == "REJECT"
    assert "brightness" in result.reasons[0] or "all_cloud" in result.reasons[0]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_mask_that_may_be_worse_than_a_trivial_one_is_rejected(is_first: bool) -> None:
    """Here the observed difference decides: a successor needs no significant lead over a trivial mask."""
    result = GateResult()
    found = compare_with_trivial_masks(
        masks("a", [450, 260, 480, 270, 490, 400], bright=395), POLICY, result, is_first=is_first
    )
    assert found["brightness"].observed < 0 < found["brightness"].upper
    assert result.outcome == "REJECT"
    assert "brightness" in result.reasons[0]


def test_a_successor_need_not_significantly_beat_brightness() -> None:
    result = GateResult()
    compare_with_trivial_masks(masks("a", [450, 260, 480, 270, 490, 400], bright=380), POLICY, result, is_first=False)
    assert result.outcome == "PROMOTE"


def test_clearly_better_is_promoted() -> None:
    assert compared(masks("a", [430, 440, 450, 460, 440]), masks("b", [400, 410, 415, 420, 400])).outcome == "PROMOTE"


def test_the_margin_must_be_cleared() -> None:
    challenger, champion = masks("a", [410, 412, 409, 411, 410]), masks("b", [400, 401, 400, 402, 400])
    assert compared(challenger, champion).outcome == "PROMOTE"
    result = compared(challenger, champion, POLICY.model_copy(update={"margin": 0.03}))
    assert result.outcome == "HOLD"
    assert "margin 0.030" in result.reasons[0]


def test_noise_holds() -> None:
    assert compared(masks("a", [450, 350, 420, 380, 400]), masks("b", [400] * 5)).outcome == "HOLD"


def test_better_but_not_significantly_holds() -> None:
    """The lower bound decides, not the observed difference."""
    result, figures = GateResult(), masks("a", [450, 360, 425, 385, 405])
    difference = compare_with_champion(figures, masks("b", [400] * 5), POLICY, result)["difference"]["pooled"]
    assert difference["observed"] == pytest.approx(0.01)
    assert difference["lower"] < 0
    assert result.outcome == "HOLD"
    assert "inconclusive" in result.reasons[0]


def test_worse_but_not_significantly_holds() -> None:
    """The upper bound rejects, not the observed difference."""
    result, figures = GateResult(), masks("a", [440, 320, 400, 350, 415])
    difference = compare_with_champion(figures, masks("b", [400] * 5), POLICY, result)["difference"]["pooled"]
    assert difference["observed"] == pytest.approx(-0.03)
    assert difference["observed"] < POLICY.reject_below < difference["upper"]
    assert result.outcome == "HOLD"


def test_equal_holds() -> None:
    assert compared(masks("a", [400] * 6), masks("b", [400] * 6)).outcome == "HOLD"


def test_significantly_worse_is_rejected() -> None:
    result = compared(masks("a", [350, 340, 345, 355, 350]), masks("b", [400, 410, 405, 400, 410]))
    assert result.outcome == "REJECT"
    assert "significantly worse" in result.reasons[0]


@pytest.mark.parametrize(("hits", "what"), [([480] * 4, "better everywhere"), ([300] * 4, "worse everywhere")])
def test_too_few_places_hold(hits: list[int], what: str) -> None:
    result = compared(masks("a", hits), masks("b", [400] * 4))
    assert result.outcome == "HOLD", what
    assert "4 held-out places are too few for a confidence of 95%" in result.reasons[0]
    assert "5 are needed" in result.reasons[0]
    less_confident = POLICY.model_copy(update={"confidence": 0.9})
    assert compared(masks("a", [480] * 4), masks("b", [400] * 4), less_confident).outcome == "PROMOTE"


def test_places_count_not_scenes() -> None:
    pair = [[scene(n, Counts(tp=hit, fn=500 - hit, tn=500), place="one") for n in range(9)] for hit in (480, 400)]
    assert compared(table("a", pair[0]), table("b", pair[1])).outcome == "HOLD"


def test_a_first_model_on_few_places_is_promoted_and_the_reasons_say_so() -> None:
    result = GateResult()
    compare_with_trivial_masks(masks("a", [400, 420, 450]), POLICY, result, is_first=True)
    assert result.outcome == "PROMOTE"
    assert "3 held-out places, 5 are needed" in result.reasons[-1]


@pytest.mark.parametrize(("confidence", "places"), [(0.75, 2), (0.9, 4), (0.95, 5), (0.99, 7)])
def test_places_needed(confidence: float, places: int) -> None:
    assert places_needed(confidence) == places


def test_a_falling_slice_holds_a_better_challenger() -> None:
    sensors = ["s2"] * 9 + ["l8"] * 3
    champion = masks("b", [300] * 9 + [400] * 3, sensors=sensors)
    challenger = masks("a", [450] * 9 + [360] * 3, sensors=sensors)
    result = compared(challenger, champion)
    assert result.outcome == "HOLD"
    assert any("sensor 'l8' (3 scenes) falls by 0.080" in reason for reason in result.holds)
    lenient = POLICY.model_copy(update={"slice_limit": 0.1})
    assert compared(challenger, champion, lenient).outcome == "PROMOTE"
    larger = POLICY.model_copy(update={"slice_min_scenes": 4})
    assert compared(challenger, champion, larger).outcome == "PROMOTE"


def test_nearly_cloud_free_slices_are_compared_by_the_clear_pixels() -> None:
    """A single wrong pixel changes the IoU of such a slice from 1 to 0; that is no decrease of the recall."""
    cloudy = [Counts(tp=400, fn=100, tn=500)] * 4
    better = [Counts(tp=450, fn=50, tn=500)] * 4
    champion = table("b", [scene(n, c) for n, c in enumerate([*cloudy, *[Counts(tn=1000)] * 4])])
    challenger = table("a", [scene(n, c) for n, c in enumerate([*better, *[Counts(tn=999, fp=1)] * 4])])
    assert compared(challenger, champion).outcome == "PROMOTE"
    alarmed = table("a", [scene(n, c) for n, c in enumerate([*better, *[Counts(tn=900, fp=100)] * 4])])
    assert "clear_recall" in " ".join(compared(alarmed, champion).holds)


def test_the_order_of_scenes_does_not_matter() -> None:
    challenger, champion = masks("a", [430, 300, 450, 460]), masks("b", [400, 410, 100, 420])
    shuffled = champion.model_copy(update={"scenes": champion.scenes[::-1]})
    assert compared(challenger, champion).reasons == compared(challenger, shuffled).reasons
