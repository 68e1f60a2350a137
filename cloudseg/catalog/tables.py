"""The schema. A table has exactly the columns of its row class in `cloudseg.records`.

Migrations in `sql/migrations` create it; a test compares the two. Times are stored in UTC, JSON as text where the
database has no JSON type.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Utc(TypeDecorator[datetime]):
    """Time zone aware UTC in Python; SQLite, which has no time zones, stores UTC without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time to store.

        Raises:
            ValueError: the time is naive, so its zone would be a guess.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r}")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return a stored time with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _text(name: str, *args: Any, null: bool = False) -> Column[str]:
    return Column(name, Text, *args, nullable=null)


def _created() -> Column[datetime]:
    return Column("created_at", Utc, nullable=False)


def _object() -> list[Column[Any]]:
    return [_text("key"), _text("sha256"), Column("size", BigInteger, nullable=False)]


def _to(target: str) -> ForeignKey:
    return ForeignKey(target)


scene = Table(
    "scene",
    metadata,
    Column("scene_id", Text, primary_key=True),
    _text("name"),
    _text("layout"),
    _text("sensor"),
    _text("radiometry"),
    Column("acquired_at", Utc),
    _text("place"),
    _text("crs", null=True),
    Column("transform", JSON, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("resolution_m", Double),
    Column("bands", JSON, nullable=False),
    Column("footprint_wkb", LargeBinary),
    Column("min_lon", Double),
    Column("min_lat", Double),
    Column("max_lon", Double),
    Column("max_lat", Double),
    Column("valid_fraction", Double, nullable=False),
    Column("publishable", Boolean, nullable=False),
    _text("source_uri"),
    _text("source_sha256"),
    *_object(),
    Column("tags", JSON, nullable=False),
    _created(),
    UniqueConstraint("source_sha256"),
    Index(None, "place"),
    Index(
        None, "acquired_at", "min_lon", "max_lon", "min_lat", "max_lat"
    ),  # a box in June, without reading other scenes
    Index(None, "min_lon", "min_lat"),
    Index(None, "created_at", "scene_id"),  # also the order in which workers draw scenes
    Index(
        None, "publishable", "scene_id"
    ),  # which scenes may need a mask, in the order in which weights list what they masked
    Index(None, "name"),
    Index(None, "key"),
)

scene_brightness = Table(
    "scene_brightness",
    metadata,
    Column("scene_id", Text, _to("scene.scene_id"), primary_key=True),
    Column("reflectance", Double),
    _created(),
)

label = Table(
    "label",
    metadata,
    Column("label_id", Text, primary_key=True),
    _text("scene_id", _to("scene.scene_id")),
    Column("version", Integer, nullable=False),
    _text("source"),
    Column("class_mapping", JSON, nullable=False),
    Column("cloud_fraction", Double, nullable=False),
    Column("labelled_fraction", Double, nullable=False),
    _text("source_uri"),
    _text("source_sha256"),
    *_object(),
    _created(),
    _text("corrects_mask_id", _to("mask.mask_id"), null=True),
    UniqueConstraint("scene_id", "version"),
    Index(None, "key"),
)

label_event = Table(
    "label_event",
    metadata,
    # The primary key orders the life of a label: of two concurrent steps only one gets the next sequence.
    Column("label_id", Text, _to("label.label_id"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    _text("state"),
    _text("actor"),
    _text("reason"),
    _created(),
    CheckConstraint("state IN ('proposed', 'accepted', 'rejected', 'withdrawn')", name="state"),
)

place = Table(
    "place",
    metadata,
    Column("place", Text, primary_key=True),
    Column("split", Text, nullable=False),
    Column("decided_at", Utc, nullable=False),
    CheckConstraint("split IN ('train', 'validation', 'held_out')", name="split"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("quarantine_id", Text, primary_key=True),
    _text("name"),
    _text("source_uri"),
    _text("source_sha256"),
    _text("error"),
    _text("what"),
    _text("found", null=True),
    _text("expected", null=True),
    _text("next_step"),
    _created(),
    Index(None, "source_uri"),
)

quarantine_release = Table(
    "quarantine_release",
    metadata,
    # A file may be quarantined again and released again. Of two concurrent releases only one gets the next sequence.
    Column("quarantine_id", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    _text("name"),
    _text("source_uri"),
    _text("error"),
    _text("what"),
    _text("actor"),
    _text("reason"),
    _created(),
    Index(None, "created_at"),
)

snapshot = Table(
    "snapshot",
    metadata,
    Column("snapshot_id", Text, primary_key=True),
    _text("manifest_key"),
    _text("manifest_sha256"),
    Column("chip_size", Integer, nullable=False),
    Column("bands", JSON, nullable=False),
    Column("working_resolution_m", Double),
    Column("counts", JSON, nullable=False),
    _created(),
)

snapshot_label = Table(
    "snapshot_label",
    metadata,
    Column("snapshot_id", Text, _to("snapshot.snapshot_id"), primary_key=True),
    Column("label_id", Text, _to("label.label_id"), primary_key=True),
    Column("split", Text, nullable=False),
    Index(None, "label_id"),
)

run = Table(
    "run",
    metadata,
    Column("run_id", Text, primary_key=True),
    _text("snapshot_id", _to("snapshot.snapshot_id")),
    _text("recipe_name"),
    _text("recipe_hash"),
    Column("recipe", JSON, nullable=False),
    _text("parent_weights_id", null=True),
    Column("seed", BigInteger, nullable=False),
    _text("status"),
    _text("device"),
    _text("device_reason"),
    _text("error", null=True),
    _created(),
    Column("finished_at", Utc),
    CheckConstraint("status IN ('running', 'finished', 'failed')", name="status"),
)

epoch = Table(
    "epoch",
    metadata,
    Column("run_id", Text, _to("run.run_id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    _created(),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("run_id", Text, _to("run.run_id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    *_object(),
    _created(),
)

weights = Table(
    "weights",
    metadata,
    Column("weights_id", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    _text("run_id", _to("run.run_id"), null=True),
    _text("snapshot_id", _to("snapshot.snapshot_id"), null=True),
    _text("architecture"),
    *_object(),
    Column("companions", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    _created(),
    UniqueConstraint("version"),
    UniqueConstraint("run_id"),
)

evaluation = Table(
    "evaluation",
    metadata,
    Column("evaluation_id", Text, primary_key=True),
    _text("weights_id", _to("weights.weights_id")),
    _text("snapshot_id", _to("snapshot.snapshot_id")),
    _text("split"),
    Column("threshold", Double, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("report", JSON, nullable=False),
    _created(),
    UniqueConstraint("weights_id", "snapshot_id", "split"),
)

verdict = Table(
    "verdict",
    metadata,
    Column("verdict_id", Text, primary_key=True),
    _text("challenger_id", _to("weights.weights_id")),
    _text("champion_id", _to("weights.weights_id"), null=True),
    _text("outcome"),
    Column("body", JSON, nullable=False),
    _created(),
    CheckConstraint("outcome IN ('PROMOTE', 'HOLD', 'REJECT')", name="outcome"),
    Index(None, "challenger_id"),
)

decision = Table(
    "decision",
    metadata,
    Column("verdict_id", Text, _to("verdict.verdict_id"), primary_key=True),
    Column("decision", Text, primary_key=True),
    _text("actor"),
    _text("reason"),
    _created(),
    CheckConstraint("decision IN ('asked', 'declined')", name="decision"),
)

promotion = Table(
    "promotion",
    metadata,
    # The primary key makes two champions impossible: two concurrent promotions insert the same next generation.
    Column("generation", Integer, primary_key=True, autoincrement=False),
    _text("weights_id", _to("weights.weights_id")),
    _text("previous_weights_id", _to("weights.weights_id"), null=True),
    _text("action"),
    _text("verdict_id", _to("verdict.verdict_id"), null=True),
    _text("actor"),
    _text("reason"),
    _created(),
    CheckConstraint("action IN ('promote', 'rollback')", name="action"),
)

mask = Table(
    "mask",
    metadata,
    Column("mask_id", Text, primary_key=True),
    _text("scene_id", _to("scene.scene_id")),
    _text("weights_id", _to("weights.weights_id")),
    Column("threshold", Double, nullable=False),
    Column("cloud_fraction", Double, nullable=False),
    Column("valid_fraction", Double, nullable=False),
    *_object(),
    Column("companions", JSON, nullable=False),
    _created(),
    Column("cleaning", Text, nullable=False, server_default=""),
    Column("is_variant", Boolean, nullable=False, server_default=false()),
    Column("radiometry", Text, nullable=False, server_default="unknown"),
    Column("brightness", JSON(none_as_null=True)),
    Column("promise", JSON(none_as_null=True)),
    UniqueConstraint("scene_id", "weights_id", "cleaning"),
    Index(  # readers see one mask of a scene by these weights, whoever publishes at the same time
        "ix_mask_main",
        "scene_id",
        "weights_id",
        unique=True,
        sqlite_where=text("NOT is_variant"),
        postgresql_where=text("NOT is_variant"),
    ),
    Index(None, "weights_id", "scene_id"),  # which scenes these weights have masked, without reading a mask
    Index(None, "weights_id", "created_at"),
    Index(None, "created_at"),
)

prediction_lease = Table(
    "prediction_lease",
    metadata,
    Column("weights_id", Text, _to("weights.weights_id"), primary_key=True),
    Column("cleaning", Text, primary_key=True),
    Column("scene_id", Text, _to("scene.scene_id"), primary_key=True),
    Column("until", Utc, nullable=False),
    _text("worker", null=True),
    Column("failures", Integer, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Index(None, "weights_id", "cleaning", "until"),  # which of them are free, without reading those that are held
    Index(None, "scene_id"),
)

reader_switch = Table(
    "reader_switch",
    metadata,
    # As in `promotion`: of two concurrent switches, only one can insert the next sequence.
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    _text("action"),
    _text("mode"),
    _text("weights_id", _to("weights.weights_id"), null=True),
    Column("effective_at", Utc, nullable=False),
    _text("actor"),
    _text("reason"),
    _created(),
    CheckConstraint("action IN ('switch', 'back')", name="action"),
    CheckConstraint("mode IN ('newest', 'complete', 'hold')", name="mode"),
    CheckConstraint("(mode = 'newest') = (weights_id IS NULL)", name="weights"),
)

backfill = Table(
    "backfill",
    metadata,
    Column("backfill_id", Text, primary_key=True),
    _text("weights_id", _to("weights.weights_id")),
    _text("night"),
    Column("megapixels", Integer, nullable=False),
    _created(),
    UniqueConstraint("weights_id", "night"),
)

backfill_scene = Table(
    "backfill_scene",
    metadata,
    Column("backfill_id", Text, _to("backfill.backfill_id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _text("scene_id", _to("scene.scene_id")),
    Index(None, "scene_id"),
)

removal = Table(
    "removal",
    metadata,
    Column("removal_id", Text, primary_key=True),
    _text("scene_id"),
    _text("source_sha256"),
    _text("actor"),
    _text("reason"),
    Column("pending", JSON(none_as_null=True)),
    Column("finished_at", Utc),
    Column("lifted_at", Utc),
    _text("lifted_by", null=True),
    _text("lift_reason", null=True),
    _created(),
    Index(None, "source_sha256"),
    Index(None, "scene_id"),
)

retired_snapshot = Table(
    "retired_snapshot",
    metadata,
    Column("snapshot_id", Text, _to("snapshot.snapshot_id"), primary_key=True),
    Column("removal_id", Text, _to("removal.removal_id"), primary_key=True),
    Column("labels", Integer, nullable=False),
    _created(),
)

alert = Table(
    "alert",
    metadata,
    Column("alert_id", Text, primary_key=True),
    _text("name"),
    _text("subject"),
    _text("severity"),
    _text("sentence"),
    _text("link"),
    Column("facts", JSON, nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("seen_at", Utc, nullable=False),
    Column("resolved_at", Utc),
    Column("sent", Integer, nullable=False),
    Column("sent_at", Utc),
    _text("sent_severity", null=True),
    Column("delivered", JSON, nullable=False),
    Column("claimed_at", Utc),
    Column("settled", Boolean, nullable=False),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    # Of two processes that find the same, one opens the alert.
    Index(
        "ix_alert_open",
        "name",
        "subject",
        unique=True,
        sqlite_where=text("resolved_at IS NULL"),
        postgresql_where=text("resolved_at IS NULL"),
    ),
    Index(None, "settled"),
)
