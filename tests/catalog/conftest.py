"""Catalogs on SQLite, on PostgreSQL and on PostGIS: every test that asks for one runs on all three."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import rows
from sqlalchemy import URL, make_url

from cloudseg.catalog import Catalog, model, scene, training


@pytest.fixture(params=["sqlite", "postgresql", "postgis"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def catalog_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[URL]:
    """A database of the test with every migration and view."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "catalog.db")
        yield make_url(f"sqlite:///{tmp_path / 'catalog.db'}")
    else:
        with request.getfixturevalue(backend).migrated() as url:
            yield url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Iterator[URL]:
    """A database of the test with nothing in it; on PostgreSQL not even PostGIS."""
    if backend == "sqlite":
        yield make_url(f"sqlite:///{tmp_path / 'empty' / 'catalog.db'}")
    else:
        with request.getfixturevalue(backend).empty() as url:
            yield url


@pytest.fixture
def catalog(catalog_url: URL) -> Iterator[Catalog]:
    catalog = Catalog(catalog_url)
    yield catalog
    catalog.engine.dispose()


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
