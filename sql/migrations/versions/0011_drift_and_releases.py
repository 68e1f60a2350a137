"""Add the brightness of scenes, which drift is measured by, and who released files from quarantine and why.

Brightness is measured after the migration, a bounded number of scenes at a time (docs/decisions/0037_drift.md).
"""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0011_drift_and_releases"
down_revision = "0010_alerts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scene_brightness",
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.Column("reflectance", sa.Double(), nullable=True),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["scene_id"], ["scene.scene_id"], name=op.f("fk_scene_brightness_scene_id_scene")),
        sa.PrimaryKeyConstraint("scene_id", name=op.f("pk_scene_brightness")),
    )
    op.create_table(
        "quarantine_release",
        sa.Column("quarantine_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source_uri", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("quarantine_id", "sequence", name=op.f("pk_quarantine_release")),
    )
    op.create_index(op.f("ix_quarantine_release_created_at"), "quarantine_release", ["created_at"])


def downgrade() -> None:
    op.drop_table("quarantine_release")
    op.drop_table("scene_brightness")
