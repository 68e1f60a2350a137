"""What the static STAC catalog holds: members of each collection by month, and what summarizes a collection.

A month is that of the acquisition for scenes and masks, and of the registration for models and snapshots. Only scenes
that may be published and whose place is known are members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Row, Text, case, cast, func, null, select

from cloudseg.catalog import reader_rows
from cloudseg.catalog import tables as t
from cloudseg.catalog.extent import training_extent
from cloudseg.catalog.mask_query import CLOUD_COVER, PUBLISHED
from cloudseg.catalog.planner import NotByIndex
from cloudseg.catalog.removal_rows import is_whole
from cloudseg.catalog.session import fetch
from cloudseg.records import Snapshot, Weights

Collection = Literal["scenes", "masks", "models", "snapshots"]
COLLECTIONS: Final[tuple[Collection, ...]] = ("scenes", "masks", "models", "snapshots")
UNDATED: Final = "undated"
"""The month of scenes whose time is unknown."""
PAGE: Final = 500
"""Ids in one statement; SQLite allows 32 766 values (sqlite.org/limits.html)."""
_MASKED: Final = t.mask.join(t.scene).join(t.weights, t.weights.c.weights_id == t.mask.c.weights_id)


@dataclass(frozen=True)
class MaskRef:
    """A mask as another item refers to it."""

    mask_id: str
    weights_id: str
    version: int
    follows: bool = True
    """By a model that was ever champion or shown to readers; a challenger's mask is not in the line of
    versions (as in the view `mask_version`), unless no model was ever shown."""


@dataclass(frozen=True)
class Family:
    """The masks of one scene, by the version of their model, and which of them readers should use."""

    masks: tuple[MaskRef, ...] = ()
    latest: MaskRef | None = None
    """The mask that readers see; where they see none, that of the highest version which is in the line."""
    variants: tuple[MaskRef, ...] = ()
    """Masks that were cleaned in another way than that of the same model in `masks`; readers see them by id only."""

    def neighbor(self, mask_id: str, step: int) -> MaskRef | None:
        """Return the mask that comes next (1) or before (-1) by version, without those that follow none, or None.

        A variant has no neighbor.
        """
        at = next((number for number, ref in enumerate(self.masks) if ref.mask_id == mask_id), None)
        if at is None:
            return None
        line = self.masks[at + 1 :] if step > 0 else self.masks[:at][::-1]
        return next((ref for ref in line if ref.follows), None)


@dataclass(frozen=True)
class Member:
    """An item of a collection, with what decides its links."""

    item_id: str
    title: str
    family: tuple[str, ...]
    """Ids of the items of its family by version, `-` before those that follow none; then that of the latest."""


@dataclass(frozen=True)
class Overview:
    """What summarizes a collection."""

    count: int
    bounds: tuple[float, float, float, float] | None
    """West, south, east, north in degrees; -180 to 180 if a member crosses the antimeridian."""
    begins_at: datetime | None
    ends_at: datetime | None
    months: dict[str, int]
    sensors: list[str]
    versions: list[str]
    cloud_cover: tuple[float, float] | None
    """Smallest and largest, in percent."""


def month_of(moment: datetime | None) -> str:
    """Return the month of an item of this time, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m") if moment else UNDATED


def _span(month: str) -> tuple[datetime, datetime]:
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    following = (
        first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
    )
    return first, following


def _within(moment: Column[Any], month: str) -> ColumnElement[bool]:
    if month == UNDATED:
        return moment.is_(None)
    first, following = _span(month)
    return (moment >= first) & (moment < following)


def list_members(db: Connection, collection: Collection, month: str) -> list[Member]:
    """List the members of a month, by id."""
    if collection == "masks":
        return _list_masks(db, month)
    if collection == "scenes":
        return _list_scenes(db, month)
    if collection == "snapshots":
        s = t.snapshot.c
        whole = select(s.snapshot_id).where(_within(s.created_at, month), is_whole())
        found = db.execute(whole.order_by(s.snapshot_id))
        return [Member(item_id, f"Snapshot {item_id}", ()) for item_id in found.scalars()]
    models = find_models(db)
    ids = _family_ids(models)
    w = t.weights.c
    found = db.execute(select(w.weights_id).where(_within(w.created_at, month)).order_by(w.weights_id))
    versions = {ref.weights_id: ref.version for ref in models.masks}
    return [Member(item_id, f"Model version {versions[item_id]}", ids) for item_id in found.scalars()]


def _family_ids(family: Family) -> tuple[str, ...]:
    ids = [ref.mask_id if ref.follows else f"-{ref.mask_id}" for ref in family.masks]
    ids += [ref.mask_id for ref in family.variants]
    return (*ids, family.latest.mask_id if family.latest else "")


def _list_masks(db: Connection, month: str) -> list[Member]:
    s = t.scene.c
    families = _families(db, _within(s.acquired_at, month))
    names = {
        row.scene_id: row.name for row in db.execute(select(s.scene_id, s.name).where(_within(s.acquired_at, month)))
    }
    members = [
        Member(ref.mask_id, f"Cloud mask of {names[scene_id]} by model version {ref.version}", _family_ids(family))
        for scene_id, family in families.items()
        for ref in (*family.masks, *family.variants)
    ]
    return sorted(members, key=lambda member: member.item_id)


def _list_scenes(db: Connection, month: str) -> list[Member]:
    s = t.scene.c
    families = _families(db, _within(s.acquired_at, month))
    found = db.execute(select(s.scene_id, s.name).where(PUBLISHED, _within(s.acquired_at, month)).order_by(s.scene_id))
    return [Member(row.scene_id, row.name, _family_ids(families.get(row.scene_id, Family()))) for row in found]


def find_families(db: Connection, scene_ids: Sequence[str], as_of: datetime | None = None) -> dict[str, Family]:
    """Return the masks of scenes by scene id, as they were at a moment, by default now; at most PAGE scenes."""
    return _families(db, t.scene.c.scene_id.in_(scene_ids), as_of)


def _families(db: Connection, which: ColumnElement[bool], as_of: datetime | None = None) -> dict[str, Family]:
    shown, follow = reader_rows.find_shown(db, as_of), reader_rows.list_ever_shown(db, as_of)
    m, w = t.mask.c, t.weights.c
    columns = (m.scene_id, m.mask_id, m.weights_id, w.version, m.is_variant)
    statement = select(*columns).select_from(_MASKED).where(which, PUBLISHED)
    if as_of is not None:
        statement = statement.where(m.created_at <= as_of)
    refs: dict[str, list[MaskRef]] = {}
    variants: dict[str, list[MaskRef]] = {}
    for row in db.execute(statement.order_by(m.scene_id, w.version, m.mask_id)):
        ref = MaskRef(row.mask_id, row.weights_id, row.version, row.weights_id in follow)
        (variants if row.is_variant else refs).setdefault(row.scene_id, []).append(ref)
    return {
        scene_id: _family(refs.get(scene_id, []), shown, tuple(variants.get(scene_id, ())))
        for scene_id in refs.keys() | variants.keys()
    }


def _family(refs: list[MaskRef], shown: str | None, variants: tuple[MaskRef, ...] = ()) -> Family:
    if not any(ref.follows for ref in refs):  # no model was ever shown: all are in the line
        refs = [replace(ref, follows=True) for ref in refs]
    line = [ref for ref in refs if ref.follows]
    latest = next((ref for ref in refs if ref.weights_id == shown), line[-1] if line else None)
    return Family(tuple(refs), latest, variants)


def find_models(db: Connection, as_of: datetime | None = None) -> Family:
    """Return all models as one family, the champion the latest; `mask_id` is the id of the weights.

    The switch of readers is about masks: the model to use is the champion.

    Args:
        db: a transaction.
        as_of: the models and the champion at this moment; None: now.
    """
    w, p = t.weights.c, t.promotion.c
    models, champion = select(w.weights_id, w.version), select(p.weights_id).order_by(p.generation.desc()).limit(1)
    if as_of is not None:
        models, champion = models.where(w.created_at <= as_of), champion.where(p.created_at <= as_of)
    refs = [MaskRef(row.weights_id, row.weights_id, row.version) for row in db.execute(models.order_by(w.version))]
    return _family(refs, db.execute(champion).scalar())


def months_of_models(db: Connection) -> dict[str, str]:
    """Return the month of each model by weights id."""
    return {
        row.weights_id: month_of(row.created_at)
        for row in db.execute(select(t.weights.c.weights_id, t.weights.c.created_at))
    }


def months_of_scenes(db: Connection, scene_ids: Sequence[str]) -> set[str]:
    """Return the months in which these scenes were acquired."""
    found = set[str]()
    for at in range(0, len(scene_ids), PAGE):
        asked = t.scene.c.scene_id.in_(scene_ids[at : at + PAGE])
        found.update(map(month_of, db.execute(select(t.scene.c.acquired_at).where(asked)).scalars()))
    return found


def get_models(db: Connection, weights_ids: Sequence[str]) -> dict[str, Weights]:
    """Return weights by id, at most PAGE."""
    found = fetch(db, Weights, select(t.weights).where(t.weights.c.weights_id.in_(weights_ids)))
    return {weights.weights_id: weights for weights in found}


def get_snapshots(db: Connection, snapshot_ids: Sequence[str]) -> dict[str, Snapshot]:
    """Return snapshots by id, at most PAGE."""
    found = fetch(db, Snapshot, select(t.snapshot).where(t.snapshot.c.snapshot_id.in_(snapshot_ids), is_whole()))
    return {snapshot.snapshot_id: snapshot for snapshot in found}


def overview(db: Connection, collection: Collection) -> Overview:
    """Return what summarizes a collection, from its rows."""
    if collection in ("models", "snapshots"):
        return _overview_of_few(db, collection)
    groups = _read_groups(db, collection)
    if not groups:
        return Overview(0, None, None, None, {}, [], [], None)
    months: dict[str, int] = {}
    for group in groups:
        months[group.month or UNDATED] = months.get(group.month or UNDATED, 0) + group.members
    west, east = min(group.west for group in groups), max(group.east for group in groups)
    if any(group.crosses for group in groups):
        west, east = -180.0, 180.0
    return Overview(
        count=sum(group.members for group in groups),
        bounds=(west, min(group.south for group in groups), east, max(group.north for group in groups)),
        begins_at=min((group.begins_at for group in groups if group.begins_at), default=None),
        ends_at=max((group.ends_at for group in groups if group.ends_at), default=None),
        months=dict(sorted(months.items())),
        sensors=sorted({group.sensor for group in groups}),
        versions=_versions(db, {group.weights_id for group in groups if group.weights_id}),
        cloud_cover=_covers(db) if collection == "masks" else None,
    )


def _read_groups(db: Connection, collection: Collection) -> Sequence[Row[Any]]:
    """Return figures by month, sensor and weights: every row is read once, and there are few groups."""
    s, m = t.scene.c, t.mask.c
    # SQLite keeps times as text in UTC.
    month = (
        func.substr(cast(s.acquired_at, Text), 1, 7)
        if db.dialect.name == "sqlite"
        else func.to_char(func.timezone("UTC", s.acquired_at), "YYYY-MM")
    )
    of_masks = collection == "masks"
    keys = {
        "month": month,
        "sensor": s.sensor,
        "weights_id": m.weights_id if of_masks else null(),
    }
    figures = {
        "members": func.count(),
        "west": func.min(s.min_lon),
        "south": func.min(s.min_lat),
        "east": func.max(s.max_lon),
        "north": func.max(s.max_lat),
        "crosses": func.max(case((s.max_lon < s.min_lon, 1), else_=0)),
        "begins_at": func.min(s.acquired_at),
        "ends_at": func.max(s.acquired_at),
    }
    # Scenes from end to end, and of their masks the index on (scene_id, weights_id) alone.
    source: FromClause = t.scene.join(t.mask, NotByIndex(s.scene_id) == m.scene_id) if of_masks else t.scene
    columns = [value.label(name) for name, value in {**keys, **figures}.items()]
    grouped = [month, s.sensor, *([m.weights_id] if of_masks else [])]
    return db.execute(select(*columns).select_from(source).where(PUBLISHED).group_by(*grouped)).all()


def _covers(db: Connection) -> tuple[float, float]:
    """Return the smallest and the largest cloud cover in percent, each the first of an index; there are masks."""
    shown = select(CLOUD_COVER).select_from(t.mask.join(t.scene)).where(PUBLISHED).limit(1)
    low, high = (db.execute(shown.order_by(order)).scalar_one() for order in (CLOUD_COVER.asc(), CLOUD_COVER.desc()))
    return float(low), float(high)


def _versions(db: Connection, weights_ids: set[str]) -> list[str]:
    w = t.weights.c
    rows = db.execute(select(w.weights_id, w.version).order_by(w.version))
    return [str(row.version) for row in rows if row.weights_id in weights_ids]


def _overview_of_few(db: Connection, collection: Collection) -> Overview:
    table = t.weights if collection == "models" else t.snapshot
    every = select(table.c.created_at)
    times = list(db.execute(every if collection == "models" else every.where(is_whole())).scalars())
    months: dict[str, int] = {}
    for moment in sorted(times):
        months[month_of(moment)] = months.get(month_of(moment), 0) + 1
    versions = [str(ref.version) for ref in find_models(db).masks] if collection == "models" else []
    return Overview(len(times), *_training_span(db), months, [], versions, None)


def _training_span(db: Connection) -> tuple[tuple[float, float, float, float] | None, datetime | None, datetime | None]:
    """Return bounds, begin and end of the training scenes of every snapshot."""
    extents = [
        training_extent(db, snapshot_id) for snapshot_id in db.execute(select(t.snapshot.c.snapshot_id)).scalars()
    ]
    boxes = [extent.bounds for extent in extents if extent.bounds]
    west, south, east, north = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    begins = [extent.begins_at for extent in extents if extent.begins_at]
    ends = [extent.ends_at for extent in extents if extent.ends_at]
    bounds = (min(west), min(south), max(east), max(north)) if boxes else None
    return bounds, min(begins, default=None), max(ends, default=None)
