"""Queries of a large catalog use indexes; benchmarks/catalog_scale.py has the figures for a million scenes."""

import pytest
from sqlalchemy import URL

from benchmarks import catalog_scale as scale
from cloudseg.catalog import Catalog, scene_rows
from cloudseg.storage import LocalStore

SCENES = 4000


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
