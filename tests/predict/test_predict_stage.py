"""The stage over several scenes: one that is bad, in whatever way, is named and holds up no other."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rasterio.transform import Affine

from cloudseg.errors import Interrupted
from cloudseg.model.weights import LoadedModel
from cloudseg.stages import lineage, predict
from cloudseg.stages.plan import plan_masks
from tests.damage import flip_a_bit_unnoticed


def test_bad_scenes_are_named_and_hold_up_no_other(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., Any]
) -> None:
    damaged = served.add_scene(make_pixels(40, 40, seed=1), name="damaged")
    good = served.add_scene(make_pixels(40, 40, seed=2), name="good")
    # What no check foresees: a reference system that the installed PROJ does not know.
    odd = served.add_scene(make_pixels(40, 40, seed=3), name="odd")
    with served.catalog.begin() as db:
        db.exec_driver_sql("UPDATE scene SET crs = 'EPSG:999999' WHERE name = 'odd'")
    unplaced = served.add_scene(make_pixels(40, 40, seed=4), name="unplaced", crs=None, transform=Affine.identity())
    Path(served.store.gdal_path(damaged.key)).write_bytes(b"no raster")
    weights, _ = served.add_weights(make_net((4, 6)))

    scene_ids = [odd.scene_id, damaged.scene_id, unplaced.scene_id, good.scene_id, "sc-00000000000000000000"]
    record = predict(scene_ids, weights_id=weights.weights_id)
    assert len(record.masks) == record.created == 1
    assert lineage(record.masks[0])["scene"]["name"] == "good"
    assert {scene_id: error["error"] for scene_id, error in record.failed.items()} == {
        odd.scene_id: "CloudsegError",
        damaged.scene_id: "ObjectCorrupt",
        unplaced.scene_id: "StateError",
        "sc-00000000000000000000": "NotInCatalog",
    }
    assert record.failed[odd.scene_id]["what"].startswith("unexpected CRSError")

    again = predict(scene_ids, weights_id=weights.weights_id)
    assert (again.masks, again.created) == (record.masks, 0)
    assert sorted(again.failed) == sorted(record.failed)
    waiting = plan_masks(new=True, weights_id=weights.weights_id)["scene_ids"]
    assert sorted(waiting) == sorted([odd.scene_id, damaged.scene_id]), (
        "they are tried again: once fixed, they get their mask"
    )


def test_a_scene_with_one_flipped_bit_is_never_masked(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., Any]
) -> None:
    flipped = served.add_scene(make_pixels(64, 64, seed=1), name="flipped")
    good = served.add_scene(make_pixels(64, 64, seed=2), name="good")
    flip_a_bit_unnoticed(Path(served.store.gdal_path(flipped.key)))
    weights, _ = served.add_weights(make_net((4, 6)))
    record = predict([flipped.scene_id, good.scene_id], weights_id=weights.weights_id)
    assert [lineage(mask)["scene"]["name"] for mask in record.masks] == ["good"]
    error = record.failed[flipped.scene_id]
    assert error["error"] == "ObjectCorrupt"
    assert error["subject"] == f"scene {flipped.scene_id} ({flipped.key})"
    assert error["expected"] == flipped.sha256
    assert error["found"] not in (None, flipped.sha256)
    assert "backup" in error["next_step"]


def test_a_net_that_makes_no_numbers_publishes_nothing(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., Any]
) -> None:
    """Parameters that are finite, but whose products are not, pass every check of the file."""
    scene = served.add_scene(make_pixels(40, 40, seed=1), name="observed")
    loaded = make_net((4, 6))
    with torch.no_grad():
        for parameter in loaded.net.parameters():
            parameter.fill_(1e30)
    weights, _ = served.add_weights(loaded)
    record = predict([scene.scene_id], weights_id=weights.weights_id)
    assert (record.masks, record.created) == ([], 0)
    error = record.failed[scene.scene_id]
    assert (error["error"], error["found"]) == ("BadWeights", "1600 of 1600 pixels")
    assert error["subject"] == f"weights {weights.weights_id} on scene {scene.scene_id}"
    assert list(served.store.list_keys("masks/")) == []


class SignalOnce(logging.Handler):
    """Sends this process a signal when the first message comes."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number: signal.Signals | None = number

    def emit(self, record: logging.LogRecord) -> None:
        number, self._number = self._number, None
        if number is not None:
            signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_prediction_that_is_asked_to_stop_keeps_what_it_has(
    served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., Any], number: signal.Signals
) -> None:
    """The signal comes in the middle of the first scene, which is finished."""
    scenes = [served.add_scene(make_pixels(40, 40, seed=seed), name=f"scene {seed}").scene_id for seed in range(3)]
    weights, _ = served.add_weights(make_net((4, 6)))
    logger, handler = logging.getLogger("cloudseg.predict.scene"), SignalOnce(number)
    level, before = logger.level, signal.getsignal(number)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(Interrupted, match=f"{number.name} .found 1 of 3 scenes are done") as caught:
            predict(scenes, weights_id=weights.weights_id)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert caught.value.retry_helps
    assert signal.getsignal(number) is before
    waiting = plan_masks(new=True, weights_id=weights.weights_id)["scene_ids"]
    assert sorted(waiting) == sorted(scenes[1:])
    again = predict(scenes, weights_id=weights.weights_id)
    assert (len(again.masks), again.created, again.failed) == (3, 2, {})
