"""A worklist that masks scenes with the challenger first, so that the two models can be compared."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloudseg.catalog import model_rows, training_rows
from cloudseg.model.weights import LoadedModel
from cloudseg.records import Evaluation, Promotion, Snapshot
from cloudseg.stages import masks, predict, worklist

DAY = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def models(
    world: Any, runtime_env: Path, monkeypatch: pytest.MonkeyPatch, make_net: Callable[..., LoadedModel]
) -> tuple[str, str]:
    """Return the ids of a champion and of a challenger that was evaluated, in the home that stages find."""
    monkeypatch.setenv("CLOUDSEG_STORE_URL", str(world.store.root))
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", str(world.catalog.engine.url))
    monkeypatch.setenv("CLOUDSEG_THREADS", "1")
    champion, challenger = (world.add_weights(make_net(widths))[0].weights_id for widths in ((4, 6), (4, 8)))
    promoted = Promotion(
        generation=1,
        weights_id=champion,
        previous_weights_id=None,
        action="promote",
        verdict_id=None,
        actor="test",
        reason="test",
        created_at=DAY,
    )
    frozen = Snapshot(
        snapshot_id="sn-1",
        manifest_key="snapshots/sn-1/manifest.json",
        manifest_sha256="0" * 64,
        chip_size=64,
        bands=["red"],
        working_resolution_m=None,
        counts={},
        created_at=DAY,
    )
    measured = Evaluation(
        evaluation_id="ev-1",
        weights_id=challenger,
        snapshot_id="sn-1",
        split="held_out",
        threshold=0.5,
        metrics={},
        report={},
        created_at=DAY,
    )
    with world.catalog.begin() as db:
        model_rows.add_promotion(db, promoted)
        training_rows.add_snapshot(db, frozen, {})
        model_rows.add_evaluation(db, measured)
    return champion, challenger


def test_the_challenger_masks_as_many_scenes_as_it_may(
    world: Any, models: tuple[str, str], make_pixels: Callable[..., Any]
) -> None:
    champion, challenger = models
    scenes = [world.add_scene(make_pixels(40, 40, seed=seed), name=f"s{seed}").scene_id for seed in range(3)]
    predict(scenes)
    record = worklist()
    assert (record.weights_id, record.challenger_id) == (champion, challenger)
    assert masks(weights_id=challenger) == []  # unless it is asked for, nothing is predicted
    worklist(predict=2)
    assert len(masks(weights_id=challenger)) == 2
    worklist(predict=2)
    assert len(masks(weights_id=challenger)) == 3
    assert len(masks(weights_id=champion)) == 3
