"""Widen two indexes of scenes, so that a question is answered from the index and only what fits is read from the table."""

from alembic import op

revision = "0004_widen_indexes"
down_revision = "0003_add_indexes"
branch_labels = None
depends_on = None

_BOX = ["acquired_at", "min_lon", "max_lon", "min_lat", "max_lat"]


def upgrade() -> None:
    op.create_index("ix_scene_publishable_created_at_scene_id", "scene", ["publishable", "created_at", "scene_id"])
    op.create_index("ix_scene_acquired_at_min_lon_max_lon_min_lat_max_lat", "scene", _BOX)
    op.drop_index("ix_scene_acquired_at", "scene")


def downgrade() -> None:
    op.create_index("ix_scene_acquired_at", "scene", ["acquired_at"])
    op.drop_index("ix_scene_acquired_at_min_lon_max_lon_min_lat_max_lat", "scene")
    op.drop_index("ix_scene_publishable_created_at_scene_id", "scene")
