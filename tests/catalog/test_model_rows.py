"""Snapshots, runs, weights, promotions and masks."""

from datetime import timedelta

import pytest
import rows

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.errors import NotInCatalog, StateError
from cloudseg.records import Checkpoint


def test_a_snapshot_is_added_once(full_catalog: Catalog):
    with full_catalog.begin() as db:
        assert not training_rows.add_snapshot(db, rows.snapshot(), {})
        assert training_rows.add_snapshot(db, rows.snapshot(2), {})
        assert training_rows.list_snapshot_labels(db, "sn-2") == {}


def test_a_run_is_started_once_and_resumed(full_catalog: Catalog):
    with full_catalog.begin() as db:
        assert training_rows.add_run(db, rows.run().model_copy(update={"seed": 7})).seed == rows.run().seed
        training_rows.set_run_status(db, "run-1", "failed", error="out of memory")
        failed = training_rows.get_run(db, "run-1")
        assert (failed.status, failed.error) == ("failed", "out of memory")
        assert failed.finished_at is not None
        training_rows.set_run_status(db, "run-1", "running")
        assert training_rows.get_run(db, "run-1") == rows.run()
        with pytest.raises(NotInCatalog, match="run-9"):
            training_rows.set_run_status(db, "run-9", "finished")


def test_epochs_and_checkpoints_are_idempotent(full_catalog: Catalog):
    with full_catalog.begin() as db:
        assert not training_rows.add_epoch(db, rows.epoch(1))
        for step in (10, 20, 20):
            training_rows.add_checkpoint(
                db, Checkpoint(run_id="run-1", step=step, key="k", sha256="s", size=1, created_at=rows.START)
            )
        assert [c.step for c in training_rows.list_checkpoints(db, "run-1")] == [20, 10]
        training_rows.delete_checkpoint(db, "run-1", 20)
        assert [c.step for c in training_rows.list_checkpoints(db, "run-1")] == [10]


def test_weights_are_numbered_in_order_of_registration(full_catalog: Catalog):
    with full_catalog.begin() as db:
        assert model_rows.add_weights(db, rows.weights(7)).version == 3
        assert model_rows.add_weights(db, rows.weights(7)).version == 3
        assert [w.version for w in model_rows.list_weights(db)] == [3, 2, 1]
        assert model_rows.find_weights_of_run(db, "run-1") == model_rows.get_weights(db, "w-1")
        assert model_rows.find_weights_of_run(db, "run-9") is None


def test_a_run_registers_one_set_of_weights(full_catalog: Catalog):
    with full_catalog.begin() as db, pytest.raises(StateError, match=r"run-1.*found w-1.*expected w-8"):
        model_rows.add_weights(db, rows.weights(8, run_id="run-1"))


def test_evaluations_and_verdicts_are_written_once(full_catalog: Catalog):
    with full_catalog.begin() as db:
        again = rows.evaluation(1, of=1).model_copy(update={"threshold": 0.9})
        assert model_rows.add_evaluation(db, again).threshold == 0.5
        assert model_rows.find_evaluation(db, "w-1", "sn-1", "held_out") == rows.evaluation(1, of=1)
        assert model_rows.find_evaluation(db, "w-1", "sn-1", "train") is None
        assert model_rows.list_evaluations(db, "w-1") == [rows.evaluation(1, of=1)]
        assert not model_rows.add_verdict(db, rows.verdict(1, challenger=1))


def test_verdicts_of_a_challenger_are_listed_newest_first(full_catalog: Catalog):
    later = rows.verdict(2, challenger=1).model_copy(update={"created_at": rows.START + timedelta(days=1)})
    with full_catalog.begin() as db:
        model_rows.add_verdict(db, later)
        model_rows.add_verdict(db, rows.verdict(3, challenger=2))
        assert model_rows.list_verdicts(db, challenger_id="w-1") == [later, rows.verdict(1, challenger=1)]
        assert model_rows.find_verdict(db, "w-1") == later
        assert model_rows.find_verdict(db, "w-3") is None
        assert len(model_rows.list_verdicts(db)) == 3


def test_decisions_are_listed_by_weights(full_catalog: Catalog):
    with full_catalog.begin() as db:
        assert not model_rows.add_decision(db, rows.decision(1, reason="again"))
        assert model_rows.add_decision(db, rows.decision(1, "declined"))
        assert {d.decision for d in model_rows.list_decisions(db, "w-1")} == {"asked", "declined"}
        assert model_rows.list_decisions(db, "w-2") == []


def test_the_newest_generation_is_the_champion(full_catalog: Catalog, catalog: Catalog):
    with full_catalog.begin() as db:
        assert model_rows.find_champion(db) == rows.promotion(2, of=1, previous=2)
        assert not model_rows.add_promotion(db, rows.promotion(2, of=2))
        assert [p.generation for p in model_rows.list_promotions(db)] == [2, 1]


def test_scene_and_weights_have_one_mask(full_catalog: Catalog):
    with full_catalog.begin() as db:
        assert not model_rows.add_mask(db, rows.mask(3, of=1, by=1))
        assert model_rows.add_mask(db, rows.mask(3, of=2, by=1))
        assert model_rows.find_mask(db, rows.scene(1).scene_id, "w-1") == rows.mask(1, of=1, by=1)
        assert model_rows.find_mask(db, rows.scene(2).scene_id, "w-2") is None
        assert {m.mask_id for m in model_rows.list_masks(db, weights_id="w-1")} == {"mk-1", "mk-3"}
        assert len(model_rows.list_masks(db, limit=2)) == 2


def test_masked_scenes_are_found_for_thousands_of_ids(full_catalog: Catalog):
    first, second = rows.scene(1).scene_id, rows.scene(2).scene_id
    with full_catalog.begin() as db:
        model_rows.add_mask(db, rows.mask(3, of=2, by=1))
        assert model_rows.find_masked(db, "w-1", [second, *(f"sc-{i}" for i in range(2500)), first]) == {first, second}
        assert model_rows.find_masked(db, "w-2", [second]) == set()
        assert model_rows.find_masked(db, "w-1", []) == set()
