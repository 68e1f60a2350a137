"""Add the switch of readers (which model's masks they see, since when) and the nightly plans of the backfill.

Without a row in `reader_switch`, readers see the newest champion's masks, as in every catalog until now
(docs/decisions/0031_reader_switch.md).
"""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0007_reader_switch"
down_revision = "0006_label_life"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reader_switch",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("weights_id", sa.Text(), nullable=True),
        sa.Column("effective_at", Utc, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.CheckConstraint("action IN ('switch', 'back')", name=op.f("ck_reader_switch_action")),
        sa.CheckConstraint("mode IN ('newest', 'complete', 'hold')", name=op.f("ck_reader_switch_mode")),
        sa.CheckConstraint("(mode = 'newest') = (weights_id IS NULL)", name=op.f("ck_reader_switch_weights")),
        sa.ForeignKeyConstraint(["weights_id"], ["weights.weights_id"], name=op.f("fk_reader_switch_weights_id_weights")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_reader_switch")),
    )
    op.create_table(
        "backfill",
        sa.Column("backfill_id", sa.Text(), nullable=False),
        sa.Column("weights_id", sa.Text(), nullable=False),
        sa.Column("night", sa.Text(), nullable=False),
        sa.Column("megapixels", sa.Integer(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["weights_id"], ["weights.weights_id"], name=op.f("fk_backfill_weights_id_weights")),
        sa.PrimaryKeyConstraint("backfill_id", name=op.f("pk_backfill")),
        sa.UniqueConstraint("weights_id", "night", name=op.f("uq_backfill_weights_id_night")),
    )
    op.create_table(
        "backfill_scene",
        sa.Column("backfill_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["backfill_id"], ["backfill.backfill_id"], name=op.f("fk_backfill_scene_backfill_id_backfill")
        ),
        sa.ForeignKeyConstraint(["scene_id"], ["scene.scene_id"], name=op.f("fk_backfill_scene_scene_id_scene")),
        sa.PrimaryKeyConstraint("backfill_id", "position", name=op.f("pk_backfill_scene")),
    )
    op.create_index(op.f("ix_backfill_scene_scene_id"), "backfill_scene", ["scene_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_backfill_scene_scene_id"), table_name="backfill_scene")
    op.drop_table("backfill_scene")
    op.drop_table("backfill")
    op.drop_table("reader_switch")
