"""Every view of sql/views is created and returns the expected rows."""

import re
from pathlib import Path

import pytest
import rows
from sqlalchemy import inspect, text

from cloudseg.catalog import Catalog, reader_rows
from cloudseg.catalog.session import sql_folder
from cloudseg.catalog.views import _VIEWS

FILES = sorted((sql_folder() / "views").glob("*.sql"))


def query(catalog: Catalog, statement: str) -> list[dict[str, object]]:
    with catalog.read() as db:
        return [dict(row._mapping) for row in db.execute(text(statement))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_creates_the_view_of_its_name(full_catalog: Catalog, file: Path):
    assert re.fullmatch(r"\d{4}_[a-z_]+\.sql", file.name)
    view = file.stem[5:]
    with full_catalog.begin() as db:
        reader_rows.add_switch(db, rows.reader_switch(1, of=1))
    assert f"CREATE VIEW {view} AS" in file.read_text("utf-8")
    assert query(full_catalog, f"SELECT * FROM {view}"), "a catalog with rows has rows in every view"  # noqa: S608


def test_upgrade_creates_exactly_these_views(full_catalog: Catalog):
    with full_catalog.read() as db:
        assert set(inspect(db).get_view_names()) - {"geometry_columns", "geography_columns"} == {
            file.stem[5:] for file in FILES
        }
    assert {file.stem[5:] for file in FILES} == set(_VIEWS)


def test_views_of_others_stay(full_catalog: Catalog):
    with full_catalog.begin() as db:
        db.execute(text("CREATE VIEW my_own AS SELECT 1 AS one"))
    full_catalog.upgrade()
    assert query(full_catalog, "SELECT * FROM my_own") == [{"one": 1}]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_an_upgrade_drops_the_gis_views_before_those_that_they_name(full_catalog: Catalog):
    with full_catalog.begin() as db:
        db.execute(text("CREATE SCHEMA gis"))
        db.execute(text("CREATE VIEW gis.masks AS SELECT mask_id, disputed FROM published_mask"))
    full_catalog.upgrade()
    with full_catalog.read() as db:
        assert inspect(db).get_view_names("gis") == [], "without PostGIS there are none"


def test_published_mask(full_catalog: Catalog):
    found = query(full_catalog, "SELECT * FROM published_mask ORDER BY mask_id")
    assert [row["mask_id"] for row in found] == ["mk-1", "mk-2"]
    first = found[0]
    assert (first["scene_name"], first["place"], first["model_version"]) == ("synthetic_1", "mgrs:31UBQ", 1)
    assert (first["probability_key"], first["item_key"]) == ("masks/1/probability", "masks/1/item")
    assert (first["min_lon"], first["cloud_fraction"]) == (1.5, 0.3)


def test_current_mask_is_the_champions_or_the_switchs(full_catalog: Catalog):
    assert [row["weights_id"] for row in query(full_catalog, "SELECT * FROM current_mask")] == ["w-1"]
    with full_catalog.begin() as db:
        reader_rows.add_switch(db, rows.reader_switch(1, of=2))
    assert [row["weights_id"] for row in query(full_catalog, "SELECT * FROM current_mask")] == ["w-2"]


def test_model_history(full_catalog: Catalog):
    found = query(full_catalog, "SELECT * FROM model_history ORDER BY model_version")
    assert [(row["weights_id"], row["recipe_name"], bool(row["is_champion"]), row["masks"]) for row in found] == [
        ("w-1", "seed", True, 1),
        ("w-2", None, False, 1),
    ]


def test_mask_lineage_lists_the_training_labels(full_catalog: Catalog):
    trained, imported = query(full_catalog, "SELECT * FROM mask_lineage ORDER BY mask_id")
    assert (trained["run_id"], trained["snapshot_id"], trained["taught_as"], trained["label_version"]) == (
        "run-1",
        "sn-1",
        "train",
        2,
    )
    assert trained["taught_scene_name"] == "synthetic_1"
    assert (imported["run_id"], imported["label_id"]) == (None, None)


def test_scene_label_is_the_newest(full_catalog: Catalog):
    found = query(full_catalog, "SELECT scene_name, split, label_version FROM scene_label ORDER BY scene_name")
    assert found == [
        {"scene_name": "synthetic_1", "split": "train", "label_version": 2},
        {"scene_name": "synthetic_2", "split": None, "label_version": None},
    ]


def test_training_run_has_progress_and_verdict(full_catalog: Catalog):
    (run,) = query(full_catalog, "SELECT * FROM training_run")
    assert (run["status"], run["epochs"], run["steps"], run["checkpoint_step"]) == ("running", 1, 10, None)
    assert (run["weights_id"], run["model_version"], run["outcome"]) == ("w-1", 1, "PROMOTE")


def test_champion_history_has_start_and_end(full_catalog: Catalog):
    first, second = query(full_catalog, "SELECT * FROM champion_history ORDER BY generation")
    assert (first["weights_id"], first["model_version"], first["until_at"]) == ("w-2", 2, second["from_at"])
    assert (second["weights_id"], second["until_at"], second["previous_weights_id"]) == ("w-1", None, "w-2")
