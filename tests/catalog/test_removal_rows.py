"""Rows that name a removed scene, on every database."""

from datetime import UTC, datetime

import pytest
import rows
from sqlalchemy import select

from cloudseg.catalog import (
    Catalog,
    alert_rows,
    drift_rows,
    label_rows,
    lease_rows,
    model_rows,
    quarantine_rows,
    removal_rows,
    scene_rows,
    training_rows,
)
from cloudseg.catalog import tables as t
from cloudseg.catalog.session import insert
from cloudseg.errors import NotInCatalog
from cloudseg.monitor.messages import new_alert
from cloudseg.records import Backfill, BackfillScene, Removal

AT = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize("name", ["scene_1", "a", "100%_ä(1)", 'say "b\\c"'])
def test_alerts_that_name_the_scene_go_and_no_others(catalog: Catalog, name: str):
    scene = rows.scene(1, name=name)
    told = {
        "by its name": f"{name}: no CRS",
        "its file": f"{name}.tif cannot be read",
        "by its id": scene.scene_id,
        "an object": f"/store/{scene.key} is damaged",
    }
    other = {"longer": f"{name}2", "before": f"x{name}", "case": name.upper() + "2", "nothing": "torch is missing"}
    with catalog.begin() as db:
        scene_rows.add_scene(db, scene)
        for subject, detail in (told | other).items():
            facts = {"check": "catalog", "detail": detail}
            alert_rows.add_alert(db, new_alert("not-operational", f"{subject}!", facts, AT))
        held = removal_rows.find_holdings(db, scene.scene_id)
        assert held is not None
        removal_rows.delete_rows(db, held)
        left = {alert.subject for alert in alert_rows.list_open_alerts(db)}
    expected = {f"{subject}!" for subject in other}
    assert left == expected


def everything(catalog: Catalog) -> dict[str, str]:
    """Return the rows of each table as text."""
    with catalog.read() as db:
        return {name: "".join(map(str, db.execute(select(table)))) for name, table in t.metadata.tables.items()}


def test_no_row_of_any_table_names_the_scene_afterward(full_catalog: Catalog):
    """Also of tables that a plain run of the pipeline leaves empty: a row that refers to the scene would forbid it."""
    scene = rows.scene(1)
    backfill = Backfill(backfill_id="bf-1", weights_id="w-1", night="n", megapixels=1, created_at=AT)
    with full_catalog.begin() as db:
        drift_rows.add_brightness(db, rows.brightness(1))
        insert(db, t.backfill, backfill)
        insert(db, t.backfill_scene, BackfillScene(backfill_id="bf-1", position=0, scene_id=scene.scene_id))
        wanted = lease_rows.Wanted("w-1", cleaning="{}")
        assert lease_rows.add_waiting(db, wanted, [lease_rows.Waiting(scene.created_at, scene.scene_id)]) == 1
        for number, uri in (
            (7, scene.source_uri),
            (8, rows.label(2, of=1).source_uri),
            (9, rows.label(1, of=1).source_uri),
        ):
            scene_rows.add_quarantined(db, rows.quarantined(number, name="x", source_uri=uri))
        quarantine_rows.release(db, quarantine_rows.get_quarantined(db, "qu-8"), actor="a", reason="b")
        held = removal_rows.find_holdings(db, scene.scene_id)
        assert held is not None
        assert held.quarantine_ids == ["qu-7", "qu-9"], "of its file and of a label's"
        removal_rows.delete_rows(db, held)
    words = {scene.scene_id, scene.name, scene.source_uri, *(label.label_id for label in held.labels)}
    words |= {mask.mask_id for mask in held.masks} | {"/in/l2.tif"}
    left = everything(full_catalog)
    assert [
        name for name, text in left.items() if any(f"'{word}" in text or f"{word}'" in text for word in words)
    ] == []
    assert rows.scene(2).scene_id in left["scene"]
    assert "qu-1" in left["quarantine"]


def test_reports_and_golden_samples_go_by_the_split_that_held_the_scene(full_catalog: Catalog):
    with full_catalog.begin() as db:
        for number, split in enumerate(("train", "validation", "held_out"), start=2):
            label = rows.label(number + 10, of=2)
            if number == 2:
                scene_rows.add_label(db, label)
                stored = label
            training_rows.add_snapshot(db, rows.snapshot(number), {stored.label_id: split})
            of = rows.weights(number + 10).model_copy(update={"snapshot_id": f"sn-{number}"})
            model_rows.add_weights(db, of)
            for other in ("validation", "held_out"):
                update = {"evaluation_id": f"ev-{number}-{other}", "snapshot_id": f"sn-{number}", "split": other}
                model_rows.add_evaluation(db, rows.evaluation(1, of=number + 10).model_copy(update=update))
        held = removal_rows.find_holdings(db, rows.scene(2).scene_id)
    assert held is not None
    assert held.label_counts == {"sn-2": 1, "sn-3": 1, "sn-4": 1}
    assert {snapshot.snapshot_id for snapshot in held.snapshots} == {"sn-2", "sn-3", "sn-4"}
    assert {entry.evaluation_id for entry in held.evaluations} == {"ev-3-validation", "ev-4-held_out"}
    assert [weights.weights_id for weights in held.golden] == ["w-13"]


def test_the_line_of_weights_is_followed_over_any_number(full_catalog: Catalog):
    with full_catalog.begin() as db:
        for number, parent in ((2, "w-1"), (3, "w-12"), (4, "w-2")):
            run = rows.run(number).model_copy(update={"parent_weights_id": parent})
            training_rows.add_run(db, run)
            model_rows.add_weights(
                db, rows.weights(number + 10, run_id=run.run_id).model_copy(update={"snapshot_id": None})
            )
    with full_catalog.read() as db:
        assert removal_rows.list_taught(db, ["sn-1"]) == (["w-1"], ["w-12", "w-13"])
        assert removal_rows.list_taught(db, []) == ([], [])


def test_a_finished_removal_forgets_the_keys_and_is_lifted_once(full_catalog: Catalog):
    removal = Removal(
        removal_id="rm-1",
        scene_id="sc-9",
        source_sha256="f" * 64,
        actor="ann",
        reason="license",
        pending={"keys": ["scenes/a.tif"]},
        finished_at=None,
        lifted_at=None,
        lifted_by=None,
        lift_reason=None,
        created_at=AT,
    )
    with full_catalog.begin() as db:
        insert(db, t.removal, removal)
        assert removal_rows.list_removals(db, unfinished=True) == [removal]
        removal_rows.set_finished(db, "rm-1")
        (kept,) = removal_rows.list_removals(db)
        assert (kept.pending, kept.finished_at is None) == (None, False)
        assert removal_rows.list_removals(db, unfinished=True) == []
        assert removal_rows.find_standing(db, "f" * 64) == kept
        removal_rows.lift(db, "rm-1", actor="ann", reason="bought")
        again = removal_rows.lift(db, "rm-1", actor="eve", reason="mine")
        assert (again.lifted_by, again.lift_reason) == ("ann", "bought")
        assert removal_rows.find_standing(db, "f" * 64) is None
        with pytest.raises(NotInCatalog):
            removal_rows.lift(db, "rm-2", actor="ann", reason="bought")


def test_a_removed_label_is_a_change_since_the_snapshot_that_held_it(full_catalog: Catalog):
    """One of the two labels of scene 1 was in the snapshot: one is to be unlearned, from the removal on."""
    removal = Removal(
        removal_id="rm-1",
        scene_id=rows.scene(1).scene_id,
        source_sha256="f" * 64,
        actor="ann",
        reason="license",
        pending=None,
        finished_at=AT,
        lifted_at=None,
        lifted_by=None,
        lift_reason=None,
        created_at=AT,
    )
    with full_catalog.begin() as db:
        held = removal_rows.find_holdings(db, removal.scene_id)
        assert held is not None
        assert len(held.labels) == 2
        removal_rows.add_removal(db, removal, held)
        removal_rows.delete_rows(db, held)
        assert label_rows.count_changes(db, "sn-1") == 1
        assert label_rows.find_oldest_change(db, "sn-1") == AT
        assert label_rows.find_oldest_change(db, None) is None
