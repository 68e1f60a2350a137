"""PostGIS: a generated geometry column with an index, and two views with URLs for GIS users."""

import logging

import pytest
import rows
from postgres_server import add_postgis
from shapely import box, from_wkb, to_wkb
from sqlalchemy import URL, text
from sqlalchemy.exc import InternalError

from cloudseg.catalog import Catalog, scene_rows

ADDRESSES = {"url": "s3://bucket/100% sure/", "gdal": "/vsis3/bucket/100% sure/"}
pytestmark = pytest.mark.parametrize("backend", ["postgis"])


def query(catalog: Catalog, statement: str, **values: object) -> list[dict[str, object]]:
    with catalog.read() as db:
        return [dict(row._mapping) for row in db.execute(text(statement), values)]


def test_the_geometry_is_the_footprint(full_catalog: Catalog):
    found = query(
        full_catalog, "SELECT ST_AsBinary(footprint) AS wkb, ST_SRID(footprint) AS srid FROM scene ORDER BY scene_id"
    )
    assert [from_wkb(bytes(row["wkb"])) for row in found] == [box(1.5, 45.0, 1.7, 45.2)] * 2
    assert {row["srid"] for row in found} == {4326}


def test_a_scene_without_footprint_has_no_geometry(full_catalog: Catalog):
    with full_catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(3, footprint_wkb=None))
    assert query(full_catalog, "SELECT footprint FROM gis.scenes WHERE name = 'synthetic_3'") == [{"footprint": None}]


def test_the_geometry_cannot_be_written(full_catalog: Catalog):
    with pytest.raises(Exception, match="generated column"), full_catalog.begin() as db:
        db.execute(text("UPDATE scene SET footprint = ST_MakeEnvelope(0, 0, 1, 1, 4326)"))


def test_masks_have_urls_and_model_and_scene_columns(full_catalog: Catalog):
    full_catalog.upgrade(**ADDRESSES)
    first, second = query(full_catalog, "SELECT * FROM gis.masks ORDER BY mask_id")
    assert first["url"] == f"s3://bucket/100% sure/{rows.mask(1, of=1, by=1).key}"
    assert first["gdal"] == f"/vsis3/bucket/100% sure/{rows.mask(1, of=1, by=1).key}"
    assert (first["probability_url"], first["item_url"]) == (
        "s3://bucket/100% sure/masks/1/probability",
        "s3://bucket/100% sure/masks/1/item",
    )
    assert (first["model_version"], first["is_current"], first["cloud_fraction"]) == (1, True, 0.3)
    assert (second["model_version"], second["is_current"]) == (2, False)
    assert first["acquired_at"] == rows.scene(1).acquired_at


def test_urls_are_null_if_not_configured(full_catalog: Catalog):
    assert {row["url"] for row in query(full_catalog, "SELECT url FROM gis.scenes")} == {None}


def test_queries_of_a_gis_program(full_catalog: Catalog):
    """QGIS reads type and SRID from geometry_columns, then queries a bounding box."""
    layers = query(
        full_catalog,
        "SELECT f_table_name, f_geometry_column, srid FROM geometry_columns WHERE f_table_schema = 'gis' ORDER BY 1",
    )
    assert layers == [
        {"f_table_name": name, "f_geometry_column": "footprint", "srid": 4326} for name in ("masks", "scenes")
    ]
    statement = (
        "SELECT mask_id FROM gis.masks WHERE footprint && ST_MakeEnvelope(:w, :s, :e, :n, 4326) ORDER BY mask_id"
    )
    assert query(full_catalog, statement, w=1.6, s=45.1, e=2, n=46) == [{"mask_id": "mk-1"}, {"mask_id": "mk-2"}]
    assert query(full_catalog, statement, w=2, s=45.1, e=3, n=46) == []


def test_postgis_can_be_installed_later(empty_url: URL, caplog: pytest.LogCaptureFixture):
    catalog = Catalog(empty_url)
    with caplog.at_level(logging.INFO, "cloudseg"):
        catalog.upgrade()
        assert "CREATE EXTENSION postgis" in caplog.text
        rows.fill(catalog)
        add_postgis(empty_url)
        catalog.upgrade(**ADDRESSES)
    assert "the database has PostGIS" in caplog.text
    assert query(catalog, "SELECT count(*) AS n FROM gis.masks WHERE footprint IS NOT NULL") == [{"n": 2}]
    catalog.engine.dispose()


def test_downgrade_and_upgrade_recreate_the_geometry(full_catalog: Catalog):
    full_catalog.downgrade("base")
    full_catalog.upgrade()
    rows.fill(full_catalog)
    assert query(full_catalog, "SELECT count(*) AS n FROM gis.masks WHERE footprint IS NOT NULL") == [{"n": 2}]


def test_invalid_wkb_is_refused(catalog: Catalog):
    with pytest.raises(InternalError, match=r"geometry|WKB"), catalog.begin() as db:
        scene_rows.add_scene(db, rows.scene(1, footprint_wkb=to_wkb(box(0, 0, 1, 1))[:-4]))
