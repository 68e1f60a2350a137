"""Add to masks whether the scene is as bright as training scenes, and their thresholds with a promise (0042).

Masks that exist have neither: whether their scene was bright is unknown, and nothing was promised with them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014_radiometry_and_promise"
down_revision = "0013_prediction_lease"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # One statement for each column: SQLite adds them without a copy of the table.
    op.add_column("mask", sa.Column("radiometry", sa.Text(), server_default="unknown", nullable=False))
    op.add_column("mask", sa.Column("brightness", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("mask", sa.Column("promise", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    for column in ("promise", "brightness", "radiometry"):
        op.drop_column("mask", column)
