"""Add removals of scenes and the snapshots that they retired (docs/decisions/0038_removal.md)."""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0012_removal"
down_revision = "0011_drift_and_releases"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "removal",
        sa.Column("removal_id", sa.Text(), nullable=False),
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("pending", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("finished_at", Utc, nullable=True),
        sa.Column("lifted_at", Utc, nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.Column("lift_reason", sa.Text(), nullable=True),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("removal_id", name=op.f("pk_removal")),
    )
    op.create_index(op.f("ix_removal_source_sha256"), "removal", ["source_sha256"])
    op.create_index(op.f("ix_removal_scene_id"), "removal", ["scene_id"])
    op.create_table(
        "retired_snapshot",
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("removal_id", sa.Text(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshot.snapshot_id"], name=op.f("fk_retired_snapshot_snapshot_id_snapshot")
        ),
        sa.ForeignKeyConstraint(
            ["removal_id"], ["removal.removal_id"], name=op.f("fk_retired_snapshot_removal_id_removal")
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "removal_id", name=op.f("pk_retired_snapshot")),
    )


def downgrade() -> None:
    op.drop_table("retired_snapshot")
    op.drop_table("removal")
