"""Add the indexes of a search among a million masks: by cloud cover, and by area.

The cloud cover is that of the STAC item: percent with four decimals. By area, PostgreSQL gets a GiST index over the
bounds of scenes as its own type `box` (postgresql.org/docs/current/gist.html), with or without PostGIS. SQLite gets an
R-tree (sqlite.org/rtree.html), which triggers keep; every upgrade creates those that are missing
(`cloudseg.catalog.scene_box`). In both, a scene across the antimeridian is found on either side of it.

A later migration that copies `mask` on SQLite must create its two indexes again: Alembic does not see indexes over
expressions.
"""

from alembic import op

revision = "0008_search_indexes"
down_revision = "0007_reader_switch"
branch_labels = None
depends_on = None

_COVER = "CAST(ROUND(CAST(100 * cloud_fraction AS NUMERIC), 4) AS DOUBLE PRECISION)"
_BOX = """
    box(
        point(CASE WHEN max_lon < min_lon THEN -180 ELSE min_lon END, min_lat),
        point(CASE WHEN max_lon < min_lon THEN 180 ELSE max_lon END, max_lat)
    )
"""
# The scene's id is an auxiliary column: VACUUM may give new rowids to a table whose primary key is no integer.
_TREE = "CREATE VIRTUAL TABLE scene_box USING rtree(id, west, east, south, north, +scene_id TEXT)"
_PARTS = (
    "SELECT min_lon, max_lon, min_lat, max_lat, scene_id FROM scene WHERE min_lon <= max_lon",
    "SELECT min_lon, 180, min_lat, max_lat, scene_id FROM scene WHERE min_lon > max_lon",
    "SELECT -180, max_lon, min_lat, max_lat, scene_id FROM scene WHERE min_lon > max_lon",
)


def upgrade() -> None:
    op.execute(f"CREATE INDEX ix_mask_cloud_cover ON mask (({_COVER}), mask_id)")
    op.execute(f"CREATE INDEX ix_mask_weights_id_cloud_cover ON mask (weights_id, ({_COVER}), mask_id)")
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE INDEX ix_scene_box ON scene USING gist ({_BOX})")
        return
    op.execute(_TREE)
    for part in _PARTS:
        op.execute(f"INSERT INTO scene_box (west, east, south, north, scene_id) {part}")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_scene_box", "scene")
    else:
        for name in ("add", "move", "remove"):
            op.execute(f"DROP TRIGGER IF EXISTS scene_box_{name}")
        op.execute("DROP TABLE scene_box")
    op.drop_index("ix_mask_weights_id_cloud_cover", "mask")
    op.drop_index("ix_mask_cloud_cover", "mask")
