"""Find rows by the key of their object, compare scenes with masks in the order of scenes, find the newest masks of weights.

docs/log.md has the figures of a million scenes.
"""

from alembic import op

revision = "0005_look_up_keys"
down_revision = "0004_widen_indexes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_scene_key", "scene", ["key"])
    op.create_index("ix_label_key", "label", ["key"])
    op.create_index("ix_mask_weights_id_created_at", "mask", ["weights_id", "created_at"])
    op.create_index("ix_scene_publishable_scene_id", "scene", ["publishable", "scene_id"])
    op.drop_index("ix_scene_publishable_created_at_scene_id", "scene")


def downgrade() -> None:
    op.create_index("ix_scene_publishable_created_at_scene_id", "scene", ["publishable", "created_at", "scene_id"])
    op.drop_index("ix_scene_publishable_scene_id", "scene")
    op.drop_index("ix_mask_weights_id_created_at", "mask")
    op.drop_index("ix_label_key", "label")
    op.drop_index("ix_scene_key", "scene")
