"""Create the catalog: scenes, labels, places, snapshots, runs, weights, verdicts, promotions, masks."""

import sqlalchemy as sa
from alembic import op

from cloudseg.catalog.tables import Utc

revision = "0001_create_catalog"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "place",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("decided_at", Utc, nullable=False),
        sa.CheckConstraint("split IN ('train', 'validation', 'held_out')", name=op.f("ck_place_split")),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_place")),
    )
    op.create_table(
        "quarantine",
        sa.Column("quarantine_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source_uri", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("found", sa.Text(), nullable=True),
        sa.Column("expected", sa.Text(), nullable=True),
        sa.Column("next_step", sa.Text(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("quarantine_id", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "scene",
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("sensor", sa.Text(), nullable=False),
        sa.Column("radiometry", sa.Text(), nullable=False),
        sa.Column("acquired_at", Utc, nullable=True),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("crs", sa.Text(), nullable=True),
        sa.Column("transform", sa.JSON(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("resolution_m", sa.Double(), nullable=True),
        sa.Column("bands", sa.JSON(), nullable=False),
        sa.Column("footprint_wkb", sa.LargeBinary(), nullable=True),
        sa.Column("min_lon", sa.Double(), nullable=True),
        sa.Column("min_lat", sa.Double(), nullable=True),
        sa.Column("max_lon", sa.Double(), nullable=True),
        sa.Column("max_lat", sa.Double(), nullable=True),
        sa.Column("valid_fraction", sa.Double(), nullable=False),
        sa.Column("publishable", sa.Boolean(), nullable=False),
        sa.Column("source_uri", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("scene_id", name=op.f("pk_scene")),
        sa.UniqueConstraint("source_sha256", name=op.f("uq_scene_source_sha256")),
    )
    with op.batch_alter_table("scene", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_scene_acquired_at"), ["acquired_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_scene_min_lon_min_lat"), ["min_lon", "min_lat"], unique=False)
        batch_op.create_index(batch_op.f("ix_scene_place"), ["place"], unique=False)

    op.create_table(
        "snapshot",
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("chip_size", sa.Integer(), nullable=False),
        sa.Column("bands", sa.JSON(), nullable=False),
        sa.Column("working_resolution_m", sa.Double(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_snapshot")),
    )
    op.create_table(
        "label",
        sa.Column("label_id", sa.Text(), nullable=False),
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("class_mapping", sa.JSON(), nullable=False),
        sa.Column("cloud_fraction", sa.Double(), nullable=False),
        sa.Column("labelled_fraction", sa.Double(), nullable=False),
        sa.Column("source_uri", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["scene_id"], ["scene.scene_id"], name=op.f("fk_label_scene_id_scene")),
        sa.PrimaryKeyConstraint("label_id", name=op.f("pk_label")),
        sa.UniqueConstraint("scene_id", "version", name=op.f("uq_label_scene_id_version")),
    )
    op.create_table(
        "run",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("recipe_name", sa.Text(), nullable=False),
        sa.Column("recipe_hash", sa.Text(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("parent_weights_id", sa.Text(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("device_reason", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("finished_at", Utc, nullable=True),
        sa.CheckConstraint("status IN ('running', 'finished', 'failed')", name=op.f("ck_run_status")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.snapshot_id"], name=op.f("fk_run_snapshot_id_snapshot")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run")),
    )
    op.create_table(
        "checkpoint",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_checkpoint_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "step", name=op.f("pk_checkpoint")),
    )
    op.create_table(
        "epoch",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_epoch_run_id_run")),
        sa.PrimaryKeyConstraint("run_id", "epoch", name=op.f("pk_epoch")),
    )
    op.create_table(
        "snapshot_label",
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("label_id", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["label_id"], ["label.label_id"], name=op.f("fk_snapshot_label_label_id_label")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.snapshot_id"], name=op.f("fk_snapshot_label_snapshot_id_snapshot")),
        sa.PrimaryKeyConstraint("snapshot_id", "label_id", name=op.f("pk_snapshot_label")),
    )
    with op.batch_alter_table("snapshot_label", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_snapshot_label_label_id"), ["label_id"], unique=False)

    op.create_table(
        "weights",
        sa.Column("weights_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("snapshot_id", sa.Text(), nullable=True),
        sa.Column("architecture", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("companions", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"], name=op.f("fk_weights_run_id_run")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.snapshot_id"], name=op.f("fk_weights_snapshot_id_snapshot")),
        sa.PrimaryKeyConstraint("weights_id", name=op.f("pk_weights")),
        sa.UniqueConstraint("run_id", name=op.f("uq_weights_run_id")),
        sa.UniqueConstraint("version", name=op.f("uq_weights_version")),
    )
    op.create_table(
        "evaluation",
        sa.Column("evaluation_id", sa.Text(), nullable=False),
        sa.Column("weights_id", sa.Text(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.snapshot_id"], name=op.f("fk_evaluation_snapshot_id_snapshot")),
        sa.ForeignKeyConstraint(["weights_id"], ["weights.weights_id"], name=op.f("fk_evaluation_weights_id_weights")),
        sa.PrimaryKeyConstraint("evaluation_id", name=op.f("pk_evaluation")),
        sa.UniqueConstraint("weights_id", "snapshot_id", "split", name=op.f("uq_evaluation_weights_id_snapshot_id_split")),
    )
    op.create_table(
        "mask",
        sa.Column("mask_id", sa.Text(), nullable=False),
        sa.Column("scene_id", sa.Text(), nullable=False),
        sa.Column("weights_id", sa.Text(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("cloud_fraction", sa.Double(), nullable=False),
        sa.Column("valid_fraction", sa.Double(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("companions", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["scene_id"], ["scene.scene_id"], name=op.f("fk_mask_scene_id_scene")),
        sa.ForeignKeyConstraint(["weights_id"], ["weights.weights_id"], name=op.f("fk_mask_weights_id_weights")),
        sa.PrimaryKeyConstraint("mask_id", name=op.f("pk_mask")),
        sa.UniqueConstraint("scene_id", "weights_id", name=op.f("uq_mask_scene_id_weights_id")),
    )
    with op.batch_alter_table("mask", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mask_weights_id"), ["weights_id"], unique=False)

    op.create_table(
        "verdict",
        sa.Column("verdict_id", sa.Text(), nullable=False),
        sa.Column("challenger_id", sa.Text(), nullable=False),
        sa.Column("champion_id", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.CheckConstraint("outcome IN ('PROMOTE', 'HOLD', 'REJECT')", name=op.f("ck_verdict_outcome")),
        sa.ForeignKeyConstraint(["challenger_id"], ["weights.weights_id"], name=op.f("fk_verdict_challenger_id_weights")),
        sa.ForeignKeyConstraint(["champion_id"], ["weights.weights_id"], name=op.f("fk_verdict_champion_id_weights")),
        sa.PrimaryKeyConstraint("verdict_id", name=op.f("pk_verdict")),
    )
    with op.batch_alter_table("verdict", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_verdict_challenger_id"), ["challenger_id"], unique=False)

    op.create_table(
        "promotion",
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("weights_id", sa.Text(), nullable=False),
        sa.Column("previous_weights_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("verdict_id", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.CheckConstraint("action IN ('promote', 'rollback')", name=op.f("ck_promotion_action")),
        sa.ForeignKeyConstraint(["previous_weights_id"], ["weights.weights_id"], name=op.f("fk_promotion_previous_weights_id_weights")),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdict.verdict_id"], name=op.f("fk_promotion_verdict_id_verdict")),
        sa.ForeignKeyConstraint(["weights_id"], ["weights.weights_id"], name=op.f("fk_promotion_weights_id_weights")),
        sa.PrimaryKeyConstraint("generation", name=op.f("pk_promotion")),
    )


def downgrade() -> None:
    op.drop_table("promotion")
    with op.batch_alter_table("verdict", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_verdict_challenger_id"))

    op.drop_table("verdict")
    with op.batch_alter_table("mask", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_mask_weights_id"))

    op.drop_table("mask")
    op.drop_table("evaluation")
    op.drop_table("weights")
    with op.batch_alter_table("snapshot_label", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_snapshot_label_label_id"))

    op.drop_table("snapshot_label")
    op.drop_table("epoch")
    op.drop_table("checkpoint")
    op.drop_table("run")
    op.drop_table("label")
    op.drop_table("snapshot")
    with op.batch_alter_table("scene", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_scene_place"))
        batch_op.drop_index(batch_op.f("ix_scene_min_lon_min_lat"))
        batch_op.drop_index(batch_op.f("ix_scene_acquired_at"))

    op.drop_table("scene")
    op.drop_table("quarantine")
    op.drop_table("place")
