"""A catalog with a row in every table."""

import pytest
import rows

from cloudseg.catalog import Catalog, model, scene, training


@pytest.fixture
def full_catalog(catalog: Catalog) -> Catalog:
    """Two scenes (one labelled twice), a snapshot, a run, two weights, two promotions and two masks."""
    with catalog.begin() as db:
        scene.add_scene(db, rows.scene(1))
        scene.add_scene(db, rows.scene(2, min_lon=179.9, max_lon=-179.9, acquired_at=None, crs=None))
        scene.add_label(db, rows.label(1, of=1))
        scene.add_label(db, rows.label(2, of=1))
        scene.decide_places(db, {"mgrs:31UBQ": "train"})
        scene.add_quarantined(db, rows.quarantined(1))
        training.add_snapshot(db, rows.snapshot(), {rows.label(2, of=1).label_id: "train"})
        training.add_run(db, rows.run())
        training.add_epoch(db, rows.epoch(1))
        model.add_weights(db, rows.weights(1, run_id="run-1"))
        model.add_weights(db, rows.weights(2))
        model.add_evaluation(db, rows.evaluation(1, of=1))
        model.add_verdict(db, rows.verdict(1, challenger=1))
        model.add_decision(db, rows.decision(1))
        model.add_promotion(db, rows.promotion(1, of=2))
        model.add_promotion(db, rows.promotion(2, of=1, previous=2))
        model.add_mask(db, rows.mask(1, of=1, by=1))
        model.add_mask(db, rows.mask(2, of=1, by=2))
    return catalog
