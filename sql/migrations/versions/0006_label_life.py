"""Add the life of labels (proposed, accepted, rejected, withdrawn), and the mask that a label corrects.

Until now the newest label of a scene replaced the older ones whole. Every label that exists was in use, so each is
accepted; the replaced ones are also withdrawn, because otherwise they would show through where the newest has no
opinion (255), and training data would change with a migration (docs/decisions/0028_label_life.md).
"""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0006_label_life"
down_revision = "0005_look_up_keys"
branch_labels = None
depends_on = None

_ACCEPTED = """
    INSERT INTO label_event (label_id, sequence, state, actor, reason, created_at)
    SELECT label_id, 1, 'accepted', 'migration', 'it was in use when labels got a life', created_at FROM label
"""
_REPLACED = """
    INSERT INTO label_event (label_id, sequence, state, actor, reason, created_at)
    SELECT
        label.label_id,
        2,
        'withdrawn',
        'migration',
        'replaced by version ' || newest.version || ', ' || newest.label_id,
        newest.created_at
    FROM label
    INNER JOIN label AS newest ON label.scene_id = newest.scene_id AND label.version < newest.version
    WHERE newest.version = (SELECT MAX(any_label.version) FROM label AS any_label WHERE any_label.scene_id = label.scene_id)
"""


def upgrade() -> None:
    op.create_table(
        "label_event",
        sa.Column("label_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.CheckConstraint(
            "state IN ('proposed', 'accepted', 'rejected', 'withdrawn')", name=op.f("ck_label_event_state")
        ),
        sa.ForeignKeyConstraint(["label_id"], ["label.label_id"], name=op.f("fk_label_event_label_id_label")),
        sa.PrimaryKeyConstraint("label_id", "sequence", name=op.f("pk_label_event")),
    )
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.add_column(sa.Column("corrects_mask_id", sa.Text(), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_label_corrects_mask_id_mask"), "mask", ["corrects_mask_id"], ["mask_id"]
        )
    op.execute(_ACCEPTED)
    op.execute(_REPLACED)


def downgrade() -> None:
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("fk_label_corrects_mask_id_mask"), type_="foreignkey")
        batch_op.drop_column("corrects_mask_id")
    op.drop_table("label_event")
