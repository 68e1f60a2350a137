"""Add how a mask was cleaned, and further masks of one scene by the same weights (docs/decisions/0032_cleaned_masks.md).

Until now weights had one mask of a scene, as the model draws it. Every mask that exists stays the one that readers see.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009_mask_cleaning"
down_revision = "0008_search_indexes"
branch_labels = None
depends_on = None

_FORGET = """
    UPDATE label SET corrects_mask_id = NULL
    WHERE corrects_mask_id IN (SELECT mask.mask_id FROM mask WHERE mask.is_variant)
"""
_INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'mask' AND sql IS NOT NULL"
_ONE_EACH = "DELETE FROM mask WHERE is_variant"


@contextmanager
def _copied() -> Iterator[Any]:
    """Alter `mask`; SQLite copies it, and Alembic does not see indexes over expressions: all are made again."""
    connection = op.get_bind()
    indexes = connection.execute(sa.text(_INDEXES)).all() if connection.dialect.name == "sqlite" else []
    for name, _ in indexes:
        op.drop_index(name, table_name="mask")
    with op.batch_alter_table("mask", schema=None) as batch_op:
        yield batch_op
    for _, statement in indexes:
        op.execute(statement)


def upgrade() -> None:
    with _copied() as batch_op:
        batch_op.add_column(sa.Column("cleaning", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("is_variant", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.drop_constraint(batch_op.f("uq_mask_scene_id_weights_id"), type_="unique")
        batch_op.create_unique_constraint(
            batch_op.f("uq_mask_scene_id_weights_id_cleaning"), ["scene_id", "weights_id", "cleaning"]
        )
    op.create_index(
        "ix_mask_main",
        "mask",
        ["scene_id", "weights_id"],
        unique=True,
        sqlite_where=sa.text("NOT is_variant"),
        postgresql_where=sa.text("NOT is_variant"),
    )


def downgrade() -> None:
    op.execute(_FORGET)
    op.execute(_ONE_EACH)
    op.drop_index("ix_mask_main", table_name="mask")
    with _copied() as batch_op:
        batch_op.drop_constraint(batch_op.f("uq_mask_scene_id_weights_id_cleaning"), type_="unique")
        batch_op.drop_column("is_variant")
        batch_op.drop_column("cleaning")
        batch_op.create_unique_constraint(batch_op.f("uq_mask_scene_id_weights_id"), ["scene_id", "weights_id"])
