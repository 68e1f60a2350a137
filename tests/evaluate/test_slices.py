"""Which scenes make a slice."""

from cloudseg.evaluate.metrics import Counts
from cloudseg.evaluate.scene_result import SceneResult
from cloudseg.evaluate.slices import MOST_VALUES, all_slices


def scene(n: int, cloud: int = 50, **changes: object) -> SceneResult:
    values = {
        "scene_id": f"sc-{n}",
        "name": "x",
        "place": f"p{n // 2}",
        "sensor": "s2",
        "source": "x",
        "tags": {},
        "cloud_fraction": cloud / 100,
        "ground_reflectance": 0.1,
        "saturated_fraction": 0.0,
        "counts": Counts(tp=cloud, tn=100 - cloud),
        "bright": None,
    }
    return SceneResult.model_validate(values | changes)


def members(scenes: list[SceneResult], kind: str) -> dict[str, int]:
    return {entry.value: entry.scenes for entry in all_slices(scenes) if entry.kind == kind}


def test_cover_classes_hold_their_ends() -> None:
    found = members([scene(n, cloud) for n, cloud in enumerate((0, 4, 5, 34, 35, 64, 65, 94, 95, 100))], "cloud cover")
    assert found == {"below 5 %": 2, "5 to 35 %": 2, "35 to 65 %": 2, "65 to 95 %": 2, "above 95 %": 2}


def test_ground_by_brightness() -> None:
    grounds = (0.02, 0.1, 0.5, None)
    found = members([scene(n, ground_reflectance=ground) for n, ground in enumerate(grounds)], "ground")
    assert found == {"dark, below 0.08": 1, "medium, 0.08 to 0.20": 1, "bright, above 0.20": 1, "no clear ground": 1}


def test_any_tag_slices_but_names_do_not() -> None:
    scenes = [
        scene(n, tags={"biome": "snow" if n % 2 else "sea", "product": f"id {n}"}) for n in range(MOST_VALUES + 1)
    ]
    assert members(scenes, "tag biome") == {"sea": 13, "snow": 12}
    assert members(scenes, "tag product") == {}


def test_a_tag_that_all_scenes_share_is_no_group() -> None:
    assert members([scene(n, tags={"source": "x"}) for n in range(3)], "tag source") == {}


def test_scenes_without_the_tag_stay_outside() -> None:
    assert members([scene(0, tags={"biome": "sea"}), scene(1)], "tag biome") == {"sea": 1}


def test_places_and_figures() -> None:
    (entry,) = [entry for entry in all_slices([scene(0), scene(1), scene(2)]) if entry.kind == "sensor"]
    assert (entry.scenes, entry.places, entry.cloud_fraction, entry.measure, entry.score) == (3, 2, 0.5, "iou", 1)


def test_a_nearly_clear_slice_is_compared_by_its_clear_pixels() -> None:
    (entry,) = [entry for entry in all_slices([scene(0, 0, counts=Counts(tn=90, fp=10))]) if entry.kind == "sensor"]
    assert (entry.measure, entry.score, entry.pooled["iou"]) == ("clear_recall", 0.9, 0)
