"""Connections for readers from outside: they cannot write and do not run for long, on every database."""

import pytest
import rows

from cloudseg.catalog import Catalog, scene_rows
from cloudseg.catalog.read_only import open_read_only
from cloudseg.errors import CloudsegError


def test_nothing_can_be_written(full_catalog: Catalog):
    readers = open_read_only(full_catalog, timeout_s=30)
    with readers.read() as db:
        assert scene_rows.count_scenes(db) == 2
    for write in ("DELETE FROM mask", "UPDATE scene SET name = 'x'", "CREATE TABLE x (i integer)"):
        with pytest.raises(Exception, match=r"read.?only"), readers.begin() as db:
            db.exec_driver_sql(write)
    with pytest.raises(Exception, match=r"read.?only"), readers.begin() as db:
        scene_rows.add_scene(db, rows.scene(9))
    readers.engine.dispose()


def test_a_long_statement_is_stopped(full_catalog: Catalog):
    readers = open_read_only(full_catalog, timeout_s=0.3)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(CloudsegError), readers.read() as db:
        db.exec_driver_sql(endless)
    with readers.read() as db:
        assert scene_rows.count_scenes(db) == 2
    readers.engine.dispose()
