"""Add the alerts: what holds or happened, and which messages about it were sent (docs/decisions/0033_alerts.md)."""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0010_alerts"
down_revision = "0009_mask_cleaning"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("alert_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("opened_at", Utc, nullable=False),
        sa.Column("seen_at", Utc, nullable=False),
        sa.Column("resolved_at", Utc, nullable=True),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("sent_at", Utc, nullable=True),
        sa.Column("sent_severity", sa.Text(), nullable=True),
        sa.Column("delivered", sa.JSON(), nullable=False),
        sa.Column("claimed_at", Utc, nullable=True),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name=op.f("ck_alert_severity")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alert")),
    )
    op.create_index(
        "ix_alert_open",
        "alert",
        ["name", "subject"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index(op.f("ix_alert_settled"), "alert", ["settled"])


def downgrade() -> None:
    op.drop_table("alert")
