"""The backfill of a new champion, from the promotion until readers see its masks, with real nets and rasters."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloudseg.catalog import backfill_rows, model_rows
from cloudseg.catalog.session import now
from cloudseg.errors import InputError, NotInCatalog
from cloudseg.model.weights import LoadedModel
from cloudseg.registry import promote
from cloudseg.stages import (
    backfill,
    drain,
    finish_backfill,
    list_backfill,
    masks,
    plan_backfill,
    plan_drain,
    predict,
    predict_backfill,
    readers,
    switch_readers,
    switch_readers_back,
)


@pytest.fixture
def models(served: Any, make_net: Callable[..., LoadedModel]) -> tuple[str, str]:
    """Two models, of which the first is the champion."""
    first, second = (served.add_weights(make_net((4, 6), seed=seed))[0].weights_id for seed in (1, 2))
    promoted(served, first)
    return first, second


def promoted(served: Any, weights_id: str, *, replaces: str | None = None) -> None:
    how = {"expected_champion": replaces, "verdict_id": None, "actor": "test", "reason": "because"}
    promote(served.store, served.catalog, weights_id, **how)


def add_scenes(served: Any, make_pixels: Callable[..., Any], count: int, side: int = 40) -> list[str]:
    """Add scenes of successive months, and return their ids, the newest first."""
    ids = [
        served.add_scene(
            make_pixels(side, side, seed=number),
            name=f"scene {number}",
            acquired_at=datetime(2024, number + 1, 1, tzinfo=UTC),
        ).scene_id
        for number in range(count)
    ]
    return ids[::-1]


def planned(served: Any, backfill_id: str | None) -> list[str]:
    with served.catalog.read() as db:
        return backfill_rows.list_planned(db, backfill_id or "")


def seen() -> set[str]:
    return {mask["weights_id"] for mask in masks(as_of="2100-01-01T00:00:00Z")}


def test_from_the_promotion_to_the_switch(
    served: Any, models: tuple[str, str], make_pixels: Callable[..., Any]
) -> None:
    first, second = models
    scene_ids = add_scenes(served, make_pixels, 3)
    predict(new=True)
    assert switch_readers("v1", reason="from now on by date").mode == "complete"
    promoted(served, second, replaces=first)
    assert seen() == {first}, "a promotion alone changes nothing for readers"
    assert plan_drain(2) == [], "the old scenes are left to the backfill"

    plan = plan_backfill("2026-11-29", megapixels=1)
    assert (plan.scenes, plan.waiting, plan.weights_id) == (3, 3, second)
    assert planned(served, plan.backfill_id) == scene_ids
    batches = list_backfill(plan.backfill_id, batch_size=2)
    assert [(batch["first"], batch["count"]) for batch in batches] == [(0, 2), (2, 1)]
    made = predict_backfill(batches[0]["backfill_id"], batches[0]["first"], batches[0]["count"])
    assert made.created == 2
    half = finish_backfill(second, backfill_id=plan.backfill_id)
    assert (half.switched, half.done, half.total, half.readers_see) == (False, 2, 3, first)
    assert [(month.month, month.done) for month in half.months] == [("2024-03", 1), ("2024-02", 1), ("2024-01", 0)]
    assert half.touched == ["2024-03", "2024-02", "2024-01"]
    assert seen() == {first}

    new = served.add_scene(make_pixels(40, 40, seed=9), name="new", created_at=now()).scene_id
    drained = drain()  # readers see new scenes at once, and the backfill does not fall behind
    assert (drained.weights_ids, drained.created) == ([second, first], 2)
    assert {mask["scene_id"] for mask in masks(weights_id=second)} >= {new}
    assert new in {mask["scene_id"] for mask in masks(as_of="2100-01-01T00:00:00Z")}

    last = backfill(night="2026-11-29", megapixels=99)
    assert (last.created, last.switched, last.readers_see) == (1, True, second), "the plan of the night is kept"
    assert (readers().mode, readers().actor) == ("complete", "backfill")
    assert seen() == {second}
    old = {mask["scene_id"]: mask for mask in masks(weights_id=first)}
    shown = {mask["scene_id"]: mask for mask in masks(weights_id=second)}
    assert {old[scene_id]["successor"] for scene_id in scene_ids} == {shown[i]["mask_id"] for i in scene_ids}
    assert all(Path(served.store.gdal_path(mask["key"])).is_file() for mask in old.values()), "old masks stay"

    assert switch_readers_back(reason="too much snow").weights_id == first
    assert seen() == {first}
    again = backfill(night="2026-11-30")
    assert (again.created, again.switched, again.readers_see) == (0, False, first), "nothing undoes the return"


def test_a_night_stays_in_its_budget_and_goes_on_the_next(
    served: Any, models: tuple[str, str], make_pixels: Callable[..., Any]
) -> None:
    scene_ids = add_scenes(served, make_pixels, 3, side=800)  # 0.64 megapixels each
    assert planned(served, plan_backfill("1", megapixels=1).backfill_id) == scene_ids[:1], "0.64 fit into 1"
    again = plan_backfill("1", megapixels=1000)
    assert (again.scenes, again.megapixels) == (1, 1), "a night has one budget"
    second = planned(served, plan_backfill("2", megapixels=2).backfill_id)
    assert second == [*scene_ids[1:], scene_ids[0]], "what a plan named already comes last: it may be one that fails"


def test_one_scene_at_least(served: Any, models: tuple[str, str], make_pixels: Callable[..., Any]) -> None:
    add_scenes(served, make_pixels, 2, side=1100)  # 1.2 megapixels each
    assert plan_backfill("1", megapixels=1).scenes == 1


def test_a_budget_of_0_pauses(
    served: Any, models: tuple[str, str], make_pixels: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_scenes(served, make_pixels, 1)
    monkeypatch.setenv("CLOUDSEG_BACKFILL_MEGAPIXELS", "0")
    record = backfill(night="1")
    assert (record.skip, record.created) == ("the budget is 0: the backfill is paused", 0)
    monkeypatch.delenv("CLOUDSEG_BACKFILL_MEGAPIXELS")
    assert backfill(night="1").created == 1


def test_a_dry_run_writes_nothing(served: Any, models: tuple[str, str], make_pixels: Callable[..., Any]) -> None:
    add_scenes(served, make_pixels, 2)
    record = backfill(night="1", dry_run=True)
    assert (record.planned, record.created, record.done, record.total) == (2, 0, 0, 2)
    with served.catalog.read() as db:
        assert backfill_rows.find_plan(db, models[0], "1") is None
        assert model_rows.list_masks(db) == []


def test_a_scene_that_fails_is_named_and_tried_last(
    served: Any, models: tuple[str, str], make_pixels: Callable[..., Any]
) -> None:
    newest, older = add_scenes(served, make_pixels, 2)
    with served.catalog.begin() as db:
        key = db.exec_driver_sql("SELECT key FROM scene WHERE scene_id = ?", (newest,)).scalar_one()
    Path(served.store.gdal_path(key)).write_bytes(b"no raster")
    record = backfill(night="1")
    assert (record.created, list(record.failed), record.done, record.total) == (1, [newest], 1, 2)
    third = served.add_scene(make_pixels(40, 40, seed=7), name="third", acquired_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert planned(served, plan_backfill("2").backfill_id) == [third.scene_id, newest]
    assert older not in planned(served, plan_backfill("2").backfill_id)


def test_nothing_to_do(served: Any, make_net: Callable[..., LoadedModel], make_pixels: Callable[..., Any]) -> None:
    assert plan_backfill("1").skip == "there is no champion yet"
    assert backfill(night="1").skip == "there is no champion yet"
    weights_id = served.add_weights(make_net((4, 6)))[0].weights_id
    promoted(served, weights_id)
    assert plan_backfill("1").skip == "every scene has its mask"
    assert list_backfill(None) == []


def test_wrong_arguments(served: Any, models: tuple[str, str]) -> None:
    for night in ("", "a/b", "x" * 101):
        with pytest.raises(InputError, match="not a name of a night"):
            plan_backfill(night)
    with pytest.raises(InputError, match="out of range"):
        plan_backfill("1", megapixels=-1)
    with pytest.raises(NotInCatalog, match="no such backfill"):
        predict_backfill("bf-unknown", 0, 1)
    with pytest.raises(InputError, match="a batch holds"):
        list_backfill("bf-unknown", batch_size=0)
    with pytest.raises(InputError, match="needs a reason"):
        switch_readers("v1", reason=" ")
    with pytest.raises(NotInCatalog):
        switch_readers("v99", reason="because")
