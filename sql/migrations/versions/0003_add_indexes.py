"""Add the indexes that a catalog with a million scenes and masks needs (docs/log.md has the figures)."""

from alembic import op

revision = "0003_add_indexes"
down_revision = "0002_add_decision"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_scene_created_at", "scene", ["created_at"])
    op.create_index("ix_scene_name", "scene", ["name"])
    op.create_index("ix_mask_created_at", "mask", ["created_at"])
    op.create_index("ix_mask_weights_id_scene_id", "mask", ["weights_id", "scene_id"])
    op.drop_index("ix_mask_weights_id", "mask")
    op.create_index("ix_quarantine_source_uri", "quarantine", ["source_uri"])


def downgrade() -> None:
    op.drop_index("ix_quarantine_source_uri", "quarantine")
    op.create_index("ix_mask_weights_id", "mask", ["weights_id"])
    op.drop_index("ix_mask_weights_id_scene_id", "mask")
    op.drop_index("ix_mask_created_at", "mask")
    op.drop_index("ix_scene_name", "scene")
    op.drop_index("ix_scene_created_at", "scene")
