"""Add leases of scenes to workers that predict, and the index in whose order they draw (docs/decisions/0039_drain.md)."""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0013_prediction_lease"
down_revision = "0012_removal"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "prediction_lease",
        sa.Column("weights_id", sa.Text(), nullable=False),
        sa.Column("cleaning", sa.Text(), nullable=False),
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.Column("until", Utc, nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["weights_id"], ["weights.weights_id"], name=op.f("fk_prediction_lease_weights_id_weights")
        ),
        sa.ForeignKeyConstraint(["scene_id"], ["scene.scene_id"], name=op.f("fk_prediction_lease_scene_id_scene")),
        sa.PrimaryKeyConstraint("weights_id", "cleaning", "scene_id", name=op.f("pk_prediction_lease")),
    )
    op.create_index(
        op.f("ix_prediction_lease_weights_id_cleaning_until"), "prediction_lease", ["weights_id", "cleaning", "until"]
    )
    op.create_index(op.f("ix_prediction_lease_scene_id"), "prediction_lease", ["scene_id"])
    op.drop_index("ix_scene_created_at", "scene")
    op.create_index("ix_scene_created_at_scene_id", "scene", ["created_at", "scene_id"])


def downgrade() -> None:
    op.drop_index("ix_scene_created_at_scene_id", "scene")
    op.create_index("ix_scene_created_at", "scene", ["created_at"])
    op.drop_table("prediction_lease")
