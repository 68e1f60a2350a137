"""Queries of a large catalog use indexes; benchmarks/catalog_scale.py has the figures for a million scenes."""

import pytest
import shapely
from sqlalchemy import URL

from benchmarks import catalog_scale as scale
from cloudseg.catalog import Catalog, scene_rows
from cloudseg.catalog import mask_query as mq
from cloudseg.catalog import mask_search as ms
from cloudseg.storage import LocalStore

SCENES = 4000
BY_TIME = "ix_scene_acquired_at_min_lon_max_lon_min_lat_max_lat"
BY_NAME = dict.fromkeys(("sqlite", "postgresql", "postgis"), "ix_scene_name")
BY_PLACE = dict.fromkeys(("sqlite", "postgresql", "postgis"), "ix_scene_place")
WAITING = dict.fromkeys(("sqlite", "postgresql", "postgis"), "ix_scene_publishable_scene_id")
"""Few scenes, which are found in this index and then sorted."""
BY_AREA = {"sqlite": "SCAN scene_box VIRTUAL TABLE INDEX", "postgresql": "ix_scene_box", "postgis": "ix_scene_box"}


@pytest.fixture
def large(catalog_url: URL, backend: str) -> Catalog:
    """Return a catalog with a few thousand scenes and masks.

    A sequential scan is fastest for so few rows. It is disabled on PostgreSQL, which would not use it with more rows.
    """
    url = catalog_url if backend == "sqlite" else catalog_url.update_query_dict({"options": "-c enable_seqscan=off"})
    catalog = Catalog(url)
    scale.fill(catalog, SCENES)
    return catalog


def test_every_query_uses_an_index_and_returns_the_right_rows(large: Catalog, store: LocalStore, backend: str):
    answers = {answer.query: answer for answer in scale.run_queries(large, store, turns=1)}
    plans = {question: "\n".join(answer.plan) for question, answer in answers.items()}
    wanted = {
        "new scenes without a mask of the champion": "ix_scene_publishable_scene_id",
        "how many scenes have no mask of the champion": "ix_scene_publishable_scene_id",
        "which of 100 scenes' objects a row names": "ix_scene_key",
        "which of 100 masks' objects a row names": "mask_weights_id_scene_id",
        "the 20 newest masks of the weights before": "ix_mask_weights_id_created_at",
        "masks that touch this box in June": "ix_scene_acquired_at_min_lon_max_lon_min_lat_max_lat",
        "the 20 newest masks": "ix_mask_created_at",
        "the 20 newest scenes": "ix_scene_created_at",
        "the scenes of a name": "ix_scene_name",
        "lineage of one mask": "mask",
    }
    if backend == "postgis":
        wanted["masks that touch this box in June, by geometry"] = "ix_scene_footprint"
    assert plans.keys() == wanted.keys()
    for question, index in wanted.items():
        assert index in plans[question], plans[question]
        assert "Seq Scan" not in plans[question], plans[question]
        full_scans = [line for line in plans[question].splitlines() if "SCAN" in line.split() and "INDEX" not in line]
        assert full_scans == [], plans[question]
    rows = {question: answer.rows for question, answer in answers.items()}
    assert rows["new scenes without a mask of the champion"] == SCENES // scale.WAITING
    assert rows["which of 100 scenes' objects a row names"] == rows["which of 100 masks' objects a row names"] == 100
    assert rows["lineage of one mask"] == SCENES // 2
    assert rows.get("masks that touch this box in June, by geometry") in (
        None,
        rows["masks that touch this box in June"],
    )
    with large.read() as db:
        assert scene_rows.count_scenes_without_mask(db, scale.CHAMPION) == SCENES // scale.WAITING
        assert scene_rows.count_scenes_without_mask(db, scale.FORMER) == SCENES - SCENES // scale.WAITING


SEARCHES = {
    "newest": (mq.Query(("masks",)), BY_TIME),
    "newest, every model": (mq.Query(("masks",), any_model=True), BY_TIME),
    "newest scenes": (mq.Query(("scenes",)), BY_TIME),
    "of a month": (mq.Query(("masks",), since=scale.JUNE["since"], until=scale.JUNE["until"]), BY_TIME),
    "few clouds": (mq.Query(("masks",), where=scale.FEW_CLOUDS), BY_TIME),
    "of a model": (mq.Query(("masks",), where=scale.OF_CHAMPION), BY_TIME),
    "clearest": (mq.Query(("masks",), sort=(mq.SortKey("eo:cloud_cover"),)), "ix_mask_weights_id_cloud_cover"),
    "cloudiest, every model": (
        mq.Query(("masks",), any_model=True, sort=(mq.SortKey("eo:cloud_cover", descending=True),)),
        "ix_mask_cloud_cover",
    ),
    "in a small area": (mq.Query(("masks",), area=shapely.box(2, -48, 4, -46)), BY_AREA),
    "by name": (mq.Query(("masks",), name="*_100000*", any_model=True), BY_NAME),
    "by place": (mq.Query(("masks",), place="TILE:*77", any_model=True), BY_PLACE),
    "by a name that many have": (mq.Query(("masks",), name="SCENE*", any_model=True), BY_TIME),
    "waiting": (mq.Query(("scenes",), without_mask_of=scale.CHAMPION), WAITING),
    "in half the world": (mq.Query(("masks",), area=shapely.box(0, -90, 180, 90)), BY_TIME),
}


@pytest.mark.parametrize("wanted", SEARCHES)
def test_a_search_reads_no_more_than_its_page_needs(large: Catalog, backend: str, wanted: str, monkeypatch):
    """An order is walked and not sorted; an area with few scenes is found in the spatial index."""
    monkeypatch.setattr(ms, "MAX_NEAR", 500)
    query, index = SEARCHES[wanted]
    if isinstance(index, dict):
        index = index[backend]
    found = scale.plan(large, lambda db: ms.search(db, query), analyze=False, every=True)
    text = "\n".join(found)
    assert index in text, text
    tables = ("scene", "mask")
    if backend == "sqlite":
        assert [line for line in found if line in [f"SCAN {name}" for name in tables]] == [], text
    else:
        assert [line for line in found if any(f"Seq Scan on {name}" in line for name in tables)] == [], text
    if not isinstance(SEARCHES[wanted][1], dict):
        whole_sort = "USE TEMP B-TREE FOR ORDER BY" if backend == "sqlite" else " Sort  "
        assert whole_sort not in text.replace("Incremental Sort", ""), text
