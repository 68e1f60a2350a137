"""What a mask says of the range of brightness and of thresholds: in its tags, item, row, figures, alert and command."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from cloudseg import load
from cloudseg.catalog import model_rows
from cloudseg.errors import InputError
from cloudseg.grid import Window
from cloudseg.model.weights import LoadedModel
from cloudseg.model.windows import PaddedWindow
from cloudseg.monitor.conditions import find_outside_training
from cloudseg.monitor.figures import read_figures
from cloudseg.predict.brightness import BrightnessCount
from cloudseg.records import BrightnessRange, Mask, Weights
from cloudseg.runtime import open_runtime
from cloudseg.stages import predict, predict_file
from cloudseg.stages.plan import plan_masks
from tests.predict.promised import evaluate_as

DARK = BrightnessRange(scenes=60, percentiles=(1, 5, 25, 50), low=(0.01, 0.01, 0.02, 0.03), high=(0.1, 0.1, 0.2, 0.25))


def mask_of(scene_id: str, weights: Weights, **asked: Any) -> tuple[Mask, dict[str, str], dict[str, Any]]:
    """Predict and return the row, the tags of the file and the properties of the item beside it."""
    record = predict([scene_id], weights_id=weights.weights_id, **asked)
    assert record.failed == {}
    runtime = open_runtime()
    with runtime.catalog.read() as db:
        mask = model_rows.get_mask(db, record.masks[0])
    with rasterio.open(runtime.store.gdal_path(mask.key)) as dataset:
        tags = dataset.tags()
    return mask, tags, json.loads(runtime.store.get(mask.companions["item"]["key"]))["properties"]


def test_a_scene_that_is_too_bright_says_so_everywhere(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    weights, _ = served.add_weights(make_net((4, 6), brightness=DARK))
    numbers = make_pixels(160, 200, seed=1)
    bright, tags, item = mask_of(served.add_scene(numbers, name="bright").scene_id, weights)
    dark, dark_tags, dark_item = mask_of(served.add_scene(numbers // 4, name="dark").scene_id, weights)
    sampled = np.percentile(numbers[:3].mean(axis=0)[::4, ::4] / 10_000, (1, 5, 25, 50), method="inverted_cdf")
    assert bright.brightness == pytest.approx(sampled, abs=0.003)
    assert (bright.radiometry, dark.radiometry) == ("outside", "inside")
    assert (tags["CLOUDSEG_RADIOMETRY"], dark_tags["CLOUDSEG_RADIOMETRY"]) == ("outside", "inside")
    assert tags["CLOUDSEG_RADIOMETRY_NOTE"].startswith("percentile 1 of brightness is 0.")
    assert "in training 0.0100 to 0.1000" in tags["CLOUDSEG_RADIOMETRY_NOTE"]
    assert (item["cloudseg:radiometry"], item["cloudseg:radiometry_note"]) == (
        "outside",
        tags["CLOUDSEG_RADIOMETRY_NOTE"],
    )
    assert dark_item["cloudseg:radiometry"] == "inside"
    (note,) = predict([bright.scene_id, dark.scene_id], weights_id=weights.weights_id).outside
    assert note == f"bright: {tags['CLOUDSEG_RADIOMETRY_NOTE']}"
    assert "cloudseg:radiometry_note" not in dark_item


def test_old_weights_say_unknown_and_promise_nothing(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    weights, _ = served.add_weights(make_net((4, 6)))
    mask, tags, item = mask_of(served.add_scene(make_pixels(64, 64)).scene_id, weights)
    assert (mask.radiometry, mask.promise) == ("unknown", None)
    assert mask.brightness is not None, "measured all the same"
    assert (tags["CLOUDSEG_RADIOMETRY"], item["cloudseg:radiometry"]) == ("unknown", "unknown")
    assert "cloudseg:thresholds" not in item
    with pytest.raises(InputError, match="these weights have no careful threshold"):
        predict([mask.scene_id], weights_id=weights.weights_id, threshold="careful")


def test_the_brightness_does_not_depend_on_the_windows(make_pixels: Callable[..., np.ndarray]) -> None:
    dn, seen = make_pixels(100, 90), np.ones((100, 90), np.bool_)
    seen[:30, :20] = False
    whole, parts = BrightnessCount(("red", "green", "blue", "nir")), BrightnessCount(("red", "green", "blue", "nir"))
    whole.add(PaddedWindow(Window(0, 0, 100, 90), Window(0, 0, 100, 90)), dn, seen)
    for row, height in ((0, 31), (31, 69)):
        for col, width in ((0, 55), (55, 35)):
            core = Window(row, col, height, width)
            top, left = max(0, row - 7), max(0, col - 5)
            padded = Window(top, left, min(100, row + height + 6) - top, min(90, col + width + 3) - left)
            parts.add(PaddedWindow(core, padded), dn[:, *padded.slices], seen[padded.slices])
    assert whole.percentiles is not None
    assert parts.percentiles == whole.percentiles


def test_thresholds_travel_with_a_mask_and_can_be_asked_for_by_name(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    weights, _ = served.add_weights(make_net((4, 6)))
    promise = evaluate_as(served, weights)
    assert promise.careful is not None
    evaluate_as(served, weights, places=300, number=1)  # a later one changes nothing
    scene = served.add_scene(make_pixels(160, 160))
    drawn, tags, item = mask_of(scene.scene_id, weights)
    assert drawn.promise == promise.as_json()
    assert tags["CLOUDSEG_THRESHOLD"] == "0.5"
    assert float(tags["CLOUDSEG_THRESHOLD_CAREFUL"]) == promise.careful.threshold
    assert "at most 5.0 % of the cloud of a place is missed" in tags["CLOUDSEG_PROMISE_CAREFUL"]
    thresholds = item["cloudseg:thresholds"]
    assert set(thresholds) == {"careful", "balanced", "generous"}
    assert thresholds["careful"]["missed_at_most"] == 0.05
    assert item["cloudseg:promise"]["evaluation_id"] == "ev-0"

    planned = plan_masks([scene.scene_id], weights_id=weights.weights_id, threshold="careful")
    assert planned["scene_ids"] == [scene.scene_id]
    careful, careful_tags, _ = mask_of(scene.scene_id, weights, threshold="careful")
    assert (careful.threshold, careful.is_variant) == (promise.careful.threshold, True)
    assert float(careful_tags["CLOUDSEG_THRESHOLD"]) == promise.careful.threshold
    assert careful.cloud_fraction > drawn.cloud_fraction
    again, _, _ = mask_of(scene.scene_id, weights, threshold=promise.careful.threshold)
    assert again.mask_id == careful.mask_id, "the name is the number"
    balanced, _, _ = mask_of(scene.scene_id, weights, threshold="balanced")
    assert balanced.mask_id == drawn.mask_id

    source = str(open_runtime().store.gdal_path(scene.key))
    record = predict_file(source, str(tmp_path / "m.tif"), weights=weights.weights_id, threshold="careful")
    assert record.threshold == promise.careful.threshold
    assert (record.brightness, record.brightness_note != "") == ("unknown", True)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert float(dataset.tags()["CLOUDSEG_THRESHOLD_CAREFUL"]) == promise.careful.threshold
        assert dataset.tags()["CLOUDSEG_RADIOMETRY"] == "unknown"
    model = load(weights.weights_id)
    assert model.thresholds["careful"] == promise.careful.threshold
    with pytest.raises(InputError, match="not a threshold"):
        model.predict(make_pixels(64, 64)[:3], bands=["red", "green", "blue"], resolution_m=10, threshold="brave")  # type: ignore[arg-type]


def test_too_few_places_promise_nothing_and_say_why(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    weights, _ = served.add_weights(make_net((4, 6)))
    evaluate_as(served, weights, places=18)
    mask, tags, item = mask_of(served.add_scene(make_pixels(64, 64)).scene_id, weights)
    assert "CLOUDSEG_THRESHOLD_CAREFUL" not in tags
    assert tags["CLOUDSEG_PROMISE_CAREFUL"].startswith("none: 18 held-out places with cloud, at least 19 are needed")
    assert list(item["cloudseg:thresholds"]) == ["balanced"]
    with pytest.raises(InputError, match="at least 19 are needed"):
        predict([mask.scene_id], weights_id=weights.weights_id, threshold="careful")


def test_many_masks_outside_are_an_alert(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., np.ndarray]
) -> None:
    weights, _ = served.add_weights(make_net((4, 6), brightness=DARK))
    bright = make_pixels(64, 64)
    moment = datetime.now(UTC)

    def found(number: int, numbers: np.ndarray) -> list[dict[str, Any]]:
        scenes = [served.add_scene(numbers + n, name=f"{numbers[0, 0, 0]} {n}").scene_id for n in range(number)]
        predict(scenes, weights_id=weights.weights_id)
        with served.catalog.read() as db:
            return [one.facts for one in find_outside_training(db, moment)]

    assert found(4, bright) == []
    (facts,) = found(1, bright + 100)
    assert (facts["outside"], facts["compared"]) == (5, 5)
    assert found(1, bright // 4) != [], "five of six"
    with served.catalog.begin() as db:
        inside = next(mask for mask in model_rows.list_masks(db, limit=None) if mask.radiometry == "inside")
        for n in range(28):
            copied = {"mask_id": f"mk-{n}", "cleaning": f"{n}", "is_variant": True}
            model_rows.add_mask(db, inside.model_copy(update=copied))
    figures = read_figures(served.catalog).masks
    assert (figures.outside_last_week, figures.compared_last_week) == (5, 34)
    with served.catalog.read() as db:
        assert find_outside_training(db, moment) == [], "5 of 34 is less than 15 %"
        assert find_outside_training(db, moment.replace(year=moment.year + 1)) == []
