"""Add decisions: verdicts that wait for a person, and those that a person declined."""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0002_add_decision"
down_revision = "0001_create_catalog"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decision",
        sa.Column("verdict_id", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.CheckConstraint("decision IN ('asked', 'declined')", name=op.f("ck_decision_decision")),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdict.verdict_id"], name=op.f("fk_decision_verdict_id_verdict")),
        sa.PrimaryKeyConstraint("verdict_id", "decision", name=op.f("pk_decision")),
    )


def downgrade() -> None:
    op.drop_table("decision")
